//! What is in a namespace, below `/v2/metadefs/namespaces/{namespace}`: objects, properties, tags, and associations
//! with resource types (Glance API reference, "Metadata definition objects", "... properties", "... tags",
//! "... resource types"); and `/v2/metadefs/resource_types`.

use super::listing::Listing;
use super::{json_body, metadef_view as view};
use crate::Images;
use crate::logic::{definitions, namespaces};
use crate::model::metadef::{AssociationBody, Kind, MAX_DEFINITIONS, ObjectBody, PropertyBody, TagBody};
use crate::model::metadef_fields::{holds_nul, parse_association, parse_object, parse_property, parse_tag, parse_tags};
use crate::policy::{
    AddAssociation, AddObject, AddProperty, AddTag, DeleteObject, DeleteTag, GetObject, GetObjects, GetProperties,
    GetProperty, GetResourceType, GetTag, GetTags, ListResourceTypes, ModifyObject, ModifyProperty, ModifyTag,
    RemoveAssociation, RemoveProperty,
};
use crate::store::{associations_of, definition_fetch, namespace_seen, resource_types};
use haneul_auth::{Action, Secured, Target};
use haneul_core::{Error, Result};
use haneul_http::request::parse_bool;
use haneul_http::{Reply, Req};
use haneul_store::{Query, Stored};
use serde_json::json;
use std::sync::Arc;

const SORT_KEYS: &[(&str, &str)] = &[
    ("name", "name"),
    ("created_at", "created_at"),
    ("updated_at", "updated_at"),
    ("id", "id"),
];

/// Order and page of objects or tags: all of them when the client sets no limit, after the one that it names.
async fn paged<B: Kind, A: Action<On = crate::model::Definition<B>>>(app: &Images, req: &Req, one: A) -> Result<Query> {
    let listing = Listing::of(req, SORT_KEYS)?;
    let marker = match &listing.marker {
        None => None,
        Some(name) => {
            let ctx = req.ctx()?;
            let mut tx = app.db.read().await?;
            let namespace = namespace_seen(&mut tx, ctx, req.param("namespace")).await?;
            let found = definition_fetch(&mut tx, ctx, one, &namespace, name).await?;
            Some(Stored::clone(&found))
        }
    };
    let limit = listing.asked.unwrap_or(MAX_DEFINITIONS as i64);
    Ok(listing.order(Query::new(), marker.as_ref()).limit(limit))
}

pub(super) async fn objects(app: Arc<Images>, req: Req) -> Result<Reply> {
    if req.q("limit").and_then(|l| l.parse().ok()) == Some(0) {
        return Err(Error::field("limit", "limit param must be positive"));
    }
    let query = paged::<ObjectBody, _>(&app, &req, GetObject).await?;
    let namespace = req.param("namespace");
    let list = definitions::list(&app, req.ctx()?, GetObjects, GetObject::RULE, namespace, query).await?;
    Ok(Reply::ok(&view::objects(namespace, &list)))
}

pub(super) async fn create_object(app: Arc<Images>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let (name, body) = parse_object(&json_body(&mut req).await?)?;
    let made = definitions::add(&app, &ctx, AddObject, req.param("namespace"), name, body).await?;
    Ok(Reply::created(&view::object(req.param("namespace"), &made)))
}

pub(super) async fn show_object(app: Arc<Images>, req: Req) -> Result<Reply> {
    let (namespace, name) = (req.param("namespace"), req.param("object_name"));
    let found = definitions::show(&app, req.ctx()?, GetObject, namespace, name).await?;
    Ok(Reply::ok(&view::object(namespace, &found)))
}

pub(super) async fn update_object(app: Arc<Images>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let (new, body) = parse_object(&json_body(&mut req).await?)?;
    let (namespace, name) = (req.param("namespace"), req.param("object_name"));
    let changed = definitions::replace(&app, &ctx, ModifyObject, namespace, name, new, body).await?;
    Ok(Reply::ok(&view::object(namespace, &changed)))
}

pub(super) async fn delete_object(app: Arc<Images>, req: Req) -> Result<Reply> {
    let (namespace, name) = (req.param("namespace"), req.param("object_name"));
    definitions::remove(&app, req.ctx()?, DeleteObject, namespace, name).await?;
    Ok(Reply::no_content())
}

pub(super) async fn delete_objects(app: Arc<Images>, req: Req) -> Result<Reply> {
    namespaces::clear::<ObjectBody>(&app, req.ctx()?, req.param("namespace")).await?;
    Ok(Reply::no_content())
}

pub(super) async fn properties(app: Arc<Images>, req: Req) -> Result<Reply> {
    let (ctx, namespace) = (req.ctx()?, req.param("namespace"));
    let list = definitions::list(&app, ctx, GetProperties, GetProperty::RULE, namespace, Query::new()).await?;
    Ok(Reply::ok(&view::properties(&list)))
}

pub(super) async fn create_property(app: Arc<Images>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let (name, body) = parse_property(&json_body(&mut req).await?)?;
    let made = definitions::add(&app, &ctx, AddProperty, req.param("namespace"), name, body).await?;
    Ok(Reply::created(&view::property(&made)))
}

