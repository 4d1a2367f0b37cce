//! Images that another service makes: registered in its transaction with its caller's rights, filled by a stream, and
//! given up or thinned out as it says.

use super::create_image::editor;
use super::delete_image;
use super::reconcile::upload_of;
use super::upload::{gone, take};
use crate::Images;
use crate::format::DiskFormat;
use crate::model::{Image, MAX_EXTRAS, Visibility, check_name, limit_exceeded, set};
use crate::policy::AddImage;
use crate::store::{image_insert, image_update};
use axum::body::Body;
use futures_util::StreamExt;
use haneul_auth::{Ctx, Target, allow_create};
use haneul_core::{Error, Result, id};
use haneul_store::{Actor, Stored, System, Tx};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is known of an image before its bytes come.
#[derive(Clone, Debug, Default)]
pub struct NewImage {
    /// Its name.
    pub name: String,
    /// Of its bytes.
    pub format: Option<DiskFormat>,
    /// GiB.
    pub min_disk_gib: i64,
    /// MiB.
    pub min_ram_mib: i64,
    /// Everything else; a name that Glance knows as an attribute sets that, as in a request.
    pub properties: BTreeMap<String, String>,
    /// The owner shares it with somebody, rather than keeping it private.
    pub shared: bool,
}

impl Images {
    /// Registers an image of the caller's project, without bytes; answers its id.
    ///
    /// # Errors
    /// As for a request of the caller's that registers one.
    pub async fn register(&self, tx: &mut Tx, ctx: &Ctx, new: &NewImage) -> Result<String> {
        let owner = Some(ctx.project_id().to_owned()).filter(|p| !p.is_empty());
        let mut image = Image::new(id::uuid(), owner.clone());
        image.name = Some(new.name.clone());
        image.disk_format = new.format.map(|f| f.name().to_owned());
        image.container_format = Some("bare".into());
        image.min_disk = new.min_disk_gib;
        image.min_ram = new.min_ram_mib;
        image.visibility = if new.shared {
            Visibility::Shared
        } else {
            Visibility::Private
        };
        let target = Target {
            project_id: owner,
            ..Target::default()
        };
        let who = editor(ctx, &target);
        for (name, value) in &new.properties {
            check_name(name, false)?;
            set(&mut image, name, &value.as_str().into(), who)?;
        }
        if image.properties.len() > MAX_EXTRAS {
            return Err(limit_exceeded("properties", image.properties.len()));
        }
        let target = target.with("visibility", image.visibility.as_str());
        let grant = allow_create(ctx, AddImage, &target)?;
        let made = image_insert(tx, &grant, &image).await?;
        made.map(|m| m.id.clone())
            .ok_or_else(|| Error::conflict(format!("Image ID {} already exists!", image.id)))
    }

    /// Receives the bytes of a registered image, of which `size` shall come. They are checked as an upload is; the
    /// image is active when all are there, and waits for others when that fails.
    ///
    /// # Errors
    /// `Gone` when the image was deleted meanwhile; otherwise as for an upload.
    pub async fn receive(self: &Arc<Self>, actor: &Actor, id: &str, body: Body, size: u64) -> Result<()> {
        let (app, actor, id) = (self.clone(), actor.clone(), id.to_owned());
        // A task of its own: whoever waits may go away.
        let done = tokio::spawn(async move {
            let store = app.stores.default();
            let live = app.begin_live();
            let (wanted, key, at) = (id.clone(), live.key().to_owned(), store.id.clone());
            let image = app
                .db
                .write(&actor, async move |tx| {
                    let stored = tx.find::<Image>(&wanted).await?;
                    let stored = stored.ok_or_else(|| gone(&wanted))?;
                    let mut image = stored.value.clone();
                    image.begin_upload(&key, &at)?;
                    tx.claim(&upload_of(&key)).await?;
                    image_update(tx, &System::of(stored), &image).await.map(|s| s.value)
                })
                .await?;
            let mut stream = body.into_data_stream().fuse();
            take(&app, &actor, &image, &live, &store.files, &mut stream, Some(size)).await
        });
        done.await.map_err(Error::internal)?
    }

    /// Whether an image has its bytes; `None`: there is no such image.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn is_complete(&self, tx: &mut Tx, id: &str) -> Result<Option<bool>> {
        Ok(tx.find::<Image>(id).await?.map(|i| i.status.has_data()))
    }

    /// Deletes an image that has no bytes yet. One that has them stays.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn give_up(self: &Arc<Self>, tx: &mut Tx, id: &str) -> Result<()> {
        match tx.find::<Image>(id).await? {
            Some(stored) if !stored.status.has_data() => self.drop_image(tx, stored).await,
            _ => Ok(()),
        }
    }

    /// Of a project's images with these properties only the newest stay, and what is protected.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn keep_newest(
        self: &Arc<Self>,
        tx: &mut Tx,
        project: &str,
        properties: &[(&str, &str)],
        keep: usize,
    ) -> Result<()> {
        let Some((name, value)) = properties.first() else {
            return Ok(());
        };
        let sql = "SELECT image_id FROM image_property WHERE name = $1 AND value = $2";
        let rows = tx.rows(sql, &[(*name).into(), (*value).into()]).await?;
        let mut found = Vec::new();
        for row in rows {
            let has = |i: &Stored<Image>| {
                i.owner.as_deref() == Some(project)
                    && properties
                        .iter()
                        .all(|(name, value)| i.properties.get(*name).is_some_and(|v| v == value))
            };
            found.extend(tx.find::<Image>(&row.str(0)?).await?.filter(has));
        }
        found.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
        for old in found.into_iter().skip(keep).filter(|i| !i.protected) {
            self.drop_image(tx, old).await?;
        }
        Ok(())
    }

    /// The row goes in the caller's transaction, and the file follows.
    async fn drop_image(self: &Arc<Self>, tx: &mut Tx, stored: Stored<Image>) -> Result<()> {
        let files = delete_image::remove(self, tx, &System::of(stored)).await?;
        let app = self.clone();
        tx.after_commit(move || {
            tokio::spawn(async move { delete_image::discard(&app, files).await });
        });
        Ok(())
    }
}
