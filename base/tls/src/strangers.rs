//! Connections of peers that have not shown yet who they are. They cost nothing to open, so there are only so many, and
//! none lasts long: the one that has been a stranger for longest gives way to the next, for whoever belongs here shows it
//! within a moment.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep_until};

/// How many there may be, and for how long.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub most: usize,
    /// Longest time that a handshake may take.
    pub handshake: Duration,
    /// How long one may stay after it, whatever it says or does not say.
    pub stays: Duration,
}

pub(crate) const BOUNDS: Bounds = Bounds {
    most: 256,
    handshake: Duration::from_secs(10),
    stays: Duration::from_secs(20),
};
/// Between two words in the log.
const QUIET: Duration = Duration::from_secs(60);

pub(crate) struct Strangers {
    bounds: Bounds,
    all: Mutex<All>,
}

#[derive(Default)]
struct All {
    last: u64,
    /// By age.
    here: BTreeMap<u64, oneshot::Sender<Verdict>>,
    /// Sent away since that was last told, for the one reason and for the other.
    crowded: u64,
    late: u64,
    told: Option<Instant>,
}

#[derive(Debug)]
enum Verdict {
    Known,
    MakesRoom,
}

impl Strangers {
    pub(crate) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self {
            bounds,
            all: Mutex::default(),
        })
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more, which somebody may have to give way to.
    pub(crate) fn welcome(self: &Arc<Self>, tcp: TcpStream, peer: SocketAddr) -> Guarded {
        let (decide, verdict) = oneshot::channel();
        let mut all = self.all();
        all.last += 1;
        let number = all.last;
        if all.here.len() >= self.bounds.most
            && let Some((_, oldest)) = all.here.pop_first()
        {
            let _ = oldest.send(Verdict::MakesRoom);
            all.crowded += 1;
        }
        all.here.insert(number, decide);
        drop(all);
        Guarded {
            tcp,
            watched: Watched::Stranger(Box::new(Watch {
                place: Arc::new(Place {
                    number,
                    of: self.clone(),
                    peer,
                }),
                verdict,
                until: Box::pin(sleep_until(Instant::now() + self.bounds.handshake)),
            })),
        }
    }

    /// Says how many were sent away: at once, and then no more than once in a while.
    fn tell(&self, peer: SocketAddr) {
        let mut all = self.all();
        if all.told.is_some_and(|t| t.elapsed() < QUIET) {
            return;
        }
        all.told = Some(Instant::now());
        let (crowded, late) = (std::mem::take(&mut all.crowded), std::mem::take(&mut all.late));
        drop(all);
        let Bounds { most, handshake, stays } = self.bounds;
        tracing::warn!(
            %peer, crowded, late, most, handshake_s = handshake.as_secs(), stays_s = stays.as_secs(),
            "connections whose peers did not show who they are were ended: there were too many, or they took too long"
        );
    }
}

/// A place among the strangers. It is free again when its connection has ended, or its peer is known.
pub(crate) struct Place {
    number: u64,
    of: Arc<Strangers>,
    peer: SocketAddr,
}

impl Place {
    /// This peer has shown who it is.
    pub(crate) fn known(&self) {
        if let Some(decide) = self.of.all().here.remove(&self.number) {
            let _ = decide.send(Verdict::Known);
        }
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "stranger {}", self.number)
    }
}

/// A connection that ends when its peer is a stranger for too long.
pub struct Guarded {
    tcp: TcpStream,
    watched: Watched,
}

enum Watched {
    Stranger(Box<Watch>),
    Known,
    Over,
}

struct Watch {
    place: Arc<Place>,
    verdict: oneshot::Receiver<Verdict>,
    until: Pin<Box<Sleep>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.place.of.all().here.remove(&self.place.number);
    }
}

impl Guarded {
    /// After the handshake: a peer that it did not make known gets some more time, and its place, by which it may become so.
    pub(crate) fn stays(&mut self, known: bool) -> Option<Arc<Place>> {
        match &mut self.watched {
            Watched::Stranger(_) if known => {
                self.watched = Watched::Known;
                None
            }
            Watched::Stranger(watch) => {
                let stays = watch.place.of.bounds.stays;
                watch.until.as_mut().reset(Instant::now() + stays);
                Some(watch.place.clone())
            }
            Watched::Known | Watched::Over => None,
        }
    }

    /// An error when the peer is not to stay.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let over = || io::Error::new(io::ErrorKind::TimedOut, "the peer did not show who it is");
        let watch = match &mut self.watched {
            Watched::Known => return Ok(()),
            Watched::Over => return Err(over()),
            Watched::Stranger(watch) => watch,
        };
        match Pin::new(&mut watch.verdict).poll(cx) {
            Poll::Ready(Ok(Verdict::Known)) => {
                self.watched = Watched::Known;
                return Ok(());
            }
            Poll::Ready(_) => {}
            Poll::Pending => {
                if watch.until.as_mut().poll(cx).is_pending() {
                    return Ok(());
                }
                watch.place.of.all().late += 1;
            }
        }
        let place = watch.place.clone();
        self.watched = Watched::Over;
        place.of.tell(place.peer);
        Err(over())
    }
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
