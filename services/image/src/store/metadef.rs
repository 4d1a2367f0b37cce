//! Tables of metadata definitions and of tasks. Names are unique: a namespace's in the cloud, a definition's among
//! its kind in the namespace. `metadef_catalogued` remembers what the catalogue has made, so that what an operator
//! removed stays away.

use crate::model::metadef::{
    AssociationBody, Kind, MAX_RESOURCE_TYPES, ObjectBody, PropertyBody, TagBody, no_definition,
};
use crate::model::{Association, Definition, Namespace, ResourceType};
use crate::policy::GetNamespace;
use haneul_auth::{Action, Authorized, Ctx, Secured, authorize};
use haneul_core::{Error, Result, clock};
use haneul_store::{CreateGrant, Dir, Grant, Migration, Query, Stored, System, Tx};

pub(super) const MIGRATION: Migration = Migration {
    owner: "image",
    number: 2,
    sql: "CREATE TABLE metadef_namespace(id TEXT PRIMARY KEY, project_id TEXT, name TEXT NOT NULL,
              generation BIGINT NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, doc TEXT NOT NULL,
              visibility TEXT NOT NULL);
          CREATE UNIQUE INDEX metadef_namespace_by_name ON metadef_namespace(name);
          CREATE INDEX metadef_namespace_by_project ON metadef_namespace(project_id, created_at, id);
          CREATE INDEX metadef_namespace_by_time ON metadef_namespace(created_at, id);
          CREATE TABLE metadef_object(id TEXT PRIMARY KEY, project_id TEXT, name TEXT NOT NULL,
              generation BIGINT NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, doc TEXT NOT NULL,
              namespace_id TEXT NOT NULL);
          CREATE UNIQUE INDEX metadef_object_by_name ON metadef_object(namespace_id, name);
          CREATE TABLE metadef_property(id TEXT PRIMARY KEY, project_id TEXT, name TEXT NOT NULL,
              generation BIGINT NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, doc TEXT NOT NULL,
              namespace_id TEXT NOT NULL);
          CREATE UNIQUE INDEX metadef_property_by_name ON metadef_property(namespace_id, name);
          CREATE TABLE metadef_tag(id TEXT PRIMARY KEY, project_id TEXT, name TEXT NOT NULL,
              generation BIGINT NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, doc TEXT NOT NULL,
              namespace_id TEXT NOT NULL);
          CREATE UNIQUE INDEX metadef_tag_by_name ON metadef_tag(namespace_id, name);
          CREATE TABLE metadef_association(id TEXT PRIMARY KEY, project_id TEXT, name TEXT NOT NULL,
              generation BIGINT NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, doc TEXT NOT NULL,
              namespace_id TEXT NOT NULL);
          CREATE UNIQUE INDEX metadef_association_by_name ON metadef_association(namespace_id, name);
          CREATE INDEX metadef_association_by_type ON metadef_association(name);
          CREATE TABLE metadef_resource_type(id TEXT PRIMARY KEY, project_id TEXT, name TEXT NOT NULL,
              generation BIGINT NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, doc TEXT NOT NULL);
          CREATE TABLE metadef_catalogued(name TEXT PRIMARY KEY, since BIGINT NOT NULL);
          CREATE TABLE image_task(id TEXT PRIMARY KEY, project_id TEXT, name TEXT NOT NULL,
              generation BIGINT NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, doc TEXT NOT NULL,
              status TEXT NOT NULL, image_id TEXT NOT NULL, expires_at BIGINT NOT NULL);
          CREATE INDEX image_task_by_project ON image_task(project_id, created_at, id);
          CREATE INDEX image_task_by_status ON image_task(status);
          CREATE INDEX image_task_by_image ON image_task(image_id);
          CREATE INDEX image_task_by_end ON image_task(expires_at)",
};

/// The namespace of this name, whoever asks.
pub(crate) async fn namespace_named(tx: &mut Tx, name: &str) -> Result<Option<Stored<Namespace>>> {
    if name.contains('\0') {
        return Ok(None);
    }
    let found = tx.list(&Query::new().eq("name", name).limit(1)).await?;
    Ok(found.into_iter().next())
}

/// The namespace of this name, when the caller may know of it.
pub(crate) async fn namespace_seen(tx: &mut Tx, ctx: &Ctx, name: &str) -> Result<Stored<Namespace>> {
    namespace_named(tx, name)
        .await?
        .filter(|n| n.visible(ctx) && ctx.may(GetNamespace::RULE, &n.target()))
        .ok_or_else(|| Namespace::not_found(name))
}

/// The namespace, with permission. Who may not see it learns nothing, not even that they may not.
pub(crate) async fn namespace_fetch<A: Action<On = Namespace>>(
    tx: &mut Tx,
    ctx: &Ctx,
    action: A,
    name: &str,
) -> Result<Authorized<Namespace, A>> {
    let found = namespace_seen(tx, ctx, name).await?;
    authorize(ctx, action, found, name)
}

/// A page of namespaces. The query carries the caller's scope.
pub(crate) async fn namespace_list(tx: &mut Tx, query: &Query) -> Result<Vec<Stored<Namespace>>> {
    tx.list(query).await
}

/// How many an owner has.
pub(crate) async fn namespace_count(tx: &mut Tx, owner: Option<&str>) -> Result<i64> {
    let query = match owner {
        Some(o) => Query::new().eq("project_id", o),
        None => Query::new().is_null("project_id"),
    };
    tx.count::<Namespace>(&query).await
}

