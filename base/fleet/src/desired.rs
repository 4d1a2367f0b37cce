//! Desired objects and tombstones.

use crate::{Fleet, peers};
use haneul_agent_api::{Desired, Kind, Object, ObservedGuest, ToAgent, Tombstone, limits};
use haneul_core::{Error, Result};
use haneul_store::Tx;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Lines that are read together.
const LINES: usize = 500;
/// Between looks at what other processes may have heard.
const LOOK: Duration = Duration::from_millis(100);

/// Column `removed`: whether a row is a tombstone, and of what.
#[derive(Clone, Copy)]
enum Removed {
    No = 0,
    FromHost = 1,
    /// See [`Tombstone::disks`].
    WithDisks = 2,
}

impl Fleet {
    /// Writes what a host shall hold. The same content again changes nothing. Answers the generation that
    /// an observation must reach.
    pub async fn put(self: &Arc<Self>, tx: &mut Tx, host: &str, object: &Object) -> Result<i64> {
        let doc = serde_json::to_string(object)?;
        let (kind, id) = (object.kind(), object.id().to_string());
        let old = tx
            .row(
                "SELECT generation, removed, doc FROM fleet_desired WHERE host_id = $1 AND kind = $2 AND id = $3",
                &[host.into(), kind.as_str().into(), id.as_str().into()],
            )
            .await?;
        if let Some(old) = &old
            && old.i64(1)? == 0
            && old.str(2)? == doc
        {
            return old.i64(0);
        }
        self.set(tx, host, kind, &id, Removed::No, &doc).await
    }

    /// Writes a tombstone, the only way to remove something from a host. Without a desired object there is
    /// nothing to do, and the answer is false. What a guest has in a directory that hosts share stays.
    pub async fn remove(self: &Arc<Self>, tx: &mut Tx, host: &str, kind: Kind, id: &str) -> Result<bool> {
        self.bury(tx, host, kind, id, Removed::FromHost).await
    }

    /// The same, and its disks go wherever they are: there shall be no such guest any more, on no host.
    pub async fn destroy_guest(self: &Arc<Self>, tx: &mut Tx, host: &str, id: &str) -> Result<bool> {
        self.bury(tx, host, Kind::Guest, id, Removed::WithDisks).await
    }

    /// The same by `helper`, in the place of `lost`, which reaches the same directory and hears nothing: what the guest has
    /// there goes at once, and what else is on the lost host when that is back.
    pub async fn destroy_guest_for(self: &Arc<Self>, tx: &mut Tx, helper: &str, lost: &str, id: &str) -> Result<()> {
        let sql = "SELECT doc FROM fleet_desired WHERE host_id = $1 AND kind = $2 AND id = $3";
        let row = tx
            .row(sql, &[lost.into(), Kind::Guest.as_str().into(), id.into()])
            .await?;
        if let Some(row) = row {
            let doc = row.str(0)?;
            self.set(tx, helper, Kind::Guest, id, Removed::WithDisks, &doc).await?;
        }
        Ok(())
    }

    async fn bury(self: &Arc<Self>, tx: &mut Tx, host: &str, kind: Kind, id: &str, how: Removed) -> Result<bool> {
        let old = tx
            .row(
                "SELECT removed, doc FROM fleet_desired WHERE host_id = $1 AND kind = $2 AND id = $3",
                &[host.into(), kind.as_str().into(), id.into()],
            )
            .await?;
        let Some(old) = old else { return Ok(false) };
        if old.i64(0)? < how as i64 {
            let doc = old.str(1)?;
            self.set(tx, host, kind, id, how, &doc).await?;
        }
        Ok(true)
    }

    async fn set(
        self: &Arc<Self>,
        tx: &mut Tx,
        host: &str,
        kind: Kind,
        id: &str,
        removed: Removed,
        doc: &str,
    ) -> Result<i64> {
        // One ascending number for all: it is generation and place in the watch stream at once, so that a
        // generation never comes back after a tombstone was carried out.
        let generation = tx.next_number("fleet.generation").await?;
        tx.exec(
            "INSERT INTO fleet_desired(host_id, kind, id, generation, removed, doc) VALUES($1,$2,$3,$4,$5,$6)
             ON CONFLICT(host_id, kind, id) DO UPDATE SET generation = excluded.generation, removed = excluded.removed, doc = excluded.doc",
            &[host.into(), kind.as_str().into(), id.into(), generation.into(), (removed as i64).into(), doc.into()],
        )
        .await?;
        tx.tell(peers::NEWS, host);
        let (fleet, host) = (self.clone(), host.to_owned());
        tx.after_commit(move || fleet.hub.wake(&host));
        Ok(generation)
    }

