//! `haneul run`: starts `serve` (as user haneul) and `agent` (as root) and starts each again when it ends.
//!
//! It has no async runtime and one thread, so that it needs next to no memory. What it promises:
//! - One per state directory (a lock), and one `serve` and `agent` of its own.
//! - kill -9 of it leaves serve and agent at work. A new `run` finds them by their pid files (pid, start
//!   time, boot), ends them gracefully and starts its own, so that what runs is always the release and the
//!   configuration of the `run` that watches it. Guests belong to neither and notice nothing.
//! - Children write straight into their log files, not through a pipe of ours, for the same reason. The files
//!   are bounded by copying and cutting them; lines written in that instant may be lost.
//! - Children are started from `/proc/self/exe`: the very file that runs, even if a new build has replaced it
//!   and even if user haneul cannot reach the directory that it is in.

use crate::args::{Globals, RunOptions};
use crate::guard::{self, Guard};
use crate::proc::{Ident, Lock, PidFile, monotonic};
use crate::{ACCOUNT, Error, Host, Result, Trouble, failed, ui};
use haneul_core::config::Config;
use haneul_core::durable::make_dir;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{Gid, Uid, User, chown};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A child, and how it is started.
#[derive(Clone, Debug)]
pub struct Spec {
    pub name: &'static str,
    pub program: PathBuf,
    pub args: Vec<String>,
    /// The user to become, when we are root.
    pub account: Option<(Uid, Gid)>,
}

/// Everything the supervisor needs to know.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What this process is called.
    pub name: &'static str,
    pub run_dir: PathBuf,
    pub log_dir: PathBuf,
    pub children: Vec<Spec>,
    /// Longest log file, bytes; one older file of this size is kept beside it.
    pub log_limit: u64,
    /// Wait before the first restart; doubles up to `backoff_max`.
    pub backoff: Duration,
    pub backoff_max: Duration,
    /// A child that ran so long has recovered: the wait begins anew.
    pub settled: Duration,
    /// Time between TERM and KILL.
    pub patience: Duration,
}

impl Plan {
    fn new(config: &Config, globals: &Globals, account: Option<(Uid, Gid)>) -> Self {
        let child = |name: &'static str, account| Spec {
            name,
            program: "/proc/self/exe".into(),
            args: [vec![name.to_owned()], globals.to_args()].concat(),
            account,
        };
        let agent = child("agent", None);
        Self {
            name: "run",
            run_dir: config.run_dir(),
            log_dir: log_dir(config),
            // The control plane of a host that has joined a cloud is on another machine.
            children: match config.is_member() {
                true => vec![agent],
                false => vec![child("serve", account), agent],
            },
            log_limit: 32 << 20,
            backoff: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            settled: Duration::from_secs(30),
            patience: Duration::from_secs(10),
        }
    }
}

/// Where the processes write.
pub fn log_dir(config: &Config) -> PathBuf {
    config.state_dir.0.join("log")
}

/// The command.
pub fn run(config: &Config, globals: &Globals, options: &RunOptions, host: &dyn Host) -> Result<ExitCode> {
    let account = prepare(config)?;
    let lock = Lock::take(&config.run_dir(), "run")?;
    if options.detach {
        nix::unistd::setsid().when("cannot leave the terminal")?;
    }
    watch(&Plan::new(config, globals, account), config, globals, host)?;
    drop(lock);
    Ok(ExitCode::SUCCESS)
}

/// `haneul lease`: what `haneul run` does for the lease, where systemd takes its place for the rest.
///
/// # Errors
/// Hosts share no disks here, or somebody keeps the lease already.
pub fn lease(config: &Config, globals: &Globals, host: &dyn Host) -> Result<ExitCode> {
    if config.agent.shared_disks.is_none() {
        return Err(failed(
            "this host shares no disks with others (agent.shared_disks), so it needs no lease",
        ));
    }
    make_dir(&config.run_dir(), 0o700).at(&config.run_dir())?;
    let lock = Lock::take(&config.run_dir(), "lease")?;
    let plan = Plan {
        children: vec![],
        name: "lease",
        ..Plan::new(config, globals, None)
    };
    watch(&plan, config, globals, host)?;
    drop(lock);
    Ok(ExitCode::SUCCESS)
}

