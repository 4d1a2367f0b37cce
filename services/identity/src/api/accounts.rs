//! POST /v3/accounts: the public sign-up, an extension of Haneul's own (Keystone has none). Off until `accounts.sign_up`
//! is set.

use super::common::{self, NAME, NAME64};
use crate::Identity;
use crate::model::{Account, AccountKind};
use haneul_core::{Error, Result, id};
use haneul_http::{Body, FieldKind, Reply, Req, Ver, f, fields};
use serde_json::{Value, json};
use std::sync::Arc;

/// A password that somebody chooses for an account (keystone.conf `[identity] max_password_length`).
const PASSWORD: FieldKind = FieldKind::Str { min: 10, max: 4096 };

static USER: Body = Body {
    open: false,
    fields: &[
        f("name", NAME).req(),
        f("password", PASSWORD).req(),
        f("email", FieldKind::Check(email)),
    ],
};
static ACCOUNT: Body = Body {
    open: false,
    fields: &[
        f("kind", FieldKind::OneOf(&["person", "organization"])).req(),
        f("name", NAME64).req(),
        f(
            "users",
            FieldKind::List {
                of: &FieldKind::Obj(&USER),
                max: 20,
            },
        )
        .req(),
    ],
};

/// One `@` with something around it: whether mail arrives there only mail can tell.
fn email(v: &Value) -> Result<(), String> {
    let text = v.as_str().unwrap_or_default();
    let parts: Vec<&str> = text.split('@').collect();
    match parts.as_slice() {
        [a, b] if !a.is_empty() && !b.is_empty() && text.len() <= 254 && !text.contains(char::is_whitespace) => Ok(()),
        _ => Err("It must be an address such as name@example.org, of at most 254 characters.".into()),
    }
}

/// A user of a [`NewAccount`].
#[derive(Clone)]
pub(crate) struct NewUser {
    pub id: String,
    pub name: String,
    pub password: String,
    pub email: Option<String>,
}

/// A checked request for an account. Its first user is the owner.
#[derive(Clone)]
pub(crate) struct NewAccount {
    pub kind: AccountKind,
    pub name: String,
    pub users: Vec<NewUser>,
}

impl NewAccount {
    /// Checks what is under `account` in a body.
    pub(crate) fn of(account: &Value) -> Result<Self> {
        fields::check(&ACCOUNT, &common::masked(account, "account"), Ver(0, 0), "account")?;
        let text = |v: &Value, name: &str| v.get(name).and_then(Value::as_str).map(|t| t.trim().to_owned());
        let users: Vec<NewUser> = account
            .get("users")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|u| NewUser {
                id: id::hex(),
                name: text(u, "name").unwrap_or_default(),
                // As it was sent: white space is a part of a password.
                password: u.get("password").and_then(Value::as_str).unwrap_or_default().to_owned(),
                email: text(u, "email"),
            })
            .collect();
        let kind = text(account, "kind").as_deref().and_then(AccountKind::parse);
        let new = Self {
            kind: kind.ok_or_else(|| Error::field("account.kind", "It must be person or organization."))?,
            name: text(account, "name").unwrap_or_default(),
            users,
        };
        let wrong =
            |field: &str, why: String| Err(Error::field(field, format!("Invalid input for field '{field}': {why}")));
        match (new.kind, new.users.as_slice()) {
            (_, []) => wrong("account.users", "an account has at least one user, its owner.".into()),
            (AccountKind::Person, [_, _, ..]) => wrong(
                "account.users",
                format!("a person's account has one user, and {} were named.", new.users.len()),
            ),
            (AccountKind::Person, [one]) if one.name != new.name => wrong(
                "account.users",
                format!(
                    "a person's account and its user have one name, and these are {} and {}.",
                    new.name, one.name
                ),
            ),
            (_, users) => {
                let twice = users
                    .iter()
                    .enumerate()
                    .find(|(i, u)| users.iter().take(*i).any(|v| v.name == u.name));
                match twice {
                    Some((_, u)) => wrong("account.users", format!("the name {} is there twice.", u.name)),
                    None => Ok(new),
                }
            }
        }
    }
}

/// POST /v3/accounts
pub(crate) async fn sign_up(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let from = app.sign_up_open(req.peer)?;
    let body = req.json().await?;
    let account = body.get("account").cloned().ok_or_else(|| {
        Error::field(
            "account",
            "Invalid input for field 'account': the request body must be an object with the key 'account'.",
        )
    })?;
    let new = NewAccount::of(&account)?;
    for user in &new.users {
        app.compliance.check(&user.password)?;
    }
    let users: Vec<Value> = new.users.iter().map(|u| json!({"id": u.id, "name": u.name})).collect();
    let made = app.open_account(new, Some(from), req.request_id.to_string()).await?;
    Ok(Reply::created(&json!({"account": view(&made, users)})))
}

/// What a new account's users need to log in.
fn view(a: &Account, users: Vec<Value>) -> Value {
    json!({
        "id": a.id, "kind": a.kind, "name": a.name, "domain_id": a.domain_id, "project_id": a.project_id,
        "owner_id": a.owner_id, "users": users,
    })
}
