//! Acceptance tests: the built binary with separate processes. Lane `fake_*` runs on the fake drivers, lane
//! `real_*` boots guests and needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod bad_input;
mod chaos;
mod consoles;
mod crash_ops;
mod fake_accounts;
mod fake_backup;
mod fake_bad_input;
mod fake_balance;
mod fake_chaos;
mod fake_crash;
mod fake_create;
mod fake_evacuate;
mod fake_hostile_hosts;
mod fake_hosts;
mod fake_import;
mod fake_leases;
mod fake_lost_hosts;
mod fake_memberships;
mod fake_moving;
mod fake_policy;
mod fake_processes;
mod fake_refusals;
mod fake_routes;
mod fake_scheduling;
mod fake_sweep;
mod fake_tls;
mod fake_upgrade;
mod power_cut;
mod real;
mod real_chaos;
mod real_crash;
mod real_hosts;
mod real_lab;
mod real_three;
mod real_three_hosts;
mod rfb;
mod setup;
