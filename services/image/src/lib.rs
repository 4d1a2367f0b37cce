//! Image (Glance v2): images, their bytes, and who may see them; metadata definitions; tasks.
//!
//! Owns the tables `image*` and `metadef*` and the directory of image files. Invariants:
//! - An image is `active` only when its bytes are complete, durable, checked by [`format`] and of the
//!   declared format; the format is pinned then and never guessed again.
//! - An import is a task, a job and an image in `importing`; a restart goes on with it, or ends all three.
//! - `saving` ends: an upload that fails, is cut off or dies with the process leaves no file and a `queued`
//!   image ([`Images::reconcile`]).
//! - A file is removed only because a row says so, never because no row knows it.
//!
//! The facade for other services: [`Images::find_for_server`] inside their transaction, [`Images::bytes`] to stream what
//! was found, [`Images::register`] and [`Images::receive`] for images that they make, and logic/facade.rs for compute's
//! old proxy. Knows nothing of servers, hosts or how an image is started.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod api;
pub use haneul_disk as format;
mod logic;
mod model;
mod policy;
mod store;
#[cfg(test)]
mod tests;

use crate::format::DiskFormat;
use crate::model::{Image, Span, Status};
use crate::policy::GetImage;
use axum::Router;
use axum::body::Body;
use haneul_auth::Ctx;
use haneul_core::config::{Config, ImageRegion};
use haneul_core::{Error, Result};
use haneul_http::{Routes, Server};
use haneul_jobs::{Jobs, Saga, Step};
use haneul_store::{Db, Tx};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

pub use logic::facade::SeenImage;
pub use logic::made::NewImage;
pub use policy::RULES;
pub use store::MIGRATIONS;

/// Imports that move bytes at the same time; others wait.
const IMPORTS_AT_ONCE: usize = 4;

/// The service.
pub struct Images {
    db: Db,
    jobs: Jobs,
    stores: Arc<store::Stores>,
    cache: store::Cache,
    /// Where `web-download` may fetch from.
    rules: logic::fetch::Rules,
    /// Our own region, and the others that `glance-download` may fetch from.
    region: String,
    regions: Vec<ImageRegion>,
    /// What imports are converted to.
    convert_to: Option<DiskFormat>,
    import_timeout_s: u64,
    /// Imports at work in this process, with the switch that ends each.
    workers: Mutex<HashMap<String, Arc<AtomicBool>>>,
    import_slots: Semaphore,
    /// One fills the cache at a time.
    filling: tokio::sync::Mutex<()>,
    /// Keys of the files that imports work on, and how many hold each.
    held: Mutex<HashMap<String, usize>>,
    max_bytes: u64,
    /// Keys of the uploads that run in this process.
    live: Mutex<HashSet<String>>,
    /// Whether a task waits to clean up again.
    mending: AtomicBool,
}

/// An image as other services see it: one that the caller may use, with bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsableImage {
    /// UUID.
    pub id: String,
    /// Name, "" without one.
    pub name: String,
    /// Pinned at upload.
    pub format: DiskFormat,
    /// Bytes of the stored file.
    pub size: u64,
    /// Bytes of the disk inside.
    pub virtual_size: u64,
    /// Hex SHA-512 of the stored file.
    pub sha512: String,
    /// GiB that the disk of a server must have.
    pub min_disk_gib: u64,
    /// MiB that the memory of a server must have.
    pub min_ram_mib: u64,
    /// What its owner says of it (`hw_disk_bus`, `os_distro` ...).
    pub properties: BTreeMap<String, String>,
}

impl Images {
    /// The service over a database whose migrations include [`MIGRATIONS`]; its files are in `control/images` and
    /// the other stores. Call [`Images::bootstrap`] and [`Images::reconcile`] before the first request, and register
    /// [`Images::sagas`] before the jobs run.
    ///
    /// # Errors
    /// When a directory cannot be made, or a setting of `image` is wrong.
    pub fn new(db: Db, config: &Config, jobs: Jobs) -> Result<Arc<Self>> {
        let image = &config.image;
        let convert_to = image.convert_to.as_deref().filter(|f| !f.is_empty());
        let convert_to = convert_to.map(|name| {
            DiskFormat::from_glance_name(name)
                .filter(|f| format::OUTPUTS.contains(f))
                .ok_or_else(|| {
                    let known: Vec<&str> = format::OUTPUTS.iter().map(|f| f.name()).collect();
                    Error::field(
                        "image.convert_to",
                        format!("image.convert_to = \"{name}\": write one of {}", known.join(", ")),
                    )
                })
        });
        Ok(Arc::new(Self {
            db,
            jobs,
            stores: Arc::new(store::Stores::open(config)?),
            cache: store::Cache::open(config)?,
            rules: logic::fetch::Rules::parse(&image.web_download_from)?,
            region: config.api.region.clone(),
            regions: image.regions.clone(),
            convert_to: convert_to.transpose()?,
            import_timeout_s: image.import_timeout_s,
            workers: Mutex::default(),
            import_slots: Semaphore::new(IMPORTS_AT_ONCE),
            filling: tokio::sync::Mutex::default(),
            held: Mutex::default(),
            max_bytes: image.max_bytes,
            live: Mutex::default(),
            mending: AtomicBool::new(false),
        }))
    }

