//! All SQL of the image service, and the directory of the bytes.

mod bytes;
mod cache;
mod metadef;
mod sql;
mod stores;
mod task;

pub(crate) use bytes::{Bytes, Files, Sink, inspected};
pub(crate) use cache::{Cache, CachedImage, cache_bytes, cache_delete, cache_list, cache_put};
pub(crate) use metadef::{
    Catalogued, association_insert, associations_of, catalogued, definition_count, definition_fetch, definition_list,
    definitions_delete, namespace_count, namespace_delete, namespace_fetch, namespace_list, namespace_seen,
    namespace_taken, namespace_update, resource_types,
};
pub use sql::MIGRATIONS;
pub(crate) use sql::{
    image_delete, image_fetch, image_insert, image_list, image_update, images_coming_in, member_find, member_list,
    trash_list, trash_put, trash_remove,
};
pub(crate) use stores::{STAGING, Store, Stores, parse_note};
pub(crate) use task::{task_count, task_fetch, task_list, tasks_expired, tasks_of_image, tasks_open};
