//! The record of a server's resizes and moves, kept in the transactions that make them.

use crate::Compute;
use crate::model::{FlavorShot, Migration, MigrationKind, MigrationStatus, Server};
use haneul_agent_api::MoveProgress;
use haneul_core::{Result, id};
use haneul_store::{Dir, Query, System, Tx};

impl Compute {
    /// One begins: a resize on the server's host, or a move to another one.
    pub(crate) async fn migration_begin(
        &self,
        tx: &mut Tx,
        s: &Server,
        kind: MigrationKind,
        to: Option<&str>,
        flavors: [&FlavorShot; 2],
    ) -> Result<Migration> {
        let who = tx.actor().clone();
        let [from_flavor, to_flavor] = flavors.map(|f| f.id.clone());
        let new = Migration {
            id: id::uuid(),
            number: tx.next_number("compute.migration").await?,
            project_id: who.project,
            user_id: who.user,
            server_id: s.id.clone(),
            host_id: s.host_id.clone().unwrap_or_default(),
            from_flavor,
            to_flavor,
            status: match kind {
                MigrationKind::Live => MigrationStatus::Preparing,
                MigrationKind::Evacuation => MigrationStatus::Accepted,
                MigrationKind::Resize | MigrationKind::Cold => MigrationStatus::Migrating,
            },
            kind,
            to_host_id: to.map(str::to_owned),
            progress: MoveProgress::default(),
            fault: None,
        };
        tx.insert(&System::create(), &new).await?;
        Ok(new)
    }

    /// Changes a migration, if that is a change.
    pub(crate) async fn migration_change(
        &self,
        tx: &mut Tx,
        id: &str,
        change: impl FnOnce(&mut Migration) + Send,
    ) -> Result<()> {
        if let Some(old) = tx.find::<Migration>(id).await? {
            let mut new = old.value.clone();
            change(&mut new);
            if new != old.value {
                tx.update(&System::of(old), &new).await?;
            }
        }
        Ok(())
    }

    /// The server's last one has come so far. A resize of before there were records has none.
    pub(crate) async fn migration_is(&self, tx: &mut Tx, server: &str, status: MigrationStatus) -> Result<()> {
        let query = Query::new().eq("server_id", server).order("number", Dir::Desc).limit(1);
        if let Some(old) = tx.list::<Migration>(&query).await?.pop() {
            let new = Migration {
                status,
                ..old.value.clone()
            };
            tx.update(&System::of(old), &new).await?;
        }
        Ok(())
    }

    /// They go with their server.
    pub(crate) async fn migrations_forget(&self, tx: &mut Tx, server: &str) -> Result<()> {
        for m in tx.list::<Migration>(&Query::new().eq("server_id", server)).await? {
            tx.delete(&System::of(m)).await?;
        }
        Ok(())
    }
}
