//! The QMP client against a fake server, and the driver against real QEMU (skipped, with the reason
//! printed, where that is not installed or we are not root). No test waits for an operating system: guests
//! boot a sector of our own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod copy;
mod moving;
mod nics;
mod qmp;
mod real;
mod support;
mod suspend;
