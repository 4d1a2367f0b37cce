//! What goes with a thing that goes.

use super::trusts::drop_trusts;
use crate::model::{
    AccessRule, AccessToken, Account, AccountKind, AppCred, Credential, DomainConfig, EndpointFilter, Group,
    ImpliedRole, Limit, PolicyAssociation, Project, RegisteredLimit, RequestToken, Role, User,
};
use crate::store::{drop_assignments, drop_blob, drop_memberships, drop_secret, forget_last_login, retire_password};
use haneul_core::{Result, clock};
use haneul_store::{Query, Stored, System, Tx};

async fn app_creds(tx: &mut Tx, query: Query) -> Result<()> {
    for c in tx.list::<AppCred>(&query).await? {
        drop_secret(tx, &c.id).await?;
        tx.delete(&System::of(c)).await?;
    }
    Ok(())
}

async fn credentials(tx: &mut Tx, column: &str, id: &str) -> Result<()> {
    for c in tx.list::<Credential>(&Query::new().eq(column, id)).await? {
        drop_blob(tx, &c.id).await?;
        tx.delete(&System::of(c)).await?;
    }
    Ok(())
}

/// The filters of catalogs in which `column` (`target_id`, `project_id`) is `id`.
pub(crate) async fn filters(tx: &mut Tx, column: &str, id: &str) -> Result<()> {
    for f in tx.list::<EndpointFilter>(&Query::new().eq(column, id)).await? {
        tx.delete(&System::of(f)).await?;
    }
    Ok(())
}

/// The associations of policies in which `column` is `id`.
pub(crate) async fn associations(tx: &mut Tx, column: &str, id: &str) -> Result<()> {
    for a in tx.list::<PolicyAssociation>(&Query::new().eq(column, id)).await? {
        tx.delete(&System::of(a)).await?;
    }
    Ok(())
}

async fn limits(tx: &mut Tx, column: &str, id: &str) -> Result<()> {
    for l in tx.list::<Limit>(&Query::new().eq(column, id)).await? {
        tx.delete(&System::of(l)).await?;
    }
    Ok(())
}

/// The registered limits in which `column` (`service_id`, `region_id`) is `id`, with the limits that stand on them.
pub(crate) async fn registered_limits(tx: &mut Tx, column: &str, id: &str) -> Result<()> {
    for r in tx.list::<RegisteredLimit>(&Query::new().eq(column, id)).await? {
        limits(tx, "registered_limit_id", &r.id).await?;
        tx.delete(&System::of(r)).await?;
    }
    Ok(())
}

/// The OAuth tokens in which `column` (`consumer_id`, `project_id`, of access tokens `user_id`) is `id`.
pub(crate) async fn oauth_tokens(tx: &mut Tx, column: &str, id: &str) -> Result<()> {
    let query = Query::new().eq(column, id);
    for t in tx.list::<AccessToken>(&query).await? {
        drop_blob(tx, &t.id).await?;
        tx.delete(&System::of(t)).await?;
    }
    if column == "user_id" {
        return Ok(());
    }
    for t in tx.list::<RequestToken>(&query).await? {
        drop_blob(tx, &t.id).await?;
        tx.delete(&System::of(t)).await?;
    }
    Ok(())
}

/// A consumer's request tokens that nobody made an access token of in time.
pub(crate) async fn ended_request_tokens(tx: &mut Tx, consumer: &str) -> Result<()> {
    let now = clock::now();
    for t in tx
        .list::<RequestToken>(&Query::new().eq("consumer_id", consumer))
        .await?
    {
        if t.expires_at.is_some_and(|end| end <= now) {
            drop_blob(tx, &t.id).await?;
            tx.delete(&System::of(t)).await?;
        }
    }
    Ok(())
}

