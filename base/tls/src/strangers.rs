//! How many connections there may be. Those of peers that have not shown yet who they are cost nothing to open, so there
//! are only so many, and none lasts long: the one that has been a stranger for longest gives way to the next, for whoever
//! belongs here shows it within a moment. A host that has shown it has room for all that an agent needs; what is more is
//! refused, for its oldest connection is the one over which it lives.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
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
use uuid::Uuid;

/// How many there may be, and for how long.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub most: usize,
    /// Longest time that a handshake may take.
    pub handshake: Duration,
    /// How long one may stay after it, whatever it says or does not say.
    pub stays: Duration,
    /// Connections of one host. Its agent has one, and another for each console that somebody looks at.
    pub of_host: usize,
}

pub(crate) const BOUNDS: Bounds = Bounds {
    most: 256,
    handshake: Duration::from_secs(10),
    stays: Duration::from_secs(20),
    of_host: 512,
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
    /// How many connections each host has.
    hosts: BTreeMap<Uuid, usize>,
    /// Sent away since that was last told, for the one reason and for the other.
    crowded: u64,
    late: u64,
    told: Option<Instant>,
    /// Of hosts that had too many.
    refused: u64,
    refused_told: Option<Instant>,
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
        if !is_due(&mut all.told) {
            return;
        }
        let (crowded, late) = (std::mem::take(&mut all.crowded), std::mem::take(&mut all.late));
        drop(all);
        let Bounds {
            most, handshake, stays, ..
        } = self.bounds;
        tracing::warn!(
            %peer, crowded, late, most, handshake_s = handshake.as_secs(), stays_s = stays.as_secs(),
            "connections whose peers did not show who they are were ended: there were too many, or they took too long"
        );
    }

    /// A seat for one more connection of the host, unless it has all that it may have.
    fn seat(self: &Arc<Self>, host: Uuid, peer: SocketAddr) -> Option<Seat> {
        let mut all = self.all();
        let taken = all.hosts.entry(host).or_default();
        if *taken < self.bounds.of_host {
            *taken += 1;
            return Some(Seat { host, of: self.clone() });
        }
        all.refused += 1;
        if is_due(&mut all.refused_told) {
            let (refused, of_host) = (std::mem::take(&mut all.refused), self.bounds.of_host);
            drop(all);
            tracing::warn!(%host, %peer, refused, of_host, "a host that has all the connections it may have was refused more");
        }
        None
    }
}

/// Whether it is time for the next word.
fn is_due(told: &mut Option<Instant>) -> bool {
    let due = told.is_none_or(|t| t.elapsed() >= QUIET);
    if due {
        *told = Some(Instant::now());
    }
    due
}

/// One of a host's connections, until it is dropped.
struct Seat {
    host: Uuid,
    of: Arc<Strangers>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Entry::Occupied(mut taken) = self.of.all().hosts.entry(self.host) {
            *taken.get_mut() -= 1;
            if *taken.get() == 0 {
                taken.remove();
            }
        }
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
    /// Held for its end.
    Known(#[allow(dead_code)] Option<Seat>),
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
    /// After a handshake with any client: it may stay.
    pub(crate) fn is_known(&mut self) {
        self.watched = Watched::Known(None);
    }

    /// After a handshake that made the host known: whether it may have one more connection.
    pub(crate) fn is_of(&mut self, host: Uuid) -> bool {
        let Watched::Stranger(watch) = &self.watched else {
            return false;
        };
        let seat = watch.place.of.seat(host, watch.place.peer);
        let has_one = seat.is_some();
        self.watched = seat.map_or(Watched::Over, |s| Watched::Known(Some(s)));
        has_one
    }

    /// After a handshake that made nobody known: the peer gets some more time, and its place, by which it may become so.
    pub(crate) fn stays(&mut self) -> Option<Arc<Place>> {
        let Watched::Stranger(watch) = &mut self.watched else {
            return None;
        };
        let stays = watch.place.of.bounds.stays;
        watch.until.as_mut().reset(Instant::now() + stays);
        Some(watch.place.clone())
    }

    /// An error when the peer is not to stay.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let over = || io::Error::new(io::ErrorKind::TimedOut, "the peer did not show who it is");
        let watch = match &mut self.watched {
            Watched::Known(_) => return Ok(()),
            Watched::Over => return Err(over()),
            Watched::Stranger(watch) => watch,
        };
        match Pin::new(&mut watch.verdict).poll(cx) {
            Poll::Ready(Ok(Verdict::Known)) => {
                self.watched = Watched::Known(None);
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