/// Stores a new state; what is in the namespace goes along to a new owner.
pub(crate) async fn namespace_update(
    tx: &mut Tx,
    grant: &impl Grant<Namespace>,
    namespace: &Namespace,
) -> Result<Stored<Namespace>> {
    let old = grant.stored();
    if old.name != namespace.name && namespace_named(tx, &namespace.name).await?.is_some() {
        return Err(namespace_taken(&namespace.name));
    }
    if old.owner != namespace.owner {
        hand_over::<ObjectBody>(tx, namespace).await?;
        hand_over::<PropertyBody>(tx, namespace).await?;
        hand_over::<TagBody>(tx, namespace).await?;
        hand_over::<AssociationBody>(tx, namespace).await?;
    }
    tx.update(grant, namespace).await
}

/// Two namespaces of one name.
pub(crate) fn namespace_taken(name: &str) -> Error {
    Error::conflict(format!("A metadata definition namespace {name} already exists.")).with_field("namespace")
}

async fn hand_over<B: Kind>(tx: &mut Tx, namespace: &Namespace) -> Result<()> {
    for found in everything::<B>(tx, &namespace.id).await? {
        let mut moved = found.value.clone();
        moved.owner.clone_from(&namespace.owner);
        tx.update(&System::of(found), &moved).await?;
    }
    Ok(())
}

/// Removes a namespace with all that is in it.
pub(crate) async fn namespace_delete(tx: &mut Tx, grant: &impl Grant<Namespace>) -> Result<()> {
    let id = grant.stored().id.clone();
    definitions_delete::<ObjectBody>(tx, &id).await?;
    definitions_delete::<PropertyBody>(tx, &id).await?;
    definitions_delete::<TagBody>(tx, &id).await?;
    definitions_delete::<AssociationBody>(tx, &id).await?;
    tx.delete(grant).await
}

async fn everything<B: Kind>(tx: &mut Tx, namespace_id: &str) -> Result<Vec<Stored<Definition<B>>>> {
    tx.list(&Query::new().eq("namespace_id", namespace_id).order("name", Dir::Asc))
        .await
}

/// Removes all definitions of one kind. The caller may change the namespace so.
pub(crate) async fn definitions_delete<B: Kind>(tx: &mut Tx, namespace_id: &str) -> Result<()> {
    for found in everything::<B>(tx, namespace_id).await? {
        tx.delete(&System::of(found)).await?;
    }
    Ok(())
}

/// Definitions of a namespace that the caller sees; the query has the order and the page.
pub(crate) async fn definition_list<B: Kind>(
    tx: &mut Tx,
    namespace: &Namespace,
    query: Query,
) -> Result<Vec<Stored<Definition<B>>>> {
    let mut found: Vec<Stored<Definition<B>>> = tx.list(&query.eq("namespace_id", namespace.id.as_str())).await?;
    for one in &mut found {
        one.value.visibility = namespace.visibility;
    }
    Ok(found)
}

/// How many of one kind a namespace has.
pub(crate) async fn definition_count<B: Kind>(tx: &mut Tx, namespace: &Namespace) -> Result<usize> {
    let query = Query::new().eq("namespace_id", namespace.id.as_str());
    let n = tx.count::<Definition<B>>(&query).await?;
    Ok(usize::try_from(n).unwrap_or(usize::MAX))
}

/// One definition, with permission: who may not do this in the namespace does not learn what is in it.
pub(crate) async fn definition_fetch<B: Kind, A: Action<On = Definition<B>>>(
    tx: &mut Tx,
    ctx: &Ctx,
    action: A,
    namespace: &Namespace,
    name: &str,
) -> Result<Authorized<Definition<B>, A>> {
    ctx.enforce(A::RULE, &namespace.target())?;
    let missing = || no_definition::<B>(&namespace.name, name);
    if name.contains('\0') {
        return Err(missing());
    }
    let query = Query::new().eq("name", name).limit(1);
    let mut found = definition_list::<B>(tx, namespace, query).await?;
    match found.pop() {
        Some(one) => authorize(ctx, action, one, name),
        None => Err(missing()),
    }
}

/// Associations of several namespaces at once.
pub(crate) async fn associations_of(tx: &mut Tx, namespaces: &[Stored<Namespace>]) -> Result<Vec<Stored<Association>>> {
    let ids = namespaces.iter().map(|n| n.id.as_str());
    let query = Query::new().is_in("namespace_id", ids);
    tx.list(&query.order("name", Dir::Asc)).await
}

/// Stores an association, and its resource type where it is a new one. `None` when there is such an association.
pub(crate) async fn association_insert(
    tx: &mut Tx,
    grant: &impl CreateGrant<Association>,
    association: &Association,
) -> Result<Option<Stored<Association>>> {
    if tx.find::<ResourceType>(&association.name).await?.is_none() {
        if tx.count::<ResourceType>(&Query::new()).await? >= MAX_RESOURCE_TYPES {
            return Err(Error::new(
                haneul_core::Kind::TooLarge,
                format!("There are {MAX_RESOURCE_TYPES} resource types, and no more are allowed: use one of them."),
            )
            .with_field("name"));
        }
        tx.insert(&System::create(), &ResourceType::new(&association.name))
            .await?;
    }
    tx.insert(grant, association).await
}

/// All resource types.
pub(crate) async fn resource_types(tx: &mut Tx) -> Result<Vec<Stored<ResourceType>>> {
    tx.list(&Query::new().order("name", Dir::Asc)).await
}

/// Whether a part of the catalogue is made for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Catalogued {
    Now,
    Before,
}

/// Notes that a part of the catalogue has been made.
pub(crate) async fn catalogued(tx: &mut Tx, name: &str) -> Result<Catalogued> {
    let row = tx
        .row(
            "INSERT INTO metadef_catalogued(name, since) VALUES($1, $2) ON CONFLICT DO NOTHING RETURNING name",
            &[name.into(), clock::now().into()],
        )
        .await?;
    Ok(match row {
        Some(_) => Catalogued::Now,
        None => Catalogued::Before,
    })
}
