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

/// Puts a user's password, which is about to be replaced, among its old ones, of which the last `keep` stay.
pub(crate) async fn retire_password(tx: &mut Tx, user: &str, keep: i64) -> Result<()> {
    tx.exec(
        "INSERT INTO identity_old_password(user_id, hash) SELECT owner, hash FROM identity_secret WHERE owner = $1",
        &[user.into()],
    )
    .await?;
    tx.exec(
        "DELETE FROM identity_old_password WHERE user_id = $1 AND sequence NOT IN
           (SELECT sequence FROM identity_old_password WHERE user_id = $2 ORDER BY sequence DESC LIMIT $3)",
        &[user.into(), user.into(), keep.into()],
    )
    .await?;
    Ok(())
}

/// The hashes of a user's last passwords before the present one.
pub(crate) async fn old_passwords(tx: &mut Tx, user: &str, most: i64) -> Result<Vec<String>> {
    let sql = "SELECT hash FROM identity_old_password WHERE user_id = $1 ORDER BY sequence DESC LIMIT $2";
    let rows = tx.rows(sql, &[user.into(), most.into()]).await?;
    rows.iter().map(|r| r.str(0)).collect()
}

/// Counts the days without a login of a user anew.
pub(crate) async fn forget_last_login(tx: &mut Tx, user: &str) -> Result<()> {
    tx.exec("DELETE FROM identity_last_login WHERE user_id = $1", &[user.into()])
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

/// Makes a count of failures for who has no secret of this kind.
pub(crate) async fn begin_count(tx: &mut Tx, owner: &str) -> Result<()> {
    tx.exec(
        "INSERT INTO identity_secret(owner, hash, set_at, failures, failed_at) VALUES($1, '', $2, 0, 0)
         ON CONFLICT(owner) DO NOTHING",
        &[owner.into(), clock::now().into()],
    )
    .await?;
    Ok(())
}

/// Whether this is its first use. It is remembered until `forget_at`, when it would be refused anyway.
pub(crate) async fn use_once(tx: &mut Tx, what: &str, forget_at: i64) -> Result<bool> {
    tx.exec(
        "DELETE FROM identity_used_once WHERE forget_at < $1",
        &[clock::now().into()],
    )
    .await?;
    let made = tx
        .exec(
            "INSERT INTO identity_used_once(what, forget_at) VALUES($1, $2) ON CONFLICT(what) DO NOTHING",
            &[what.into(), forget_at.into()],
        )
        .await?;
    Ok(made == 1)
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
/// knows nothing of this. `kind` is `audit`, `chain` (the audit id that its chain begins with), `user`, `project` or
/// `domain`.
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

/// A revocation as it is noted.
pub(crate) struct Revocation {
    pub kind: String,
    pub value: String,
    pub issued_before: i64,
}

/// The revocations since a moment that still matter to some token, in their order.
pub(crate) async fn revocations(tx: &mut Tx, since: i64) -> Result<Vec<Revocation>> {
    tx.rows(
        "SELECT kind, value, issued_before FROM identity_revocation
           WHERE issued_before >= $1 AND forget_at >= $2 ORDER BY sequence",
        &[since.into(), clock::now().into()],
    )
    .await?
    .iter()
    .map(|r| {
        Ok(Revocation {
            kind: r.str(0)?,
            value: r.str(1)?,
            issued_before: r.i64(2)?,
        })
    })
    .collect()
}

/// Whether this token was revoked, by any of these attributes of it. Its time alone would not do: between the moment
/// that a revocation notes and its commit tokens are issued that know nothing of it. Nor would the number: a database
/// that was restored counts again from an older one.
pub(crate) async fn is_revoked(tx: &mut Tx, p: &Payload, attributes: &[(&str, &str)]) -> Result<bool> {
    if attributes.is_empty() {
        return Ok(false);
    }
    let mut args = vec![p.issued_at.into(), p.seen.into()];
    let mut any = Vec::new();
    for (kind, value) in attributes {
        any.push(format!("(value = ${} AND kind = ${})", args.len() + 1, args.len() + 2));
        args.extend([(*value).into(), (*kind).into()]);
    }
    let sql = format!(
        "SELECT 1 FROM identity_revocation WHERE ({}) AND (issued_before >= $1 OR number > $2) LIMIT 1",
        any.join(" OR ")
    );
    Ok(tx.row(&sql, &args).await?.is_some())
}
