//! `/v2.0/{collection}/{id}/tags`.

use super::input;
use super::list::Listed;
use crate::Network;
use crate::err::{bad, invalid, not_found};
use crate::model::{Described, FloatingIp, Group, Net, Port, Router, Subnet};
use crate::policy::action;
use haneul_auth::{Action, Ctx, fetch};
use haneul_core::{Error, Result};
use haneul_http::{FieldKind as K, Reply, Req};
use haneul_store::Tx;
use serde_json::{Value, json};
use std::sync::Arc;

/// Tags of a resource at the most.
const MAX: usize = 50;
/// Characters of a tag at the most.
pub(crate) const MAX_LEN: usize = 255;

/// Without repetitions, in the order given.
pub(crate) fn clean(tags: Vec<String>) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for t in tags {
        if !out.contains(&t) {
            out.push(t);
        }
    }
    out
}

enum Change {
    Set(Vec<String>),
    Add(String),
    Remove(String),
}

async fn read<A: Action>(tx: &mut Tx, ctx: &Ctx, action: A, id: &str) -> Result<Vec<String>>
where
    A::On: Listed,
{
    Ok(fetch(tx, ctx, action, id).await?.tags().to_vec())
}

async fn write<A: Action>(tx: &mut Tx, ctx: &Ctx, action: A, id: &str, change: &Change) -> Result<Vec<String>>
where
    A::On: Listed,
{
    let old = fetch(tx, ctx, action, id).await?;
    let mut tags = old.tags().to_vec();
    match change {
        Change::Set(new) => tags = clean(new.clone()),
        Change::Add(t) if !tags.contains(t) => tags.push(t.clone()),
        Change::Add(_) => {}
        Change::Remove(t) => {
            let Some(i) = tags.iter().position(|x| x == t) else {
                return Err(missing(t));
            };
            tags.remove(i);
        }
    }
    if tags.len() > MAX {
        return Err(bad(
            "BadRequest",
            "tags",
            format!("Bad tags request: {} tags, and at most {MAX} are allowed.", tags.len()),
        ));
    }
    if tags != old.tags() {
        let mut value = old.edit();
        value.set_tags(tags.clone());
        tx.update(&old, &value).await?;
    }
    Ok(tags)
}

fn missing(tag: &str) -> Error {
    not_found("TagNotFound", format!("Tag {tag} could not be found."))
}

macro_rules! by_collection {
    ($collection:expr, $call:ident ( $tx:expr, $ctx:expr, $id:expr $(, $more:expr)* ), $prefix:ident) => {
        match $collection {
            "networks" => $call($tx, $ctx, by_collection!(@ $prefix Network), $id $(, $more)*).await,
            "subnets" => $call($tx, $ctx, by_collection!(@ $prefix Subnet), $id $(, $more)*).await,
            "ports" => $call($tx, $ctx, by_collection!(@ $prefix Port), $id $(, $more)*).await,
            "routers" => $call($tx, $ctx, by_collection!(@ $prefix Router), $id $(, $more)*).await,
            "floatingips" => $call($tx, $ctx, by_collection!(@ $prefix FloatingIp), $id $(, $more)*).await,
            "security-groups" | "security_groups" => $call($tx, $ctx, by_collection!(@ $prefix SecurityGroup), $id $(, $more)*).await,
            _ => Err(Error::not_found("The resource could not be found.")),
        }
    };
    (@ get Network) => { action::GetNetwork };
    (@ get Subnet) => { action::GetSubnet };
    (@ get Port) => { action::GetPort };
    (@ get Router) => { action::GetRouter };
    (@ get FloatingIp) => { action::GetFloatingIp };
    (@ get SecurityGroup) => { action::GetSecurityGroup };
    (@ update Network) => { action::UpdateNetwork };
    (@ update Subnet) => { action::UpdateSubnet };
    (@ update Port) => { action::UpdatePort };
    (@ update Router) => { action::UpdateRouter };
    (@ update FloatingIp) => { action::UpdateFloatingIp };
    (@ update SecurityGroup) => { action::UpdateSecurityGroup };
}

// The actions' resources, so that a collection without a list does not get tags.
#[allow(dead_code)]
fn all_listed() {
    fn listed<T: Listed>() {}
    listed::<Net>();
    listed::<Subnet>();
    listed::<Port>();
    listed::<Router>();
    listed::<FloatingIp>();
    listed::<Group>();
}

async fn look(app: &Network, req: &Req) -> Result<Vec<String>> {
    let ctx = req.ctx()?.clone();
    let mut tx = app.db.read().await?;
    by_collection!(req.param("collection"), read(&mut tx, &ctx, super::id(req)), get)
}

async fn change(app: Arc<Network>, req: &Req, change: Change) -> Result<Vec<String>> {
    let ctx = req.ctx()?.clone();
    let collection = req.param("collection").to_owned();
    let id = super::id(req).to_owned();
    let actor = ctx.actor();
    app.db
        .write(&actor, async move |tx| {
            by_collection!(collection.as_str(), write(tx, &ctx, &id, &change), update)
        })
        .await
}

/// `GET .../tags`
pub async fn index(app: Arc<Network>, req: Req) -> Result<Reply> {
    Ok(Reply::ok(&json!({"tags": look(&app, &req).await?})))
}

/// `GET .../tags/{tag}`: 204 or 404.
pub async fn has(app: Arc<Network>, req: Req) -> Result<Reply> {
    let tag = req.param("tag").to_owned();
    if look(&app, &req).await?.contains(&tag) {
        Ok(Reply::no_content())
    } else {
        Err(missing(&tag))
    }
}

/// `PUT .../tags`: replaces them all.
pub async fn replace(app: Arc<Network>, mut req: Req) -> Result<Reply> {
    static TAGS: haneul_http::Body = haneul_http::Body {
        open: false,
        fields: &[haneul_http::f(
            "tags",
            K::List {
                of: &input::kind::TAG,
                // More than MAX is another refusal.
                max: usize::MAX,
            },
        )
        .req()],
    };
    let body = req.json().await?;
    haneul_http::fields::check(&TAGS, &body, haneul_http::Ver(0, 0), "body")
        .map_err(|e| e.with_code("InvalidInput"))?;
    let tags = body
        .get("tags")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let tags = change(app, &req, Change::Set(tags)).await?;
    Ok(Reply::ok(&json!({"tags": tags})))
}

/// `DELETE .../tags`
pub async fn clear(app: Arc<Network>, req: Req) -> Result<Reply> {
    change(app, &req, Change::Set(vec![])).await?;
    Ok(Reply::no_content())
}

/// `PUT .../tags/{tag}`
pub async fn add(app: Arc<Network>, req: Req) -> Result<Reply> {
    let tag = req.param("tag").to_owned();
    if tag.is_empty() || tag.chars().count() > MAX_LEN || tag.contains(',') {
        return Err(invalid(
            "tag",
            format!("'{tag}' is no tag: 1 to {MAX_LEN} characters without '/' and ','."),
        ));
    }
    change(app, &req, Change::Add(tag)).await?;
    Ok(Reply::empty(http::StatusCode::CREATED))
}

/// `DELETE .../tags/{tag}`
pub async fn remove(app: Arc<Network>, req: Req) -> Result<Reply> {
    let tag = req.param("tag").to_owned();
    change(app, &req, Change::Remove(tag)).await?;
    Ok(Reply::no_content())
}