/// All that hangs on a user: password, assignments, memberships, credentials.
pub(crate) async fn user_parts(tx: &mut Tx, id: &str) -> Result<()> {
    drop_secret(tx, id).await?;
    retire_password(tx, id, 0).await?;
    forget_last_login(tx, id).await?;
    drop_secret(tx, &format!("totp/{id}")).await?;
    oauth_tokens(tx, "user_id", id).await?;
    drop_assignments(tx, "actor_id", id).await?;
    drop_memberships(tx, "user_id", id).await?;
    credentials(tx, "user_id", id).await?;
    for r in tx.list::<AccessRule>(&Query::new().eq("user_id", id)).await? {
        tx.delete(&System::of(r)).await?;
    }
    drop_trusts(tx, "trustor_user_id", id).await?;
    drop_trusts(tx, "trustee_user_id", id).await?;
    app_creds(tx, Query::new().eq("user_id", id)).await
}

/// All that hangs on a group: assignments and memberships.
pub(crate) async fn group_parts(tx: &mut Tx, id: &str) -> Result<()> {
    drop_assignments(tx, "actor_id", id).await?;
    drop_memberships(tx, "group_id", id).await
}

/// All that hangs on a project: assignments, credentials, application credentials, users' defaults.
pub(crate) async fn project_parts(tx: &mut Tx, id: &str) -> Result<()> {
    drop_assignments(tx, "target_id", id).await?;
    credentials(tx, "project_id", id).await?;
    drop_trusts(tx, "project_id", id).await?;
    filters(tx, "project_id", id).await?;
    oauth_tokens(tx, "project_id", id).await?;
    limits(tx, "project_id", id).await?;
    app_creds(tx, Query::new().eq("project_id", id)).await?;
    for a in tx.list::<Account>(&Query::new().eq("project_id", id)).await? {
        // An organisation is its domain, which may have other projects.
        if a.kind == AccountKind::Person {
            tx.delete(&System::of(a)).await?;
        }
    }
    for u in tx.list::<User>(&Query::new().eq("default_project_id", id)).await? {
        let mut value = u.value.clone();
        value.default_project_id = None;
        tx.update(&System::of(u), &value).await?;
    }
    Ok(())
}

/// The application credentials of a user for a project: they go when a role is taken from the user there
/// (keystone/application_credential/core.py).
pub(crate) async fn app_creds_on(tx: &mut Tx, user: &str, project: &str) -> Result<()> {
    app_creds(tx, Query::new().eq("user_id", user).eq("project_id", project)).await
}

/// All that hangs on a role: assignments and inference rules.
pub(crate) async fn role_parts(tx: &mut Tx, id: &str) -> Result<()> {
    drop_assignments(tx, "role_id", id).await?;
    for column in ["prior", "implied"] {
        for rule in tx.list::<ImpliedRole>(&Query::new().eq(column, id)).await? {
            tx.delete(&System::of(rule)).await?;
        }
    }
    Ok(())
}

/// Everything in a domain that is about to go.
pub(crate) async fn domain_contents(tx: &mut Tx, id: &str) -> Result<()> {
    let inside = Query::new().eq("domain_id", id);
    for p in tx.list::<Project>(&inside).await? {
        project_parts(tx, &p.id).await?;
        tx.delete(&System::of(p)).await?;
    }
    for g in tx.list::<Group>(&inside).await? {
        group_parts(tx, &g.id).await?;
        tx.delete(&System::of(g)).await?;
    }
    for u in tx.list::<User>(&inside).await? {
        user_parts(tx, &u.id).await?;
        // project_parts may have changed it in this transaction; it is loaded after that.
        tx.delete(&System::of(u)).await?;
    }
    let roles: Vec<Stored<Role>> = tx.list(&inside).await?;
    for r in roles {
        role_parts(tx, &r.id).await?;
        tx.delete(&System::of(r)).await?;
    }
    for a in tx.list::<Account>(&inside).await? {
        tx.delete(&System::of(a)).await?;
    }
    limits(tx, "domain_id", id).await?;
    if let Some(config) = tx.find::<DomainConfig>(id).await? {
        drop_blob(tx, &DomainConfig::blob_key(id)).await?;
        tx.delete(&System::of(config)).await?;
    }
    drop_assignments(tx, "target_id", id).await
}
