//! What compute's old proxy asks for (Nova API until 2.38): images as its users see them, with the caller's rights.

use super::{delete_image, listing, update_image};
use crate::Images;
use crate::model::{Change, Image};
use crate::policy::GetImage;
use crate::store::image_fetch;
use haneul_auth::Ctx;
use haneul_core::Result;
use haneul_store::Stored;
use std::collections::BTreeMap;
use std::sync::Arc;

/// An image that the caller sees.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenImage {
    pub id: String,
    pub name: Option<String>,
    /// In Glance's words.
    pub status: String,
    /// Bytes of the file.
    pub size: Option<i64>,
    /// GiB.
    pub min_disk: i64,
    /// MiB.
    pub min_ram: i64,
    pub created_at: i64,
    pub updated_at: i64,
    pub properties: BTreeMap<String, String>,
}

impl SeenImage {
    fn of(i: &Stored<Image>) -> Self {
        Self {
            id: i.id.clone(),
            name: i.name.clone(),
            status: i.status.to_string(),
            size: i.size,
            min_disk: i.min_disk,
            min_ram: i.min_ram,
            created_at: i.created_at,
            updated_at: i.updated_at,
            properties: i.properties.clone(),
        }
    }
}

impl Images {
    /// One image.
    pub async fn see(&self, ctx: &Ctx, id: &str) -> Result<SeenImage> {
        let mut tx = self.db.read().await?;
        Ok(SeenImage::of(&*image_fetch(&mut tx, ctx, GetImage, id).await?))
    }

    /// A page of the list that `GET /v2/images` gives for this query, and the marker of the next.
    pub async fn see_all(
        &self,
        ctx: &Ctx,
        query: &[(String, String)],
        max_limit: i64,
    ) -> Result<(Vec<SeenImage>, Option<String>)> {
        let (images, next) = listing::images(self, ctx, query, max_limit).await?;
        Ok((images.iter().map(SeenImage::of).collect(), next))
    }

    /// Deletes an image.
    pub async fn delete(self: &Arc<Self>, ctx: &Ctx, id: &str) -> Result<()> {
        delete_image::run(self, ctx, id).await
    }

    /// Changes an image's properties, as a patch of them would.
    pub async fn change_properties(
        &self,
        ctx: &Ctx,
        id: &str,
        change: impl Fn(&mut BTreeMap<String, String>) -> Result<()> + Send + 'static,
    ) -> Result<SeenImage> {
        let changed = update_image::change(self, ctx, id, move |image| {
            let mut wanted = image.properties.clone();
            change(&mut wanted)?;
            Ok(steps(&image.properties, &wanted))
        })
        .await?;
        Ok(SeenImage::of(&changed))
    }
}

/// The patch from one state of the properties to another.
fn steps(now: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> Vec<Change> {
    let gone = now.keys().filter(|k| !wanted.contains_key(*k));
    let mut out: Vec<Change> = gone.map(|k| Change::Remove { path: k.clone() }).collect();
    for (name, value) in wanted.iter().filter(|(k, v)| now.get(*k) != Some(*v)) {
        let (path, value) = (name.clone(), value.as_str().into());
        out.push(match now.contains_key(name) {
            true => Change::Replace { path, value },
            // An attribute of the image is no property.
            false => Change::Add {
                path,
                value,
                only_new: true,
            },
        });
    }
    out
}
