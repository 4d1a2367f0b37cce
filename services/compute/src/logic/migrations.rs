//! The record of a server's resizes and moves, kept in the transactions that make them.

use crate::Compute;
use crate::model::{FlavorShot, Migration, MigrationKind, MigrationStatus, Server};
use haneul_agent_api::MoveProgress;
use haneul_core::{Result, id};
use haneul_store::{Dir, Query, System, Tx};

impl Compute {
    /// A resize begins.
    pub(crate) async fn migration_begin(&self, tx: &mut Tx, s: &Server, from: &FlavorShot) -> Result<()> {
        let who = tx.actor().clone();
        let new = Migration {
            id: id::uuid(),
            number: tx.next_number("compute.migration").await?,
            project_id: who.project,
            user_id: who.user,
            server_id: s.id.clone(),
            host_id: s.host_id.clone().unwrap_or_default(),
            from_flavor: from.id.clone(),
            to_flavor: s.flavor.id.clone(),
            status: MigrationStatus::Migrating,
            kind: MigrationKind::Resize,
            to_host_id: None,
            progress: MoveProgress::default(),
            fault: None,
        };
        tx.insert(&System::create(), &new).await?;
        Ok(())
    }

    /// A move of the server to another host begins.
    pub(crate) async fn move_begin(&self, tx: &mut Tx, s: &Server, to: &str) -> Result<Migration> {
        let who = tx.actor().clone();
        let new = Migration {
            id: id::uuid(),
            number: tx.next_number("compute.migration").await?,
            project_id: who.project,
            user_id: who.user,
            server_id: s.id.clone(),
            host_id: s.host_id.clone().unwrap_or_default(),
            from_flavor: s.flavor.id.clone(),
            to_flavor: s.flavor.id.clone(),
            status: MigrationStatus::Preparing,
            kind: MigrationKind::Live,
            to_host_id: Some(to.to_owned()),
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