    /// What a host shall hold under this id.
    pub async fn desired(&self, tx: &mut Tx, host: &str, kind: Kind, id: &str) -> Result<Option<(i64, Object)>> {
        let row = tx
            .row(
                "SELECT generation, doc FROM fleet_desired WHERE host_id = $1 AND kind = $2 AND id = $3 AND removed = 0",
                &[host.into(), kind.as_str().into(), id.into()],
            )
            .await?;
        row.map(|r| Ok((r.i64(0)?, serde_json::from_str(&r.str(1)?)?)))
            .transpose()
    }

    /// Whether anything of this id is or shall be on any host (a tombstone that was not carried out counts).
    pub async fn anywhere(&self, tx: &mut Tx, kind: Kind, id: &str) -> Result<bool> {
        Ok(tx
            .row(
                "SELECT 1 FROM fleet_desired WHERE kind = $1 AND id = $2 LIMIT 1",
                &[kind.as_str().into(), id.into()],
            )
            .await?
            .is_some())
    }

    /// Hosts that shall hold this object.
    pub async fn hosts_of(&self, tx: &mut Tx, kind: Kind, id: &str) -> Result<Vec<String>> {
        self.hosts_where(tx, kind, id, "d.removed = 0").await
    }

    /// Hosts that have something of this id, or shall (a tombstone that was not carried out counts).
    pub async fn hosts_with(&self, tx: &mut Tx, kind: Kind, id: &str) -> Result<Vec<String>> {
        self.hosts_where(tx, kind, id, "TRUE").await
    }

    async fn hosts_where(&self, tx: &mut Tx, kind: Kind, id: &str, rows: &str) -> Result<Vec<String>> {
        // By way of the hosts, which are few: the key of the table begins with them.
        let sql = format!(
            "SELECT d.host_id FROM host h JOIN fleet_desired d ON d.host_id = h.id
             WHERE d.kind = $1 AND d.id = $2 AND {rows} ORDER BY d.host_id"
        );
        let rows = tx.rows(&sql, &[kind.as_str().into(), id.into()]).await?;
        rows.iter().map(|r| r.str(0)).collect()
    }

    /// Whether a host has something of this id, or shall (a tombstone that was not carried out counts).
    pub async fn is_left(&self, tx: &mut Tx, host: &str, kind: Kind, id: &str) -> Result<bool> {
        let sql = "SELECT 1 FROM fleet_desired WHERE host_id = $1 AND kind = $2 AND id = $3";
        let row = tx.row(sql, &[host.into(), kind.as_str().into(), id.into()]).await?;
        Ok(row.is_some())
    }

    /// Refuses an image that no guest of this host is made from.
    pub(crate) async fn needs_image(&self, host: Uuid, image: Uuid) -> Result<()> {
        let mut tx = self.db.read().await?;
        let rows = tx
            .rows(
                "SELECT doc FROM fleet_desired WHERE host_id = $1 AND kind = 'guest' AND removed = 0",
                &[host.to_string().into()],
            )
            .await?;
        for row in rows {
            if let Object::Guest(guest) = serde_json::from_str(&row.str(0)?)?
                && guest.root.image.id == image
            {
                return Ok(());
            }
        }
        Err(Error::forbidden("No guest of this host is made from this image."))
    }

    /// All desired ids of a kind: (host, id, whether it is a tombstone). For audits.
    pub async fn all_desired(&self, tx: &mut Tx, kind: Kind) -> Result<Vec<(String, String, bool)>> {
        tx.rows(
            "SELECT host_id, id, removed FROM fleet_desired WHERE kind = $1 ORDER BY host_id, id",
            &[kind.as_str().into()],
        )
        .await?
        .iter()
        .map(|r| Ok((r.str(0)?, r.str(1)?, r.i64(2)? != 0)))
        .collect()
    }

    /// All objects of a kind that are desired: (host, object). For audits.
    pub async fn all_objects(&self, tx: &mut Tx, kind: Kind) -> Result<Vec<(String, Object)>> {
        let sql = "SELECT host_id, doc FROM fleet_desired WHERE kind = $1 AND removed = 0 ORDER BY host_id, id";
        let rows = tx.rows(sql, &[kind.as_str().into()]).await?;
        rows.iter()
            .map(|r| Ok((r.str(0)?, serde_json::from_str(&r.str(1)?)?)))
            .collect()
    }

    /// Waits until every host that shall hold this object has reported on its newest generation, but not for hosts
    /// that are not connected, and not longer than this.
    pub async fn settled(&self, kind: Kind, id: &str, most: Duration) {
        let wait = async {
            loop {
                let news = self.hub.reported();
                match self.late(kind, id).await {
                    Ok(false) => return,
                    // What a host tells another process of ours rings nothing here.
                    Ok(true) if self.db.is_shared() => {
                        let _ = tokio::time::timeout(LOOK, news).await;
                    }
                    Ok(true) => news.await,
                    Err(e) => return tracing::error!(error = %e, "the observed state could not be read"),
                }
            }
        };
        let _ = tokio::time::timeout(most, wait).await;
    }

