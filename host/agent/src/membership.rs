//! The way to control: the socket of this machine, or, once it has joined a cloud, TLS with the certificate of its
//! membership.
//!
//! Invariant: the file of the membership is written whole or not at all; the private key is in it and nowhere else.

use crate::{host_id, host_name, journal, link};
use data_encoding::BASE64;
use haneul_agent_api::{Join, JoinToken, Joined, PROTOCOL, Renew, Renewed, path};
use haneul_core::config::Config;
use haneul_core::{Error, Result, clock, release};
use haneul_tls::{Identity, KeyPair, Trust};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use uuid::Uuid;

/// Where control listens for hosts when its URL names no port.
const PORT: u16 = 8776;
/// How long one process of control has to answer before the next one is dialled.
const DIAL: Duration = Duration::from_secs(3);
/// Longest time that a machine waits for control when it joins.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to control.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// What a machine keeps of its membership.
#[derive(Clone, Serialize, Deserialize)]
struct Membership {
    /// `HOST:PORT` of control.
    control: String,
    /// The same of all its processes, as control last said.
    #[serde(default)]
    controls: Vec<String>,
    cloud_id: Uuid,
    /// PEM of the cloud's authority.
    authority: String,
    certificate: String,
    key: String,
    renew_at: i64,
    expires_at: i64,
}

impl Membership {
    /// Where control may be, the one that this machine joined by last: it may be no more.
    fn addresses(&self) -> Vec<String> {
        let mut all = self.controls.clone();
        all.retain(|c| *c != self.control);
        all.push(self.control.clone());
        all
    }

    fn identity(&self) -> Identity {
        Identity {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
        }
    }
}

/// `HOST:PORT` of control's processes, for a machine that has joined a cloud.
pub(crate) fn controls_of(file: &Path) -> Option<Vec<String>> {
    let m: Membership = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    Some(m.addresses())
}

/// How this agent reaches control.
pub(crate) struct Control {
    socket: PathBuf,
    file: PathBuf,
    membership: Mutex<Option<Membership>>,
    /// The address that the link is to, or was: the next one begins behind it.
    last: Mutex<Option<String>>,
}

impl Control {
    pub fn open(config: &Config) -> Result<Self> {
        let file = config.membership_file();
        Ok(Self {
            socket: config.agent_socket(),
            membership: Mutex::new(kept(&file)?),
            file,
            last: Mutex::default(),
        })
    }

    /// As the file has it, which `haneul join` may have written anew; what was known before, when that cannot be read.
    fn membership(&self) -> Option<Membership> {
        let mut known = self.membership.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(Some(now)) = kept(&self.file) {
            *known = Some(now);
        }
        known.clone()
    }

    /// Why the link may be refused, and what to do then.
    pub fn expired(&self) -> Option<String> {
        let end = self.membership()?.expires_at;
        (end <= clock::now()).then(|| {
            format!(
                "this host's certificate was good until {}: `haneul host token --for` this host on the control plane prints a token by which `haneul join` here gets another",
                clock::iso(end)
            )
        })
    }

    /// Opens the link: to the next process of control, where there are several.
    pub async fn dial(&self) -> Result<Box<dyn Io>> {
        let Some(m) = self.membership() else {
            let local = UnixStream::connect(&self.socket).await;
            return Ok(Box::new(local.map_err(|e| {
                Error::unavailable(format!("the control plane of this machine does not answer: {e}"))
            })?));
        };
        let trust = Trust::Member {
            authority: &m.authority,
            identity: &m.identity(),
        };
        let addresses = m.addresses();
        let before = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let before = addresses.iter().position(|a| Some(a) == before.as_ref());
        let (head, tail) = addresses.split_at(before.map_or(0, |at| at + 1));
        let mut refused = Error::unavailable("control has no address");
        for address in tail.iter().chain(head) {
            match tokio::time::timeout(DIAL, haneul_tls::connect(address, &trust)).await {
                Ok(Ok(link)) => {
                    *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(address.clone());
                    return Ok(Box::new(link));
                }
                Ok(Err(e)) => refused = e,
                Err(_) => refused = Error::unavailable(format!("{address} did not answer within {} s", DIAL.as_secs())),
            }
        }
        Err(refused)
    }

