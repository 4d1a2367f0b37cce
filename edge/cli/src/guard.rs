//! The supervisor's part in leases (docs/adr/0009, "Fencing"): when this host's has ended, its guests on shared disks do,
//! whether the agent is well, dead or hangs.

use crate::args::Globals;
use crate::proc::{Ident, PidFile, monotonic};
use crate::supervisor::say;
use crate::{Host, Result, Trouble};
use haneul_core::config::Config;
use haneul_lease::{Keeper, Verdict};
use rustix::process::Signal;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Between looks at guests that must not run, and after an end that failed.
const AGAIN: Duration = Duration::from_secs(1);
/// A killed agent may take so long to be gone.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between pats of the watchdog. The shortest time-out that drivers have by default is 15 s.
const PAT: Duration = Duration::from_secs(5);

/// See the module.
pub struct Guard<'a> {
    keeper: Keeper,
    /// Ends the guests; answers how many there were.
    end: Box<dyn Fn() -> Result<usize> + 'a>,
    agent: PidFile,
    /// Says how the link to control is, while the agent runs.
    link: PathBuf,
    watchdog: Option<Watchdog>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nobody has started guests under our eyes.
    New,
    Alive,
    /// Ended, with the guests.
    Ended,
}

impl<'a> Guard<'a> {
    /// Begins to keep this host's lease; `None` where hosts share no disks. `wake` is called when it changes.
    ///
    /// # Errors
    /// The agent's directory or the watchdog cannot be used.
    pub fn new(config: &'a Config, host: &'a dyn Host, wake: fn()) -> Result<Option<Self>> {
        let Some(keeper) = host.lease(config, Box::new(wake))? else {
            return Ok(None);
        };
        Ok(Some(Self {
            keeper,
            end: Box::new(|| host.end_bound(config)),
            agent: PidFile::new(&config.run_dir(), "agent"),
            link: config.link_file(),
            watchdog: config.agent.watchdog.as_deref().map(Watchdog::open).transpose()?,
            state: State::New,
        }))
    }

    /// Does what is to be done now; answers when to ask again.
    pub fn tend(&mut self) -> Duration {
        let agent = self.agent.live();
        self.keeper.agent(agent.is_some());
        if agent.is_none() {
            // What it said last is not true any more.
            let _ = std::fs::remove_file(&self.link);
        }
        let now = monotonic();
        let wait = match self.keeper.verdict(now) {
            Verdict::Alive { until } => {
                if self.state == State::Ended {
                    say("the lease has begun anew: servers on shared disks may run here");
                }
                self.state = State::Alive;
                until.saturating_sub(now)
            }
            Verdict::Ended { token, why } => {
                if self.state != State::Ended {
                    say(format!(
                        "there is no lease: {why}. No server on shared disks may run here"
                    ));
                }
                let agent = agent.filter(|a| match self.state {
                    State::New => a.started() < self.keeper.before(),
                    State::Alive => true,
                    State::Ended => false,
                });
                self.state = State::Ended;
                match end_all(agent, &self.end) {
                    Ok(0) => {}
                    Ok(count) => say(format!("{count} servers on shared disks were ended")),
                    Err(e) => {
                        say(format!("servers on shared disks could not be ended: {e}"));
                        // Nor is the watchdog written to: if this stays so, the machine is reset.
                        return AGAIN;
                    }
                }
                self.keeper.stopped(token.unwrap_or(0));
                AGAIN
            }
        };
        match &mut self.watchdog {
            None => wait,
            Some(dog) => {
                dog.pat();
                wait.min(PAT)
            }
        }
    }
}

impl Drop for Guard<'_> {
    /// Whoever keeps the lease ends by itself, and leaves somebody who ends the guests with it ([`after`]).
    fn drop(&mut self) {
        if let Some(dog) = &mut self.watchdog {
            dog.disarm();
        }
    }
}

/// Ends the guests, and an agent that may have looked at the lease before it ended: it may be about to start one.
/// Everything is killed before anything is waited for.
fn end_all(agent: Option<Ident>, end: &dyn Fn() -> Result<usize>) -> Result<usize> {
    let Some(agent) = agent else { return end() };
    agent.signal(Signal::KILL);
    let before = end().unwrap_or(0);
    agent.wait_gone(PATIENCE);
    // What it started in its last moment, too.
    Ok(before + end()?)
}

/// `/dev/watchdog` (the kernel's watchdog API): armed by opening, patted by writing, disarmed by a `V` before closing.
struct Watchdog(File);

impl Watchdog {
    fn open(path: &Path) -> Result<Self> {
        Ok(Self(OpenOptions::new().write(true).open(path).at(path)?))
    }
    fn pat(&mut self) {
        if let Err(e) = self.0.write_all(b".") {
            say(format!("the watchdog cannot be written to: {e}"));
        }
    }
    fn disarm(&mut self) {
        let _ = self.0.write_all(b"V");
    }
}

/// Leaves somebody behind who ends the guests on shared disks with the lease, unless another keeper takes it up: this one
/// goes, perhaps for an update, perhaps for good.
pub fn after(globals: &Globals) -> Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("haneul")
        .arg("lease-end")
        .args(globals.to_args())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .process_group(0);
    command.spawn().when("cannot watch over the lease")?;
    Ok(())
}

/// `haneul lease-end`: waits as long as the lease runs and nobody renews it, and ends the guests with it, for as long as
/// it takes.
pub fn lease_end(config: &Config, host: &dyn Host) {
    let mut agent = Some(PidFile::new(&config.run_dir(), "agent"));
    let end = monotonic() + host.lease_left(config);
    // A supervisor that takes it up renews it to nearly a whole term, again and again.
    let taken_up = || {
        let left = host.lease_left(config);
        !left.is_zero() && monotonic() + left > end + Duration::from_secs(1)
    };
    while !taken_up() {
        if monotonic() < end {
            std::thread::sleep(Duration::from_millis(100));
        } else if end_all(agent.take().and_then(|a| a.live()), &|| host.end_bound(config)).is_ok() {
            return;
        } else {
            std::thread::sleep(AGAIN);
        }
    }
}
