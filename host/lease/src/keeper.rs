//! The supervisor's side: keeps the lease, and knows when it has ended.
//!
//! Two threads share a few numbers. The keeper's own does the IO, which may hang for ever; the supervisor's compares the
//! deadline with the time since boot, and never waits for the disk.

use crate::{BEATS, Beat, Life, Local, Place, boot_id, boottime, millis};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use uuid::Uuid;

/// What a keeper needs to know.
pub struct Settings {
    pub host: Uuid,
    pub place: Place,
    pub local: Local,
    pub term: Duration,
    /// Whether control can be reached from this host now; may take its time.
    pub reach: Box<dyn Fn() -> bool + Send>,
    /// Called when the supervisor should look.
    pub wake: Box<dyn Fn() + Send>,
}

/// How the lease is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It ends then, if it is not renewed.
    Alive { until: Duration },
    /// It has ended: guests on shared disks may not have a process. `token`: the fence, if it is one.
    Ended { token: Option<u64>, why: String },
}

#[derive(Default)]
struct State {
    /// Milliseconds since boot.
    until: AtomicU64,
    /// 0: none.
    fenced: AtomicU64,
    stopped: AtomicU64,
    /// Milliseconds since boot at which control was reachable.
    reached: AtomicU64,
    agent: AtomicBool,
    trouble: Mutex<String>,
}

/// See the module. The thread ends with it.
pub struct Keeper {
    state: Arc<State>,
    beat_now: Sender<()>,
    term: Duration,
    before: Duration,
}

