//! The stores: directories of image files, the staging area of imports, and the cache.

use super::Files;
use haneul_core::config::{Config, ImageStore};
use haneul_core::{Error, Kind, Result};
use std::collections::HashSet;
use std::path::PathBuf;

/// The store that always is.
pub(crate) const BUILT_IN: &str = "file";
/// In a note of what to remove: the file of this key in the staging area.
pub(crate) const STAGING: &str = ".staging";

/// One store.
#[derive(Debug)]
pub(crate) struct Store {
    pub id: String,
    pub description: String,
    pub read_only: bool,
    pub directory: PathBuf,
    pub files: Files,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Stores {
    all: Vec<Store>,
    default: usize,
    /// Stores of an import that names none.
    import: Vec<String>,
    /// What comes in for an import, before it is checked.
    pub staging: Files,
}

impl Stores {
    /// Opens the stores that the configuration names.
    ///
    /// # Errors
    /// When the configuration contradicts itself, or the built-in store or the staging area cannot be made. Another
    /// store that is missing is an error of its own when it is used: images have copies elsewhere.
    pub fn open(config: &Config) -> Result<Self> {
        let image = &config.image;
        let control = config.control_dir();
        let mut described = image.stores.clone();
        if !described.iter().any(|s| s.id == BUILT_IN) {
            described.insert(
                0,
                ImageStore {
                    id: BUILT_IN.into(),
                    ..ImageStore::default()
                },
            );
        }
        let mut all: Vec<Store> = Vec::new();
        let mut default = None;
        for s in &described {
            let wrong = |why: &str| {
                Err(Error::field(
                    "image.stores",
                    format!("image.stores: store \"{}\": {why}", s.id),
                ))
            };
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            if s.id.is_empty() || s.id.len() > 64 || !s.id.chars().all(plain) || s.id.starts_with("os_glance_") {
                return wrong("an id has 1 to 64 letters, digits, - and _, and does not begin with os_glance_");
            }
            if all.iter().any(|other| other.id == s.id) {
                return wrong("the id stands twice");
            }
            if s.default && s.read_only {
                return wrong("the default store cannot be read-only");
            }
            if s.default && default.replace(all.len()).is_some() {
                return wrong("there is a default store already");
            }
            let directory = match (&s.directory, s.id.as_str()) {
                (Some(d), _) => d.clone(),
                (None, BUILT_IN) => control.join("images"),
                (None, id) => control.join("image-stores").join(id),
            };
            if all.iter().any(|other| other.directory == directory) {
                return wrong("another store has the same directory");
            }
            let files = match Files::open(directory.clone(), image.reserve_bytes) {
                Ok(files) => files,
                Err(e) if s.id == BUILT_IN => return Err(e),
                Err(e) => {
                    tracing::error!(store = s.id, error = %e, "a store of images is not there; images are read from their other stores");
                    Files::at(directory.clone(), image.reserve_bytes)
                }
            };
            all.push(Store {
                id: s.id.clone(),
                description: s.description.clone(),
                read_only: s.read_only,
                directory,
                files,
            });
        }
        let default = match default {
            Some(n) => n,
            None => all.iter().position(|s| s.id == BUILT_IN).unwrap_or(0),
        };
        let this = Self {
            default,
            import: image.import_stores.clone(),
            staging: Files::open(control.join("image-staging"), image.reserve_bytes)?,
            all,
        };
        for id in &image.import_stores {
            this.writable(id)
                .map_err(|e| Error::field("image.import_stores", format!("image.import_stores: {e}")))?;
        }
        if this.default().read_only {
            return Err(Error::field(
                "image.stores",
                "image.stores: the store \"file\" is read-only, so another one must be the default",
            ));
        }
        Ok(this)
    }

    pub fn all(&self) -> &[Store] {
        &self.all
    }

    pub fn default(&self) -> &Store {
        // The index was found when the list was made, which is never empty.
        #[allow(clippy::indexing_slicing)]
        &self.all[self.default]
    }

    /// The stores of an import that names none.
    pub fn of_imports(&self) -> Vec<String> {
        if self.import.is_empty() {
            vec![self.default().id.clone()]
        } else {
            self.import.clone()
        }
    }

    /// Ids of the stores that images can be put into.
    pub fn writable_ids(&self) -> Vec<String> {
        self.all.iter().filter(|s| !s.read_only).map(|s| s.id.clone()).collect()
    }

    pub fn get(&self, id: &str) -> Option<&Store> {
        self.all.iter().find(|s| s.id == id)
    }

    /// A store to put an image into.
    ///
    /// # Errors
    /// Conflict, as Glance answers it: there is no such store, or it is read-only.
    pub fn writable(&self, id: &str) -> Result<&Store> {
        let known = || self.writable_ids().join(", ");
        match self.get(id) {
            None => Err(Error::conflict(format!(
                "There is no store {id}. Stores that take images: {}.",
                known()
            ))),
            Some(s) if s.read_only => Err(Error::conflict(format!(
                "Store {id} is read-only. Stores that take images: {}.",
                known()
            ))),
            Some(s) => Ok(s),
        }
        .map_err(|e| e.with_field("stores"))
    }

    /// Removes what a note of [`super::trash_put`] names: `KEY` everywhere, `STORE:KEY` there only. Blocking.
    pub fn remove(&self, note: &str) -> Result<()> {
        let (place, key) = parse_note(note);
        match place {
            Some(STAGING) => self.staging.remove(key),
            Some(id) => self.get(id).map_or(Ok(()), |s| s.files.remove(key)),
            None => {
                self.staging.remove(key)?;
                // One that is not there now is tried again later.
                self.all.iter().try_for_each(|s| s.files.remove(key))
            }
        }
    }

    /// Opens a complete file in the first of these stores that has it. Blocking.
    pub fn read(&self, stores: &[String], key: &str, skip: &HashSet<String>) -> Result<(String, std::fs::File)> {
        let mut last = None;
        for id in stores.iter().filter(|s| !skip.contains(*s)) {
            let Some(store) = self.get(id) else {
                tracing::error!(
                    store = id,
                    key,
                    "an image is in a store that is not configured any more"
                );
                continue;
            };
            match store.files.read(key) {
                Ok(file) => return Ok((id.clone(), file)),
                Err(e) => {
                    tracing::error!(store = id, key, error = %e, "a store has lost an image; trying the next one");
                    last = Some(e);
                }
            }
        }
        let e = Error::new(
            Kind::Unavailable,
            format!(
                "None of the stores that should have the image's data gives it: {}.",
                stores.join(", ")
            ),
        );
        Err(match last {
            Some(cause) => e.with_private(cause),
            None => e,
        })
    }

    /// Names of all files, those of the staging area with its name before them.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for store in &self.all {
            names.extend(store.files.names()?);
        }
        names.extend(self.staging.names()?.iter().map(|n| format!("staging/{n}")));
        names.sort();
        Ok(names)
    }
}

/// The store of a note, and its key.
pub(crate) fn parse_note(note: &str) -> (Option<&str>, &str) {
    match note.split_once(':') {
        Some((place, key)) => (Some(place), key),
        None => (None, note),
    }
}
