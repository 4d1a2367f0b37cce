//! Tables: `image` and `image_member` are resources; `image_tag` and `image_property` repeat parts of an
//! image's document to be searched by; `image_trash` names files that a committed delete left to remove.

use crate::model::{Image, Member};
use haneul_auth::{Ctx, Secured, fetch};
use haneul_core::{Result, clock};
use haneul_store::{CreateGrant, Dir, Grant, Migration, Query, Stored, System, Tx};

/// The schema.
pub const MIGRATIONS: &[Migration] = &[IMAGES, super::metadef::MIGRATION, super::cache::MIGRATION];

const IMAGES: Migration = Migration {
    owner: "image",
    number: 1,
    sql: "CREATE TABLE image(id TEXT PRIMARY KEY, project_id TEXT, name TEXT NOT NULL, generation BIGINT NOT NULL,
              created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, doc TEXT NOT NULL,
              status TEXT NOT NULL, visibility TEXT NOT NULL, protected BIGINT NOT NULL, os_hidden BIGINT NOT NULL,
              disk_format TEXT NOT NULL, container_format TEXT NOT NULL, size BIGINT NOT NULL,
              virtual_size BIGINT NOT NULL, min_disk BIGINT NOT NULL, min_ram BIGINT NOT NULL,
              checksum TEXT NOT NULL, os_hash_value TEXT NOT NULL);
          CREATE INDEX image_by_project ON image(project_id, created_at, id);
          CREATE INDEX image_by_time ON image(created_at, id);
          CREATE INDEX image_by_status ON image(status);
          CREATE TABLE image_member(id TEXT PRIMARY KEY, project_id TEXT, name TEXT NOT NULL, generation BIGINT NOT NULL,
              created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, doc TEXT NOT NULL,
              image_id TEXT NOT NULL, member_id TEXT NOT NULL, status TEXT NOT NULL);
          CREATE INDEX image_member_by_image ON image_member(image_id);
          CREATE INDEX image_member_by_member ON image_member(member_id, status);
          CREATE TABLE image_tag(image_id TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY(image_id, value));
          CREATE INDEX image_tag_by_value ON image_tag(value);
          CREATE TABLE image_property(image_id TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL,
              PRIMARY KEY(image_id, name));
          CREATE INDEX image_property_by_value ON image_property(name, value);
          CREATE TABLE image_trash(file TEXT PRIMARY KEY, since BIGINT NOT NULL)",
};

/// Stores a new image. `None` when the id is taken.
pub(crate) async fn image_insert(
    tx: &mut Tx,
    grant: &impl CreateGrant<Image>,
    image: &Image,
) -> Result<Option<Stored<Image>>> {
    let stored = tx.insert(grant, image).await?;
    if stored.is_some() {
        words_write(tx, image).await?;
    }
    Ok(stored)
}

/// Stores a new state of an image.
pub(crate) async fn image_update(tx: &mut Tx, grant: &impl Grant<Image>, image: &Image) -> Result<Stored<Image>> {
    let old = grant.stored();
    if old.tags != image.tags || old.properties != image.properties {
        words_clear(tx, &image.id).await?;
        words_write(tx, image).await?;
    }
    if old.owner != image.owner {
        // A membership belongs to the image's owner; it moves along.
        for member in member_list(tx, &image.id).await? {
            let mut moved = member.value.clone();
            moved.owner.clone_from(&image.owner);
            tx.update(&System::of(member), &moved).await?;
        }
    }
    tx.update(grant, image).await
}

/// Removes an image with its memberships; the bytes are the caller's.
pub(crate) async fn image_delete(tx: &mut Tx, grant: &impl Grant<Image>) -> Result<()> {
    let id = grant.stored().id.clone();
    for member in member_list(tx, &id).await? {
        tx.delete(&System::of(member)).await?;
    }
    words_clear(tx, &id).await?;
    tx.delete(grant).await
}

async fn words_clear(tx: &mut Tx, id: &str) -> Result<()> {
    tx.exec("DELETE FROM image_tag WHERE image_id = $1", &[id.into()])
        .await?;
    tx.exec("DELETE FROM image_property WHERE image_id = $1", &[id.into()])
        .await?;
    Ok(())
}

async fn words_write(tx: &mut Tx, image: &Image) -> Result<()> {
    for tag in &image.tags {
        tx.exec(
            "INSERT INTO image_tag(image_id, value) VALUES($1, $2)",
            &[image.id.as_str().into(), tag.into()],
        )
        .await?;
    }
    for (name, value) in &image.properties {
        tx.exec(
            "INSERT INTO image_property(image_id, name, value) VALUES($1, $2, $3)",
            &[image.id.as_str().into(), name.into(), value.into()],
        )
        .await?;
    }
    Ok(())
}

/// A page of images. The query carries the caller's scope.
pub(crate) async fn image_list(tx: &mut Tx, query: &Query) -> Result<Vec<Stored<Image>>> {
    tx.list(query).await
}

/// Every image whose bytes are coming in, or are in the staging area.
pub(crate) async fn images_coming_in(tx: &mut Tx) -> Result<Vec<Stored<Image>>> {
    let query = Query::new().is_in("status", ["saving", "uploading"]);
    tx.list(&query.order("id", Dir::Asc)).await
}

/// The memberships of an image.
pub(crate) async fn member_list(tx: &mut Tx, image_id: &str) -> Result<Vec<Stored<Member>>> {
    tx.list(&Query::new().eq("image_id", image_id).order("member_id", Dir::Asc))
        .await
}

/// One membership, with permission.
pub(crate) async fn member_find<A: haneul_auth::Action<On = Member>>(
    tx: &mut Tx,
    ctx: &Ctx,
    action: A,
    image_id: &str,
    member_id: &str,
) -> Result<haneul_auth::Authorized<Member, A>> {
    fetch(tx, ctx, action, &Member::key(image_id, member_id)).await
}

/// Notes a file to remove after the commit; a start after a crash finds it here.
pub(crate) async fn trash_put(tx: &mut Tx, file: &str) -> Result<()> {
    tx.exec(
        "INSERT INTO image_trash(file, since) VALUES($1, $2) ON CONFLICT DO NOTHING",
        &[file.into(), clock::now().into()],
    )
    .await?;
    Ok(())
}

/// Files to remove.
pub(crate) async fn trash_list(tx: &mut Tx) -> Result<Vec<String>> {
    tx.rows("SELECT file FROM image_trash ORDER BY since, file", &[])
        .await?
        .iter()
        .map(|r| r.str(0))
        .collect()
}

/// The file is gone.
pub(crate) async fn trash_remove(tx: &mut Tx, file: &str) -> Result<()> {
    tx.exec("DELETE FROM image_trash WHERE file = $1", &[file.into()])
        .await?;
    Ok(())
}

/// Looks an image up for a caller: whether it is shared with the caller's project is found here, for
/// visibility and policy need it.
pub(crate) async fn image_fetch<A: haneul_auth::Action<On = Image>>(
    tx: &mut Tx,
    ctx: &Ctx,
    action: A,
    id: &str,
) -> Result<haneul_auth::Authorized<Image, A>> {
    // Ids are stored in lower case; a client may write them otherwise.
    let key = id.to_ascii_lowercase();
    let Some(mut stored) = tx.find::<Image>(&key).await? else {
        return Err(Image::not_found(id));
    };
    let me = ctx.project_id();
    if !me.is_empty() && tx.find::<Member>(&Member::key(&key, me)).await?.is_some() {
        stored.value.caller_member = Some(me.to_owned());
    }
    haneul_auth::authorize(ctx, action, stored, id)
}
