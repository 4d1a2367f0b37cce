//! The lease of a host: who may run the guests whose disks other hosts reach, too (docs/adr/0009, "Fencing").
//!
//! The lease lives where the disks live, in `fence/` of the shared directory. Every host has two files there: `HOST.beat`,
//! which its supervisor writes ([`Keeper`]), and `HOST.fence`, which others write to end its lease ([`Watch`]). A host
//! writes its beat first and reads its fence then; who ends a lease writes the fence first and reads the beat then. So at
//! least one of them sees the other, whatever is slow, and no clock is compared between machines.
//!
//! Invariants: a lease that was not renewed for one term has ended, by the time since boot (which no clock setting
//! touches); no IO is waited for where a deadline is kept; what is torn or cannot be read proves nothing, and so never
//! lengthens a lease and never ends a wait.

mod keeper;
mod local;
mod place;
mod watch;

pub use keeper::{Keeper, Settings, Verdict};
pub use local::{Life, Local};
pub use place::{Beat, Fence, MARKER, Place};
pub use watch::{Seen, Watch};

use std::time::Duration;

/// Beats in a term: four may be lost in a row.
pub const BEATS: u32 = 5;

/// Who waits for a lease's end waits so much longer than the term: until the guests' processes are gone.
pub const MARGIN: Duration = Duration::from_secs(2);

/// Time since boot, that of sleep included; setting a clock does not touch it.
pub fn boottime() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(
        u64::try_from(t.tv_sec).unwrap_or(0),
        u32::try_from(t.tv_nsec).unwrap_or(0),
    )
}

/// Changes with every boot: what was said of [`boottime`] before counts no more.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_or_else(|_| String::new(), |s| s.trim().to_owned())
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}
