//! The operations that the crash test kills at every point.

use serde_json::{Value, json};

/// Status of a server that is not there.
pub const NONE: &str = "none";

/// One operation on one server.
#[derive(Clone, Copy)]
pub struct Op {
    pub name: &'static str,
    /// Actions that bring a new server to where the operation begins, and the status after each.
    pub before: &'static [(&'static str, &'static str)],
    /// `create`, `delete`, `attach` and `detach` (an interface), or an action's body (`IMAGE` stands for the image).
    pub what: &'static str,
    /// Status before and afterwards.
    pub from: &'static str,
    pub to: &'static str,
    /// Whether the host's record of the guest, with the states of its images under `images`, says that the operation was
    /// carried out.
    pub met: fn(&Value) -> bool,
}

const RESIZE: (&str, &str) = (r#"{"resize":{"flavorRef":"small"}}"#, "VERIFY_RESIZE");

pub const OPS: &[Op] = &[
    Op {
        name: "create",
        before: &[],
        what: "create",
        from: NONE,
        to: "ACTIVE",
        met: |r| r["state"] == "running",
    },
    Op {
        name: "delete",
        before: &[],
        what: "delete",
        from: "ACTIVE",
        to: NONE,
        met: Value::is_null,
    },
    Op {
        name: "stop",
        before: &[],
        what: r#"{"os-stop":null}"#,
        from: "ACTIVE",
        to: "SHUTOFF",
        met: |r| r["state"] == "stopped",
    },
    Op {
        name: "start",
        before: &[(r#"{"os-stop":null}"#, "SHUTOFF")],
        what: r#"{"os-start":null}"#,
        from: "SHUTOFF",
        to: "ACTIVE",
        met: |r| r["state"] == "running",
    },
    Op {
        name: "pause",
        before: &[],
        what: r#"{"pause":null}"#,
        from: "ACTIVE",
        to: "PAUSED",
        met: |r| r["state"] == "paused",
    },
    Op {
        name: "unpause",
        before: &[(r#"{"pause":null}"#, "PAUSED")],
        what: r#"{"unpause":null}"#,
        from: "PAUSED",
        to: "ACTIVE",
        met: |r| r["state"] == "running",
    },
    Op {
        name: "suspend",
        before: &[],
        what: r#"{"suspend":null}"#,
        from: "ACTIVE",
        to: "SUSPENDED",
        met: |r| r["state"] == "suspended",
    },
    Op {
        name: "resume",
        before: &[(r#"{"suspend":null}"#, "SUSPENDED")],
        what: r#"{"resume":null}"#,
        from: "SUSPENDED",
        to: "ACTIVE",
        met: |r| r["state"] == "running",
    },
    Op {
        name: "soft-reboot",
        before: &[],
        what: r#"{"reboot":{"type":"SOFT"}}"#,
        from: "ACTIVE",
        to: "ACTIVE",
        met: |r| r["guest"]["soft_reboots"] == 1,
    },
    Op {
        name: "hard-reboot",
        before: &[],
        what: r#"{"reboot":{"type":"HARD"}}"#,
        from: "ACTIVE",
        to: "ACTIVE",
        met: |r| r["guest"]["hard_reboots"] == 1,
    },
    Op {
        name: "rebuild",
        before: &[],
        what: r#"{"rebuild":{"imageRef":"IMAGE"}}"#,
        from: "ACTIVE",
        to: "ACTIVE",
        met: |r| r["guest"]["rebuilds"] == 1,
    },
    Op {
        name: "resize",
        before: &[],
        what: RESIZE.0,
        from: "ACTIVE",
        to: "VERIFY_RESIZE",
        met: |r| r["guest"]["memory_mib"] == 512,
    },
    Op {
        name: "confirm",
        before: &[RESIZE],
        what: r#"{"confirmResize":null}"#,
        from: "VERIFY_RESIZE",
        to: "ACTIVE",
        met: |r| r["guest"]["memory_mib"] == 512,
    },
    Op {
        name: "revert",
        before: &[RESIZE],
        what: r#"{"revertResize":null}"#,
        from: "VERIFY_RESIZE",
        to: "ACTIVE",
        met: |r| r["guest"]["memory_mib"] == 128,
    },
    Op {
        name: "create-image",
        before: &[],
        what: r#"{"createImage":{"name":"image"}}"#,
        from: "ACTIVE",
        to: "ACTIVE",
        met: |r| r["images"] == json!(["active"]),
    },
    Op {
        name: "attach-interface",
        before: &[],
        what: "attach",
        from: "ACTIVE",
        to: "ACTIVE",
        met: |r| cards(r) == 2,
    },
    Op {
        name: "detach-interface",
        before: &[],
        what: "detach",
        from: "ACTIVE",
        to: "ACTIVE",
        met: |r| cards(r) == 0,
    },
];

fn cards(record: &Value) -> usize {
    record["guest"]["nics"].as_array().map_or(usize::MAX, Vec::len)
}
