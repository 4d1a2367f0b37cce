//! The open watch streams and the byte streams that are waited for.

use crate::BoxFuture;
use bytes::Bytes;
use haneul_agent_api::{Ask, ToAgent};
use haneul_core::{Error, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use uuid::Uuid;

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

/// An agent's open watch.
#[derive(Clone)]
pub(crate) struct Watch {
    /// Tells watches of the same host apart: the newest counts.
    pub number: u64,
    pub wake: Arc<Notify>,
    pub asks: mpsc::Sender<ToAgent>,
}

#[derive(Default)]
struct State {
    next: u64,
    watches: HashMap<String, Watch>,
    streams: HashMap<Uuid, oneshot::Sender<Bytes>>,
}

#[derive(Default)]
pub(crate) struct Hub {
    state: Mutex<State>,
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something new for this host was committed.
    pub fn wake(&self, host: &str) {
        if let Some(w) = self.lock().watches.get(host) {
            w.wake.notify_one();
        }
    }

    pub fn open(&self, host: &str) -> (Watch, mpsc::Receiver<ToAgent>) {
        let (asks, receive) = mpsc::channel(64);
        let mut state = self.lock();
        state.next += 1;
        let watch = Watch {
            number: state.next,
            wake: Arc::new(Notify::new()),
            asks,
        };
        state.watches.insert(host.to_owned(), watch.clone());
        (watch, receive)
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

    pub fn is_open(&self, host: &str) -> bool {
        self.lock().watches.contains_key(host)
    }

    pub async fn ask(&self, host: &str, what: Ask, timeout: Duration) -> Result<Bytes> {
        let (send, receive) = oneshot::channel();
        let stream = Uuid::new_v4();
        let asks = {
            let mut state = self.lock();
            let asks = state.watches.get(host).map(|w| w.asks.clone());
            state.streams.insert(stream, send);
            asks
        };
        let asked = async {
            let asks = asks.ok_or_else(|| {
                Error::unavailable("The host of this server is not connected at the moment. Try again when it is back.")
            })?;
            asks.send(ToAgent::Ask { stream, what })
                .await
                .map_err(|_| Error::unavailable("The host of this server went away. Try again when it is back."))?;
            tokio::time::timeout(timeout, receive)
                .await
                .map_err(|_| Error::unavailable(format!("The host did not answer within {} s.", timeout.as_secs())))?
                .map_err(|_| Error::unavailable("The host could not answer."))
        };
        let answer = asked.await;
        self.lock().streams.remove(&stream);
        answer
    }

    /// Bytes for a one-time id; false when nobody waits for them.
    pub fn answer(&self, stream: Uuid, bytes: Bytes) -> bool {
        match self.lock().streams.remove(&stream) {
            Some(waiting) => waiting.send(bytes).is_ok(),
            None => false,
        }
    }

    pub fn expects(&self, stream: Uuid) -> bool {
        self.lock().streams.contains_key(&stream)
    }
}