fn watch(plan: &Plan, config: &Config, globals: &Globals, host: &dyn Host) -> Result<()> {
    let signals = listen_to_signals()?;
    let guard = Guard::new(config, host, wake)?;
    let guarded = guard.is_some();
    supervise(plan, signals, guard)?;
    if guarded {
        guard::after(globals)?;
    }
    Ok(())
}

/// Makes the directories with their owners, and finds the account of the control plane. Without root
/// everything belongs to the caller, which is good for a lab with fake drivers only.
pub fn prepare(config: &Config) -> Result<Option<(Uid, Gid)>> {
    let dirs = [
        config.state_dir.0.clone(),
        config.control_dir(),
        config.agent_dir(),
        config.run_dir(),
        log_dir(config),
    ];
    for (dir, mode) in dirs.iter().zip([0o711, 0o700, 0o700, 0o700, 0o750]) {
        make_dir(dir, mode).at(dir)?;
    }
    // Under systemd the umask closed it, or an agent that came first did; what must be closed is below.
    let state_dir = &config.state_dir.0;
    let meta = std::fs::metadata(state_dir).at(state_dir)?;
    if meta.uid() == Uid::effective().as_raw() && meta.mode() & 0o011 != 0o011 {
        std::fs::set_permissions(state_dir, PermissionsExt::from_mode(0o711)).at(state_dir)?;
    }
    if !Uid::effective().is_root() || config.is_member() {
        return Ok(None);
    }
    let user = User::from_name(ACCOUNT).ok().flatten();
    let Some(user) = user else {
        if config.lab {
            return Ok(None);
        }
        return Err(failed(format!(
            "there is no user {ACCOUNT}, whom the control plane runs as: `haneul up` makes it, or `useradd --system --user-group --no-create-home --shell /usr/sbin/nologin {ACCOUNT}`"
        )));
    };
    own_all(&config.control_dir(), user.uid, user.gid)?;
    // Serve makes its sockets in run/ and can take away only what is its own (the sticky bit): it must not be
    // able to put another process's number where root looks for what to kill. In a lab both disarm fault points
    // in one file there.
    let run_mode = if config.lab { 0o770 } else { 0o1770 };
    let shared: [(&Path, u32); 2] = [(&config.run_dir(), run_mode), (&log_dir(config), 0o750)];
    for (dir, mode) in shared {
        chown(dir, Some(Uid::from_raw(0)), Some(user.gid)).at(dir)?;
        std::fs::set_permissions(dir, PermissionsExt::from_mode(mode)).at(dir)?;
    }
    for dir in config.state_dir.0.ancestors() {
        let meta = std::fs::metadata(dir).at(dir)?;
        let bit = if meta.uid() == user.uid.as_raw() {
            0o100
        } else if meta.gid() == user.gid.as_raw() {
            0o010
        } else {
            0o001
        };
        if meta.mode() & bit == 0 {
            return Err(failed(format!(
                "user {ACCOUNT} cannot reach {}: {} is closed to it. `chmod o+x {}`, or choose another state_dir",
                config.state_dir.0.display(),
                dir.display(),
                dir.display()
            )));
        }
    }
    Ok(Some((user.uid, user.gid)))
}

/// Gives a tree to a user, when its top does not belong to it yet (an earlier run as root in a lab).
fn own_all(dir: &Path, uid: Uid, gid: Gid) -> Result<()> {
    let meta = std::fs::symlink_metadata(dir).at(dir)?;
    if meta.uid() == uid.as_raw() {
        return Ok(());
    }
    if meta.is_dir() {
        for entry in std::fs::read_dir(dir).at(dir)? {
            own_all(&entry.at(dir)?.path(), uid, gid)?;
        }
    }
    std::os::unix::fs::lchown(dir, Some(uid.as_raw()), Some(gid.as_raw())).at(dir)
}

static STOP: AtomicBool = AtomicBool::new(false);
static WAKE: OnceLock<UnixStream> = OnceLock::new();

