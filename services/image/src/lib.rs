//! Image (Glance v2): images, their bytes, and who may see them; metadata definitions; tasks.
//!
//! Owns the tables `image*` and `metadef*` and the directory of image files. Invariants:
//! - An image is `active` only when its bytes are complete, durable, checked by [`format`] and of the
//!   declared format; the format is pinned then and never guessed again.
//! - `saving` ends: an upload that fails, is cut off or dies with the process leaves no file and a `queued`
//!   image ([`Images::reconcile`]).
//! - A file is removed only because a row says so, never because no row knows it.
//!
//! The facade for other services: [`Images::find_for_server`] inside their transaction, and [`Images::bytes`]
//! to stream what was found. Knows nothing of servers, hosts or how an image is started.
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
use haneul_core::config::Config;
use haneul_core::{Error, Result};
use haneul_http::{Routes, Server};
use haneul_store::{Db, Tx};
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

pub use policy::RULES;
pub use store::MIGRATIONS;

/// Formats from which servers start: hosts give QEMU raw and qcow2 as they are and convert the others.
pub const BOOTABLE: [DiskFormat; 6] = [
    DiskFormat::Raw,
    DiskFormat::Qcow2,
    DiskFormat::Vmdk,
    DiskFormat::Vdi,
    DiskFormat::Vhd,
    DiskFormat::Vhdx,
];

/// The service.
pub struct Images {
    db: Db,
    files: store::Files,
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
    /// The service over a database whose migrations include [`MIGRATIONS`]; its files are in
    /// `control/images`. Call [`Images::bootstrap`] and [`Images::reconcile`] before the first request.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn new(db: Db, config: &Config) -> Result<Arc<Self>> {
        let dir = config.control_dir().join("images");
        Ok(Arc::new(Self {
            db,
            files: store::Files::open(dir, config.image.reserve_bytes)?,
            max_bytes: config.image.max_bytes,
            live: Mutex::default(),
            mending: AtomicBool::new(false),
        }))
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
        self.files.names()
    }

    fn begin_live(&self) -> LiveUpload<'_> {
        let key = logic::upload::new_key();
        self.lock_live().insert(key.clone());
        LiveUpload { app: self, key }
    }

    fn is_live(&self, key: &str) -> bool {
        self.lock_live().contains(key)
    }

    fn lock_live(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An upload that runs here; the reconciler leaves it alone until this is dropped.
struct LiveUpload<'a> {
    app: &'a Images,
    key: String,
}

impl LiveUpload<'_> {
    fn key(&self) -> &str {
        &self.key
    }
}

impl Drop for LiveUpload<'_> {
    fn drop(&mut self) {
        self.app.lock_live().remove(&self.key);
    }
}

fn usable(image: &Image) -> Result<UsableImage> {
    let wrong = |why: String| Error::field("imageRef", format!("Image {} {why}", image.id));
    if image.status != Status::Active {
        return Err(wrong(format!("is not active: its status is {}.", image.status)));
    }
    let name = image.disk_format.as_deref().unwrap_or_default();
    let format = DiskFormat::from_glance_name(name)
        .filter(|f| BOOTABLE.contains(f))
        .ok_or_else(|| {
            wrong(format!(
                "has disk_format {name}, from which servers do not start; {} do.",
                BOOTABLE.map(DiskFormat::name).join(", ")
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
