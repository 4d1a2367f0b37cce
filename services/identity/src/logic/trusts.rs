//! What a trust is worth now. It is asked at issue, at every validation, and before anything is done with a trust: a
//! trust is worth no more than each trust above it, and nothing when the user at the root has lost one of its roles.

use super::resolve::enabled_user;
use crate::model::{TargetKind, Trust};
use crate::store::{RoleBook, assigned};
use haneul_core::{Error, Result, clock};
use haneul_store::{Query, Stored, System, Tx};
use std::collections::BTreeSet;

/// keystone.conf `[trust] max_redelegation_count`.
pub(crate) const MAX_REDELEGATIONS: i64 = 3;

/// Why nothing can be done with a trust; for the log.
type Why = String;

/// Whether a trust lies within the one whose token made it.
pub(crate) fn within(parent: &Trust, child: &Trust) -> Result<(), Why> {
    if parent.redelegation_count <= 0 || child.redelegation_count >= parent.redelegation_count {
        return Err(format!(
            "Remaining redelegation depth of {} out of allowed range of [0..{MAX_REDELEGATIONS}]",
            parent.redelegation_count
        ));
    }
    if child.project_id != parent.project_id {
        return Err("It is for another project than the trust that it is made from".into());
    }
    if parent.remaining_uses.is_some() || child.remaining_uses.is_some() {
        return Err("Field \"remaining_uses\" is set while it must not be set in order to redelegate a trust".into());
    }
    if let Some(end) = parent.expires_at
        && child.expires_at.is_none_or(|e| e > end)
    {
        return Err("Requested expiration time is more than redelegated trust can provide".into());
    }
    if child.roles.iter().any(|r| !parent.roles.contains(r)) {
        return Err("Some of requested roles are not in redelegated trust".into());
    }
    if child.impersonation && !parent.impersonation {
        return Err("Impersonation is not allowed because redelegated trust does not specify impersonation".into());
    }
    // Who lends on is who was lent to, or whom he stands for.
    let lender = if parent.impersonation {
        &parent.trustor_user_id
    } else {
        &parent.trustee_user_id
    };
    if &child.trustor_user_id != lender {
        return Err("Its trustor is not the one whom the trust above it is of".into());
    }
    Ok(())
}

fn ended(t: &Trust) -> bool {
    t.expires_at.is_some_and(|end| end <= clock::now())
}

/// The trust and those above it, nearest first, when each is good and lies within the next one.
pub(crate) async fn chain(tx: &mut Tx, trust: Stored<Trust>) -> Result<Result<Vec<Stored<Trust>>, Why>> {
    let mut out = vec![trust];
    loop {
        let Some(last) = out.last() else {
            return Ok(Err("an empty chain".into()));
        };
        if ended(last) {
            return Ok(Err(format!("trust {} has expired", last.id)));
        }
        let Some(above) = last.redelegated_trust_id.clone() else {
            return Ok(Ok(out));
        };
        let Some(parent) = tx.find::<Trust>(&above).await? else {
            return Ok(Err(format!("trust {above} above it is gone")));
        };
        if let Err(why) = within(&parent, last) {
            return Ok(Err(why));
        }
        // The count falls with each step, so a chain ends.
        out.push(parent);
    }
}

/// A trust that a token may stand on now.
pub(crate) struct Live {
    pub trust: Stored<Trust>,
    /// Whose password changes, and whose end, are the token's: all trustors and trustees of the chain, and domains.
    pub users: Vec<String>,
    pub domains: Vec<String>,
    /// All that the trust lends, with what these roles imply.
    pub roles: BTreeSet<String>,
}

/// See the module. The inner error says why not.
pub(crate) async fn live(tx: &mut Tx, id: &str, trustee: &str) -> Result<Result<Live, Why>> {
    let Some(trust) = tx.find::<Trust>(id).await? else {
        return Ok(Err(format!("there is no trust {id}")));
    };
    if trust.trustee_user_id != trustee {
        return Ok(Err(format!("user {trustee} is not the trustee of {id}")));
    }
    let chain = match chain(tx, trust).await? {
        Ok(chain) => chain,
        Err(why) => return Ok(Err(why)),
    };
    let (mut users, mut domains) = (Vec::new(), Vec::new());
    for t in &chain {
        for who in [&t.trustor_user_id, &t.trustee_user_id] {
            if !users.contains(who) {
                // Unauthorized when missing or disabled.
                domains.push(enabled_user(tx, who).await?.1.value.id);
                users.push(who.clone());
            }
        }
    }
    let Some(root) = chain.last() else {
        return Ok(Err("an empty chain".into()));
    };
    let book = RoleBook::load(tx).await?;
    let held = assigned(tx, &root.trustor_user_id, TargetKind::Project, &root.project_id).await?;
    let held = book.expand(held.iter().map(String::as_str));
    let Some(trust) = chain.into_iter().next() else {
        return Ok(Err("an empty chain".into()));
    };
    let roles = book.expand(trust.roles.iter().map(String::as_str));
    if let Some(lost) = roles.iter().find(|r| !held.contains(*r)) {
        return Ok(Err(format!("the trustor has the role {lost} no longer")));
    }
    Ok(Ok(Live {
        trust,
        users,
        domains,
        roles,
    }))
}

/// Takes one use. Refuses when none is left, or the trust is gone.
pub(crate) async fn consume(tx: &mut Tx, id: &str) -> Result<()> {
    let gone = || Error::unauthorized().with_private(format!("trust {id} is gone or used up"));
    let trust = tx.find::<Trust>(id).await?.ok_or_else(gone)?;
    let Some(left) = trust.remaining_uses else {
        return Ok(());
    };
    if left <= 0 {
        return Err(gone());
    }
    let mut value = trust.value.clone();
    value.remaining_uses = Some(left - 1);
    tx.update(&System::of(trust), &value).await?;
    Ok(())
}

/// The trusts made from one, with those made from these.
pub(crate) async fn below(tx: &mut Tx, id: &str) -> Result<Vec<Stored<Trust>>> {
    let mut out: Vec<Stored<Trust>> = Vec::new();
    let mut todo = vec![id.to_owned()];
    while let Some(at) = todo.pop() {
        for t in tx.list::<Trust>(&Query::new().eq("redelegated_trust_id", at)).await? {
            todo.push(t.id.clone());
            out.push(t);
        }
    }
    Ok(out)
}

/// Removes the trusts in which `column` is `id`, with all that were made from them.
pub(crate) async fn drop_trusts(tx: &mut Tx, column: &str, id: &str) -> Result<()> {
    for t in tx.list::<Trust>(&Query::new().eq(column, id)).await? {
        for b in below(tx, &t.id).await? {
            tx.delete(&System::of(b)).await?;
        }
        // It may have been below one that went before.
        if let Some(t) = tx.find::<Trust>(&t.id).await? {
            tx.delete(&System::of(t)).await?;
        }
    }
    Ok(())
}
