//! Namespaces of metadata definitions (Glance API reference, "Metadata definition namespaces").

use crate::Images;
use crate::model::metadef::{
    AssociationBody, Kind, MAX_DEFINITIONS, MAX_NAMESPACES, ObjectBody, PropertyBody, TagBody,
};
use crate::model::metadef_fields::NamespaceRequest;
use crate::model::{Association, Definition, Namespace, Object, Property, Tag};
use crate::policy::{
    AddAssociation, AddNamespace, AddObject, AddProperty, AddTag, DeleteNamespace, DeleteTags, GetObjects,
    GetProperties, GetTags, ListResourceTypes, ModifyNamespace,
};
use crate::store::{
    association_insert, associations_of, definition_count, definition_list, definitions_delete, namespace_count,
    namespace_delete, namespace_fetch, namespace_seen, namespace_taken, namespace_update,
};
use haneul_auth::{Action, Ctx, Secured, Target, allow_create};
use haneul_core::{Error, Result, id};
use haneul_store::{CreateGrant, Dir, Query, Stored, System, Tx};

/// A namespace with all that is in it.
pub(crate) struct Whole {
    pub namespace: Stored<Namespace>,
    pub objects: Vec<Stored<Object>>,
    pub properties: Vec<Stored<Property>>,
    pub tags: Vec<Stored<Tag>>,
    pub associations: Vec<Stored<Association>>,
}

async fn whole(tx: &mut Tx, namespace: Stored<Namespace>) -> Result<Whole> {
    let newest = || Query::new().order("created_at", Dir::Desc).order("id", Dir::Desc);
    Ok(Whole {
        objects: definition_list::<ObjectBody>(tx, &namespace, newest()).await?,
        properties: definition_list::<PropertyBody>(tx, &namespace, newest()).await?,
        tags: definition_list::<TagBody>(tx, &namespace, newest()).await?,
        associations: associations_of(tx, std::slice::from_ref(&namespace)).await?,
        namespace,
    })
}

/// The namespace, for who may read every part of it.
pub(crate) async fn show(app: &Images, ctx: &Ctx, name: &str) -> Result<Whole> {
    let mut tx = app.db.read().await?;
    let namespace = namespace_seen(&mut tx, ctx, name).await?;
    let target = namespace.target();
    for rule in [
        ListResourceTypes::RULE,
        GetObjects::RULE,
        GetProperties::RULE,
        GetTags::RULE,
    ] {
        ctx.enforce(rule, &target)?;
    }
    whole(&mut tx, namespace).await
}

/// Whose the namespace will be: the caller's, unless an administrator says otherwise.
fn owner_of(ctx: &Ctx, asked: Option<&str>) -> Result<Option<String>> {
    match asked {
        Some(other) if other != ctx.project_id() && !ctx.is_admin() => Err(Error::forbidden(format!(
            "You are not permitted to make '{other}' the owner of a namespace: only an administrator is."
        ))
        .with_field("owner")),
        Some(owner) => Ok(Some(owner.to_owned())),
        None => Ok(Some(ctx.project_id().to_owned()).filter(|p| !p.is_empty())),
    }
}

fn filled(mut namespace: Namespace, request: &NamespaceRequest) -> Namespace {
    namespace.name.clone_from(&request.name);
    namespace.display_name.clone_from(&request.display_name);
    namespace.description.clone_from(&request.description);
    namespace.visibility = request.visibility;
    namespace.protected = request.protected;
    namespace
}

/// Makes a namespace with its first definitions: all of it or nothing.
pub(crate) async fn create(app: &Images, ctx: &Ctx, request: NamespaceRequest) -> Result<Whole> {
    let ctx_ = ctx.clone();
    app.db
        .write(&ctx.actor(), async move |tx| {
            let own = Target::own(&ctx_);
            let grant = allow_create(&ctx_, AddNamespace, &own)?;
            let owner = owner_of(&ctx_, request.owner.as_deref())?;
            if namespace_count(tx, owner.as_deref()).await? >= MAX_NAMESPACES {
                return Err(Error::new(
                    haneul_core::Kind::TooLarge,
                    format!("The owner has {MAX_NAMESPACES} namespaces, and no more are allowed: delete one first."),
                )
                .with_field("namespace"));
            }
            let namespace = filled(Namespace::new(id::uuid(), request.name.clone(), owner), &request);
            let stored = tx.insert(&grant, &namespace).await?;
            let stored = stored.ok_or_else(|| namespace_taken(&namespace.name))?;
            // Each kind has its rule, which is asked where some of the kind come along.
            if !request.associations.is_empty() {
                let grant = allow_create(&ctx_, AddAssociation, &own)?;
                associate_all(tx, &grant, &stored, &request.associations).await?;
            }
            if !request.objects.is_empty() {
                let grant = allow_create(&ctx_, AddObject, &own)?;
                put_all(tx, &grant, &stored, &request.objects).await?;
            }
            if !request.tags.is_empty() {
                let grant = allow_create(&ctx_, AddTag, &own)?;
                put_all(tx, &grant, &stored, &request.tags).await?;
            }
            if !request.properties.is_empty() {
                let grant = allow_create(&ctx_, AddProperty, &own)?;
                put_all(tx, &grant, &stored, &request.properties).await?;
            }
            whole(tx, stored).await
        })
        .await
}