/// Somebody else than a signal wants the loop to look.
fn wake() {
    if let Some(mut wake) = WAKE.get() {
        let _ = wake.write(&[1]);
    }
}

extern "C" fn on_signal(signal: nix::libc::c_int) {
    // Only what is allowed in a handler: atomics and write(2); errno is put back.
    let errno = nix::errno::Errno::last_raw();
    if signal == Signal::SIGTERM as i32 || signal == Signal::SIGINT as i32 {
        STOP.store(true, Ordering::SeqCst);
    }
    wake();
    nix::errno::Errno::set_raw(errno);
}

/// Routes TERM, INT and CHLD into a stream that the loop reads with a time limit. HUP gets a handler that does
/// nothing (not "ignore", which children would inherit): closing a terminal must not end a cloud.
pub fn listen_to_signals() -> Result<UnixStream> {
    let (read, write) = UnixStream::pair().when("socket pair")?;
    // The handler must never block, and what is already waiting is wake-up enough.
    write.set_nonblocking(true).when("socket pair")?;
    WAKE.set(write)
        .map_err(|_| Error::internal("the supervisor runs twice in one process"))?;
    let action = SigAction::new(
        SigHandler::Handler(on_signal),
        SaFlags::SA_RESTART | SaFlags::SA_NOCLDSTOP,
        SigSet::empty(),
    );
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD] {
        // SAFETY: the handler calls nothing but async-signal-safe functions (atomics, write).
        #[allow(unsafe_code)]
        unsafe { sigaction(signal, &action) }.when("signal handler")?;
    }
    Ok(read)
}

struct Ward {
    spec: Spec,
    pid_file: PidFile,
    log: PathBuf,
    child: Option<Child>,
    started: Duration,
    next_start: Duration,
    backoff: Duration,
}

/// Watches over the children until TERM or INT; then ends them and returns. The caller holds the lock.
pub fn supervise(plan: &Plan, mut signals: UnixStream, mut guard: Option<Guard<'_>>) -> Result<()> {
    let me = i32::try_from(std::process::id())
        .ok()
        .and_then(Ident::of)
        .ok_or_else(|| failed("/proc is not there"))?;
    let my_file = PidFile::new(&plan.run_dir, plan.name);
    my_file.write(&me)?;
    let mut wards: Vec<Ward> = plan.children.iter().map(|spec| Ward::new(spec, plan)).collect();
    replace_orphans(plan, &wards);
    while !STOP.load(Ordering::SeqCst) {
        // Before an agent is started: what its predecessors left may have no lease any more.
        let look = guard.as_mut().map(Guard::tend);
        let now = monotonic();
        for ward in &mut wards {
            ward.tend(plan, now);
        }
        let next = wards.iter().filter(|w| w.child.is_none()).map(|w| w.next_start).min();
        // Ten seconds is how often log files are measured when nothing happens.
        let wait = next.map_or(Duration::from_secs(10), |t| t.saturating_sub(monotonic()));
        let wait = look.map_or(wait, |l| l.min(wait));
        signals
            .set_read_timeout(Some(wait.max(Duration::from_millis(1))))
            .when("signals")?;
        let _ = signals.read(&mut [0; 64]);
    }
    say("stopping");
    stop(&mut wards, plan.patience);
    my_file.remove();
    say("stopped");
    Ok(())
}

/// Ends what an earlier `run` left behind when it was killed.
fn replace_orphans(plan: &Plan, wards: &[Ward]) {
    let orphans: Vec<(&str, Ident)> = wards
        .iter()
        .filter_map(|w| Some((w.spec.name, w.pid_file.live()?)))
        .collect();
    for (name, orphan) in &orphans {
        say(format!(
            "{name} of an earlier run is still there (pid {}): replacing it",
            orphan.pid
        ));
        orphan.signal(rustix::process::Signal::TERM);
    }
    let end = monotonic() + plan.patience;
    for (name, orphan) in &orphans {
        if !orphan.wait_gone(end.saturating_sub(monotonic())) {
            say(format!("{name} (pid {}) does not end, killing it", orphan.pid));
            orphan.terminate(Duration::ZERO);
        }
    }
}

