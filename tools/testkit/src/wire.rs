//! A wire between a host and control that a test can cut.

use crate::ports::free_port;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Passes connections on, until it is cut: then those that are open end, and new ones are not answered.
pub struct Wire {
    port: u16,
    state: Arc<State>,
}

struct State {
    open: AtomicBool,
    changed: Notify,
}

impl Wire {
    /// To this address, from a port of loopback of its own.
    pub async fn to(target: &str) -> Wire {
        // It is taken again when the wire is mended.
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a port");
        let state = Arc::new(State {
            open: AtomicBool::new(true),
            changed: Notify::new(),
        });
        let (target, shared) = (target.to_owned(), state.clone());
        tokio::spawn(pass(listener, port, target, shared));
        Wire { port, state }
    }

    /// The URL with this wire's end instead of its own address.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    pub fn cut(&self) {
        self.state.open.store(false, Ordering::SeqCst);
        self.state.changed.notify_waiters();
    }

    pub fn mend(&self) {
        self.state.open.store(true, Ordering::SeqCst);
        self.state.changed.notify_waiters();
    }
}

async fn pass(mut listener: TcpListener, port: u16, target: String, state: Arc<State>) {
    loop {
        let changed = state.changed.notified();
        if state.open.load(Ordering::SeqCst) {
            tokio::select! {
                Ok((near, _)) = listener.accept() => {
                    tokio::spawn(carry(near, target.clone(), state.clone()));
                    continue;
                }
                () = changed => {}
            }
        } else {
            // Nobody listens: a connection is refused at once, as by a router that knows no way.
            drop(listener);
            changed.await;
            listener = TcpListener::bind(("127.0.0.1", port)).await.expect("its port again");
        }
    }
}

async fn carry(mut near: TcpStream, target: String, state: Arc<State>) {
    let changed = state.changed.notified();
    // Cut since it was accepted.
    if !state.open.load(Ordering::SeqCst) {
        return;
    }
    if let Ok(mut far) = TcpStream::connect(&target).await {
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
            () = changed => {}
        }
    }
}
