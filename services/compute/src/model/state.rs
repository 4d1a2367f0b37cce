//! States by Nova's names, and the status that users see.

use serde::{Deserialize, Serialize};

macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name { $(#[serde(rename = $text)] $variant,)* }
        impl $name {
            /// Nova's name.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }
    };
}

names!(
    /// Stable states (`OS-EXT-STS:vm_state`).
    VmState {
        Building = "building",
        Active = "active",
        Stopped = "stopped",
        Paused = "paused",
        Suspended = "suspended",
        Resized = "resized",
        Error = "error",
    }
);

names!(
    /// What is being done (`OS-EXT-STS:task_state`). A server that has one has a running job.
    Task {
        Scheduling = "scheduling",
        Spawning = "spawning",
        PoweringOn = "powering-on",
        PoweringOff = "powering-off",
        Pausing = "pausing",
        Unpausing = "unpausing",
        Suspending = "suspending",
        Resuming = "resuming",
        Rebooting = "rebooting",
        RebootingHard = "rebooting_hard",
        Rebuilding = "rebuilding",
        ResizePrep = "resize_prep",
        ResizeMigrating = "resize_migrating",
        ResizeFinish = "resize_finish",
        ResizeReverting = "resize_reverting",
        Migrating = "migrating",
        Networking = "networking",
        ImageSnapshotPending = "image_snapshot_pending",
        ImageSnapshot = "image_snapshot",
        ImageBackup = "image_backup",
        ImagePendingUpload = "image_pending_upload",
        ImageUploading = "image_uploading",
        Deleting = "deleting",
    }
);

impl Task {
    /// Whether the server may be on its way to another host: then it holds both.
    pub fn moves(self) -> bool {
        matches!(
            self,
            Task::Migrating | Task::ResizeMigrating | Task::ResizeFinish | Task::ResizeReverting
        )
    }
}

names!(
    /// How far a migration is: a resize, or a move to another host.
    MigrationStatus {
        // Of an evacuation: the target shall start it; it did.
        Accepted = "accepted",
        Done = "done",
        // The target makes ready.
        Preparing = "preparing",
        // The source sends.
        Running = "running",
        Completed = "completed",
        Failed = "failed",
        Cancelled = "cancelled",
        Migrating = "migrating",
        // It waits to be confirmed or reverted.
        Finished = "finished",
        Confirmed = "confirmed",
        Reverting = "reverting",
        Reverted = "reverted",
        Error = "error",
    }
);

/// Power states by number (`OS-EXT-STS:power_state`).
pub mod power {
    pub const NOSTATE: i64 = 0;
    pub const RUNNING: i64 = 1;
    pub const PAUSED: i64 = 3;
    pub const SHUTDOWN: i64 = 4;
    pub const CRASHED: i64 = 6;
    pub const SUSPENDED: i64 = 7;
}

/// The status that users see, from both states.
pub fn status(vm: VmState, task: Option<Task>) -> &'static str {
    match (vm, task) {
        (VmState::Active, Some(Task::Rebooting)) => "REBOOT",
        (
            VmState::Active | VmState::Paused | VmState::Suspended | VmState::Stopped | VmState::Error,
            Some(Task::RebootingHard),
        ) => "HARD_REBOOT",
        (VmState::Active | VmState::Stopped | VmState::Error, Some(Task::Rebuilding)) => "REBUILD",
        (VmState::Active | VmState::Stopped, Some(Task::ResizePrep | Task::ResizeMigrating | Task::ResizeFinish)) => {
            "RESIZE"
        }
        (VmState::Resized, Some(Task::ResizeReverting)) => "REVERT_RESIZE",
        (VmState::Active | VmState::Paused, Some(Task::Migrating)) => "MIGRATING",
        (VmState::Building, _) => "BUILD",
        (VmState::Active, _) => "ACTIVE",
        (VmState::Stopped, _) => "SHUTOFF",
        (VmState::Paused, _) => "PAUSED",
        (VmState::Suspended, _) => "SUSPENDED",
        (VmState::Resized, _) => "VERIFY_RESIZE",
        (VmState::Error, _) => "ERROR",
    }
}

/// The (vm_state, task_states) that a status filter means; `None` as task list: any other task. Unknown
/// statuses give nothing. Case does not matter.
pub fn of_status(name: &str) -> Option<(&'static [&'static str], Option<&'static [&'static str]>)> {
    Some(match name.to_ascii_uppercase().as_str() {
        "ACTIVE" => (&["active"], None),
        "BUILD" => (&["building"], None),
        "SHUTOFF" => (&["stopped"], None),
        "PAUSED" => (&["paused"], None),
        "SUSPENDED" => (&["suspended"], None),
        "ERROR" => (&["error"], None),
        "VERIFY_RESIZE" => (&["resized"], None),
        "REBOOT" => (&["active"], Some(&["rebooting"])),
        "HARD_REBOOT" => (
            &["active", "paused", "suspended", "stopped", "error"],
            Some(&["rebooting_hard"]),
        ),
        "REBUILD" => (&["active", "stopped", "error"], Some(&["rebuilding"])),
        "RESIZE" => (
            &["active", "stopped"],
            Some(&["resize_prep", "resize_migrating", "resize_finish"]),
        ),
        "MIGRATING" => (&["active", "paused"], Some(&["migrating"])),
        "REVERT_RESIZE" => (&["resized"], Some(&["resize_reverting"])),
        // Known to Nova; nothing here is ever in them.
        "DELETED" => (&["deleted"], None),
        "SOFT_DELETED" | "RESCUE" | "SHELVED" | "SHELVED_OFFLOADED" | "PASSWORD" => (&["none"], None),
        _ => return None,
    })
}

/// Tasks that have a status of their own for some vm_state: a filter by the plain status leaves them out.
pub const TASKS_WITH_STATUS: &[&str] = &[
    "rebooting",
    "rebooting_hard",
    "rebuilding",
    "resize_prep",
    "resize_migrating",
    "resize_finish",
    "resize_reverting",
    "migrating",
];
