//! Hashes of secrets with their failures, and revocations. Neither is ever logged or shown.

use haneul_core::clock::SECOND;
use haneul_core::{Result, clock};
use haneul_store::Tx;

/// A stored secret.
pub(crate) struct Secret {
    pub hash: String,
    /// Wrong ones in a row.
    pub failures: i64,
    pub failed_at: i64,
}

/// The secret of a user or application credential.
pub(crate) async fn secret(tx: &mut Tx, owner: &str) -> Result<Option<Secret>> {
    tx.row(
        "SELECT hash, failures, failed_at FROM identity_secret WHERE owner = $1",
        &[owner.into()],
    )
    .await?
    .map(|r| {
        Ok(Secret {
            hash: r.str(0)?,
            failures: r.i64(1)?,
            failed_at: r.i64(2)?,
        })
    })
    .transpose()
}

/// Sets the secret and forgets its failures.
pub(crate) async fn set_secret(tx: &mut Tx, owner: &str, hash: &str) -> Result<()> {
    tx.exec(
        "INSERT INTO identity_secret(owner, hash, set_at, failures, failed_at) VALUES($1, $2, $3, 0, 0)
         ON CONFLICT(owner) DO UPDATE SET hash = excluded.hash, set_at = excluded.set_at, failures = 0, failed_at = 0",
        &[owner.into(), hash.into(), clock::now().into()],
    )
    .await?;
    Ok(())
}

pub(crate) async fn drop_secret(tx: &mut Tx, owner: &str) -> Result<()> {
    tx.exec("DELETE FROM identity_secret WHERE owner = $1", &[owner.into()])
        .await?;
    Ok(())
}

/// One more wrong secret. After a lock has passed the count begins anew.
pub(crate) async fn count_failure(tx: &mut Tx, owner: &str, attempts: i64, lock_seconds: i64) -> Result<()> {
    let now = clock::now();
    tx.exec(
        "UPDATE identity_secret SET failures = CASE WHEN failures >= $2 AND failed_at <= $3 THEN 1 ELSE failures + 1 END,
           failed_at = $4 WHERE owner = $1",
        &[
            owner.into(),
            attempts.into(),
            (now - lock_seconds * SECOND).into(),
            now.into(),
        ],
    )
    .await?;
    Ok(())
}

pub(crate) async fn forget_failures(tx: &mut Tx, owner: &str) -> Result<()> {
    tx.exec(
        "UPDATE identity_secret SET failures = 0, failed_at = 0 WHERE owner = $1",
        &[owner.into()],
    )
    .await?;
    Ok(())
}

/// Notes that tokens with this attribute that were issued until now are good no longer. `kind` is
/// `audit`, `user`, `project` or `domain`.
pub(crate) async fn revoke(tx: &mut Tx, kind: &str, value: &str, token_seconds: i64) -> Result<()> {
    let now = clock::now();
    tx.exec("DELETE FROM identity_revocation WHERE forget_at < $1", &[now.into()])
        .await?;
    tx.exec(
        "INSERT INTO identity_revocation(kind, value, issued_before, forget_at) VALUES($1, $2, $3, $4)",
        &[
            kind.into(),
            value.into(),
            now.into(),
            // An hour more, for tokens issued before token_seconds was made smaller.
            (now + (token_seconds + 3600) * SECOND).into(),
        ],
    )
    .await?;
    Ok(())
}

/// Whether a token issued at `issued_at` with any of these attributes was revoked.
pub(crate) async fn is_revoked(tx: &mut Tx, issued_at: i64, attributes: &[(&str, &str)]) -> Result<bool> {
    for (kind, value) in attributes {
        let hit = tx
            .row(
                "SELECT 1 FROM identity_revocation WHERE value = $1 AND kind = $2 AND issued_before >= $3",
                &[(*value).into(), (*kind).into(), issued_at.into()],
            )
            .await?;
        if hit.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
