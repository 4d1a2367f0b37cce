//! The image (Glance API reference, "Images").

use haneul_auth::{Ctx, Secured, Target};
use haneul_core::{Error, Result};
use haneul_store::{Resource, V};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Where an image is in its life. Glance knows more states; these are the ones that are reached without delayed
/// deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Registered, no bytes.
    Queued,
    /// Bytes are coming in. Ends in `Active` or back in `Queued`, whatever happens.
    Saving,
    /// Bytes are in the staging area, or on their way there.
    Uploading,
    /// An import brings the bytes into stores. Ends in `Active` or back in `Queued`, whatever happens.
    Importing,
    /// Bytes are there and were checked.
    Active,
    /// Bytes are there but nobody but an administrator may fetch them.
    Deactivated,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Saving => "saving",
            Self::Uploading => "uploading",
            Self::Importing => "importing",
            Self::Active => "active",
            Self::Deactivated => "deactivated",
        }
    }

    /// Whether the image has bytes that can be read.
    pub fn has_data(self) -> bool {
        matches!(self, Self::Active | Self::Deactivated)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who sees an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    Public,
    /// Everybody by id, but not in everybody's lists.
    Community,
    /// The owner and the projects in its member list.
    #[default]
    Shared,
    Private,
}

impl Visibility {
    pub const NAMES: &'static [&'static str] = &["community", "public", "private", "shared"];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Community => "community",
            Self::Shared => "shared",
            Self::Private => "private",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Public, Self::Community, Self::Shared, Self::Private]
            .into_iter()
            .find(|v| v.as_str() == text)
    }
}

/// Bytes in the staging area.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Staged {
    /// Name of the file.
    pub key: String,
    /// Bytes, when all are there.
    pub size: Option<i64>,
    /// Name of the converted file, when the import makes one.
    #[serde(default)]
    pub converted: Option<String>,
}

/// An import, while it runs and after it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Import {
    /// The task, while it runs.
    pub task: Option<String>,
    /// Stores that are still to come (`os_glance_importing_to_stores`).
    pub to: Vec<String>,
    /// Stores that failed (`os_glance_failed_import`).
    pub failed: Vec<String>,
    /// Stores that this import has filled, while it runs.
    #[serde(default)]
    pub done: Vec<String>,
}

fn version() -> u32 {
    1
}

/// An image as stored. The document's version is `v`; new fields get a default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Image {
    #[serde(default = "version")]
    pub v: u32,
    pub id: String,
    pub name: Option<String>,
    pub owner: Option<String>,
    pub status: Status,
    pub visibility: Visibility,
    pub protected: bool,
    pub os_hidden: bool,
    pub disk_format: Option<String>,
    pub container_format: Option<String>,
    /// GiB.
    pub min_disk: i64,
    /// MiB.
    pub min_ram: i64,
    /// Bytes of the file.
    pub size: Option<i64>,
    /// Bytes of the disk inside.
    pub virtual_size: Option<i64>,
    /// MD5, for old clients.
    pub checksum: Option<String>,
    pub os_hash_algo: Option<String>,
    pub os_hash_value: Option<String>,
    pub tags: BTreeSet<String>,
    /// Everything that clients add.
    pub properties: BTreeMap<String, String>,
    /// Key of the bytes in the store: while `saving` of those that come in, later of those that are
    /// there. Each upload has a key of its own, so that a late loser never touches the winner's file.
    #[serde(default)]
    pub file: Option<String>,
    /// Stores that have the file; empty: the one that the first release had.
    #[serde(default)]
    pub stores: Vec<String>,
    #[serde(default)]
    pub staged: Option<Staged>,
    #[serde(default)]
    pub import: Option<Import>,
    /// The caller's project when it is in the member list; found at look-up, never stored.
    #[serde(skip)]
    pub caller_member: Option<String>,
}

impl Image {
    /// A new image without bytes.
    pub fn new(id: String, owner: Option<String>) -> Self {
        Self {
            v: version(),
            id,
            name: None,
            owner,
            status: Status::Queued,
            visibility: Visibility::default(),
            protected: false,
            os_hidden: false,
            disk_format: None,
            container_format: None,
            min_disk: 0,
            min_ram: 0,
            size: None,
            virtual_size: None,
            checksum: None,
            os_hash_algo: None,
            os_hash_value: None,
            tags: BTreeSet::new(),
            properties: BTreeMap::new(),
            file: None,
            stores: Vec::new(),
            staged: None,
            import: None,
            caller_member: None,
        }
    }

    /// Whether a project may read the image; `shared` says that it is in the member list.
    pub fn may_be_read_by(&self, project: &str, shared: bool) -> bool {
        self.owner.as_deref().is_none_or(|o| o == project)
            || matches!(self.visibility, Visibility::Public | Visibility::Community)
            || (self.visibility == Visibility::Shared && shared)
    }

    /// Stores that have the bytes, in the order in which they are asked.
    pub fn places(&self) -> Vec<String> {
        match (self.status.has_data(), self.stores.is_empty()) {
            (false, _) => Vec::new(),
            (true, true) => vec!["file".to_owned()],
            (true, false) => self.stores.clone(),
        }
    }

    /// Begins to receive bytes into the staging area.
    ///
    /// # Errors
    /// 409 when the image has bytes or gets some already.
    pub fn begin_staging(&mut self, key: &str) -> Result<()> {
        self.must_be_queued("uploading")?;
        self.status = Status::Uploading;
        self.staged = Some(Staged {
            key: key.to_owned(),
            size: None,
            converted: None,
        });
        Ok(())
    }

