//! The record of a server's resizes, kept in the transactions that make them.

use crate::Compute;
use crate::model::{FlavorShot, Migration, MigrationStatus, Server};
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
        };
        tx.insert(&System::create(), &new).await?;
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
