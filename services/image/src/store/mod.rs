//! All SQL of the image service, and the directory of the bytes.

mod bytes;
mod sql;

pub(crate) use bytes::{Bytes, Files};
pub use sql::MIGRATIONS;
pub(crate) use sql::{
    image_delete, image_fetch, image_insert, image_list, image_update, images_saving, member_find, member_list,
    trash_list, trash_put, trash_remove,
};
