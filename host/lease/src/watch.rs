//! How a host finds out, for control, whether another one's lease has ended: by its beats, and by ending it.

use crate::{Beat, Fence, MARGIN, Place, boottime};
use std::io;
use std::time::Duration;
use uuid::Uuid;

/// What is known of the other host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Its lease may run; nothing was seen of it since this watch began, or since its last beat.
    Silent,
    /// Its supervisor beats.
    Alive { agent: bool, cut: Duration },
    /// Its lease has ended, provably: none of its guests on shared disks has a process.
    Ended,
    /// The shared directory cannot be read or written from here: nothing is known.
    Blind(String),
}

/// A watch over one host. Times are this host's own, since boot.
#[derive(Clone, Debug)]
pub struct Watch {
    host: Uuid,
    /// The grant that shall end.
    token: u64,
    /// Term of a host that never said its own, and the least that is waited for.
    term: Duration,
    /// The last beat, and when it was another than before. How old the first one was nobody knows.
    last: Option<Beat>,
    since: Duration,
    /// A beat followed another.
    beats: bool,
}

impl Watch {
    pub fn new(host: Uuid, token: u64, term: Duration, now: Duration) -> Self {
        Self {
            host,
            token,
            term,
            last: None,
            since: now,
            beats: false,
        }
    }

    /// Looks at the beats, and ends the lease: as soon as it has run out, or `at_once`. Blocks as long as the disk does.
    pub fn round(&mut self, place: &Place, me: Uuid, at_once: bool) -> Seen {
        let now = boottime();
        let fence = Fence {
            token: self.token,
            by: me,
        };
        let mut go = || -> io::Result<Seen> {
            if at_once {
                place.fence(self.host, &fence)?;
            }
            let mut seen = self.look(now, place.read_beat(self.host)?);
            if seen == Seen::Ended {
                // A beat that was written before this is seen below; who beats after it sees this.
                place.fence(self.host, &fence)?;
                seen = self.look(boottime(), place.read_beat(self.host)?);
            }
            Ok(seen)
        };
        go().unwrap_or_else(|e| {
            self.blind(now);
            Seen::Blind(e.to_string())
        })
    }

    /// It could not be looked: that proves nothing, and the wait begins anew.
    pub fn blind(&mut self, now: Duration) {
        self.since = now;
    }

    /// The beat that was read by a look that began at `now`.
    fn look(&mut self, now: Duration, beat: Option<Beat>) -> Seen {
        if beat.as_ref().is_some_and(|b| b.stopped >= self.token) {
            return Seen::Ended;
        }
        if beat != self.last {
            self.beats = self.last.is_some();
            self.since = now;
            self.last = beat;
        }
        let its = self
            .last
            .as_ref()
            .map_or(self.term, |b| Duration::from_millis(b.term_ms));
        let quiet = now.saturating_sub(self.since);
        match &self.last {
            _ if quiet >= its.max(self.term) + MARGIN => Seen::Ended,
            Some(b) if self.beats && quiet < its / 2 => Seen::Alive {
                agent: b.agent,
                cut: Duration::from_millis(b.cut_ms),
            },
            _ => Seen::Silent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: Duration = Duration::from_secs(8);

    fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn watch(token: u64, now: u64) -> Watch {
        Watch::new(Uuid::nil(), token, TERM, s(now))
    }

    fn beat(number: u64) -> Option<Beat> {
        Some(Beat {
            number,
            term_ms: 8000,
            agent: true,
            cut_ms: 1500,
            ..Beat::default()
        })
    }

    #[test]
    fn a_host_that_beats_is_alive_and_one_that_is_silent_for_its_term_is_not() {
        let mut w = watch(3, 100);
        // How old the first one is nobody knows.
        assert_eq!(w.look(s(100), beat(7)), Seen::Silent);
        let alive = Seen::Alive {
            agent: true,
            cut: Duration::from_millis(1500),
        };
        assert_eq!(w.look(s(101), beat(8)), alive);
        assert_eq!(w.look(s(102), beat(8)), alive, "it was, a second ago");
        assert_eq!(w.look(s(110), beat(8)), Seen::Silent);
        assert_eq!(w.look(s(111), beat(8)), Seen::Ended);
        // A beat after all that: it is alive.
        assert_eq!(w.look(s(112), beat(9)), alive);
    }

    #[test]
    fn a_longer_term_of_the_other_host_counts() {
        let mut w = watch(3, 0);
        let slow = |number| beat(number).map(|b| Beat { term_ms: 30_000, ..b });
        w.look(s(0), slow(1));
        assert_eq!(w.look(s(31), slow(1)), Seen::Silent);
        assert_eq!(w.look(s(32), slow(1)), Seen::Ended);
    }

    #[test]
    fn a_host_without_a_beat_is_waited_for_too() {
        let mut w = watch(1, 0);
        assert_eq!(w.look(s(9), None), Seen::Silent);
        assert_eq!(w.look(s(10), None), Seen::Ended);
    }

    #[test]
    fn what_could_not_be_looked_at_proves_nothing() {
        let mut w = watch(3, 0);
        w.look(s(0), beat(1));
        w.blind(s(9));
        assert_eq!(w.look(s(11), beat(1)), Seen::Silent);
        assert_eq!(w.look(s(19), beat(1)), Seen::Ended);
    }

    #[test]
    fn a_host_that_says_so_has_ended_at_once_but_not_for_an_older_fence() {
        let stopped = |n| beat(9).map(|b| Beat { stopped: n, ..b });
        assert_eq!(watch(3, 0).look(s(0), stopped(2)), Seen::Silent);
        assert_eq!(watch(3, 0).look(s(0), stopped(3)), Seen::Ended);
    }
}
