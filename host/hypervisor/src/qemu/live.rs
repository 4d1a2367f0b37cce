//! A guest's living process: its handle, its monitor connection, and what it was last heard to do.

use super::console;
use super::process;
use super::qmp::{Event, Qmp, QmpError};
use super::record::Record;
use serde_json::Value;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

/// How long the greeting may take on a connection to a process that is known to be up.
const GREETING: Duration = Duration::from_secs(5);
const CONSOLE_LOOK: Duration = Duration::from_secs(3);
/// How long a process whose monitor has closed may take to be gone: what is left of its end is the kernel's work.
const ENDING: Duration = Duration::from_secs(1);

/// What the machine does, from QMP's run state and events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    /// Not heard yet.
    Unknown,
    Running,
    Paused,
    /// The guest has switched off; the process waits.
    Shutdown,
    /// Stopped on a full disk of the host.
    NoSpace,
    /// The guest's kernel panicked, or the accelerator failed.
    Broken,
}

/// What the watcher of a process knows.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub gone: bool,
    pub run: Run,
    pub qmp: Option<Qmp>,
    /// Grows with each step of saving or loading the guest's memory.
    pub memory_steps: u64,
    /// Grows with each step of a copy of a disk.
    pub job_steps: u64,
    /// Devices that guests have let go of, counted.
    pub deletions: u64,
}

/// A handle on a living process; clones share it.
#[derive(Clone)]
pub(crate) struct Live {
    pub pid: i32,
    pidfd: Arc<AsyncFd<OwnedFd>>,
    state: watch::Receiver<State>,
    /// The watching ends with the last handle: the monitor takes one client at a time, and another driver
    /// may be waiting for it.
    _watcher: Arc<AbortOnDrop>,
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Told by the watcher; runs in the watcher's task and must not block.
pub(crate) trait Watch: Send + Sync + 'static {
    /// The guest switched itself off (or did so at our wish).
    fn shutdown(&self, pid: i32);
    /// The process has ended.
    fn gone(&self, pid: i32);
    /// Saving, loading, sending or taking memory has come to its end.
    fn migrated(&self, pid: i32);
    /// The machine stopped or went on by itself, e.g. on a full disk.
    fn changed(&self, pid: i32);
}

impl Live {
    /// Starts to watch a process. Needs a tokio runtime.
    pub(crate) fn watch(
        pid: i32,
        pidfd: OwnedFd,
        dir: &Path,
        record: &Record,
        watch: Arc<dyn Watch>,
    ) -> std::io::Result<Self> {
        // SAFETY: an `OwnedFd` always gives the same open descriptor and closes it only when the `AsyncFd`
        // that owns it is dropped.
        #[allow(unsafe_code)]
        let pidfd = Arc::new(unsafe { AsyncFd::register_with_interest(pidfd, tokio::io::Interest::READABLE)? });
        let (send, state) = watch::channel(State {
            gone: false,
            run: Run::Unknown,
            qmp: None,
            memory_steps: 0,
            job_steps: 0,
            deletions: 0,
        });
        let handle = Arc::clone(&pidfd);
        let (socket, hold) = super::launch::socket_path(dir, &record.qmp)?;
        let watcher = Watcher {
            pid,
            dir: dir.to_path_buf(),
            log: record.log.clone(),
            socket,
            _hold: hold,
            send,
            watch,
        };
        let task = tokio::spawn(async move {
            let mut look = tokio::time::interval(CONSOLE_LOOK);
            tokio::select! {
                _ = pidfd.readable() => {}
                never = watcher.follow() => match never {},
                never = watcher.bound_console(&mut look) => match never {},
            }
            process::reap(pidfd.get_ref().as_fd());
            watcher.send.send_modify(|s| {
                s.gone = true;
                s.qmp = None;
            });
            watcher.watch.gone(watcher.pid);
        });
        Ok(Self {
            pid,
            pidfd: handle,
            state,
            _watcher: Arc::new(AbortOnDrop(task.abort_handle())),
        })
    }

    pub(crate) fn run(&self) -> Run {
        self.state.borrow().run
    }

    /// See [`State::memory_steps`].
    pub(crate) fn memory_steps(&self) -> u64 {
        self.state.borrow().memory_steps
    }

    /// See [`State::job_steps`].
    pub(crate) fn job_steps(&self) -> u64 {
        self.state.borrow().job_steps
    }

    pub(crate) fn deletions(&self) -> u64 {
        self.state.borrow().deletions
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.state.borrow().gone
    }

    /// Waits until the state is as wanted; false when the deadline passed first.
    pub(crate) async fn until(&self, deadline: Duration, mut wanted: impl FnMut(&State) -> bool) -> bool {
        let mut state = self.state.clone();
        tokio::time::timeout(deadline, state.wait_for(|s| wanted(s)))
            .await
            .is_ok_and(|r| r.is_ok())
    }

    /// Runs a monitor command; the deadline covers the wait for a connection too.
    pub(crate) async fn execute(&self, command: &str, arguments: Value, deadline: Duration) -> Result<Value, QmpError> {
        self.execute_with(command, arguments, None, deadline).await
    }

