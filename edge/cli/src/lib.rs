//! The front door: command line of the binary, the supervisor, `up` and `down`, `doctor`, operator commands,
//! and the page that a browser sees at `/`.
//!
//! Invariants: knows nothing of the services' insides and opens no database: it talks to `serve` over its
//! admin socket and, as any client would, over the HTTP API. What only the host's own code can do comes in
//! through [`Host`]. Nothing here needs an async runtime but the HTTP client, so that `haneul run` stays tiny.

pub mod accounts;
pub mod admin;
pub mod args;
pub mod backup;
pub mod balance;
pub mod client;
pub mod doctor;
pub mod down;
pub mod formats;
pub mod guard;
pub mod hosts;
pub mod logs;
pub mod page;
pub mod proc;
pub mod state;
pub mod supervisor;
pub mod systemd;
pub mod ui;
pub mod up;

pub use args::{Cli, Command, Globals};

use haneul_core::Kind;
use haneul_core::config::Config;
pub use haneul_core::{Error, Result};
use serde::Serialize;
use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// The account that the control plane runs as.
pub const ACCOUNT: &str = "haneul";

/// What the binary brings along from the host's crates, which this crate does not know.
pub trait Host {
    /// How guests would run on this host, and why.
    fn accelerator(&self, config: &Config) -> Accelerator;
    /// Makes this machine a host of another machine's cloud and answers the cloud's id.
    fn join(&self, config: &Config, url: &str, token: &str) -> Result<String>;
    /// Stops every guest that has a record (asks by ACPI first when `gently`) and says how many they were.
    /// The agent does not run then. The guests stay desired: the next start of the agent brings them back.
    fn stop_guests(&self, config: &Config, gently: bool) -> Result<usize>;
    /// Begins to keep this host's lease, and calls `wake` when it changes; `None` where hosts share no disks.
    fn lease(&self, config: &Config, wake: Box<dyn Fn() + Send>) -> Result<Option<haneul_lease::Keeper>>;
    /// What is left of the lease.
    fn lease_left(&self, config: &Config) -> Duration;
    /// Ends the guests that end with the lease, and answers how many had a process.
    fn end_bound(&self, config: &Config) -> Result<usize>;
    /// Takes away every trace of guests and data plane on this host: processes, cgroups, namespaces, devices, rules.
    fn purge(&self, config: &Config) -> Result<()>;
}

/// See [`Host::accelerator`].
#[derive(Clone, Debug, Default, Serialize)]
pub struct Accelerator {
    /// `kvm`, `tcg` or `fake`.
    pub chosen: String,
    /// Whether KVM works here.
    pub kvm: bool,
    /// The reason, for a person.
    pub why: String,
}

/// Runs every command but `serve` and `agent`, which the binary wires itself.
pub fn execute(cli: &Cli, host: &dyn Host) -> ExitCode {
    match try_execute(cli, host) {
        Ok(code) => code,
        Err(e) => complain(&e),
    }
}

/// Prints an error and gives the exit code that goes with it: 2 when the command line or the configuration is
/// wrong, 1 otherwise.
pub fn complain(e: &Error) -> ExitCode {
    ui::note(format_args!("haneul: {e}"));
    ExitCode::from(if e.kind() == Kind::BadRequest { 2 } else { 1 })
}

fn try_execute(cli: &Cli, host: &dyn Host) -> Result<ExitCode> {
    let good = |()| ExitCode::SUCCESS;
    match &cli.command {
        Command::Version => {
            ui::line(format_args!("haneul {}", haneul_core::release::name()));
            return Ok(ExitCode::SUCCESS);
        }
        Command::GuestImage { out } => return up::image::command(out).map(good),
        Command::Formats { json } => {
            formats::show(*json);
            return Ok(ExitCode::SUCCESS);
        }
        Command::Convert(options) => return formats::convert(options).map(good),
        _ => {}
    }
    let config = cli.globals.load()?;
    match &cli.command {
        Command::Run(options) => supervisor::run(&config, &cli.globals, options, host),
        Command::Lease => supervisor::lease(&config, &cli.globals, host),
        Command::LeaseEnd => {
            guard::lease_end(&config, host);
            Ok(ExitCode::SUCCESS)
        }
        Command::Prepare => supervisor::prepare(&config).map(|_| ExitCode::SUCCESS),
        Command::Up(options) => up::up(&config, &cli.globals, options, host).map(good),
        Command::Down(options) => down::down(&config, options, host).map(good),
        Command::Status { json } => admin::status(&config, *json),
        Command::Logs(options) => logs::logs(&config, options).map(good),
        Command::Doctor { json } => doctor::doctor(&config, host, *json),
        Command::Audit { json } => admin::audit(&config, *json),
        Command::Jobs(command) => admin::jobs(&config, command).map(good),
        Command::Changes(options) => admin::changes(&config, options).map(good),
        Command::Account(options) => accounts::account(&config, &options.command).map(good),
        Command::Host(options) => hosts::host(&config, options).map(good),
        Command::Balance(options) => balance::balance(&config, options).map(good),
        Command::Ha(options) => hosts::ha(&config, options).map(good),
        Command::Join(options) => hosts::join(&config, &cli.globals, options, host).map(good),
        Command::Backup { dir, without_images } => backup::backup(&config, dir, *without_images).map(good),
        Command::Routes => admin::routes(&config).map(good),
        Command::Serve { .. }
        | Command::Agent
        | Command::Restore { .. }
        | Command::Store(_)
        | Command::Version
        | Command::GuestImage { .. }
        | Command::Formats { .. }
        | Command::Convert(_) => Err(Error::internal("this command belongs to the binary")),
    }
}

/// An error of a command, for a person: says what failed and, if we know, what to do.
pub fn failed(text: impl Into<String>) -> Error {
    Error::new(Kind::Conflict, text)
}

/// Names the file in an IO error.
pub(crate) trait Trouble<T> {
    /// `PATH: what the system says`
    fn at(self, path: &Path) -> Result<T>;
    /// `doing what: what the system says`
    fn when(self, doing: &str) -> Result<T>;
}

impl<T, E: Display> Trouble<T> for Result<T, E> {
    fn at(self, path: &Path) -> Result<T> {
        self.map_err(|e| failed(format!("{}: {e}", path.display())))
    }
    fn when(self, doing: &str) -> Result<T> {
        self.map_err(|e| failed(format!("{doing}: {e}")))
    }
}