    /// Whether the observation of an object is older than what shall be held, on a host that is up.
    async fn late(&self, kind: Kind, id: &str) -> Result<bool> {
        let mut tx = self.db.read().await?;
        let row = tx
            .row(
                "SELECT 1 FROM fleet_desired d JOIN host h ON h.id = d.host_id AND h.up = 1
                     LEFT JOIN fleet_observed o ON o.host_id = d.host_id AND o.kind = d.kind AND o.id = d.id AND o.generation >= d.generation
                     WHERE d.kind = $1 AND d.id = $2 AND o.id IS NULL LIMIT 1",
                &[kind.as_str().into(), id.into()],
            )
            .await?;
        Ok(row.is_some())
    }

    /// The last observation of a guest on a host.
    pub async fn observed_guest(&self, tx: &mut Tx, host: &str, id: &str) -> Result<Option<ObservedGuest>> {
        let row = tx
            .row(
                "SELECT doc FROM fleet_observed WHERE host_id = $1 AND kind = 'guest' AND id = $2",
                &[host.into(), id.into()],
            )
            .await?;
        row.map(|r| Ok(serde_json::from_str(&r.str(0)?)?)).transpose()
    }

    /// Lines of the watch stream after a generation, oldest first; the last generation with them, and whether there may
    /// be more.
    pub(crate) async fn lines(&self, host: &str, after: i64) -> Result<(Vec<ToAgent>, i64, bool)> {
        let mut tx = self.db.read().await?;
        let rows = tx
            .rows(
                "SELECT kind, id, generation, removed, doc FROM fleet_desired WHERE host_id = $1 AND generation > $2 ORDER BY generation LIMIT $3",
                &[host.into(), after.into(), (LINES as i64).into()],
            )
            .await?;
        let mut last = after;
        let mut lines = Vec::with_capacity(rows.len());
        let speaks = self.hub.speaks(host);
        let full = rows.len() == LINES;
        for r in rows {
            last = r.i64(2)?;
            let generation = last as u64;
            let kind = Kind::parse(&r.str(0)?).ok_or_else(|| Error::internal("unknown kind"))?;
            // An agent of the release before gets its list anew when it is of this one.
            if kind.since() > speaks {
                continue;
            }
            let removed = r.i64(3)?;
            let line = if removed != Removed::No as i64 {
                ToAgent::Remove(Tombstone {
                    kind,
                    id: Uuid::try_parse(&r.str(1)?).map_err(Error::internal)?,
                    epoch: self.epoch,
                    generation,
                    disks: removed == Removed::WithDisks as i64,
                })
            } else {
                ToAgent::Put(Box::new(Desired {
                    epoch: self.epoch,
                    generation,
                    object: serde_json::from_str(&r.str(4)?)?,
                }))
            };
            lines.push(line);
        }
        Ok((lines, last, full))
    }

    /// Records an observation. False: it is older than the last, or of a present that is over, and says nothing.
    #[allow(clippy::too_many_arguments)]
    pub(crate) async fn record(
        &self,
        tx: &mut Tx,
        host: &str,
        kind: Kind,
        id: &str,
        epoch: u64,
        generation: u64,
        doc: String,
    ) -> Result<bool> {
        if epoch < self.epoch {
            return Ok(false);
        }
        limits::observation(kind, id, &doc)?;
        let n = tx.exec(
            "INSERT INTO fleet_observed(host_id, kind, id, epoch, generation, doc) VALUES($1,$2,$3,$4,$5,$6)
             ON CONFLICT(host_id, kind, id) DO UPDATE SET epoch = excluded.epoch, generation = excluded.generation, doc = excluded.doc
             WHERE excluded.epoch > fleet_observed.epoch OR (excluded.epoch = fleet_observed.epoch AND excluded.generation >= fleet_observed.generation)",
            &[host.into(), kind.as_str().into(), id.into(), epoch.into(), generation.into(), doc.into()],
        )
        .await?;
        Ok(n > 0)
    }

    /// A tombstone was carried out: forget it, unless the object was wanted again since. One of a present that is over
    /// may be another than stands here now; the host is told of that, and says so again.
    pub(crate) async fn forget(&self, tx: &mut Tx, host: &str, t: &Tombstone) -> Result<bool> {
        if t.epoch < self.epoch {
            return Ok(false);
        }
        let id = t.id.to_string();
        let n = tx
            .exec(
                "DELETE FROM fleet_desired WHERE host_id = $1 AND kind = $2 AND id = $3 AND removed <> 0 AND generation <= $4",
                &[host.into(), t.kind.as_str().into(), id.as_str().into(), t.generation.into()],
            )
            .await?;
        if n > 0 {
            tx.exec(
                "DELETE FROM fleet_observed WHERE host_id = $1 AND kind = $2 AND id = $3",
                &[host.into(), t.kind.as_str().into(), id.into()],
            )
            .await?;
        }
        Ok(n > 0)
    }
}