impl Keeper {
    /// Takes up the lease where a supervisor before left it, and begins to renew it.
    pub fn start(settings: Settings) -> io::Result<Keeper> {
        let state = Arc::new(State::default());
        let before = settings.local.life();
        let until_ms = if before.boot_id == boot_id() {
            before.until_ms
        } else {
            0
        };
        if before.fenced.is_none() {
            state.until.store(until_ms, Ordering::SeqCst);
        }
        state.reached.store(millis(boottime()), Ordering::SeqCst);
        let (beat_now, told) = channel();
        let mut rounds = Rounds {
            host: settings.host,
            place: settings.place,
            local: settings.local,
            term: settings.term,
            state: state.clone(),
            number: 0,
            boot_id: boot_id(),
        };
        let (term, reach, wake) = (settings.term, settings.reach, settings.wake);
        let pause = term / BEATS;
        let asks = Arc::downgrade(&state);
        std::thread::Builder::new()
            .name("reach".into())
            .spawn(move || ask_for_control(&*reach, &asks, pause))?;
        let (first_done, first) = channel();
        std::thread::Builder::new().name("lease".into()).spawn(move || {
            loop {
                let changed = rounds.round(boottime());
                let _ = first_done.send(());
                if changed {
                    wake();
                }
                match told.recv_timeout(pause) {
                    Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        })?;
        // Guests that run already are not ended because nobody has looked yet.
        let _ = first.recv_timeout(Duration::from_secs(1));
        Ok(Keeper {
            state,
            beat_now,
            term,
            before: Duration::from_millis(until_ms),
        })
    }

    /// Until when, since boot, guests may have been started with the lease that a supervisor before has kept.
    pub fn before(&self) -> Duration {
        self.before
    }

    /// How the lease is at this time since boot.
    pub fn verdict(&self, now: Duration) -> Verdict {
        let until = Duration::from_millis(self.state.until.load(Ordering::SeqCst));
        match self.state.fenced.load(Ordering::SeqCst) {
            0 if now < until => Verdict::Alive { until },
            0 => Verdict::Ended {
                token: None,
                why: match self.trouble().as_str() {
                    "" => format!("it was not renewed for {} s", self.term.as_secs()),
                    trouble => trouble.to_owned(),
                },
            },
            token => Verdict::Ended {
                token: Some(token),
                why: format!("other hosts were allowed to start the servers (fence {token})"),
            },
        }
    }

    /// None of the guests has a process any more; the others may know at once.
    pub fn stopped(&self, token: u64) {
        if self.state.stopped.swap(token, Ordering::SeqCst) != token {
            let _ = self.beat_now.send(());
        }
    }

    /// Whether the agent runs.
    pub fn agent(&self, runs: bool) {
        self.state.agent.store(runs, Ordering::SeqCst);
    }

    fn trouble(&self) -> String {
        self.state
            .trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// What the keeper's thread does.
struct Rounds {
    host: Uuid,
    place: Place,
    local: Local,
    term: Duration,
    state: Arc<State>,
    number: u64,
    boot_id: String,
}

impl Rounds {
    /// Beats and reads the fence; true when the lease is another than before.
    fn round(&mut self, now: Duration) -> bool {
        let fenced = self.state.fenced.load(Ordering::SeqCst);
        let result = self.renew(now);
        let trouble = match &result {
            Ok(()) => String::new(),
            Err(e) => format!("the shared directory cannot be used: {e}"),
        };
        let mut said = self.state.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = *said != trouble || fenced != self.state.fenced.load(Ordering::SeqCst);
        said.clone_from(&trouble);
        drop(said);
        let life = Life {
            boot_id: self.boot_id.clone(),
            until_ms: self.state.until.load(Ordering::SeqCst),
            fenced: Some(self.state.fenced.load(Ordering::SeqCst)).filter(|t| *t > 0),
            trouble,
        };
        // Nothing is started without it, which is safe.
        let _ = self.local.set_life(&life);
        changed
    }

    fn renew(&mut self, now: Duration) -> io::Result<()> {
        // Another number than the last supervisor's, too: a beat must be seen to be one.
        let before = self.place.read_beat(self.host).ok().flatten().map_or(0, |b| b.number);
        self.number = self.number.max(before) + 1;
        let beat = Beat {
            number: self.number,
            boot_id: self.boot_id.clone(),
            term_ms: millis(self.term),
            agent: self.state.agent.load(Ordering::SeqCst),
            cut_ms: millis(now).saturating_sub(self.state.reached.load(Ordering::SeqCst)),
            stopped: self.state.stopped.load(Ordering::SeqCst),
        };
        // In this order: see the crate.
        self.place.beat(self.host, &beat)?;
        let fence = self.place.read_fence(self.host)?.map_or(0, |f| f.token);
        let grant = self.local.grant()?;
        if fence > 0 && fence >= grant {
            self.state.fenced.store(fence, Ordering::SeqCst);
        } else {
            self.state.until.store(millis(now + self.term), Ordering::SeqCst);
            self.state.fenced.store(0, Ordering::SeqCst);
        }
        Ok(())
    }
}

/// Asks whether control can be reached, beside the rounds: a name that takes long to resolve must not delay a beat. Ends
/// with the keeper.
fn ask_for_control(reach: &(dyn Fn() -> bool + Send), state: &Weak<State>, pause: Duration) {
    loop {
        let before = boottime();
        if reach() {
            let Some(state) = state.upgrade() else { return };
            state.reached.store(millis(before), Ordering::SeqCst);
        } else if state.strong_count() == 0 {
            return;
        }
        std::thread::sleep(pause);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Fence;
    use std::path::PathBuf;

    const TERM: Duration = Duration::from_secs(10);

    struct Lab {
        dir: PathBuf,
        host: Uuid,
    }

    impl Drop for Lab {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }

    impl Lab {
        fn new() -> Lab {
            let host = Uuid::new_v4();
            let dir = std::env::temp_dir().join(format!("haneul-lease-{host}"));
            std::fs::create_dir_all(dir.join("shared")).unwrap();
            std::fs::write(dir.join("shared").join(crate::MARKER), "").unwrap();
            Lab { dir, host }
        }

        fn place(&self) -> Place {
            Place::of(&self.dir.join("shared"))
        }

        fn local(&self) -> Local {
            Local::of(&self.dir.join("agent"))
        }

        fn rounds(&self) -> Rounds {
            Rounds {
                host: self.host,
                place: self.place(),
                local: self.local(),
                term: TERM,
                state: Arc::default(),
                number: 0,
                boot_id: boot_id(),
            }
        }

        fn fence(&self, token: u64) {
            let fence = Fence {
                token,
                by: Uuid::new_v4(),
            };
            self.place().fence(self.host, &fence).unwrap();
        }
    }

    fn verdict(r: &Rounds, now: Duration) -> Verdict {
        let (beat_now, _told) = channel();
        let keeper = Keeper {
            state: r.state.clone(),
            beat_now,
            term: TERM,
            before: Duration::ZERO,
        };
        keeper.verdict(now)
    }

    #[test]
    fn a_lease_is_good_for_one_term_from_the_beginning_of_the_round() {
        let lab = Lab::new();
        let mut r = lab.rounds();
        let now = Duration::from_secs(100);
        assert!(matches!(verdict(&r, now), Verdict::Ended { token: None, .. }));
        r.round(now);
        let until = now + TERM;
        assert_eq!(verdict(&r, until - Duration::from_millis(1)), Verdict::Alive { until });
        assert!(matches!(verdict(&r, until), Verdict::Ended { token: None, .. }));
    }

    #[test]
    fn without_the_directory_nothing_is_renewed_and_the_reason_is_said() {
        let lab = Lab::new();
        let mut r = lab.rounds();
        let now = Duration::from_secs(100);
        r.round(now);
        // What an unmounted directory leaves: its mount point.
        std::fs::remove_dir_all(lab.dir.join("shared")).unwrap();
        std::fs::create_dir(lab.dir.join("shared")).unwrap();
        assert!(r.round(now + Duration::from_secs(9)));
        let Verdict::Ended { token: None, why } = verdict(&r, now + TERM) else {
            panic!("renewed without a place");
        };
        assert!(why.contains("No such file"), "{why}");
        assert!(!lab.dir.join("shared/fence").exists());
    }

    #[test]
    fn a_fence_ends_it_at_once_and_a_newer_grant_begins_another() {
        let lab = Lab::new();
        let mut r = lab.rounds();
        let now = Duration::from_secs(100);
        lab.local().set_grant(3).unwrap();
        lab.fence(2);
        r.round(now);
        assert!(matches!(verdict(&r, now), Verdict::Alive { .. }), "an older fence");
        lab.fence(3);
        lab.fence(1);
        assert!(r.round(now));
        assert!(matches!(verdict(&r, now), Verdict::Ended { token: Some(3), .. }));
        assert!(lab.local().life().left().unwrap_err().contains("fence 3"));
        lab.local().set_grant(4).unwrap();
        lab.local().set_grant(2).unwrap();
        assert!(r.round(now));
        assert!(matches!(verdict(&r, now), Verdict::Alive { .. }));
    }

    #[test]
    fn a_supervisor_goes_on_where_the_one_before_was() {
        let lab = Lab::new();
        let mut r = lab.rounds();
        r.round(boottime());
        let number = lab.place().read_beat(lab.host).unwrap().unwrap().number;
        let mut next = lab.rounds();
        next.round(boottime());
        assert_eq!(lab.place().read_beat(lab.host).unwrap().unwrap().number, number + 1);
        assert!(lab.local().life().left().is_ok());
    }
}
