mod accepted;
mod convert;
mod hostile;
mod hostile_foreign;
mod mutate;
mod probe;
mod qemu_img;

use std::io::Cursor;

use super::{DiskFormat, InspectError, Inspection, Refusal, RefusalKind, inspect};
use crate::testing::Bytes;

/// Inspects bytes as they would lie in a file.
fn look(bytes: &[u8], declared: Option<DiskFormat>) -> Result<Inspection, Refusal> {
    inspect(&mut Cursor::new(bytes), declared).map_err(|e| match e {
        InspectError::Refused(r) => r,
        InspectError::Io(e) => panic!("a cursor does not fail: {e}"),
    })
}

/// The image must be refused with this kind and this word in its message, and say what would help.
fn refused(name: &str, image: &Bytes, declared: DiskFormat, kind: RefusalKind, says: &str) {
    let refusal = match look(&image.0, Some(declared)) {
        Err(refusal) => refusal,
        Ok(seen) => panic!("{name}: accepted as {seen:?}"),
    };
    assert_eq!(refusal.kind, kind, "{name}: {refusal}");
    assert!(refusal.problem.contains(says), "{name}: {refusal}");
    assert!(refusal.remedy.ends_with('.'), "{name}: {refusal}");
}
