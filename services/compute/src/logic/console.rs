//! Consoles with a screen: a URL that opens one server's screen once, for a short while, and only as long as the
//! guest runs that it was asked for (Nova API reference, "Create Remote Console").

use crate::Compute;
use crate::model::Server;
use crate::policy::acts;
use haneul_agent_api::Ask;
use haneul_auth::{Ctx, fetch};
use haneul_core::{Error, Kind, Result, clock, id};
use haneul_fleet::Tunnel;
use haneul_store::{Actor, Tx};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a host has to open a screen.
const DIAL: Duration = Duration::from_secs(10);

/// How many consoles are open, by server.
pub(crate) type Seats = Arc<Mutex<HashMap<String, u64>>>;

/// An open console. It counts until it is dropped.
pub struct Console {
    pub server_id: String,
    pub tunnel: Tunnel,
    pub seat: Seat,
}

/// See [`Console`].
pub struct Seat {
    seats: Seats,
    server: String,
}

impl Seat {
    fn take(seats: &Seats, server: &str, each: u64, all: u64) -> Result<Seat> {
        let mut held = seats.lock().unwrap_or_else(PoisonError::into_inner);
        let refuse = |n: u64, of: &str| {
            Err(Error::new(
                Kind::TooManyRequests,
                format!("{n} consoles{of} are open already, as many as may be. Close one."),
            ))
        };
        if held.get(server).is_some_and(|n| *n >= each) {
            return refuse(each, " of this server");
        }
        if held.values().sum::<u64>() >= all {
            return refuse(all, "");
        }
        *held.entry(server.to_owned()).or_default() += 1;
        Ok(Seat {
            seats: seats.clone(),
            server: server.to_owned(),
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut held = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = held.get_mut(&self.server) {
            *n -= 1;
            if *n == 0 {
                held.remove(&self.server);
            }
        }
    }
}

/// What a token is for.
pub(crate) struct Ticket {
    pub server: String,
    pub host: String,
    started_at: i64,
}

fn hash(token: &str) -> String {
    Sha256::digest(token).iter().map(|b| format!("{b:02x}")).collect()
}

fn bad_token() -> Error {
    Error::forbidden("This console's address was used already, is too old, or was never given. Ask for a new one.")
}

impl Compute {
    /// The address of a page with the server's screen.
    pub(crate) async fn console_url(self: &Arc<Self>, ctx: &Ctx, id: &str) -> Result<String> {
        let (app, c, id, token) = (self.clone(), ctx.clone(), id.to_owned(), id::secret(43));
        let key = hash(&token);
        self.db
            .write(&ctx.actor(), async move |tx| {
                let s = fetch(tx, &c, acts::RemoteConsoles, &id).await?;
                let started_at = app.started_at(tx, &s).await?.ok_or_else(|| {
                    Error::conflict(format!(
                        "Cannot 'get_vnc_console' instance {id} while it is in vm_state {}",
                        s.vm_state.as_str()
                    ))
                })?;
                let now = clock::now();
                tx.exec("DELETE FROM console_token WHERE expires_at <= $1", &[now.into()])
                    .await?;
                let ends = now + app.config.console_token_s as i64 * clock::SECOND;
                tx.exec(
                    "INSERT INTO console_token(hash, server_id, started_at, expires_at) VALUES ($1, $2, $3, $4)",
                    &[key.as_str().into(), id.as_str().into(), started_at.into(), ends.into()],
                )
                .await?;
                Ok(())
            })
            .await?;
        // As noVNC has it: `path` is where its websocket is.
        Ok(format!(
            "{}/console/vnc.html?path=console%2Fwebsockify%3Ftoken%3D{token}",
            self.public_url
        ))
    }

    /// When the guest's process began, if it has one: what it shows belongs to that one.
    async fn started_at(&self, tx: &mut Tx, s: &Server) -> Result<Option<i64>> {
        let Some(host) = &s.host_id else { return Ok(None) };
        let seen = self.fleet.observed_guest(tx, host, &s.id).await?;
        Ok(seen.and_then(|o| o.started_at))
    }

    /// What a token is good for, if it still is.
    pub(crate) async fn ticket(&self, tx: &mut Tx, token: &str) -> Result<Option<Ticket>> {
        let args = [hash(token).into(), clock::now().into()];
        let sql = "SELECT server_id, started_at FROM console_token WHERE hash = $1 AND expires_at > $2";
        let Some(row) = tx.row(sql, &args).await? else {
            return Ok(None);
        };
        let (server, started_at) = (row.str(0)?, row.i64(1)?);
        let Some(s) = tx.find::<Server>(&server).await? else {
            return Ok(None);
        };
        let Some(host) = s.host_id.clone() else { return Ok(None) };
        let same = self.started_at(tx, &s).await? == Some(started_at);
        Ok(same.then_some(Ticket {
            server,
            host,
            started_at,
        }))
    }

    /// Opens the screen that a token is for; the token is used up by it.
    pub async fn open_console(self: &Arc<Self>, token: &str) -> Result<Console> {
        let mut tx = self.db.read().await?;
        let ticket = self.ticket(&mut tx, token).await?.ok_or_else(bad_token)?;
        drop(tx);
        // A full house uses no token up.
        let (each, all) = (self.config.consoles_per_server, self.config.consoles);
        let seat = Seat::take(&self.seats, &ticket.server, each, all)?;
        let key = hash(token);
        let used = self
            .db
            .write(&Actor::system("console"), async move |tx| {
                let args = [key.as_str().into(), ticket.started_at.into()];
                tx.exec("DELETE FROM console_token WHERE hash = $1 AND started_at = $2", &args)
                    .await
            })
            .await?;
        if used != 1 {
            return Err(bad_token());
        }
        let guest = uuid::Uuid::try_parse(&ticket.server).map_err(Error::internal)?;
        let tunnel = self.fleet.dial(&ticket.host, Ask::Vnc { guest }, DIAL).await?;
        Ok(Console {
            server_id: ticket.server,
            tunnel,
            seat,
        })
    }
}
