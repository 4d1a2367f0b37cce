//! What an image was made from, kept beside it, so that an unchanged one is not built again.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use haneul_core::Result;
use sha2::{Digest, Sha256};

use crate::Built;
use crate::overlay;
use crate::run::at;

/// Grows when the code makes another image from the same inputs.
const RECIPE: u32 = 2;

/// The stamp's place: `<out>.stamp`.
pub fn path(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".stamp");
    PathBuf::from(name)
}

/// SHA-256 in hexadecimal and length of a file.
pub fn hash_file(path: &Path) -> Result<(String, u64)> {
    let mut file = File::open(path).map_err(at("open", path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    let mut bytes = 0;
    loop {
        let n = file.read(&mut buffer).map_err(at("read", path))?;
        if n == 0 {
            return Ok((hex(&hash.finalize()), bytes));
        }
        hash.update(&buffer[..n]);
        bytes += n as u64;
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for b in bytes {
        let _ = write!(out, "{b:02x}");
    }
    out
}

/// Our own share of the inputs: the files in the image and the code's [`RECIPE`].
fn recipe() -> String {
    let mut hash = Sha256::new();
    hash.update(RECIPE.to_le_bytes());
    for f in overlay::FILES {
        hash.update((f.path.len() as u64).to_le_bytes());
        hash.update(f.path);
        hash.update(f.mode.to_le_bytes());
        hash.update((f.data.len() as u64).to_le_bytes());
        hash.update(f.data);
    }
    hex(&hash.finalize())
}

/// Notes what was built.
pub fn write(built: &Built) -> Result<()> {
    let mut text = format!(
        "recipe {}\nsha256 {}\nbytes {}\nvirtual-bytes {}\n",
        recipe(),
        built.sha256,
        built.bytes,
        built.virtual_bytes
    );
    for p in &built.packages {
        let _ = writeln!(text, "package {p}");
    }
    let path = path(&built.path);
    fs::write(&path, text).map_err(at("write", &path))
}

/// The image that is there, when it is whole and was made from the same things. Without `packages` (apt cannot say)
/// whatever packages it was made from are right.
pub fn reuse(out: &Path, packages: Option<&[String]>) -> Option<Built> {
    let text = fs::read_to_string(path(out)).ok()?;
    let values = |key: &'static str| {
        text.lines()
            .filter_map(move |l| l.split_once(' ').filter(|(k, _)| *k == key).map(|(_, v)| v))
    };
    let value = |key: &'static str| values(key).next();
    let built = Built {
        path: out.to_owned(),
        sha256: value("sha256")?.to_owned(),
        bytes: value("bytes")?.parse().ok()?,
        virtual_bytes: value("virtual-bytes")?.parse().ok()?,
        packages: values("package").map(str::to_owned).collect(),
        cached: true,
    };
    let same = value("recipe")? == recipe() && packages.is_none_or(|p| p == built.packages);
    // 20 MB are hashed in a fraction of a second: a half-copied or changed file must not pass for ours.
    (same && fs::metadata(out).ok()?.len() == built.bytes && hash_file(out).ok()?.0 == built.sha256).then_some(built)
}
