//! The open watch streams and the byte streams that are waited for.

use crate::BoxFuture;
use bytes::Bytes;
use haneul_agent_api::{Ask, ToAgent};
use haneul_core::{Error, Result};
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use uuid::Uuid;

/// Messages of one host that are read at once.
pub(crate) const AT_ONCE: usize = 8;

/// An image's bytes for an agent.
pub struct ImageStream {
    pub size: u64,
    pub body: axum::body::Body,
}

/// Where the listener finds images; implemented by the image service.
pub trait ImageSource: Send + Sync {
    /// Opens the stored bytes of an image.
    fn open<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<ImageStream>>;
}

/// Bytes both ways between control and something on a host.
pub struct Tunnel {
    /// What comes from the host.
    pub from: axum::body::Body,
    /// What goes there. The tunnel ends when it is dropped.
    pub to: mpsc::Sender<std::result::Result<Bytes, std::io::Error>>,
}

/// An agent's open watch.
struct Watch {
    /// Tells watches of the same host apart: the newest counts.
    number: u64,
    wake: Arc<Notify>,
    asks: mpsc::Sender<ToAgent>,
}

#[derive(Default)]
struct State {
    next: u64,
    watches: HashMap<String, Watch>,
    /// Protocol that each agent greeted with.
    protocols: HashMap<String, u32>,
    /// Messages of each host that are being read.
    turns: HashMap<Uuid, usize>,
    /// One-time ids, with the host that was asked.
    streams: HashMap<Uuid, (String, oneshot::Sender<Bytes>)>,
    tunnels: HashMap<Uuid, (String, oneshot::Sender<std::result::Result<Tunnel, String>>)>,
}

#[derive(Default)]
pub(crate) struct Hub {
    state: Mutex<State>,
    reported: Notify,
}

/// A message of a host, while it is read.
pub(crate) struct Turn<'a>(&'a Hub, Uuid);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if let Some(n) = state.turns.get_mut(&self.1) {
            *n -= 1;
            if *n == 0 {
                state.turns.remove(&self.1);
            }
        }
    }
}

impl Hub {
    /// Begins to read a message of a host; none when enough are being read.
    pub fn turn(&self, host: Uuid) -> Option<Turn<'_>> {
        let mut state = self.lock();
        let n = state.turns.entry(host).or_default();
        if *n >= AT_ONCE {
            return None;
        }
        *n += 1;
        drop(state);
        Some(Turn(self, host))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something new for this host was committed.
    pub fn wake(&self, host: &str) {
        if let Some(w) = self.lock().watches.get(host) {
            w.wake.notify_one();
        }
    }

    /// The same for all hosts, perhaps.
    pub fn wake_all(&self) {
        for w in self.lock().watches.values() {
            w.wake.notify_one();
        }
    }

    pub fn greeted(&self, host: &str, protocol: u32) {
        self.lock().protocols.insert(host.to_owned(), protocol);
    }

    /// The protocol version of a host's agent; the oldest when it is not known.
    pub fn speaks(&self, host: &str) -> u32 {
        self.lock().protocols.get(host).copied().unwrap_or(1)
    }

    /// The next committed report of any host.
    pub fn reported(&self) -> Pin<Box<tokio::sync::futures::Notified<'_>>> {
        let mut news = Box::pin(self.reported.notified());
        news.as_mut().enable();
        news
    }

    /// A report was committed.
    pub fn report(&self) {
        self.reported.notify_waiters();
    }

    /// Begins a watch; the one before, if there is one, ends: nobody holds the other end of its asks any more.
    pub fn open(&self, host: &str) -> (u64, Arc<Notify>, mpsc::Receiver<ToAgent>) {
        let (asks, receive) = mpsc::channel(64);
        let wake = Arc::new(Notify::new());
        let mut state = self.lock();
        state.next += 1;
        let number = state.next;
        let watch = Watch {
            number,
            wake: wake.clone(),
            asks,
        };
        state.watches.insert(host.to_owned(), watch);
        (number, wake, receive)
    }

    /// Ends a watch; true when it was the host's newest.
    pub fn close(&self, host: &str, number: u64) -> bool {
        let mut state = self.lock();
        let newest = state.watches.get(host).is_some_and(|w| w.number == number);
        if newest {
            state.watches.remove(host);
        }
        newest
    }

    /// Ends a host's watch from our side.
    pub fn cut(&self, host: &str) {
        self.lock().watches.remove(host);
    }

    pub fn is_open(&self, host: &str) -> bool {
        self.lock().watches.contains_key(host)
    }

    pub async fn ask(&self, host: &str, what: Ask, timeout: Duration) -> Result<Bytes> {
        let (send, receive) = oneshot::channel();
        let stream = Uuid::new_v4();
        self.lock().streams.insert(stream, (host.to_owned(), send));
        let answer = self
            .answered(host, ToAgent::Ask { stream, what }, timeout, receive)
            .await;
        self.lock().streams.remove(&stream);
        answer
    }

    /// Asks for a tunnel; what the host says instead is why there is none.
    pub async fn dial(&self, host: &str, what: Ask, timeout: Duration) -> Result<Tunnel> {
        let (send, receive) = oneshot::channel();
        let stream = Uuid::new_v4();
        self.lock().tunnels.insert(stream, (host.to_owned(), send));
        let answer = self
            .answered(host, ToAgent::Ask { stream, what }, timeout, receive)
            .await;
        self.lock().tunnels.remove(&stream);
        answer?.map_err(Error::conflict)
    }

    async fn answered<T>(
        &self,
        host: &str,
        ask: ToAgent,
        timeout: Duration,
        receive: oneshot::Receiver<T>,
    ) -> Result<T> {
        let asks = self.lock().watches.get(host).map(|w| w.asks.clone());
        let asks = asks.ok_or_else(|| {
            Error::unavailable("The host of this server is not connected at the moment. Try again when it is back.")
        })?;
        asks.send(ask)
            .await
            .map_err(|_| Error::unavailable("The host of this server went away. Try again when it is back."))?;
        tokio::time::timeout(timeout, receive)
            .await
            .map_err(|_| Error::unavailable(format!("The host did not answer within {} s.", timeout.as_secs())))?
            .map_err(|_| Error::unavailable("The host could not answer."))
    }

    /// A tunnel for a one-time id; false when nobody waits for it.
    pub fn connect(&self, stream: Uuid, tunnel: Tunnel) -> bool {
        let waiting = self.lock().tunnels.remove(&stream);
        waiting.is_some_and(|(_, w)| w.send(Ok(tunnel)).is_ok())
    }

    /// Bytes for a one-time id; false when nobody waits for them.
    pub fn answer(&self, stream: Uuid, bytes: Bytes) -> bool {
        let mut state = self.lock();
        if let Some((_, waiting)) = state.tunnels.remove(&stream) {
            return waiting.send(Err(String::from_utf8_lossy(&bytes).into_owned())).is_ok();
        }
        match state.streams.remove(&stream) {
            Some((_, waiting)) => waiting.send(bytes).is_ok(),
            None => false,
        }
    }

    /// Whether somebody waits for what this host, or any, was asked for.
    pub fn expects(&self, stream: Uuid, host: Option<Uuid>) -> bool {
        let state = self.lock();
        let asked = match (state.streams.get(&stream), state.tunnels.get(&stream)) {
            (Some((asked, _)), _) | (_, Some((asked, _))) => asked,
            _ => return false,
        };
        host.is_none_or(|h| h.to_string() == *asked)
    }
}
