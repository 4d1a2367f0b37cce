//! `haneul`: main and wiring. What the sub-commands do is in edge/cli; here the control plane and the agent
//! are put together from their crates.

mod admin;
mod agent;
mod audit;
mod changes;
mod doors;
mod front;
mod hosts;
mod moves;
mod policy_file;
mod serve;

use haneul_cli::Command;
use haneul_cli::args::StoreCommand;
use haneul_core::config::Config;
use haneul_core::{Error, Result, release};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = haneul_cli::args::parse();
    match &cli.command {
        Command::Serve { roles } => process(&cli, "serve", |config| serve::main(config, roles)),
        Command::Agent => process(&cli, "agent", agent::main),
        // They take the place of serve, and so its lock.
        Command::Restore { dir } => process(&cli, "serve", |config| moves::restore(config, dir)),
        Command::Store(store) => match &store.command {
            StoreCommand::Move { from, to } => process(&cli, "serve", |config| moves::store_move(config, from, to)),
        },
        _ => haneul_cli::execute(&cli, &agent::ThisHost),
    }
}

/// Runs one of the two processes on a runtime of its own, with logs and, in a lab, fault points.
fn process<F>(cli: &haneul_cli::Cli, name: &str, body: impl FnOnce(Config) -> F) -> ExitCode
where
    F: Future<Output = Result<()>>,
{
    let run = || -> Result<()> {
        let config = cli.globals.load()?;
        logs(&config);
        std::fs::create_dir_all(config.run_dir())?;
        let _only = haneul_cli::proc::claim(&config, name)?;
        if config.lab {
            haneul_core::fault::enable(config.run_dir().join("fault"));
            haneul_core::clock::follow(config.run_dir().join("clock"));
        }
        tracing::info!(process = name, release = release::name(), lab = config.lab, "starting");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(32)
            .enable_all()
            .build()?;
        let result = runtime.block_on(body(config));
        // Whoever still sleeps in a blocking thread is not waited for.
        runtime.shutdown_timeout(std::time::Duration::from_secs(2));
        result
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => haneul_cli::complain(&e),
    }
}

fn logs(config: &Config) {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log.filter)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    if config.log.format == "json" {
        lines.json().init();
    } else {
        lines.init();
    }
}

/// Resolves at SIGTERM or SIGINT.
async fn stop_signal() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok::<(), Error>(())
}