    /// The jobs of this service.
    pub fn sagas(self: &Arc<Self>) -> Vec<Arc<dyn Saga>> {
        vec![Arc::new(logic::import::ImportSaga {
            app: Arc::downgrade(self),
            steps: [Step {
                name: "transfer",
                deadline_s: self.import_timeout_s,
            }],
        })]
    }

    /// The import methods of this site, in Glance's order. What would be refused in any case is not offered.
    fn import_methods(&self) -> Vec<&'static str> {
        use model::import::{COPY_IMAGE, GLANCE_DIRECT, GLANCE_DOWNLOAD, WEB_DOWNLOAD};
        let mut methods = vec![GLANCE_DIRECT];
        if !self.rules.is_empty() {
            methods.push(WEB_DOWNLOAD);
        }
        methods.extend([COPY_IMAGE, GLANCE_DOWNLOAD]);
        methods
    }

    /// The route table.
    pub fn routes(self: &Arc<Self>) -> Routes<Self> {
        api::routes(self)
    }

    /// The router: the table, with errors in the form that each client asks for. Serve this one; without the
    /// layer python-glanceclient fails on every error.
    pub fn router(self: &Arc<Self>, server: &Server) -> Router {
        api::errors::layer(self.routes().into_router(server))
    }

    /// Finds an image that the caller may start a server from: visible, active, with a bootable format.
    ///
    /// # Errors
    /// Not found when the caller may not know of it; 400 with the reason when it cannot be used.
    pub async fn find_for_server(&self, tx: &mut Tx, ctx: &Ctx, id: &str) -> Result<UsableImage> {
        let image = store::image_fetch(tx, ctx, GetImage, id).await?;
        usable(&image)
    }

    /// The bytes of an active or deactivated image as a stream, with their number: for the host agent's pull.
    /// Whoever calls this has found the image before, for a server whose owner was allowed to use it.
    ///
    /// # Errors
    /// Not found when the image has been deleted or has no bytes.
    pub async fn bytes(&self, id: &str) -> Result<(u64, Body)> {
        let mut tx = self.db.read().await?;
        let image = tx
            .find::<Image>(id)
            .await?
            .filter(|i| i.status.has_data())
            .ok_or_else(|| <Image as haneul_auth::Secured>::not_found(id))?;
        drop(tx);
        let size = logic::download::size_of(&image);
        let body = logic::download::open(self, &image, Span { start: 0, len: size }).await?;
        Ok((size, body))
    }

    /// Names of the files in the store, for audit.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn file_names(&self) -> Result<Vec<String>> {
        self.stores.names()
    }

    fn begin_live(&self) -> LiveUpload<'_> {
        let key = logic::upload::new_key();
        self.lock_live().insert(key.clone());
        LiveUpload {
            app: self,
            key,
            held: false,
        }
    }

    fn is_live(&self, key: &str) -> bool {
        self.lock_live().contains(key)
    }

    fn lock_live(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a file from being removed by others until this is dropped.
    fn hold(&self, key: String) -> LiveUpload<'_> {
        *self.lock_held().entry(key.clone()).or_default() += 1;
        LiveUpload {
            app: self,
            key,
            held: true,
        }
    }

    fn is_held(&self, key: &str) -> bool {
        self.lock_held().contains_key(key)
    }

    fn lock_held(&self) -> std::sync::MutexGuard<'_, HashMap<String, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An upload that runs here, which the reconciler leaves alone until this is dropped; or a file that an import works
/// on.
struct LiveUpload<'a> {
    app: &'a Images,
    key: String,
    held: bool,
}

impl LiveUpload<'_> {
    fn key(&self) -> &str {
        &self.key
    }
}

impl Drop for LiveUpload<'_> {
    fn drop(&mut self) {
        if !self.held {
            self.app.lock_live().remove(&self.key);
            return;
        }
        let mut held = self.app.lock_held();
        if let Some(n) = held.get_mut(&self.key) {
            *n -= 1;
            if *n == 0 {
                held.remove(&self.key);
            }
        }
    }
}

fn usable(image: &Image) -> Result<UsableImage> {
    let wrong = |why: String| Error::field("imageRef", format!("Image {} {why}", image.id));
    if image.status != Status::Active {
        return Err(wrong(format!("is not active: its status is {}.", image.status)));
    }
    let name = image.disk_format.as_deref().unwrap_or_default();
    let format = DiskFormat::from_glance_name(name)
        .filter(|f| format::BOOTABLE.contains(f))
        .ok_or_else(|| {
            wrong(format!(
                "has disk_format {name}, from which servers do not start; {} do.",
                format::BOOTABLE.map(DiskFormat::name).join(", ")
            ))
        })?;
    let number = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
    let virtual_size = number(image.virtual_size);
    if virtual_size == 0 {
        return Err(wrong("holds a disk of 0 bytes.".into()));
    }
    Ok(UsableImage {
        id: image.id.clone(),
        name: image.name.clone().unwrap_or_default(),
        format,
        size: number(image.size),
        virtual_size,
        sha512: image.os_hash_value.clone().unwrap_or_default(),
        min_disk_gib: number(Some(image.min_disk)),
        min_ram_mib: number(Some(image.min_ram)),
        properties: image.properties.clone(),
    })
}
