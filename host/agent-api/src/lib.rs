//! The protocol between the control plane and the agent of one host: types, version and bounds, no IO.
//!
//! Control writes **desired** state; the agent closes the gap and reports what it **observed**. There
//! are no commands: "reboot" is a counter that went up, "rebuild" is another counter, "delete" is a
//! tombstone with a higher generation. Absence is never delete (architecture 2).
//!
//! Messages carry ids and values, never paths, argument vectors or rule text, so that a captured
//! control plane cannot make an agent touch anything but its own guests.
//!
//! Wire form: HTTP/2 over a Unix socket on one machine and over mutual TLS between machines; newline-delimited JSON,
//! one [`ToAgent`] per line on the watch stream, one [`Report`] per `POST`. Unknown fields are ignored and new ones have
//! defaults, so that release N talks to N-1.

pub mod documents;
pub mod fence;
pub mod guest;
pub mod limits;
pub mod membership;
pub mod moving;
pub mod net;
pub mod password;
pub mod wire;

pub use fence::*;
pub use guest::*;
pub use membership::*;
pub use moving::*;
pub use net::*;
pub use password::*;
pub use wire::*;
