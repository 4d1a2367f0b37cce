//! The real driver on this kernel: guests are namespaces, the user's host is one too.
//!
//! Needs root, nft and ip; says so and passes where they are missing (CI counts these).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod dhcp;
mod failures;
mod groups;
mod hosts;
mod lab;
mod life;
mod routers;
mod speed;
