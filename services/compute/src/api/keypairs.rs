//! Key pairs (Nova API reference, "Keypairs (keypairs)").

use super::input::{self, check_query};
use crate::Compute;
use crate::logic::keys;
use crate::model::Keypair;
use crate::policy::acts;
use haneul_auth::{Action, Ctx, Target, allow_create, fetch};
use haneul_core::{Error, Kind, Result, clock};
use haneul_http::{Body, FieldKind as K, Page, Reply, Req, Ver, f};
use haneul_store::{Dir, Query, Stored};
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

const NAME: K = K::Check(|v| name(v, "_- "));
const NAME_92: K = K::Check(|v| name(v, "_- @."));
fn name(v: &Value, more: &str) -> Result<(), String> {
    match v.as_str() {
        Some(s)
            if (1..=255).contains(&s.chars().count())
                && s.trim() == s
                && s.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c)) =>
        {
            Ok(())
        }
        _ => Err(format!(
            "A name has 1 to 255 letters, digits and characters of '{more}', and no blank at either end."
        )),
    }
}

static CREATE: Body = Body {
    open: false,
    fields: &[
        f("name", NAME).req().until(2, 91),
        f("name", NAME_92).req().since(2, 92),
        f("public_key", K::Str { min: 0, max: 65535 }).until(2, 91),
        f("public_key", K::Str { min: 1, max: 65535 }).req().since(2, 92),
        f("type", K::OneOf(&["ssh", "x509"])).since(2, 2),
        f("user_id", K::Str { min: 1, max: 255 }).since(2, 10),
    ],
};

/// Whose keys: administrators may name another user since 2.10.
fn user(req: &Req) -> Result<String> {
    let own = req.ctx()?.user_id.clone();
    Ok(if req.version < Ver(2, 10) {
        own
    } else {
        req.q("user_id").map_or(own, str::to_owned)
    })
}

fn view(k: &Keypair, v: Ver) -> Value {
    let mut out = json!({"name": k.name, "public_key": k.public_key, "fingerprint": k.fingerprint});
    if let (true, Some(m)) = (v >= Ver(2, 2), out.as_object_mut()) {
        m.insert("type".into(), k.kind.as_str().into());
    }
    out
}

/// `GET /os-keypairs`
pub(crate) async fn index(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let (v, ctx) = (req.version, req.ctx()?);
    check_query(&req, &["user_id", "limit", "marker"])?;
    let user = user(&req)?;
    ctx.enforce(acts::KeyList::RULE, &Target::user(&user))?;
    let mut query = Query::new().eq("user_id", user.as_str()).order("name", Dir::Asc);
    let mut tx = app.db.read().await?;
    let page = if v >= Ver(2, 35) { Some(Page::of(&req)?) } else { None };
    if let Some(p) = &page {
        if let Some(m) = &p.marker {
            if tx.find::<Keypair>(&Keypair::key(&user, m)).await?.is_none() {
                return Err(Error::field("marker", format!("marker [{m}] not found")));
            }
            query = query.after(vec![m.into()]);
        }
        query = query.limit(p.fetch());
    }
    let mut rows = tx.list::<Keypair>(&query).await?;
    let more = page.as_ref().is_some_and(|p| p.cut(&mut rows));
    let list: Vec<Value> = rows.iter().map(|k| json!({"keypair": view(k, v)})).collect();
    let mut body = json!({"keypairs": list});
    if let (true, Some(last), Some(m)) = (more, rows.last(), body.as_object_mut()) {
        m.insert(
            "keypairs_links".into(),
            Page::next_link(&req, "/v2.1/os-keypairs", &last.name),
        );
    }
    Ok(Reply::ok(&body))
}

async fn find<A: Action<On = Keypair>>(
    app: &Compute,
    ctx: &Ctx,
    action: A,
    user: &str,
    name: &str,
) -> Result<Stored<Keypair>> {
    let mut tx = app.db.read().await?;
    let seen = fetch(&mut tx, ctx, action, &Keypair::key(user, name)).await?;
    Ok(Stored::clone(&seen))
}