/// With `?resource_type=` the name is the one that the resource has: with the association's prefix.
pub(super) async fn show_property(app: Arc<Images>, req: Req) -> Result<Reply> {
    let (ctx, namespace) = (req.ctx()?, req.param("namespace"));
    let mut name = req.param("property_name");
    if let Some(kind) = req.q("resource_type").filter(|t| !t.is_empty()) {
        let mut tx = app.db.read().await?;
        let found = namespace_seen(&mut tx, ctx, namespace).await?;
        ctx.enforce(GetProperty::RULE, &found.target())?;
        let association = definition_fetch::<AssociationBody, _>(&mut tx, ctx, GetResourceType, &found, kind).await?;
        let prefix = association.body.prefix.clone().unwrap_or_default();
        name = match name.strip_prefix(prefix.as_str()).filter(|_| !prefix.is_empty()) {
            Some(rest) => rest,
            None => {
                return Err(Error::not_found(format!(
                    "Property {name} does not start with the prefix of its association with {kind}, '{prefix}'."
                )));
            }
        };
    }
    let found = definitions::show(&app, ctx, GetProperty, namespace, name).await?;
    Ok(Reply::ok(&view::property(&found)))
}

pub(super) async fn update_property(app: Arc<Images>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let (new, body) = parse_property(&json_body(&mut req).await?)?;
    let (namespace, name) = (req.param("namespace"), req.param("property_name"));
    let changed = definitions::replace(&app, &ctx, ModifyProperty, namespace, name, new, body).await?;
    Ok(Reply::ok(&view::property(&changed)))
}

pub(super) async fn delete_property(app: Arc<Images>, req: Req) -> Result<Reply> {
    let (namespace, name) = (req.param("namespace"), req.param("property_name"));
    definitions::remove(&app, req.ctx()?, RemoveProperty, namespace, name).await?;
    Ok(Reply::no_content())
}

pub(super) async fn delete_properties(app: Arc<Images>, req: Req) -> Result<Reply> {
    namespaces::clear::<PropertyBody>(&app, req.ctx()?, req.param("namespace")).await?;
    Ok(Reply::no_content())
}

pub(super) async fn tags(app: Arc<Images>, req: Req) -> Result<Reply> {
    let query = paged::<TagBody, _>(&app, &req, GetTag).await?;
    let list = definitions::list(&app, req.ctx()?, GetTags, GetTag::RULE, req.param("namespace"), query).await?;
    Ok(Reply::ok(&view::tags(&list)))
}

/// Many at once: in the place of those that are there, or with `X-Openstack-Append: true` beside them.
pub(super) async fn create_tags(app: Arc<Images>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let tags = parse_tags(&json_body(&mut req).await?)?;
    let append = req.header("x-openstack-append").and_then(parse_bool).unwrap_or(false);
    let names: Vec<_> = tags.iter().map(|(n, _)| json!({"name": n})).collect();
    definitions::put_tags(&app, &ctx, req.param("namespace"), tags, append).await?;
    Ok(Reply::created(&json!({"tags": names})))
}

pub(super) async fn create_tag(app: Arc<Images>, req: Req) -> Result<Reply> {
    let name = req.param("tag_name");
    let body = json!({"name": name});
    if holds_nul(&body) {
        return Err(Error::field("tag.name", "Text must not contain the character U+0000."));
    }
    let name = parse_tag(&body)?;
    let made = definitions::add(&app, req.ctx()?, AddTag, req.param("namespace"), name, TagBody {}).await?;
    Ok(Reply::created(&view::tag(&made)))
}

pub(super) async fn show_tag(app: Arc<Images>, req: Req) -> Result<Reply> {
    let (namespace, name) = (req.param("namespace"), req.param("tag_name"));
    let found = definitions::show(&app, req.ctx()?, GetTag, namespace, name).await?;
    Ok(Reply::ok(&view::tag(&found)))
}

pub(super) async fn update_tag(app: Arc<Images>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let new = parse_tag(&json_body(&mut req).await?)?;
    let (namespace, name) = (req.param("namespace"), req.param("tag_name"));
    let changed = definitions::replace(&app, &ctx, ModifyTag, namespace, name, new, TagBody {}).await?;
    Ok(Reply::ok(&view::tag(&changed)))
}

pub(super) async fn delete_tag(app: Arc<Images>, req: Req) -> Result<Reply> {
    let (namespace, name) = (req.param("namespace"), req.param("tag_name"));
    definitions::remove(&app, req.ctx()?, DeleteTag, namespace, name).await?;
    Ok(Reply::no_content())
}

pub(super) async fn delete_tags(app: Arc<Images>, req: Req) -> Result<Reply> {
    namespaces::clear::<TagBody>(&app, req.ctx()?, req.param("namespace")).await?;
    Ok(Reply::no_content())
}

/// All resource types of the cloud.
pub(super) async fn types(app: Arc<Images>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?;
    ctx.enforce(ListResourceTypes::RULE, &Target::own(ctx))?;
    let mut tx = app.db.read().await?;
    let list = resource_types(&mut tx).await?;
    Ok(Reply::ok(&view::resource_types(&list)))
}

pub(super) async fn associations(app: Arc<Images>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?;
    let mut tx = app.db.read().await?;
    let namespace = namespace_seen(&mut tx, ctx, req.param("namespace")).await?;
    ctx.enforce(ListResourceTypes::RULE, &namespace.target())?;
    let mut list = associations_of(&mut tx, std::slice::from_ref(&namespace)).await?;
    list.retain(|_| ctx.may(GetResourceType::RULE, &namespace.target()));
    Ok(Reply::ok(&view::associations(&list)))
}

pub(super) async fn associate(app: Arc<Images>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let (name, body) = parse_association(&json_body(&mut req).await?)?;
    let made = definitions::associate(&app, &ctx, AddAssociation, req.param("namespace"), name, body).await?;
    Ok(Reply::created(&view::association(&made)))
}

pub(super) async fn dissociate(app: Arc<Images>, req: Req) -> Result<Reply> {
    let (namespace, name) = (req.param("namespace"), req.param("resource_type"));
    definitions::remove(&app, req.ctx()?, RemoveAssociation, namespace, name).await?;
    Ok(Reply::no_content())
}
