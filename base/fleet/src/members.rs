//! Who may speak as a host from another machine: the cloud's authority, one-time tokens, memberships.
//!
//! A membership is what a certificate is worth: removing a host ends it, and the host's certificates with it, whatever
//! they say about their own life. A machine that joins again is another member.

use crate::{Fleet, Host, peers};
use data_encoding::{BASE64, HEXLOWER};
use haneul_agent_api::{Join, JoinToken, Joined, Renew, Renewed};
use haneul_core::clock::{self, Micros, span};
use haneul_core::{Error, Result, id, release};
use haneul_store::{Actor, Tx};
use haneul_tls::{Authority, HostName, Identity};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use subtle::ConstantTimeEq;
use uuid::Uuid;

const DAY: Micros = 86_400_000_000;
const SECOND: Micros = 1_000_000;
/// Days that a host's certificate is good; a new one is asked for when a third of them is left.
pub const CERTIFICATE_DAYS: u32 = 30;
/// Longest life of a token, minutes.
pub const MAX_TOKEN_MINUTES: u32 = 7 * 24 * 60;
/// What the clocks of two machines may differ by, so that certificates and the times of changes mean the same on both.
const MAX_SKEW: Micros = 60 * SECOND;

fn hash(secret: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(secret))
}

impl Fleet {
    /// The cloud's authority, made when somebody asks first.
    pub async fn authority(&self) -> Result<Arc<Authority>> {
        if let Some(a) = self.authority.get() {
            return Ok(a.clone());
        }
        let new = Authority::generate(self.cloud_id)?;
        let stored = self
            .db
            .write(&Actor::system("authority"), async move |tx| {
                tx.exec(
                    "INSERT INTO fleet_authority(id, certificate, key) VALUES('cloud', $1, $2) ON CONFLICT(id) DO NOTHING",
                    &[new.certificate.as_str().into(), new.key.as_str().into()],
                )
                .await?;
                let row = tx
                    .row("SELECT certificate, key FROM fleet_authority WHERE id = 'cloud'", &[])
                    .await?
                    .ok_or_else(|| Error::internal("the cloud has no authority"))?;
                Ok(Identity { certificate: row.str(0)?, key: row.str(1)? })
            })
            .await?;
        let authority = Arc::new(Authority::open(self.cloud_id, &stored)?);
        Ok(self.authority.get_or_init(|| authority).clone())
    }

    /// A one-time token, good for so many minutes. One that is for a host lets that host, and no other, take up its
    /// membership again when it has lost its certificate.
    pub async fn new_token(&self, minutes: u32, host: Option<&str>) -> Result<(JoinToken, Micros)> {
        if !(1..=MAX_TOKEN_MINUTES).contains(&minutes) {
            return Err(Error::field(
                "minutes",
                format!("{minutes} minutes: a token is good for 1 to {MAX_TOKEN_MINUTES} minutes (a week)"),
            ));
        }
        let token = JoinToken {
            id: id::secret(8),
            secret: id::secret(32),
            fingerprint: self.authority().await?.fingerprint(),
        };
        let (key, hash) = (token.id.clone(), hash(&token.secret));
        let expires_at = clock::now() + Micros::from(minutes) * 60 * SECOND;
        let host = host.map(str::to_owned);
        self.db
            .write(&Actor::system("token"), async move |tx| {
                // What nobody can use any more is not kept for ever.
                tx.exec("DELETE FROM fleet_token WHERE expires_at < $1", &[(clock::now() - 30 * DAY).into()])
                    .await?;
                tx.exec(
                    "INSERT INTO fleet_token(id, hash, host_id, expires_at, used_at, used_by, used_key) VALUES($1,$2,$3,$4,0,'','')",
                    &[key.as_str().into(), hash.as_str().into(), host.clone().unwrap_or_default().into(), expires_at.into()],
                )
                .await?;
                Ok(())
            })
            .await?;
        Ok((token, expires_at))
    }