fn stop(wards: &mut [Ward], patience: Duration) {
    let ident = |child: &Child| i32::try_from(child.id()).ok().and_then(Ident::of);
    for ward in wards.iter().filter_map(|w| w.child.as_ref()) {
        ident(ward).inspect(|i| {
            i.signal(rustix::process::Signal::TERM);
        });
    }
    let end = monotonic() + patience;
    for ward in wards {
        let Some(mut child) = ward.child.take() else {
            continue;
        };
        while matches!(child.try_wait(), Ok(None)) {
            if monotonic() > end {
                say(format!(
                    "{} did not end within {} s, killing it",
                    ward.spec.name,
                    patience.as_secs()
                ));
                let _ = child.kill();
                let _ = child.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        ward.pid_file.remove();
    }
}

impl Ward {
    fn new(spec: &Spec, plan: &Plan) -> Self {
        Self {
            spec: spec.clone(),
            pid_file: PidFile::new(&plan.run_dir, spec.name),
            log: plan.log_dir.join(format!("{}.log", spec.name)),
            child: None,
            started: Duration::ZERO,
            next_start: Duration::ZERO,
            backoff: plan.backoff,
        }
    }

    fn tend(&mut self, plan: &Plan, now: Duration) {
        if let Some(status) = self.child.as_mut().and_then(|c| c.try_wait().ok().flatten()) {
            self.child = None;
            self.pid_file.remove();
            self.ended(&describe(status), plan, now);
        }
        if self.child.is_none() && now >= self.next_start {
            match self.start() {
                Ok(child) => {
                    say(format!("{} started (pid {})", self.spec.name, child.id()));
                    self.child = Some(child);
                    self.started = now;
                }
                Err(e) => self.ended(&format!("cannot be started: {e}"), plan, now),
            }
        }
        trim(&self.log, plan.log_limit);
    }

    fn ended(&mut self, how: &str, plan: &Plan, now: Duration) {
        if now.saturating_sub(self.started) >= plan.settled {
            self.backoff = plan.backoff;
        }
        say(format!(
            "{} {how}; starting it again in {} ms",
            self.spec.name,
            self.backoff.as_millis()
        ));
        self.next_start = now + self.backoff;
        self.backoff = (self.backoff * 2).min(plan.backoff_max);
        // A child that never came up was never settled either.
        self.started = now;
    }

    fn start(&self) -> Result<Child> {
        let log = open_log(&self.log)?;
        let mut command = Command::new(&self.spec.program);
        command
            .arg0("haneul")
            .args(&self.spec.args)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone().at(&self.log)?)
            .stderr(log)
            // Ctrl-C at a terminal is for us; children are told by TERM.
            .process_group(0);
        if let Some((uid, gid)) = self.spec.account {
            // Setting the uid as root also drops the supplementary groups.
            command.uid(uid.as_raw()).gid(gid.as_raw());
        }
        let child = command.spawn().at(&self.spec.program)?;
        if let Some(ident) = i32::try_from(child.id()).ok().and_then(Ident::of) {
            self.pid_file.write(&ident)?;
        }
        Ok(child)
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        _ => "ended".to_owned(),
    }
}

/// Opens a log for appending; never through a link.
pub(crate) fn open_log(path: &Path) -> Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)
        .at(path)
}

/// Keeps a log bounded: what is there becomes `NAME.log.1`, and the file is cut. Writers append, so that they
/// go on at the new end.
fn trim(log: &Path, limit: u64) {
    if !std::fs::metadata(log).is_ok_and(|m| m.len() > limit) {
        return;
    }
    let old = log.with_extension("log.1");
    let cut = std::fs::copy(log, &old).and_then(|_| OpenOptions::new().write(true).open(log)?.set_len(0));
    if let Err(e) = cut {
        say(format!("cannot bound {}: {e}", log.display()));
    }
}

/// A line of the supervisor's own log, which is its standard error.
pub(crate) fn say(text: impl std::fmt::Display) {
    let now = haneul_core::clock::iso(haneul_core::clock::now());
    ui::note(format_args!("{now} run: {text}"));
}
