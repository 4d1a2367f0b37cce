//! Exchanges on record, for `cargo xtask contract --validate`: where `HANEUL_TEST_RECORD` names a directory, each
//! process of tests appends to a file of its own there. Only tests write it; the product knows nothing of it.

use http::{HeaderMap, Method};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, PoisonError};

/// The directory's name in the environment.
pub const VARIABLE: &str = "HANEUL_TEST_RECORD";

/// Longer bodies are no JSON that a schema describes.
const MAX: usize = 4 << 20;

static OUT: LazyLock<Option<Mutex<File>>> = LazyLock::new(|| {
    let dir = PathBuf::from(std::env::var_os(VARIABLE)?);
    std::fs::create_dir_all(&dir).ok()?;
    let name = format!("{}-{}.jsonl", std::process::id(), uuid::Uuid::new_v4().simple());
    Some(Mutex::new(File::create(dir.join(name)).ok()?))
});

fn body(bytes: &[u8]) -> Value {
    if bytes.len() > MAX {
        return Value::Null;
    }
    serde_json::from_slice(bytes).unwrap_or(Value::Null)
}

/// One exchange. The microversion is the one that the answer says it has.
pub fn record(method: &Method, path: &str, request: &[u8], status: u16, headers: &HeaderMap, answer: &[u8]) {
    let Some(out) = OUT.as_ref() else { return };
    let version = headers.get("openstack-api-version").and_then(|v| v.to_str().ok());
    let line = json!({
        "method": method.as_str(),
        "path": path,
        "request": body(request),
        "status": status,
        "version": version.and_then(|v| v.split_whitespace().nth(1)),
        "answer": body(answer),
    });
    let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
    // A line in one write: a process that is killed leaves at most one that is cut.
    let _ = out.write_all(format!("{line}\n").as_bytes());
}
