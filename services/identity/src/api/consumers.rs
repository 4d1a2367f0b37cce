//! /v3/OS-OAUTH1/consumers (API reference: Identity API v3 extensions, "OS-OAUTH1"). The secret is sealed as credentials are, for a signature is checked with the secret itself.

use super::common::{self, Listing, TEXT, Take};
use crate::Identity;
use crate::logic::remove;
use crate::model::Consumer;
use crate::policy::{CreateConsumer, DeleteConsumer, GetConsumer, UpdateConsumer};
use crate::store::{drop_blob, set_blob};
use haneul_auth::{Target, allow_create, fetch};
use haneul_core::{Error, Result, id};
use haneul_http::{Body, Reply, Req, f};
use haneul_store::{Query, Tx};
use serde_json::json;
use std::sync::Arc;

const PATH: &str = "OS-OAUTH1/consumers";
static BODY: Body = Body {
    open: true,
    fields: &[f("description", TEXT).null()],
};

/// GET /v3/OS-OAUTH1/consumers
pub(crate) async fn list(app: Arc<Identity>, req: Req) -> Result<Reply> {
    req.ctx()?.enforce("identity:list_consumers", &Target::default())?;
    let listing = Listing::of(&req, &[])?;
    drop(req);
    let base = listing.base.clone();
    let mut tx = app.db.read().await?;
    let rows = listing
        .run::<Consumer>(&mut tx, Query::new(), None, &|c| common::view(&base, PATH, c))
        .await?;
    Ok(listing.reply("consumers", rows))
}

/// GET /v3/OS-OAUTH1/consumers/{consumer_id}
pub(crate) async fn show(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, id, base) = (
        req.ctx()?.clone(),
        req.param("consumer_id").to_owned(),
        req.base.clone(),
    );
    let found = fetch(&mut app.db.read().await?, &ctx, GetConsumer, &id).await?;
    Ok(Reply::ok(&json!({"consumer": common::view(&base, PATH, &found.value)})))
}

/// POST /v3/OS-OAUTH1/consumers. The secret is shown now and never again.
pub(crate) async fn create(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let (ctx, base) = (req.ctx()?.clone(), req.base.clone());
    ctx.enforce("identity:create_consumer", &Target::default())?;
    let mut body = common::body(&mut req, "consumer", &BODY).await?;
    let description = body.text("description");
    let mut extra = body.rest();
    extra.remove("secret");
    let consumer = Consumer {
        id: id::hex(),
        description,
        extra,
    };
    let secret = id::hex();
    let sealed = app.seal(&secret)?;
    let asker = ctx.clone();
    let made = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let grant = allow_create(&asker, CreateConsumer, &Target::default())?;
            set_blob(tx, &consumer.id, &sealed).await?;
            tx.insert(&grant, &consumer)
                .await?
                .ok_or_else(|| Error::internal("a new consumer's id is taken"))
        })
        .await?;
    let mut doc = common::view(&base, PATH, &made.value);
    common::put(&mut doc, "secret", secret.into());
    Ok(Reply::created(&json!({"consumer": doc})))
}

/// PATCH /v3/OS-OAUTH1/consumers/{consumer_id}
pub(crate) async fn update(app: Arc<Identity>, mut req: Req) -> Result<Reply> {
    let (ctx, id, base) = (
        req.ctx()?.clone(),
        req.param("consumer_id").to_owned(),
        req.base.clone(),
    );
    let body = common::body(&mut req, "consumer", &BODY).await?;
    common::check_change(&body, &id, "consumer")?;
    if body.contains_key("secret") {
        return Err(Error::field("consumer.secret", "Cannot change consumer secret."));
    }
    let asker = ctx.clone();
    let now = app
        .db
        .write(&ctx.actor(), async move |tx| {
            let found = fetch(tx, &asker, UpdateConsumer, &id).await?;
            let (mut body, mut value) = (body.clone(), found.edit());
            if let Some(d) = body.nullable("description") {
                value.description = d;
            }
            value.extra.extend(body.rest());
            tx.update(&found, &value).await
        })
        .await?;
    Ok(Reply::ok(&json!({"consumer": common::view(&base, PATH, &now.value)})))
}

/// DELETE /v3/OS-OAUTH1/consumers/{consumer_id}. All its tokens go with it.
pub(crate) async fn delete(app: Arc<Identity>, req: Req) -> Result<Reply> {
    let (ctx, id) = (req.ctx()?.clone(), req.param("consumer_id").to_owned());
    common::delete(app, &ctx, id, DeleteConsumer, async |tx: &mut Tx, c: &Consumer| {
        remove::oauth_tokens(tx, "consumer_id", &c.id).await?;
        drop_blob(tx, &c.id).await
    })
    .await
}