    /// Takes a machine in. The same machine may ask again with the same token and key: its first answer may have been
    /// lost.
    ///
    /// # Errors
    /// Bad request for a release or a clock that is too far from ours; forbidden for a token that was not made here, was
    /// used or is too old; conflict for a host that is a member already.
    pub(crate) async fn join(self: &Arc<Self>, join: Join) -> Result<Joined> {
        crate::listener::check_protocol(join.protocol)?;
        haneul_agent_api::limits::host_name(&join.host_name)?;
        // Whatever it says: there are no times further apart than a number can tell.
        let skew = join.clock.saturating_sub(clock::now());
        let apart = skew.saturating_abs();
        if apart > MAX_SKEW {
            let (by, way) = (span(apart), if skew > 0 { "ahead of" } else { "behind" });
            return Err(Error::bad_request(format!(
                "This machine's clock is {by} {way} the control plane's, and {} are allowed. Set it (for instance by NTP) and join again.",
                span(MAX_SKEW)
            )));
        }
        let authority = self.authority().await?;
        let pem = authority.pem().to_owned();
        let fleet = self.clone();
        let actor = Actor {
            user: format!("agent:{}", join.host_id),
            ..Actor::system("")
        };
        let renewed = self
            .db
            .write(&actor, async move |tx| {
                let membership = fleet.admit(tx, &join).await?;
                let name = HostName {
                    host: join.host_id,
                    membership,
                };
                certify(&authority, name, &join.public_key)
            })
            .await?;
        Ok(Joined {
            cloud_id: self.cloud_id,
            release: release::name().into(),
            authority: pem,
            renewed,
        })
    }

    async fn admit(&self, tx: &mut Tx, join: &Join) -> Result<u64> {
        let refused = || {
            Error::forbidden(
                "This token was not made by this cloud. `haneul host token` on the control plane prints one.",
            )
        };
        let token = JoinToken::parse(&join.token).ok_or_else(refused)?;
        let row = tx
            .row(
                "SELECT hash, host_id, expires_at, used_at, used_by, used_key FROM fleet_token WHERE id = $1",
                &[token.id.as_str().into()],
            )
            .await?
            .ok_or_else(refused)?;
        if !bool::from(row.str(0)?.as_bytes().ct_eq(hash(&token.secret).as_bytes())) {
            return Err(refused());
        }
        let (host, now) = (join.host_id.to_string(), clock::now());
        let (meant_for, expires_at) = (row.str(1)?, row.i64(2)?);
        let (used_at, used_by, used_key) = (row.i64(3)?, row.str(4)?, row.str(5)?);
        let member = self.membership(tx, &host).await?;
        if used_at > 0 {
            return match member {
                Some(m) if used_by == host && used_key == join.public_key => Ok(m),
                _ => Err(Error::forbidden(format!(
                    "This token was used {} ago by host {used_by}; a token is for one machine. `haneul host token` prints another.",
                    span(now - used_at)
                ))),
            };
        }
        if now > expires_at {
            return Err(Error::forbidden(format!(
                "This token expired {} ago. `haneul host token` prints another.",
                span(now - expires_at)
            )));
        }
        if !meant_for.is_empty() && meant_for != host {
            return Err(Error::forbidden(format!(
                "This token is for host {meant_for}, and this machine is host {host}."
            )));
        }
        // Also the host of the control plane, which needs no certificate.
        let taken = member.is_some() || tx.find::<Host>(&host).await?.is_some();
        if taken && meant_for.is_empty() {
            return Err(Error::conflict(format!(
                "Host {host} is in this cloud already. `haneul host remove {host}` ends its membership; `haneul host token --for {host}` lets it come back with a new certificate."
            )));
        }
        // After a restore nobody knows whether it was removed, or joined behind the backup: `haneul audit` names what it has.
        if !taken && join.again && self.epoch == 1 {
            return Err(Error::conflict(format!(
                "Host {host} was removed from this cloud, and still has routers and networks of then, which others may have by now. `haneul down --purge` on that machine, and it may join as a new one."
            )));
        }
        let membership = tx.next_number("fleet.membership").await?;
        tx.exec(
            "INSERT INTO fleet_member(host_id, membership, joined_at) VALUES($1,$2,$3)
             ON CONFLICT(host_id) DO UPDATE SET membership = excluded.membership, joined_at = excluded.joined_at",
            &[host.as_str().into(), membership.into(), now.into()],
        )
        .await?;
        tx.exec(
            "UPDATE fleet_token SET used_at = $2, used_by = $3, used_key = $4 WHERE id = $1",
            &[
                token.id.as_str().into(),
                now.into(),
                host.into(),
                join.public_key.as_str().into(),
            ],
        )
        .await?;
        Ok(membership as u64)
    }

