//! From a token's inside to what it is good for now: user, scope, roles. The same at issue and at every
//! validation, so that a token never reaches what its user has lost meanwhile.

use super::trusts;
use crate::model::{AccessRule, AccessToken, AppCred, Domain, Project, Role, TargetKind, User};
use crate::store::{RoleBook, assigned, is_revoked};
use crate::token::{Delegation, Payload, Scope};
use haneul_auth::context::CtxInner;
use haneul_auth::{RoleRef, ScopeKind};
use haneul_core::clock::{iso_micros, naive_micros};
use haneul_core::{Error, Result, clock};
use haneul_store::{Stored, Tx};
use serde_json::{Value, json};

/// A token that is good.
#[derive(Clone)]
pub(crate) struct Resolved {
    pub ctx: CtxInner,
    pub delegation: Delegation,
    /// The requests that it is good for; `None`: all.
    pub rules: Option<Vec<AccessRule>>,
    /// The member `token` of the answer, without the catalog.
    pub token: Value,
}

/// Refusals tell the client nothing; the reason is for the log.
fn refuse<T>(reason: impl std::fmt::Display) -> Result<T> {
    Err(Error::unauthorized().with_private(reason))
}

/// The domain, if it is there and enabled.
pub(crate) async fn enabled_domain(tx: &mut Tx, id: &str) -> Result<Stored<Domain>> {
    match tx.find::<Domain>(id).await? {
        Some(d) if d.enabled => Ok(d),
        _ => refuse(format!("domain {id} is missing or disabled")),
    }
}

/// The user, if it is there, and it and its domain are enabled.
pub(crate) async fn enabled_user(tx: &mut Tx, id: &str) -> Result<(Stored<User>, Stored<Domain>)> {
    match tx.find::<User>(id).await? {
        Some(u) if u.enabled => {
            let domain = enabled_domain(tx, &u.domain_id).await?;
            Ok((u, domain))
        }
        _ => refuse(format!("user {id} is missing or disabled")),
    }
}

/// The application credential of a token, if it still holds.
async fn live_app_cred(tx: &mut Tx, p: &Payload, id: &str) -> Result<Stored<AppCred>> {
    match tx.find::<AppCred>(id).await? {
        Some(c)
            if c.user_id == p.user_id
                && p.scope == Scope::Project(c.project_id.clone())
                && c.expires_at.is_none_or(|t| t > clock::now()) =>
        {
            Ok(c)
        }
        _ => refuse(format!(
            "application credential {id} is missing, expired or not of this token"
        )),
    }
}

/// The OAuth access token of a token, if it still holds.
async fn live_access_token(tx: &mut Tx, p: &Payload, id: &str) -> Result<Stored<AccessToken>> {
    match tx.find::<AccessToken>(id).await? {
        Some(t)
            if t.user_id == p.user_id
                && p.scope == Scope::Project(t.project_id.clone())
                && t.expires_at.is_none_or(|end| end > clock::now()) =>
        {
            Ok(t)
        }
        _ => refuse(format!("access token {id} is missing, expired or not of this token")),
    }
}

/// The rules with these ids, in their order.
pub(crate) async fn access_rules(tx: &mut Tx, ids: &[String]) -> Result<Vec<AccessRule>> {
    let mut out = Vec::new();
    for id in ids {
        out.extend(tx.find::<AccessRule>(id).await?.map(|r| r.value));
    }
    Ok(out)
}

/// A rule as tokens and credentials show it.
pub(crate) fn rule_view(r: &AccessRule) -> Value {
    json!({"id": r.id, "service": r.service, "path": r.path, "method": r.method})
}

fn role_list(roles: &[RoleRef]) -> Vec<Value> {
    roles.iter().map(|r| json!({"id": r.id, "name": r.name})).collect()
}

