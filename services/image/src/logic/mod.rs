//! One file per use case.

mod catalogue;
pub(crate) mod create_image;
pub(crate) mod definitions;
pub(crate) mod delete_image;
pub(crate) mod download;
pub(crate) mod facade;
pub(crate) mod fetch;
pub(crate) mod import;
pub(crate) mod import_run;
pub(crate) mod listing;
pub(crate) mod made;
pub(crate) mod members;
pub(crate) mod namespaces;
pub(crate) mod reconcile;
pub(crate) mod stage;
pub(crate) mod stores;
pub(crate) mod tasks;
pub(crate) mod update_image;
pub(crate) mod upload;

use crate::format::Refusal;
use haneul_core::{Error, Kind};

/// A refused image as Glance answers it: 415 with the cause (its InvalidImageData).
pub(crate) fn refused(r: &Refusal) -> Error {
    Error::new(Kind::UnsupportedMediaType, r.to_string())
        .with_field("disk_format")
        .with_details(serde_json::json!({"problem": r.problem, "remedy": r.remedy}))
}
