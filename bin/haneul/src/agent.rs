//! `haneul agent`, and what the commands need from this host.

use haneul_core::config::Config;
use haneul_core::{Error, Result};

/// Runs the agent until SIGTERM. Guests are not touched by its end.
pub async fn main(config: Config) -> Result<()> {
    if !nix::unistd::geteuid().is_root() && config.agent.hypervisor != "fake" {
        return Err(Error::bad_request(
            "the agent starts guests and networks, which needs root: start it as root, or through `haneul run`",
        ));
    }
    haneul_agent::run(config, async {
        if let Err(e) = crate::stop_signal().await {
            tracing::error!(error = %e, "signals cannot be heard");
        }
    })
    .await
}

/// The host's own code, for edge/cli, which does not know it.
pub struct ThisHost;

fn block_on<T>(f: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(f)
}

impl haneul_cli::Host for ThisHost {
    fn accelerator(&self, config: &Config) -> haneul_cli::Accelerator {
        haneul_agent::accelerator(config)
            .map(|(chosen, kvm, why)| haneul_cli::Accelerator { chosen, kvm, why })
            .unwrap_or_default()
    }
    fn join(&self, config: &Config, url: &str, token: &str) -> Result<String> {
        if config.lab {
            haneul_core::clock::follow(config.run_dir().join("clock"));
        }
        block_on(haneul_agent::join(config, url, token)).map(|cloud| cloud.to_string())
    }
    fn stop_guests(&self, config: &Config, gently: bool) -> Result<usize> {
        block_on(haneul_agent::stop_guests(config, gently))
    }
    fn lease(&self, config: &Config, wake: Box<dyn Fn() + Send>) -> Result<Option<haneul_lease::Keeper>> {
        haneul_agent::keep(config, wake)
    }
    fn lease_left(&self, config: &Config) -> std::time::Duration {
        haneul_agent::lease_left(config)
    }
    fn end_bound(&self, config: &Config) -> Result<usize> {
        haneul_agent::end_bound(config)
    }
    fn purge(&self, config: &Config) -> Result<()> {
        block_on(haneul_agent::purge(config))
    }
}