    /// The same, handing over an open file.
    pub(crate) async fn execute_with(
        &self,
        command: &str,
        arguments: Value,
        fd: Option<OwnedFd>,
        deadline: Duration,
    ) -> Result<Value, QmpError> {
        let work = async {
            let mut state = self.state.clone();
            let qmp = {
                let now = state
                    .wait_for(|s| s.gone || s.qmp.is_some())
                    .await
                    .map_err(|_| QmpError::Closed)?;
                now.qmp.clone().ok_or(QmpError::Closed)?
            };
            qmp.execute_with(command, arguments, fd, deadline).await
        };
        let done = tokio::time::timeout(deadline, work)
            .await
            .map_err(|_| QmpError::Timeout)?;
        if matches!(done, Err(QmpError::Closed)) {
            // A process that ends closes its sockets before the kernel tells of its end. Whoever looks at that next
            // shall not take a guest that died for one that refused.
            self.until(ENDING, |s| s.gone).await;
        }
        done
    }

    /// SIGKILL, and wait for the end. False: it cannot die (stuck in the kernel).
    pub(crate) async fn kill(&self) -> bool {
        if let Err(e) = process::kill(self.pidfd.get_ref().as_fd()) {
            tracing::error!(pid = self.pid, error = %e, "killing a guest's process failed");
        }
        self.until(Duration::from_secs(10), |s| s.gone).await
    }
}

/// A future that never ends.
enum Never {}

struct Watcher {
    pid: i32,
    dir: PathBuf,
    /// Name of QEMU's own log.
    log: String,
    socket: PathBuf,
    /// Keeps `socket` meaning something when it is a path through an open directory.
    _hold: Option<std::fs::File>,
    send: watch::Sender<State>,
    watch: Arc<dyn Watch>,
}

impl Watcher {
    /// Keeps a monitor connection for as long as the process lives.
    async fn follow(&self) -> Never {
        let mut pause = Duration::from_millis(20);
        loop {
            if let Ok((qmp, mut events)) = Qmp::connect(&self.socket, GREETING).await {
                pause = Duration::from_millis(20);
                // Asked on the new connection, so that nothing between two connections is missed.
                if let Ok(status) = qmp.execute("query-status", Value::Null, GREETING).await {
                    let run = parse_status(status.get("status").and_then(Value::as_str).unwrap_or(""));
                    self.set(run, Some(qmp));
                    while let Some(event) = events.recv().await {
                        self.event(&event);
                    }
                }
                self.send.send_modify(|s| s.qmp = None);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    async fn bound_console(&self, look: &mut tokio::time::Interval) -> Never {
        loop {
            look.tick().await;
            if let Err(e) = console::bound_log(&self.dir, &self.log) {
                tracing::debug!(pid = self.pid, error = %e, "QEMU's log cannot be cut");
            }
            if console::is_full(&self.dir) {
                let dir = self.dir.clone();
                let done = tokio::task::spawn_blocking(move || console::rotate(&dir)).await;
                if let Ok(Err(e)) = done {
                    tracing::warn!(pid = self.pid, error = %e, "a serial log cannot be cut");
                }
            }
        }
    }

    fn set(&self, run: Run, qmp: Option<Qmp>) {
        let mut before = Run::Unknown;
        self.send.send_modify(|s| {
            before = s.run;
            s.run = run;
            if qmp.is_some() {
                s.qmp = qmp;
            }
        });
        if before == run {
            return;
        }
        match run {
            Run::Shutdown => self.watch.shutdown(self.pid),
            _ if before != Run::Unknown => self.watch.changed(self.pid),
            _ => {}
        }
    }

    fn event(&self, e: &Event) {
        if e.name == "MIGRATION" {
            self.send.send_modify(|s| s.memory_steps += 1);
            if e.data.get("status").and_then(Value::as_str) == Some("completed") {
                self.watch.migrated(self.pid);
            }
            return;
        }
        if e.name == "MIGRATION_PASS" {
            self.send.send_modify(|s| s.memory_steps += 1);
            return;
        }
        if e.name == "JOB_STATUS_CHANGE" {
            self.send.send_modify(|s| s.job_steps += 1);
            return;
        }
        if e.name == "DEVICE_DELETED" {
            self.send.send_modify(|s| s.deletions += 1);
        }
        let now = self.send.borrow().run;
        let next = match e.name.as_str() {
            "SHUTDOWN" => {
                // With `shutdown=pause` only the guest's own end leaves the process waiting.
                let reason = e.data.get("reason").and_then(Value::as_str).unwrap_or("");
                if reason.starts_with("guest") {
                    Run::Shutdown
                } else {
                    now
                }
            }
            "STOP" if now == Run::Running => Run::Paused,
            "RESUME" => Run::Running,
            "RESET" if now == Run::Shutdown => Run::Paused,
            "GUEST_PANICKED" => Run::Broken,
            "BLOCK_IO_ERROR" if e.data.get("action").and_then(Value::as_str) == Some("stop") => Run::NoSpace,
            _ => now,
        };
        if next != now {
            self.set(next, None);
        }
    }
}

/// QMP's `RunState`.
fn parse_status(text: &str) -> Run {
    match text {
        "running" | "colo" | "watchdog" => Run::Running,
        "shutdown" => Run::Shutdown,
        "io-error" => Run::NoSpace,
        "guest-panicked" | "internal-error" => Run::Broken,
        _ => Run::Paused,
    }
}
