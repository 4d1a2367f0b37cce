//! Accounts made in one go: a person's or an organisation's, by the operator or by whoever signs up.

use super::compliance::{By, Compliance};
use crate::Identity;
use crate::api::{NewAccount, NewUser};
use crate::model::{
    Account, AccountKind, ActorKind, Assignment, DEFAULT_DOMAIN, Domain, Origin, Project, TargetKind, User,
};
use crate::store::role_by_name;
use haneul_core::clock::SECOND;
use haneul_core::config::Accounts;
use haneul_core::{Error, Kind, Result, clock, id};
use haneul_store::{Actor, Query, System, Tx};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

/// Length of the windows that sign-ups are counted in.
const HOUR: i64 = 3600 * SECOND;
/// More sources than this are not told apart within an hour.
const SOURCES: usize = 10_000;

/// How often each source tried to sign up in its current hour: also what fails is counted, or sign-up would be a way
/// to learn which names are taken. In memory: after a restart the accounts that were made count still.
#[derive(Default)]
pub(crate) struct Attempts(Mutex<HashMap<String, (i64, u32)>>);

impl Attempts {
    /// Counts one; false when it was one too many.
    fn allow(&self, source: &str, limit: u32) -> bool {
        let now = clock::now();
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= SOURCES {
            map.retain(|_, (since, _)| now - *since < HOUR);
        }
        let key = if map.len() < SOURCES { source } else { "" };
        let entry = map.entry(key.to_owned()).or_insert((now, 0));
        if now - entry.0 >= HOUR {
            *entry = (now, 0);
        }
        entry.1 += 1;
        entry.1 <= limit
    }
}

