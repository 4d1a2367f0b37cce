//! Objects, properties, tags and resource type associations of a namespace (Glance API reference, "Metadata
//! definition objects", "... properties", "... tags", "... resource types"): the same life for each kind.

use super::namespaces::{check_protection, put_all, room, taken};
use crate::Images;
use crate::model::metadef::{AssociationBody, Kind, TagBody};
use crate::model::{Association, Definition, Namespace};
use crate::policy::AddTags;
use crate::store::{association_insert, definition_fetch, definition_list, definitions_delete, namespace_seen};
use haneul_auth::{Action, Ctx, Secured, allow_create};
use haneul_core::{Result, id};
use haneul_store::{Query, Stored};

/// Definitions of one kind, for who may list them. Each is asked for by `one`, too.
pub(crate) async fn list<B: Kind, L: Action<On = Definition<B>>>(
    app: &Images,
    ctx: &Ctx,
    _list: L,
    one: &str,
    namespace: &str,
    query: Query,
) -> Result<Vec<Stored<Definition<B>>>> {
    let mut tx = app.db.read().await?;
    let namespace = namespace_seen(&mut tx, ctx, namespace).await?;
    ctx.enforce(L::RULE, &namespace.target())?;
    let mut found = definition_list::<B>(&mut tx, &namespace, query).await?;
    found.retain(|d| ctx.may(one, &d.target()));
    Ok(found)
}

/// The namespace of the path, and one definition in it.
pub(crate) async fn show<B: Kind, A: Action<On = Definition<B>>>(
    app: &Images,
    ctx: &Ctx,
    action: A,
    namespace: &str,
    name: &str,
) -> Result<Stored<Definition<B>>> {
    let mut tx = app.db.read().await?;
    let namespace = namespace_seen(&mut tx, ctx, namespace).await?;
    let found = definition_fetch(&mut tx, ctx, action, &namespace, name).await?;
    Ok(Stored::clone(&found))
}

/// A new definition.
pub(crate) async fn add<B: Kind, A: Action<On = Definition<B>> + Copy>(
    app: &Images,
    ctx: &Ctx,
    action: A,
    namespace: &str,
    name: String,
    body: B,
) -> Result<Stored<Definition<B>>> {
    let (ctx_, namespace) = (ctx.clone(), namespace.to_owned());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let namespace = namespace_seen(tx, &ctx_, &namespace).await?;
            let grant = allow_create(&ctx_, action, &namespace.target())?;
            room::<B>(tx, &namespace, 1).await?;
            let new = Definition::new(id::uuid(), &namespace, name.clone(), body.clone());
            let stored = tx.insert(&grant, &new).await?;
            stored.ok_or_else(|| taken::<B>(&namespace, &name))
        })
        .await
}

/// A new association; its resource type is made where there is none.
pub(crate) async fn associate<A: Action<On = Association> + Copy>(
    app: &Images,
    ctx: &Ctx,
    action: A,
    namespace: &str,
    name: String,
    body: AssociationBody,
) -> Result<Stored<Association>> {
    let (ctx_, namespace) = (ctx.clone(), namespace.to_owned());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let namespace = namespace_seen(tx, &ctx_, &namespace).await?;
            let grant = allow_create(&ctx_, action, &namespace.target())?;
            room::<AssociationBody>(tx, &namespace, 1).await?;
            let new = Definition::new(id::uuid(), &namespace, name.clone(), body.clone());
            let stored = association_insert(tx, &grant, &new).await?;
            stored.ok_or_else(|| taken::<AssociationBody>(&namespace, &name))
        })
        .await
}

/// Replaces a definition, name included.
pub(crate) async fn replace<B: Kind, A: Action<On = Definition<B>> + Copy>(
    app: &Images,
    ctx: &Ctx,
    action: A,
    namespace: &str,
    name: &str,
    new_name: String,
    body: B,
) -> Result<Stored<Definition<B>>> {
    let (ctx_, namespace, name) = (ctx.clone(), namespace.to_owned(), name.to_owned());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let namespace = namespace_seen(tx, &ctx_, &namespace).await?;
            let found = definition_fetch(tx, &ctx_, action, &namespace, &name).await?;
            let mut changed = found.edit();
            changed.name.clone_from(&new_name);
            changed.body = body.clone();
            if changed == found.value {
                return Ok(Stored::clone(&found));
            }
            if new_name != found.name {
                let same = Query::new().eq("name", new_name.as_str()).limit(1);
                if !definition_list::<B>(tx, &namespace, same).await?.is_empty() {
                    return Err(taken::<B>(&namespace, &new_name));
                }
            }
            tx.update(&found, &changed).await
        })
        .await
}

/// Removes a definition.
pub(crate) async fn remove<B: Kind, A: Action<On = Definition<B>> + Copy>(
    app: &Images,
    ctx: &Ctx,
    action: A,
    namespace: &str,
    name: &str,
) -> Result<()> {
    let (ctx_, namespace, name) = (ctx.clone(), namespace.to_owned(), name.to_owned());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let namespace = namespace_seen(tx, &ctx_, &namespace).await?;
            let found = definition_fetch(tx, &ctx_, action, &namespace, &name).await?;
            check_protection(&namespace)?;
            tx.delete(&found).await
        })
        .await
}

/// Makes tags, in the place of those that are there or beside them. An empty list changes nothing, as in Glance.
pub(crate) async fn put_tags(
    app: &Images,
    ctx: &Ctx,
    namespace: &str,
    tags: Vec<(String, TagBody)>,
    append: bool,
) -> Result<()> {
    let (ctx_, namespace) = (ctx.clone(), namespace.to_owned());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let namespace: Stored<Namespace> = namespace_seen(tx, &ctx_, &namespace).await?;
            let grant = allow_create(&ctx_, AddTags, &namespace.target())?;
            if tags.is_empty() {
                return Ok(());
            }
            if !append {
                definitions_delete::<TagBody>(tx, &namespace.id).await?;
            }
            put_all(tx, &grant, &namespace, &tags).await
        })
        .await
}
