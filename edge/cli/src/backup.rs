//! `haneul backup DIR`: the control plane's state as of one instant, while it runs.
//!
//! A directory: `database.jsonl` (every row of the database), `control/` (keys, the first password, images), and
//! `backup.json`, written last. It is as secret as the cloud itself, and readable by its owner only.

use crate::state::replace;
use crate::{Result, Trouble, admin, failed, ui};
use haneul_core::config::Config;
use haneul_core::durable::{make_dir, sync_dir};
use haneul_core::release;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::Path;
use std::time::Duration;

/// The database within a backup.
pub const DATABASE: &str = "database.jsonl";
/// The files of the control plane within a backup.
pub const CONTROL: &str = "control";
const MANIFEST: &str = "backup.json";
/// What is not copied: the database, which is dumped, and what is made anew.
const NOT: [&str; 4] = ["haneul.db", "haneul.db-wal", "haneul.db-shm", "image-cache"];
const IMAGES: [&str; 2] = ["images", "image-stores"];

/// What a backup is of.
#[derive(Serialize, Deserialize)]
pub struct Manifest {
    pub release: String,
    pub cloud_id: String,
    pub time: String,
    /// Whether the bytes of images are in it.
    pub images: bool,
}

impl Manifest {
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(MANIFEST);
        let bytes = std::fs::read(&path).map_err(|e| {
            failed(format!(
                "{}: {e}. A backup that came to its end has this file",
                path.display()
            ))
        })?;
        serde_json::from_slice(&bytes).at(&path)
    }
}

/// The command.
pub fn backup(config: &Config, dir: &Path, without_images: bool) -> Result<()> {
    if dir.exists() {
        return Err(failed(format!("{} exists: name a new directory", dir.display())));
    }
    let status = admin::get(config, "/admin/v1/status")?;
    make_dir(dir, 0o700).at(dir)?;
    let mut client = admin::ask(config)?;
    client.limit = Duration::from_secs(3600);
    let dump = client.send(http::Method::GET, "/admin/v1/backup", "text/plain", "")?;
    // A dump that was cut off lacks its last line.
    let whole = dump.body.trim_ascii_end().rsplit(|b| *b == b'\n').next();
    if !dump.status.is_success() || !whole.is_some_and(|l| l.starts_with(b"{\"end\"")) {
        return Err(failed(format!(
            "the database could not be read to its end ({}); `haneul logs serve` says why",
            dump.status.as_u16()
        )));
    }
    replace(&dir.join(DATABASE), &dump.body, 0o600)?;
    let to = dir.join(CONTROL);
    make_dir(&to, 0o700).at(&to)?;
    for entry in std::fs::read_dir(config.control_dir()).at(&config.control_dir())? {
        let entry = entry.at(&config.control_dir())?;
        let name = entry.file_name();
        let is = |names: &[&str]| names.iter().any(|n| name == *n);
        if is(&NOT) || (without_images && is(&IMAGES)) {
            continue;
        }
        copy(&entry.path(), &to.join(&name))?;
    }
    let manifest = Manifest {
        release: release::name().into(),
        cloud_id: admin::text(&status, "cloud_id").into(),
        time: haneul_core::clock::iso(haneul_core::clock::now()),
        images: !without_images,
    };
    let json = serde_json::to_vec_pretty(&manifest).when("the manifest")?;
    replace(&dir.join(MANIFEST), &json, 0o600)?;
    sync_dir(dir).at(dir)?;
    ui::line(format_args!(
        "{}: {} of database{}. Keep it as secret as the cloud: keys and passwords are in it.",
        dir.display(),
        ui::size(dump.body.len() as u64),
        if without_images {
            ", no images"
        } else {
            ", and the images"
        }
    ));
    Ok(())
}

/// Copies what is in a directory, durably, into another that is there.
pub fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(from).at(from)? {
        let entry = entry.at(from)?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    sync_dir(to).at(to)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let meta = std::fs::symlink_metadata(from).at(from)?;
    if meta.is_dir() {
        make_dir(to, 0o700).at(to)?;
        std::fs::set_permissions(to, meta.permissions()).at(to)?;
        return copy_tree(from, to);
    }
    // Files only: no link leads out of a backup, and sockets are not state.
    if !meta.is_file() {
        return Ok(());
    }
    match std::fs::copy(from, to) {
        Ok(_) => File::open(to).and_then(|f| f.sync_all()).at(to),
        // Deleted while we copied: an image that nobody has any more.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e).at(from),
    }
}