/// What one subscriber has: an IPv4 address, or the 64 bits of IPv6 that a line gets.
fn source(peer: Option<IpAddr>) -> String {
    match peer.map(|p| p.to_canonical()) {
        Some(IpAddr::V6(v6)) => {
            let [a, b, c, d, ..] = v6.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
        Some(v4) => v4.to_string(),
        None => "unknown".to_owned(),
    }
}

fn taken(what: &str, name: &str) -> Error {
    Error::conflict(format!(
        "There is a {what} with the name {name} already. Choose another name."
    ))
    .with_field("account.name")
}

fn too_many(what: &str, limit: impl std::fmt::Display) -> Error {
    Error::new(
        Kind::TooManyRequests,
        format!("{what}: {limit} are allowed. Try again in an hour."),
    )
}

/// A user's part that is the same for all: its row and its password.
async fn user(
    tx: &mut Tx,
    (compliance, by): (&Compliance, By),
    new: &NewUser,
    hash: &str,
    domain: &str,
    project: &str,
) -> Result<User> {
    let mut extra = Map::new();
    if let Some(email) = &new.email {
        extra.insert("email".into(), email.as_str().into());
    }
    let mut user = User {
        id: new.id.clone(),
        name: new.name.clone(),
        domain_id: domain.to_owned(),
        enabled: true,
        default_project_id: Some(project.to_owned()),
        description: None,
        options: Map::new(),
        password_set_at: None,
        password_expires_at: None,
        password_self_service: false,
        extra,
    };
    compliance.note(&mut user, by);
    let made = tx.insert(&System::create(), &user).await?;
    made.ok_or_else(|| taken("user", &user.name))?;
    compliance.set(tx, &user.id, Some(hash)).await?;
    Ok(user)
}

async fn assign(tx: &mut Tx, user: &str, target: (TargetKind, &str), role: &str, inherited: bool) -> Result<()> {
    let role = role_by_name(tx, "", role)
        .await?
        .ok_or_else(|| Error::conflict(format!("There is no role {role}, which accounts are made with.")))?;
    let assignment = Assignment::new((ActorKind::User, user), target, &role.id, inherited);
    tx.insert(&System::create(), &assignment).await?;
    Ok(())
}

/// Domain, project, users and assignments of a new account, and its row.
async fn make(
    tx: &mut Tx,
    compliance: &Compliance,
    new: &NewAccount,
    hashes: &[String],
    origin: Origin,
    from: Option<&str>,
) -> Result<Account> {
    let by = match origin {
        Origin::SignUp => By::User,
        Origin::Operator => By::Other,
    };
    let domain_id = match new.kind {
        AccountKind::Person => DEFAULT_DOMAIN.to_owned(),
        AccountKind::Organization => {
            let domain = Domain {
                id: id::hex(),
                name: new.name.clone(),
                description: None,
                enabled: true,
                tags: vec![],
                options: Map::new(),
                extra: Map::new(),
            };
            let made = tx.insert(&System::create(), &domain).await?;
            made.ok_or_else(|| taken("domain", &new.name))?;
            domain.id
        }
    };
    let project = Project {
        id: id::hex(),
        name: new.name.clone(),
        domain_id: domain_id.clone(),
        parent_id: domain_id.clone(),
        description: None,
        enabled: true,
        tags: vec![],
        options: Map::new(),
        extra: Map::new(),
    };
    let made = tx.insert(&System::create(), &project).await?;
    made.ok_or_else(|| taken("project", &new.name))?;
    let mut owner_id = None;
    for (new_user, hash) in new.users.iter().zip(hashes) {
        let user = user(tx, (compliance, by), new_user, hash, &domain_id, &project.id).await?;
        let here = (TargetKind::Project, project.id.as_str());
        let domain = (TargetKind::Domain, domain_id.as_str());
        if owner_id.is_none() && new.kind == AccountKind::Organization {
            // Users, projects and assignments of the domain, and a member's rights in each project that will be.
            assign(tx, &user.id, domain, "manager", false).await?;
            assign(tx, &user.id, domain, "manager", true).await?;
            assign(tx, &user.id, here, "manager", false).await?;
        } else {
            assign(tx, &user.id, here, "member", false).await?;
        }
        owner_id.get_or_insert(user.id);
    }
    let account = Account {
        id: id::hex(),
        kind: new.kind,
        name: new.name.clone(),
        domain_id,
        project_id: project.id,
        owner_id: owner_id.ok_or_else(|| Error::internal("an account without users"))?,
        origin,
        address: from.map(str::to_owned),
    };
    tx.insert(&System::create(), &account)
        .await?
        .ok_or_else(|| Error::internal("two accounts with one id"))?;
    Ok(account)
}

/// How many accounts came by sign-up: in all, in the last hour, and in that hour from this source.
async fn signed_up(tx: &mut Tx, from: &str) -> Result<[i64; 3]> {
    let hour_ago = clock::now() - HOUR;
    let row = tx
        .row(
            "SELECT COUNT(*), COALESCE(SUM(CASE WHEN created_at > $1 THEN 1 ELSE 0 END), 0),
                    COALESCE(SUM(CASE WHEN created_at > $2 AND address = $3 THEN 1 ELSE 0 END), 0)
             FROM identity_account WHERE address IS NOT NULL",
            &[hour_ago.into(), hour_ago.into(), from.into()],
        )
        .await?
        .ok_or_else(|| Error::internal("a count without a row"))?;
    Ok([row.i64(0)?, row.i64(1)?, row.i64(2)?])
}

/// Refuses one account more by sign-up where a limit is reached.
async fn hold(tx: &mut Tx, limits: &Accounts, from: &str) -> Result<()> {
    let [all, hour, source] = signed_up(tx, from).await?;
    if all >= limits.max_signed_up {
        return Err(Error::forbidden(format!(
            "This cloud takes {} accounts by sign-up, and has {all}. Ask its administrator for one.",
            limits.max_signed_up
        )));
    }
    if source >= limits.per_address_per_hour {
        let what = "New accounts from one address in an hour";
        return Err(too_many(what, limits.per_address_per_hour));
    }
    if hour >= limits.per_hour {
        return Err(too_many("New accounts in an hour", limits.per_hour));
    }
    Ok(())
}

impl Identity {
    /// Whether strangers may make themselves an account, before anything of what they sent is looked at.
    pub(crate) fn sign_up_open(&self, peer: Option<IpAddr>) -> Result<String> {
        if !self.accounts.sign_up {
            return Err(Error::forbidden(
                "Sign-up is switched off in this cloud. Its administrator makes accounts (haneul account create), or switches it on (accounts.sign_up).",
            ));
        }
        let from = source(peer);
        let limit = self.accounts.attempts_per_address_per_hour;
        if !self.attempts.allow(&from, limit) {
            return Err(too_many("Attempts to sign up from one address in an hour", limit));
        }
        Ok(from)
    }

    /// Makes the account that a checked request describes, for someone at `from` or, without, for the operator.
    pub(crate) async fn open_account(
        &self,
        new: NewAccount,
        from: Option<String>,
        request_id: String,
    ) -> Result<Account> {
        if let Some(from) = &from {
            // Before the hash, which is the dearest part.
            hold(&mut self.db.read().await?, &self.accounts, from).await?;
        }
        let mut hashes = Vec::with_capacity(new.users.len());
        for user in &new.users {
            hashes.push(self.hasher.hash(&user.password).await?);
        }
        // Who signs up makes the account: that is what the change log says.
        let (origin, actor) = match (&from, new.users.first()) {
            (Some(_), Some(owner)) => (Origin::SignUp, owner.id.clone()),
            _ => (Origin::Operator, "operator".to_owned()),
        };
        let actor = Actor {
            user: actor,
            project: String::new(),
            request_id,
        };
        let (limits, compliance) = (self.accounts.clone(), self.compliance.clone());
        self.db
            .write(&actor, async move |tx| {
                if let Some(from) = &from {
                    hold(tx, &limits, from).await?;
                }
                make(tx, &compliance, &new, &hashes, origin, from.as_deref()).await
            })
            .await
    }

    /// Makes an account for the operator (`haneul account create`): the body of POST /v3/accounts, in which users
    /// without a password get one, which the answer tells and nothing else ever does.
    pub async fn create_account(&self, body: Value, request_id: String) -> Result<Value> {
        let mut body = body;
        let mut told = Vec::new();
        if let Some(users) = body.pointer_mut("/account/users").and_then(Value::as_array_mut) {
            for user in users.iter_mut().filter_map(Value::as_object_mut) {
                if let Some(password) = user.get("password").and_then(Value::as_str) {
                    self.compliance.check(password)?;
                }
                if !user.contains_key("password") {
                    let password = id::secret(16);
                    told.push(json!({"name": user.get("name"), "password": password}));
                    user.insert("password".into(), password.into());
                }
            }
        }
        let account = body.get("account").cloned().unwrap_or_default();
        let made = self.open_account(NewAccount::of(&account)?, None, request_id).await?;
        Ok(json!({"account": made, "passwords": told}))
    }

    /// All accounts by name, at most `limit`.
    pub async fn list_accounts(&self, limit: i64) -> Result<Vec<Account>> {
        let query = Query::new().limit(limit);
        let rows = self.db.read().await?.list::<Account>(&query).await?;
        Ok(rows.into_iter().map(|a| a.value).collect())
    }
}
