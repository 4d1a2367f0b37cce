//! Images and memberships, metadata definitions, tasks: pure types, the state machine, what may be changed and by
//! whom. No IO.

pub(crate) mod filter;
mod image;
pub(crate) mod import;
mod member;
pub(crate) mod metadef;
pub(crate) mod metadef_fields;
mod metadef_schema;
mod patch;
mod range;
mod schema;
pub(crate) mod task;

pub(crate) use filter::ListRequest;
pub use image::{Image, Import, Staged, Status, Visibility};
pub use member::{Member, MemberStatus};
pub use metadef::{Association, Definition, Namespace, Object, Property, ResourceType, Tag};
pub(crate) use metadef_schema::{METADEF_SCHEMAS, metadef_schema};
pub(crate) use patch::{Change, Draft, Editor, apply, check_name, parse as parse_patch, set};
pub(crate) use range::{Span, span_of};
pub(crate) use schema::{IMAGE, check_properties, image_schema, images_schema, member_schema, members_schema};
pub use task::{Task, TaskStatus};

/// Glance's `image_property_quota`, `image_tag_quota` and `image_member_quota` have this default.
pub(crate) const MAX_EXTRAS: usize = 128;

/// "Too many": Glance answers 413 with the numbers.
pub(crate) fn limit_exceeded(what: &str, attempted: usize) -> haneul_core::Error {
    haneul_core::Error::new(
        haneul_core::Kind::TooLarge,
        format!(
            "The limit has been exceeded on the number of allowed image {what}. Attempted: \
             {attempted}, Maximum: {MAX_EXTRAS}"
        ),
    )
    .with_field(what)
}