    /// Another connection to the process that the link is to.
    pub async fn dial_again(&self) -> Result<Box<dyn Io>> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match (self.membership(), last) {
            (Some(m), Some(address)) => {
                let trust = Trust::Member {
                    authority: &m.authority,
                    identity: &m.identity(),
                };
                Ok(Box::new(haneul_tls::connect(&address, &trust).await?))
            }
            _ => self.dial().await,
        }
    }

    /// Control says where its processes are.
    pub fn heard(&self, controls: &[String]) -> Result<()> {
        let Some(old) = self
            .membership()
            .filter(|m| !controls.is_empty() && m.controls != controls)
        else {
            return Ok(());
        };
        let next = Membership {
            controls: controls.to_vec(),
            ..old
        };
        write(&self.file, &next)
    }

    /// How long this certificate is good without a successor; `None` where there is none.
    fn due(&self) -> Option<Duration> {
        let wait = self.membership()?.renew_at - clock::now();
        Some(Duration::from_micros(wait.max(0) as u64))
    }

    /// Asks for the certificate's successor over the open link whenever it is due, for ever. The link goes on with the
    /// old one; the next is dialled with the new.
    pub async fn keep_certified(&self, sender: &mut link::Sender) {
        // Sleeps are short, for the wall clock may be set, and a machine may sleep.
        const LONGEST: Duration = Duration::from_secs(600);
        loop {
            let pause = match self.due() {
                None => return std::future::pending().await,
                Some(Duration::ZERO) => {
                    if let Err(e) = self.renew(sender).await {
                        tracing::warn!(error = %e, "this host has no next certificate yet");
                    }
                    // Also when it has: by a clock that is far ahead, every certificate is due at once.
                    LONGEST / 10
                }
                Some(wait) => wait.min(LONGEST),
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn renew(&self, sender: &mut link::Sender) -> Result<()> {
        let Some(old) = self.membership() else { return Ok(()) };
        let key = KeyPair::generate()?;
        let ask = Renew {
            public_key: BASE64.encode(&key.public()),
        };
        let new: Renewed = link::call(sender, path::RENEW, &ask).await?;
        let next = Membership {
            certificate: new.certificate,
            key: key.pem(),
            renew_at: new.renew_at,
            expires_at: new.expires_at,
            ..old
        };
        write(&self.file, &next)?;
        tracing::info!(
            good_until = clock::iso(next.expires_at),
            "this host has its next certificate"
        );
        Ok(())
    }
}

/// What a machine has kept; `None` when it is no member.
fn kept(file: &Path) -> Result<Option<Membership>> {
    match std::fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| {
            Error::internal(format!(
                "{} is damaged ({e}): `haneul host token --for` this host on the control plane prints a token by which `haneul join` here makes it anew",
                file.display()
            ))
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn write(file: &Path, membership: &Membership) -> Result<()> {
    journal::write_durably(file, &serde_json::to_vec_pretty(membership)?)
}

/// `HOST:PORT` of a URL like `https://HOST:PORT`; the scheme may be left out.
fn address(url: &str) -> Result<String> {
    let wrong = || {
        Error::bad_request(format!(
            "{url}: write the URL that `haneul host token` prints, like https://192.0.2.1:{PORT}"
        ))
    };
    let rest = url.strip_prefix("https://").unwrap_or(url).trim_end_matches('/');
    if rest.is_empty() || rest.contains(['/', '@', '?', ' ']) {
        return Err(wrong());
    }
    let after_host = rest.rsplit_once(']').map_or(rest, |(_, port)| port);
    match after_host.rsplit_once(':') {
        None => Ok(format!("{rest}:{PORT}")),
        Some((_, port)) => port.parse::<u16>().map(|_| rest.to_owned()).map_err(|_| wrong()),
    }
}

/// Makes this machine a host of the cloud at `url`; answers the cloud's id. Nothing is started. A host that control does not
/// take for one any more (its certificate has expired, or the control plane is one of before it joined) becomes it again,
/// with all that it has.
///
/// # Errors
/// Conflict when the machine is a host of another cloud, or has a control plane of its own; what control says when it refuses.
pub async fn join(config: &Config, url: &str, token: &str) -> Result<Uuid> {
    let control = address(url)?;
    let parsed = JoinToken::parse(token).ok_or_else(|| {
        Error::bad_request(
            "This is no token of a Haneul cloud, or a part of it is missing. `haneul host token` on the control plane prints one.",
        )
    })?;
    // One that is damaged says nothing. Control knows whether this machine's id is a host's.
    let before = kept(&config.membership_file()).unwrap_or_default();
    if let Some(m) = &before
        && haneul_tls::fingerprint_of(&m.authority).as_ref() != Some(&parsed.fingerprint)
    {
        return Err(Error::conflict(format!(
            "This machine is a host of cloud {} already, whose control plane is {}, and this token is another cloud's. To leave it: `haneul host remove` there, then `haneul down --purge` here.",
            m.cloud_id, m.control
        )));
    }
    if config.control_dir().join("admin-password").exists() {
        return Err(Error::conflict(format!(
            "This machine has a control plane of its own ({}), whose guests another cloud would not know. `haneul down --purge` removes it with everything in it.",
            config.control_dir().display()
        )));
    }
    let dir = config.agent_dir();
    haneul_core::durable::make_dir(&dir, 0o700)?;
    let key_file = dir.join("joining.key");
    let key = joining_key(&key_file)?;
    let ask = Join {
        token: token.trim().to_owned(),
        protocol: PROTOCOL + release::ahead(),
        release: release::name().into(),
        host_id: host_id(&dir)?,
        host_name: host_name(config),
        public_key: BASE64.encode(&key.public()),
        clock: clock::now(),
        again: dir.join(crate::JOURNAL).exists(),
    };
    let go = async {
        let stream = haneul_tls::connect(&control, &Trust::Fingerprint(&parsed.fingerprint)).await?;
        let (mut sender, connection) = link::handshake(Box::new(stream)).await?;
        let answer = link::call::<Joined>(&mut sender, path::JOIN, &ask).await;
        connection.abort();
        answer
    };
    let late = |_| Error::unavailable(format!("{control} did not answer within {} s.", PATIENCE.as_secs()));
    let joined = tokio::time::timeout(PATIENCE, go).await.map_err(late).flatten();
    let joined = joined.map_err(|e| match &before {
        None => e,
        Some(m) => Error::conflict(format!(
            "This machine is a host of cloud {} already, and got no other certificate: {}",
            m.cloud_id,
            e.public()
        )),
    })?;
    let membership = Membership {
        control,
        controls: vec![],
        cloud_id: joined.cloud_id,
        authority: joined.authority,
        certificate: joined.renewed.certificate,
        key: key.pem(),
        renew_at: joined.renewed.renew_at,
        expires_at: joined.renewed.expires_at,
    };
    write(&config.membership_file(), &membership)?;
    std::fs::remove_file(&key_file)?;
    Ok(joined.cloud_id)
}

/// The key that an attempt before this one made, if there was one: control takes a token twice from the same machine
/// with the same key, so that no answer that was lost makes a token worthless.
fn joining_key(file: &Path) -> Result<KeyPair> {
    match std::fs::read_to_string(file) {
        Ok(pem) => KeyPair::from_pem(&pem),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let new = KeyPair::generate()?;
            journal::write_durably(file, new.pem().as_bytes())?;
            Ok(new)
        }
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn urls_become_addresses() {
        for (url, is) in [
            ("https://10.0.0.1", "10.0.0.1:8776"),
            ("https://10.0.0.1:9000/", "10.0.0.1:9000"),
            ("cloud.example", "cloud.example:8776"),
            ("https://[fd00::1]", "[fd00::1]:8776"),
            ("[fd00::1]:9000", "[fd00::1]:9000"),
        ] {
            assert_eq!(address(url).unwrap(), is);
        }
        for url in ["", "https://", "https://a/b", "https://a:port", "https://user@a"] {
            assert!(address(url).is_err(), "{url}");
        }
    }
}