/// `GET /os-keypairs/{name}`
pub(crate) async fn show(app: Arc<Compute>, req: Req) -> Result<Reply> {
    check_query(&req, &["user_id"])?;
    let user = user(&req)?;
    req.ctx()?.enforce(acts::KeyShow::RULE, &Target::user(&user))?;
    let k = find(&app, req.ctx()?, acts::KeyShow, &user, req.param("name")).await?;
    let mut out = view(&k, req.version);
    if let Some(m) = out.as_object_mut() {
        m.insert("id".into(), k.number.into());
        m.insert("user_id".into(), k.user_id.as_str().into());
        m.insert("created_at".into(), clock::naive_micros(k.created_at).into());
        m.insert("deleted".into(), false.into());
        m.insert("deleted_at".into(), Value::Null);
        m.insert("updated_at".into(), Value::Null);
    }
    Ok(Reply::ok(&json!({"keypair": out})))
}

/// `POST /os-keypairs`: import, or (before 2.92) generate.
pub(crate) async fn create(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    let (v, ctx) = (req.version, req.ctx()?.clone());
    let body = req.fields("keypair", &CREATE).await?;
    let user = input::text(&body, "user_id").unwrap_or_else(|| ctx.user_id.clone());
    ctx.enforce(acts::KeyCreate::RULE, &Target::user(&user))?;
    let name = input::text(&body, "name").unwrap_or_default();
    let kind = input::text(&body, "type").unwrap_or_else(|| "ssh".into());
    if kind == "x509" {
        return Err(Error::field(
            "type",
            "Keypair data is invalid: X.509 certificates are for Windows guests and are not served; use the type ssh.",
        ));
    }
    let (public, fingerprint, private) = match input::text(&body, "public_key") {
        Some(text) => {
            let fingerprint = keys::import(&text)?;
            (text, fingerprint, None)
        }
        None => {
            // A tenth of a second of arithmetic: not on the thread that serves others.
            let pair = tokio::task::spawn_blocking(|| keys::generate("Generated-by-Haneul"))
                .await
                .map_err(Error::internal)??;
            (pair.public, pair.fingerprint, Some(pair.private))
        }
    };
    let (a, c, u) = (app.clone(), ctx.clone(), user.clone());
    let stored = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let grant = allow_create(&c, acts::KeyCreate, &Target::user(&u))?;
            let (limit, used) = (
                a.limit(tx, c.project_id(), "key_pairs").await?,
                tx.count::<Keypair>(&Query::new().eq("user_id", u.as_str())).await?,
            );
            if limit >= 0 && used >= limit {
                return Err(Error::new(
                    Kind::OverQuota,
                    format!("Quota exceeded, too many key pairs: the user has {used} of {limit}."),
                ));
            }
            let k = Keypair {
                key: Keypair::key(&u, &name),
                number: tx.next_number("compute.keypair").await?,
                user_id: u.clone(),
                name: name.clone(),
                kind: kind.clone(),
                public_key: public.clone(),
                fingerprint: fingerprint.clone(),
            };
            tx.insert(&grant, &k)
                .await?
                .ok_or_else(|| Error::conflict(format!("Key pair '{name}' already exists.")).with_field("name"))
        })
        .await?;
    let mut out = view(&stored, v);
    if let Some(m) = out.as_object_mut() {
        m.insert("user_id".into(), stored.user_id.as_str().into());
        if let Some(p) = private {
            m.insert("private_key".into(), p.into());
        }
    }
    let status = if v >= Ver(2, 2) {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok(Reply::json(status, &json!({"keypair": out})))
}

/// `DELETE /os-keypairs/{name}`: servers keep the key that they were given.
pub(crate) async fn delete(app: Arc<Compute>, req: Req) -> Result<Reply> {
    check_query(&req, &["user_id"])?;
    let (c, user, name) = (req.ctx()?.clone(), user(&req)?, req.param("name").to_owned());
    c.enforce(acts::KeyDelete::RULE, &Target::user(&user))?;
    app.db
        .write(&req.ctx()?.actor(), async move |tx| {
            let k = fetch(tx, &c, acts::KeyDelete, &Keypair::key(&user, &name)).await?;
            tx.delete(&k).await
        })
        .await?;
    Ok(Reply::empty(if req.version >= Ver(2, 2) {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::ACCEPTED
    }))
}