    fn must_be_queued(&self, goal: &str) -> Result<()> {
        if self.status == Status::Queued {
            return Ok(());
        }
        Err(Error::conflict(format!(
            "Image status transition from {} to {goal} is not allowed. Data can be uploaded once, to an image in \
             status queued.",
            self.status
        ))
        .with_field("status"))
    }

    /// What is known of bytes that are complete.
    pub fn describe(&mut self, md5: &str, sha512: &str, size: u64, virtual_size: u64) {
        self.size = i64::try_from(size).ok();
        self.virtual_size = i64::try_from(virtual_size).ok();
        self.checksum = Some(md5.to_owned());
        self.os_hash_algo = Some("sha512".into());
        self.os_hash_value = Some(sha512.to_owned());
    }

    /// Back to the state before an upload.
    pub fn forget_data(&mut self) {
        self.status = Status::Queued;
        self.size = None;
        self.virtual_size = None;
        self.checksum = None;
        self.os_hash_algo = None;
        self.os_hash_value = None;
        self.file = None;
        self.stores.clear();
        self.staged = None;
    }

    /// Begins an upload under this key.
    ///
    /// # Errors
    /// 409 when the image has bytes or gets some already, 400 when its formats are not set: Glance's
    /// two refusals, in its order.
    pub fn begin_upload(&mut self, key: &str, store: &str) -> Result<()> {
        self.must_be_queued("saving")?;
        let missing: Vec<&str> = [
            ("disk_format", &self.disk_format),
            ("container_format", &self.container_format),
        ]
        .into_iter()
        .filter(|(_, v)| v.is_none())
        .map(|(name, _)| name)
        .collect();
        match missing.as_slice() {
            [] => {}
            [one] => {
                return Err(Error::field(
                    *one,
                    format!("Property {one} must be set prior to saving data."),
                ));
            }
            more => {
                let names = more.join(", ");
                return Err(Error::field(
                    names.clone(),
                    format!("Properties {names} must be set prior to saving data."),
                ));
            }
        }
        self.status = Status::Saving;
        self.file = Some(key.to_owned());
        self.stores = vec![store.to_owned()];
        Ok(())
    }
}

impl Resource for Image {
    const KIND: &'static str = "image";
    const TABLE: &'static str = "image";
    const COLUMNS: &'static [&'static str] = &[
        "status",
        "visibility",
        "protected",
        "os_hidden",
        "disk_format",
        "container_format",
        "size",
        "virtual_size",
        "min_disk",
        "min_ram",
        "checksum",
        "os_hash_value",
    ];

    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> Option<&str> {
        self.owner.as_deref()
    }
    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }
    fn columns(&self) -> Vec<V> {
        // No NULL: markers compare these columns, and NULL compares with nothing. An unknown size
        // is -1, an unset format the empty text.
        let text = |t: &Option<String>| V::from(t.clone().unwrap_or_default());
        vec![
            self.status.as_str().into(),
            self.visibility.as_str().into(),
            i64::from(self.protected).into(),
            i64::from(self.os_hidden).into(),
            text(&self.disk_format),
            text(&self.container_format),
            self.size.unwrap_or(-1).into(),
            self.virtual_size.unwrap_or(-1).into(),
            self.min_disk.into(),
            self.min_ram.into(),
            text(&self.checksum),
            text(&self.os_hash_value),
        ]
    }
}

impl Secured for Image {
    fn target(&self) -> Target {
        let mut target = Target {
            project_id: self.owner.clone(),
            ..Target::default()
        }
        .with("visibility", self.visibility.as_str());
        if let Some(owner) = &self.owner {
            target = target.with("owner", owner);
        }
        if let Some(member) = &self.caller_member {
            target = target.with("member_id", member);
        }
        target
    }

    fn visible(&self, ctx: &Ctx) -> bool {
        ctx.is_admin() || self.may_be_read_by(ctx.project_id(), self.caller_member.is_some())
    }

    fn not_found(id: &str) -> Error {
        Error::not_found(format!("No image found with ID {id}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_needs_formats_and_an_empty_image() {
        let mut image = Image::new("i".into(), None);
        let e = image.begin_upload("k", "file").unwrap_err();
        assert!(e.public().contains("disk_format, container_format"), "{e}");
        image.disk_format = Some("raw".into());
        let e = image.begin_upload("k", "file").unwrap_err();
        assert_eq!(e.field_name(), Some("container_format"));
        image.container_format = Some("bare".into());
        image.begin_upload("k", "file").unwrap();
        assert_eq!(image.status, Status::Saving);
        let e = image.begin_upload("l", "file").unwrap_err();
        assert!(e.public().contains("from saving to saving"), "{e}");
        image.forget_data();
        assert_eq!((image.status, image.file), (Status::Queued, None));
    }

    #[test]
    fn columns_match_their_names() {
        let image = Image::new("i".into(), None);
        assert_eq!(image.columns().len(), Image::COLUMNS.len());
    }

    #[test]
    fn the_document_of_the_first_release_still_parses() {
        let doc = r#"{"v":1,"id":"i","name":null,"owner":"p","status":"active","visibility":"shared",
            "protected":false,"os_hidden":false,"disk_format":"raw","container_format":"bare","min_disk":0,
            "min_ram":0,"size":1,"virtual_size":1,"checksum":"c","os_hash_algo":"sha512",
            "os_hash_value":"h","tags":["t"],"properties":{"a":"b"},"file":"k"}"#;
        let image: Image = serde_json::from_str(doc).unwrap();
        assert_eq!(image.file.as_deref(), Some("k"));
    }
}
