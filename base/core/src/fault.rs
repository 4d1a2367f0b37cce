//! Fault points: named places where a test may kill, hang or fail the process. Compiled in always, armed
//! only with `lab = true`. They are enumerated from the code (`cargo xtask faults` greps for the macro),
//! so that the crash test runs at each of them without a list that somebody must keep.

use std::sync::{Mutex, PoisonError};
use std::sync::atomic::{AtomicBool, Ordering};

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

struct Armed {
    name: String,
    action: Action,
    /// Passes that are let through before it acts.
    skip: u32,
}

static ANY: AtomicBool = AtomicBool::new(false);
static ARMED: Mutex<Vec<Armed>> = Mutex::new(Vec::new());

/// Arms points from a text such as `compute.create.committed=kill,store.commit=fail:3` (`:3` lets three
/// passes through). Empty text disarms all. Callers check `lab`.
pub fn arm(text: &str) -> Result<(), String> {
    let mut armed = Vec::new();
    for item in text.split(',').map(str::trim).filter(|s| !s.is_empty()) {
        let (name, action) = item
            .split_once('=')
            .ok_or_else(|| format!("{item}: write it as point=kill, point=hang or point=fail"))?;
        let (action, skip) = action.split_once(':').unwrap_or((action, "0"));
        armed.push(Armed {
            name: name.to_owned(),
            action: match action {
                "kill" => Action::Kill,
                "hang" => Action::Hang,
                "fail" => Action::Fail,
                other => return Err(format!("{other}: write kill, hang or fail")),
            },
            skip: skip.parse().map_err(|_| format!("{skip}: not a number"))?,
        });
    }
    ANY.store(!armed.is_empty(), Ordering::Release);
    *ARMED.lock().unwrap_or_else(PoisonError::into_inner) = armed;
    Ok(())
}

/// Passes a point. True when the caller shall fail here. Use it through [`crate::fault_point!`].
#[inline]
pub fn hit(name: &str) -> bool {
    ANY.load(Ordering::Acquire) && slow(name)
}

#[cold]
fn slow(name: &str) -> bool {
    let action = {
        let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(point) = armed.iter_mut().find(|a| a.name == name) else {
            return false;
        };
        if point.skip > 0 {
            point.skip -= 1;
            return false;
        }
        point.action
    };
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
