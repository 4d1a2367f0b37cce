//! What the listeners of the control plane show of themselves: certificates of the cloud's own authority, or the user's.

use haneul_core::config::Config;
use haneul_core::{Error, Result};
use haneul_fleet::Fleet;
use haneul_tls::{Authority, Certificate, Identity, Listener};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;

/// Days that our own certificates are good. They are made anew at every start and once a day.
const DAYS: u32 = 90;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How soon a user's new certificate is seen.
const LOOK: Duration = Duration::from_secs(2);

/// Certificates of the listeners; `None` where clear text is spoken, on loopback.
pub struct Doors {
    api: Option<Arc<Certificate>>,
    hosts: Option<(Arc<Certificate>, Arc<Authority>)>,
}

impl Doors {
    /// Makes or reads what the configuration asks for, and keeps it fresh until the process ends.
    pub async fn open(config: &Config, fleet: &Fleet) -> Result<Doors> {
        let mut doors = Doors { api: None, hosts: None };
        if !config.tls_on() && config.fleet.listen.is_none() {
            return Ok(doors);
        }
        let authority = fleet.authority().await?;
        let names = names(config);
        let own = Certificate::new(&authority.server(&names, DAYS)?)?;
        haneul_cli::state::replace(&config.authority_file(), authority.pem().as_bytes(), 0o644)?;
        if config.fleet.listen.is_some() {
            doors.hosts = Some((own.clone(), authority.clone()));
        }
        if let (Some(certificate), Some(key)) = (&config.tls.certificate, &config.tls.key) {
            let files = Files::read(certificate, key)?;
            let shown = Certificate::new(&files.identity)?;
            doors.api = Some(shown.clone());
            tokio::spawn(files.follow(shown));
        } else if config.tls_on() {
            doors.api = Some(own.clone());
        }
        tokio::spawn(renew(own, authority, names));
        Ok(doors)
    }

    /// A listener of the API's kind.
    pub fn api(&self, tcp: TcpListener) -> Result<Listener> {
        let tls = self.api.clone().map(haneul_tls::server).transpose()?;
        Listener::new(tcp, tls)
    }

    /// A listener for hosts.
    pub fn hosts(&self, tcp: TcpListener) -> Result<Listener> {
        let (certificate, authority) = self
            .hosts
            .as_ref()
            .ok_or_else(|| Error::internal("no listener for hosts was asked for"))?;
        let tls = haneul_tls::optional_hosts(certificate.clone(), authority.pem())?;
        Listener::hosts(tcp, tls)
    }
}

async fn renew(shown: Arc<Certificate>, authority: Arc<Authority>, names: Vec<String>) {
    loop {
        tokio::time::sleep(DAY).await;
        let new = authority.server(&names, DAYS).and_then(|new| shown.set(&new));
        if let Err(e) = new {
            tracing::error!(error = %e, "the listeners' certificate could not be made anew");
        }
    }
}

/// Everything that clients may call this machine.
fn names(config: &Config) -> Vec<String> {
    let mut names = BTreeSet::from(["localhost".into(), "127.0.0.1".into(), "::1".into()]);
    let listens = [
        Some(config.api.listen),
        Some(config.api.metrics_listen),
        config.fleet.listen,
    ];
    let addresses = listens.into_iter().flatten().map(|a: SocketAddr| a.ip());
    names.extend(addresses.filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string()));
    let urls = [Some(config.public_url()), config.fleet_url()];
    names.extend(urls.into_iter().flatten().filter_map(|u| host_of(&u)));
    if let Ok(name) = nix::unistd::gethostname() {
        names.insert(name.to_string_lossy().into_owned());
    }
    // What no certificate can hold is no name that anybody calls us by.
    names.retain(|n: &String| n.is_ascii());
    names.extend(config.tls.names.iter().cloned());
    names.into_iter().collect()
}

fn host_of(url: &str) -> Option<String> {
    let uri: http::Uri = url.parse().ok()?;
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
    let unspecified = host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
    (!unspecified).then_some(host)
}

/// A user's certificate.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    seen: [Option<SystemTime>; 2],
    identity: Identity,
}

impl Files {
    fn read(certificate: &Path, key: &Path) -> Result<Files> {
        let read = |name: &str, path: &Path| {
            std::fs::read_to_string(path).map_err(|e| Error::field(name, format!("{name} = {}: {e}", path.display())))
        };
        Ok(Files {
            seen: [changed(certificate), changed(key)],
            identity: Identity {
                certificate: read("tls.certificate", certificate)?,
                key: read("tls.key", key)?,
            },
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        })
    }

    /// Shows what the files hold, as they change. What cannot be used changes nothing.
    async fn follow(mut self, shown: Arc<Certificate>) {
        loop {
            tokio::time::sleep(LOOK).await;
            if self.seen == [changed(&self.certificate), changed(&self.key)] {
                continue;
            }
            let new = Files::read(&self.certificate, &self.key);
            match new.and_then(|new| shown.set(&new.identity).map(|()| new)) {
                Ok(new) => {
                    tracing::info!("the user's certificate was read again");
                    self = new;
                }
                Err(e) => {
                    tracing::error!(error = %e, "the user's new certificate cannot be used; the one before stays")
                }
            }
        }
    }
}

fn changed(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}