/// The cloud's own namespace, of the catalogue. Nothing is made where there is one of its name.
pub(super) async fn create_own(tx: &mut Tx, request: &NamespaceRequest) -> Result<()> {
    let namespace = filled(Namespace::new(id::uuid(), request.name.clone(), None), request);
    let Some(stored) = tx.insert(&System::create(), &namespace).await? else {
        return Ok(());
    };
    associate_all(tx, &System::create(), &stored, &request.associations).await?;
    put_all(tx, &System::create(), &stored, &request.objects).await?;
    put_all(tx, &System::create(), &stored, &request.tags).await?;
    put_all(tx, &System::create(), &stored, &request.properties).await
}

/// Two definitions of one kind and name.
pub(super) fn taken<B: Kind>(namespace: &Namespace, name: &str) -> Error {
    Error::conflict(format!(
        "A metadata definition {} {name} already exists in namespace {}.",
        B::WORD,
        namespace.name
    ))
    .with_field("name")
}

/// Stores new definitions of one kind.
pub(super) async fn put_all<B: Kind>(
    tx: &mut Tx,
    grant: &impl CreateGrant<Definition<B>>,
    namespace: &Namespace,
    list: &[(String, B)],
) -> Result<()> {
    room::<B>(tx, namespace, list.len()).await?;
    for (name, body) in list {
        let new = Definition::new(id::uuid(), namespace, name.clone(), body.clone());
        tx.insert(grant, &new)
            .await?
            .ok_or_else(|| taken::<B>(namespace, name))?;
    }
    Ok(())
}

async fn associate_all(
    tx: &mut Tx,
    grant: &impl CreateGrant<Association>,
    namespace: &Namespace,
    list: &[(String, AssociationBody)],
) -> Result<()> {
    for (name, body) in list {
        let new = Definition::new(id::uuid(), namespace, name.clone(), body.clone());
        association_insert(tx, grant, &new)
            .await?
            .ok_or_else(|| taken::<AssociationBody>(namespace, name))?;
    }
    Ok(())
}

/// Refuses more definitions than a namespace holds.
pub(super) async fn room<B: Kind>(tx: &mut Tx, namespace: &Namespace, more: usize) -> Result<()> {
    let wanted = definition_count::<B>(tx, namespace).await?.saturating_add(more);
    if wanted <= MAX_DEFINITIONS {
        return Ok(());
    }
    Err(Error::new(
        haneul_core::Kind::TooLarge,
        format!(
            "A namespace holds at most {MAX_DEFINITIONS} definitions of the kind {}; {} would have {wanted}.",
            B::WORD,
            namespace.name
        ),
    )
    .with_field("name"))
}

/// Replaces the namespace's own fields; what is left out falls back to its default. What is in it stays.
pub(crate) async fn update(
    app: &Images,
    ctx: &Ctx,
    name: &str,
    request: NamespaceRequest,
) -> Result<Stored<Namespace>> {
    let (ctx_, name) = (ctx.clone(), name.to_owned());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let found = namespace_fetch(tx, &ctx_, ModifyNamespace, &name).await?;
            let mut changed = filled(found.edit(), &request);
            changed.owner = owner_of(&ctx_, request.owner.as_deref())?;
            if changed == found.value {
                return Ok(Stored::clone(&found));
            }
            namespace_update(tx, &found, &changed).await
        })
        .await
}

/// What a protected namespace answers.
pub(super) fn check_protection(namespace: &Namespace) -> Result<()> {
    if !namespace.protected {
        return Ok(());
    }
    Err(Error::forbidden(format!(
        "Metadata definition namespace {} is protected: neither it nor what is in it can be deleted. Set protected to \
         false first.",
        namespace.name
    ))
    .with_field("protected"))
}

/// Deletes a namespace with all that is in it.
pub(crate) async fn delete(app: &Images, ctx: &Ctx, name: &str) -> Result<()> {
    let (ctx_, name) = (ctx.clone(), name.to_owned());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let found = namespace_fetch(tx, &ctx_, DeleteNamespace, &name).await?;
            check_protection(&found)?;
            namespace_delete(tx, &found).await
        })
        .await
}

/// Deletes all definitions of one kind; for Glance that is a deletion in the namespace, with its rule.
pub(crate) async fn clear<B: Kind>(app: &Images, ctx: &Ctx, name: &str) -> Result<()> {
    let (ctx_, name) = (ctx.clone(), name.to_owned());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let found = namespace_fetch(tx, &ctx_, DeleteNamespace, &name).await?;
            if B::KIND == TagBody::KIND {
                ctx_.enforce(DeleteTags::RULE, &found.target())?;
            }
            check_protection(&found)?;
            definitions_delete::<B>(tx, &found.id).await
        })
        .await
}
