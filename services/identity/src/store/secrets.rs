//! Hashes of secrets with their failures, and revocations. Neither is ever logged or shown.

use crate::token::Payload;
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

/// Counts the transactions that change what tokens are good for, in the order of their commits: whoever raises it
/// holds its row until then.
pub(crate) const REVOCATIONS: &str = "identity.revocation";

/// Up to which revocation this snapshot knows of all.
pub(crate) async fn revocations_seen(tx: &mut Tx) -> Result<i64> {
    tx.row("SELECT value FROM counter WHERE name = $1", &[REVOCATIONS.into()])
        .await?
        .map_or(Ok(0), |row| row.i64(0))
}

/// Notes that tokens with this attribute are good no longer that were issued until now, or from a snapshot that
/// knows nothing of this. `kind` is `audit`, `user`, `project` or `domain`.
pub(crate) async fn revoke(tx: &mut Tx, kind: &str, value: &str, token_seconds: i64) -> Result<()> {
    let now = clock::now();
    tx.exec("DELETE FROM identity_revocation WHERE forget_at < $1", &[now.into()])
        .await?;
    let number = tx.next_number(REVOCATIONS).await?;
    tx.exec(
        "INSERT INTO identity_revocation(kind, value, issued_before, forget_at, number) VALUES($1, $2, $3, $4, $5)",
        &[
            kind.into(),
            value.into(),
            now.into(),
            // An hour more, for tokens issued before token_seconds was made smaller.
            (now + (token_seconds + 3600) * SECOND).into(),
            number.into(),
        ],
    )
    .await?;
    Ok(())
}

/// Whether this token was revoked, by any of these attributes of it. Its time alone would not do: between the moment
/// that a revocation notes and its commit tokens are issued that know nothing of it. Nor would the number: a database
/// that was restored counts again from an older one.
pub(crate) async fn is_revoked(tx: &mut Tx, p: &Payload, attributes: &[(&str, &str)]) -> Result<bool> {
    for (kind, value) in attributes {
        let hit = tx
            .row(
                "SELECT 1 FROM identity_revocation WHERE value = $1 AND kind = $2
                   AND (issued_before >= $3 OR number > $4)",
                &[(*value).into(), (*kind).into(), p.issued_at.into(), p.seen.into()],
            )
            .await?;
        if hit.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
