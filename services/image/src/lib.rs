//! Image (Glance v2).

pub mod format;