    /// The next certificate of a member.
    pub(crate) async fn renew(&self, name: HostName, renew: &Renew) -> Result<Renewed> {
        certify(&*self.authority().await?, name, &renew.public_key)
    }

    async fn membership(&self, tx: &mut Tx, host: &str) -> Result<Option<u64>> {
        let row = tx
            .row("SELECT membership FROM fleet_member WHERE host_id = $1", &[host.into()])
            .await?;
        row.map(|r| Ok(r.i64(0)? as u64)).transpose()
    }

    /// Whether the host's agent speaks on the socket of control's own machine: it has no membership, and needs none.
    pub async fn is_beside_control(&self, tx: &mut Tx, host: &str) -> Result<bool> {
        Ok(self.membership(tx, host).await?.is_none())
    }

    /// Refuses whoever is a member no longer.
    pub(crate) async fn check_member(&self, name: HostName) -> Result<()> {
        let host = name.host.to_string();
        let mut tx = self.db.read().await?;
        match self.membership(&mut tx, &host).await? {
            Some(m) if m == name.membership => Ok(()),
            Some(_) => Err(Error::forbidden(format!(
                "Host {host} has joined again since this certificate was made."
            ))),
            None => Err(Error::forbidden(format!(
                "Host {host} is not a member of this cloud: it was removed, or the control plane was restored from a backup of before it joined. `haneul host token` on the control plane lets it join again."
            ))),
        }
    }

    /// Ends a membership: the host's certificates and streams end with it, at once.
    pub(crate) async fn expel(self: &Arc<Self>, tx: &mut Tx, host: &str) -> Result<()> {
        tx.exec("DELETE FROM fleet_member WHERE host_id = $1", &[host.into()])
            .await?;
        tx.tell(peers::CUT, host);
        let (fleet, host) = (self.clone(), host.to_owned());
        tx.after_commit(move || fleet.hub.cut(&host));
        Ok(())
    }
}

fn certify(authority: &Authority, name: HostName, public_key: &str) -> Result<Renewed> {
    let key = BASE64
        .decode(public_key.as_bytes())
        .map_err(|e| Error::bad_request(format!("The public key is no base64: {e}.")))?;
    let certificate = authority.host(name, &key, CERTIFICATE_DAYS)?;
    let life = Micros::from(CERTIFICATE_DAYS) * DAY;
    let now = clock::now();
    Ok(Renewed {
        certificate,
        renew_at: now + life / 3 * 2,
        expires_at: now + life,
    })
}

/// Used where a connection names no host.
pub(crate) fn no_certificate() -> Error {
    Error::forbidden("A host speaks here with the certificate of its membership. `haneul join` gets one.")
}

/// Whether two names are of one host.
pub(crate) fn same_host(name: HostName, said: Uuid) -> Result<()> {
    if name.host == said {
        return Ok(());
    }
    Err(Error::forbidden(format!(
        "The certificate is of host {}, and the message speaks for host {said}.",
        name.host
    )))
}