/// See the module. Unauthorized for whatever is wrong.
pub(crate) async fn resolve(tx: &mut Tx, p: &Payload) -> Result<Resolved> {
    if p.expires_at <= clock::now() {
        return refuse("expired");
    }
    let (user, user_domain) = enabled_user(tx, &p.user_id).await?;
    let mut marks = vec![("user", user.id.as_str()), ("domain", user_domain.id.as_str())];
    if let Some(own) = p.audit_ids.first() {
        marks.push(("audit", own));
    }
    if let Some(first) = p.audit_ids.last() {
        marks.push(("chain", first));
    }
    let trust = match &p.trust_id {
        Some(id) => match trusts::live(tx, id, &user.id).await? {
            Ok(live) if p.scope == Scope::Project(live.trust.project_id.clone()) => Some(live),
            Ok(_) => return refuse(format!("trust {id} is for another project")),
            Err(why) => return refuse(why),
        },
        None => None,
    };
    if let Some(live) = &trust {
        marks.extend(live.users.iter().map(|u| ("user", u.as_str())));
        marks.extend(live.domains.iter().map(|d| ("domain", d.as_str())));
    }
    // Whom the token stands for.
    let (acting, acting_domain) = match &trust {
        Some(live) if live.trust.impersonation => enabled_user(tx, &live.trust.trustor_user_id).await?,
        _ => (user.clone(), user_domain.clone()),
    };
    let app_cred = match &p.app_cred_id {
        Some(id) => Some(live_app_cred(tx, p, id).await?),
        None => None,
    };
    let access_token = match &p.access_token_id {
        Some(id) => Some(live_access_token(tx, p, id).await?),
        None => None,
    };
    let mut token = json!({
        "methods": p.methods,
        "user": {
            "id": acting.id,
            "name": acting.name,
            "domain": {"id": acting_domain.id, "name": acting_domain.name},
            "password_expires_at": acting.password_expires_at.map(naive_micros),
        },
        "audit_ids": p.audit_ids,
        "expires_at": iso_micros(p.expires_at),
        "issued_at": iso_micros(p.issued_at),
    });
    let mut put = |key: &str, value: Value| {
        if let Some(map) = token.as_object_mut() {
            map.insert(key.to_owned(), value);
        }
    };
    let (scope, held) = match &p.scope {
        Scope::Unscoped => (ScopeKind::Unscoped, None),
        Scope::Project(id) => {
            let project = match tx.find::<Project>(id).await? {
                Some(x) if x.enabled => x,
                _ => return refuse(format!("project {id} is missing or disabled")),
            };
            let domain = enabled_domain(tx, &project.domain_id).await?;
            if is_revoked(tx, p, &[("project", id), ("domain", &domain.id)]).await? {
                return refuse("the project or its domain was disabled meanwhile");
            }
            let held = assigned(tx, &user.id, TargetKind::Project, id).await?;
            put(
                "project",
                json!({
                    "id": project.id,
                    "name": project.name,
                    "domain": {"id": domain.id, "name": domain.name},
                }),
            );
            put("is_domain", false.into());
            let scope = ScopeKind::Project {
                id: project.id.clone(),
                name: project.name.clone(),
                domain_id: domain.id.clone(),
                domain_name: domain.name.clone(),
            };
            (scope, Some(held))
        }
        Scope::Domain(id) => {
            let domain = enabled_domain(tx, id).await?;
            if is_revoked(tx, p, &[("domain", id)]).await? {
                return refuse("the domain was disabled meanwhile");
            }
            let held = assigned(tx, &user.id, TargetKind::Domain, id).await?;
            put("domain", json!({"id": domain.id, "name": domain.name}));
            let scope = ScopeKind::Domain {
                id: domain.id.clone(),
                name: domain.name.clone(),
            };
            (scope, Some(held))
        }
        Scope::System => {
            let held = assigned(tx, &user.id, TargetKind::System, "all").await?;
            put("system", json!({"all": true}));
            (ScopeKind::System, Some(held))
        }
    };
    let mut roles = Vec::new();
    if let Some(held) = held {
        let book = RoleBook::load(tx).await?;
        let mut ids = match &trust {
            // Of these it was seen that the one at the root of the trust has each now.
            Some(live) => live.roles.clone(),
            None => book.expand(held.iter().map(String::as_str)),
        };
        // Never more than the credential was given, nor than its user still has.
        let lent = [
            app_cred.as_ref().map(|c| &c.roles),
            access_token.as_ref().map(|t| &t.roles),
        ];
        for roles in lent.into_iter().flatten() {
            let given = book.expand(roles.iter().map(String::as_str));
            ids.retain(|id| given.contains(id));
        }
        roles = book
            .for_token(&ids)
            .into_iter()
            .map(|r: &Role| RoleRef {
                id: r.id.clone(),
                name: r.name.clone(),
            })
            .collect();
        if roles.is_empty() {
            return refuse(format!("user {} has no role in this scope", user.id));
        }
        put("roles", role_list(&roles).into());
    }
    let mut rules = None;
    if let Some(c) = &app_cred {
        let mut shown = json!({
            "id": c.id,
            "name": c.name,
            "restricted": !c.unrestricted,
        });
        if let Some(ids) = &c.access_rules {
            let found: Vec<AccessRule> = access_rules(tx, ids).await?;
            let list: Vec<Value> = found.iter().map(rule_view).collect();
            if let Some(map) = shown.as_object_mut() {
                map.insert("access_rules".into(), list.into());
            }
            rules = Some(found);
        }
        put("application_credential", shown);
    }
    if let Some(t) = &access_token {
        put(
            "OS-OAUTH1",
            json!({"access_token_id": t.id, "consumer_id": t.consumer_id}),
        );
    }
    if let Some(live) = &trust {
        put(
            "OS-TRUST:trust",
            json!({
                "id": live.trust.id,
                "trustor_user": {"id": live.trust.trustor_user_id},
                "trustee_user": {"id": live.trust.trustee_user_id},
                "impersonation": live.trust.impersonation,
            }),
        );
    }
    if is_revoked(tx, p, &marks).await? {
        return refuse("revoked");
    }
    Ok(Resolved {
        delegation: Delegation {
            trust_id: p.trust_id.clone(),
            app_cred_id: p.app_cred_id.clone(),
            access_token_id: p.access_token_id.clone(),
            restricted: app_cred
                .as_ref()
                .is_some_and(|c| !c.unrestricted || c.access_rules.is_some()),
        },
        rules,
        ctx: CtxInner {
            user_id: acting.id.clone(),
            user_name: acting.name.clone(),
            user_domain_id: acting_domain.id.clone(),
            user_domain_name: acting_domain.name.clone(),
            scope,
            roles,
            expires_at: p.expires_at,
            issued_at: p.issued_at,
            audit_ids: p.audit_ids.clone(),
            methods: p.methods.clone(),
            application_credential_id: p.app_cred_id.clone(),
            password_expires_at: acting.password_expires_at,
        },
        token,
    })
}
