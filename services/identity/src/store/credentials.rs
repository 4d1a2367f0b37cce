//! Sealed blobs of credentials: no part of a resource, so that none is ever in a change row.

use haneul_core::{Error, Result};
use haneul_store::Tx;

pub(crate) async fn blob_of(tx: &mut Tx, id: &str) -> Result<String> {
    let sql = "SELECT sealed FROM identity_credential_blob WHERE id = $1";
    match tx.row(sql, &[id.into()]).await? {
        Some(row) => row.str(0),
        None => Err(Error::internal(format!("credential {id} has no blob"))),
    }
}

pub(crate) async fn set_blob(tx: &mut Tx, id: &str, sealed: &str) -> Result<()> {
    tx.exec(
        "INSERT INTO identity_credential_blob(id, sealed) VALUES($1, $2)
         ON CONFLICT(id) DO UPDATE SET sealed = excluded.sealed",
        &[id.into(), sealed.into()],
    )
    .await?;
    Ok(())
}

pub(crate) async fn drop_blob(tx: &mut Tx, id: &str) -> Result<()> {
    tx.exec("DELETE FROM identity_credential_blob WHERE id = $1", &[id.into()])
        .await?;
    Ok(())
}
