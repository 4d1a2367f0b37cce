//! Fault points: named places where a test may kill, hang or fail the process. Compiled in always, active
//! only in a lab (`lab = true`). They are enumerated from the code (`cargo xtask faults`), so that the crash
//! test runs at each of them without a list that somebody must keep.
//!
//! They are armed by a file (`run/fault` in the state directory), which every process of the lab looks at
//! when it passes a point: `compute.create.committed=kill` or `store.before-commit=fail:3` (`:3` lets three
//! passes through), separated by commas. A point that acts disarms itself first, so that the process that is
//! started again does not die of it too.
//!
//! While `run/fault-trace` exists, every point that is passed appends its process id and its name to it: that
//! is how the crash test learns which points an operation really passes.

use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;

/// What happens when an armed point is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// SIGKILL to this process: nothing is flushed, no destructor runs.
    Kill,
    /// The thread sleeps for an hour.
    Hang,
    /// [`hit`] answers true, and the caller fails as if the step had failed.
    Fail,
}

static FILE: OnceLock<PathBuf> = OnceLock::new();

/// Lets points act in this process. Callers check `lab`.
pub fn enable(file: PathBuf) {
    let _ = FILE.set(file);
}

/// Passes a point. True when the caller shall fail here. Use it through [`crate::fault_point!`].
#[inline]
pub fn hit(name: &str) -> bool {
    match FILE.get() {
        None => false,
        Some(file) => slow(name, file),
    }
}

#[cold]
fn slow(name: &str, file: &PathBuf) -> bool {
    if let Ok(mut trace) = std::fs::OpenOptions::new()
        .append(true)
        .open(file.with_file_name("fault-trace"))
    {
        // One write, so that lines of two processes do not mix.
        let _ = trace.write_all(format!("{} {name}\n", std::process::id()).as_bytes());
    }
    let Ok(text) = std::fs::read_to_string(file) else {
        return false;
    };
    let mut left = Vec::new();
    let mut act = None;
    for item in text.split(',').map(str::trim).filter(|s| !s.is_empty()) {
        let (point, action) = item.split_once('=').unwrap_or((item, "kill"));
        let (action, skip) = action.split_once(':').unwrap_or((action, "0"));
        let skip: u32 = skip.parse().unwrap_or(0);
        if point != name || act.is_some() {
            left.push(item.to_owned());
        } else if skip > 0 {
            left.push(format!("{point}={action}:{}", skip - 1));
        } else {
            act = Some(match action {
                "hang" => Action::Hang,
                "fail" => Action::Fail,
                _ => Action::Kill,
            });
        }
    }
    let rest = left.join(",");
    if rest != text {
        let written = if rest.is_empty() {
            std::fs::remove_file(file)
        } else {
            std::fs::write(file, rest)
        };
        // Another process was faster with the same point: it acts, not we.
        if written.is_err() && !file.exists() {
            return false;
        }
    }
    let Some(action) = act else { return false };
    tracing::warn!(point = name, ?action, "fault point reached");
    match action {
        Action::Kill => {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            loop {
                std::thread::park();
            }
        }
        Action::Hang => {
            std::thread::sleep(std::time::Duration::from_secs(3600));
            false
        }
        Action::Fail => true,
    }
}

/// A fault point. `fault_point!("name")` is a statement that kills or hangs when armed so;
/// `fault_point!("name", expression)` also returns `Err(expression)` when armed to fail.
#[macro_export]
macro_rules! fault_point {
    ($name:literal) => {
        let _ = $crate::fault::hit($name);
    };
    ($name:literal, $err:expr) => {
        if $crate::fault::hit($name) {
            return Err($err);
        }
    };
}
