//! The config drive as an ISO 9660 image (ECMA-119) with Joliet names, label `config-2`: what Nova
//! attaches and cloud-init looks for. A pure function of the files; no tool is run.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const SECTOR: usize = 2048;
const LABEL: &str = "config-2";
/// 2000-01-01: a fixed time keeps the image a function of its files.
const DATE: [u8; 7] = [100, 1, 1, 0, 0, 0, 0];

/// Builds the image from paths without leading slash, e.g. `openstack/latest/meta_data.json`.
///
/// Fails when a name is longer than Joliet's 64 characters or the image would pass 64 MiB.
pub fn config_drive(files: &[(String, Vec<u8>)]) -> io::Result<Vec<u8>> {
    let bad = |what: String| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    let size: usize = files.iter().map(|(_, b)| b.len()).sum();
    if size > 64 << 20 {
        return bad(format!("{size} bytes are too many for a config drive"));
    }
    // Directories in path-table order: by depth, then by parent and name.
    let mut dirs: BTreeSet<(usize, String)> = BTreeSet::from([(0, String::new())]);
    let mut contents: BTreeMap<&str, &[u8]> = BTreeMap::new();
    for (path, bytes) in files {
        let parts: Vec<&str> = path.split('/').collect();
        if parts
            .iter()
            .any(|p| p.is_empty() || p.chars().count() > 64 || *p == "." || *p == "..")
        {
            return bad(format!("{path:?} cannot stand on a config drive"));
        }
        for depth in 1..parts.len() {
            dirs.insert((depth, parts.get(..depth).unwrap_or_default().join("/")));
        }
        contents.insert(path, bytes);
    }
    let dirs: Vec<String> = dirs.into_iter().map(|(_, d)| d).collect();

    // Sectors: 16 and 17 descriptors, 18 terminator, then four path tables, directories, files.
    let mut at = 19_u32;
    let mut take = |bytes: usize| {
        let here = at;
        at += bytes.div_ceil(SECTOR).max(1) as u32;
        here
    };
    let trees: Vec<Tree> = [false, true]
        .into_iter()
        .map(|joliet| {
            let table = path_table(&dirs, &|_| 0, joliet, false).len();
            let (little, big) = (take(table), take(table));
            let extents = dirs
                .iter()
                .map(|d| {
                    let size = directory(d, &dirs, &contents, joliet, &|_| (0, 0)).len();
                    (take(size), size as u32)
                })
                .collect();
            Tree {
                joliet,
                little,
                big,
                table: table as u32,
                extents,
            }
        })
        .collect();
    let places: BTreeMap<&str, (u32, u32)> = contents
        .iter()
        .map(|(path, bytes)| (*path, (take(bytes.len()), bytes.len() as u32)))
        .collect();

    let mut image = vec![0_u8; at as usize * SECTOR];
    let mut put = |sector: u32, bytes: &[u8]| {
        let from = sector as usize * SECTOR;
        if let Some(to) = image.get_mut(from..from + bytes.len()) {
            to.copy_from_slice(bytes);
        }
    };
    for (i, tree) in trees.iter().enumerate() {
        let extent_of = |path: &str| {
            let i = dirs.iter().position(|d| d == path);
            i.and_then(|i| tree.extents.get(i).copied()).unwrap_or_default()
        };
        put(16 + i as u32, &descriptor(tree, extent_of(""), at));
        let first = |path: &str| extent_of(path).0;
        put(tree.little, &path_table(&dirs, &first, tree.joliet, false));
        put(tree.big, &path_table(&dirs, &first, tree.joliet, true));
        for dir in &dirs {
            let place = |path: &str| places.get(path).copied().unwrap_or_else(|| extent_of(path));
            put(extent_of(dir).0, &directory(dir, &dirs, &contents, tree.joliet, &place));
        }
    }
    put(18, b"\xffCD001\x01");
    for (path, bytes) in &contents {
        if let Some((sector, _)) = places.get(path) {
            put(*sector, bytes);
        }
    }
    Ok(image)
}

/// Writes a config drive so that it is there whole or not at all.
pub fn write_config_drive(path: &Path, files: &[(String, Vec<u8>)]) -> io::Result<()> {
    let image = config_drive(files)?;
    let tmp = path.with_extension("tmp");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&tmp)?;
    file.write_all(&image)?;
    file.sync_all()?;
    std::fs::rename(&tmp, path)?;
    match path.parent() {
        Some(dir) => std::fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// One of the two directory trees, which share the files' contents.
struct Tree {
    joliet: bool,
    little: u32,
    big: u32,
    /// Bytes of a path table.
    table: u32,
    extents: Vec<(u32, u32)>,
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(p, _)| p)
}

fn base(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, b)| b)
}

/// A name as it stands in a directory: UCS-2 for Joliet, else upper case with a version.
fn encode(name: &str, joliet: bool, file: bool) -> Vec<u8> {
    if joliet {
        let version = if file { ";1" } else { "" };
        return name
            .encode_utf16()
            .chain(version.encode_utf16())
            .flat_map(u16::to_be_bytes)
            .collect();
    }
    // d-characters only, 30 at the most; nobody reads these names when there is Joliet.
    let mut plain: String = name
        .chars()
        .take(28)
        .map(|c| match c.to_ascii_uppercase() {
            u @ ('A'..='Z' | '0'..='9' | '_' | '.') => u,
            _ => '_',
        })
        .collect();
    if file {
        plain.push_str(";1");
    }
    plain.into_bytes()
}

fn both32(v: u32) -> [u8; 8] {
    let mut b = [0; 8];
    b[..4].copy_from_slice(&v.to_le_bytes());
    b[4..].copy_from_slice(&v.to_be_bytes());
    b
}

fn both16(v: u16) -> [u8; 4] {
    let (l, b) = (v.to_le_bytes(), v.to_be_bytes());
    [l[0], l[1], b[0], b[1]]
}

/// Directory record (ECMA-119 9.1).
fn entry(name: &[u8], (sector, size): (u32, u32), is_dir: bool) -> Vec<u8> {
    let mut r = vec![0, 0];
    r.extend(both32(sector));
    r.extend(both32(size));
    r.extend(DATE);
    r.push(if is_dir { 2 } else { 0 });
    r.extend([0, 0]);
    r.extend(both16(1));
    r.push(name.len() as u8);
    r.extend(name);
    if r.len() % 2 == 1 {
        r.push(0);
    }
    let length = r.len() as u8;
    if let Some(first) = r.first_mut() {
        *first = length;
    }
    r
}

/// All records of a directory, padded so that none crosses a sector.
fn directory(
    dir: &str,
    dirs: &[String],
    files: &BTreeMap<&str, &[u8]>,
    joliet: bool,
    place: &dyn Fn(&str) -> (u32, u32),
) -> Vec<u8> {
    let mut children: Vec<(Vec<u8>, &str, bool)> = Vec::new();
    for d in dirs.iter().filter(|d| !d.is_empty() && parent(d) == dir) {
        children.push((encode(base(d), joliet, false), d, true));
    }
    for f in files.keys().filter(|f| parent(f) == dir) {
        children.push((encode(base(f), joliet, true), f, false));
    }
    children.sort();
    let mut records = vec![entry(&[0], place(dir), true), entry(&[1], place(parent(dir)), true)];
    records.extend(
        children
            .iter()
            .map(|(name, path, is_dir)| entry(name, place(path), *is_dir)),
    );
    let mut out = Vec::new();
    for record in records {
        if out.len() % SECTOR + record.len() > SECTOR {
            out.resize(out.len().next_multiple_of(SECTOR), 0);
        }
        out.extend(record);
    }
    out.resize(out.len().next_multiple_of(SECTOR), 0);
    out
}

/// Path table (ECMA-119 9.4), of little or big endian.
fn path_table(dirs: &[String], sector: &dyn Fn(&str) -> u32, joliet: bool, big: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for dir in dirs {
        let name = if dir.is_empty() {
            vec![0]
        } else {
            encode(base(dir), joliet, false)
        };
        let up = dirs.iter().position(|d| d == parent(dir)).unwrap_or(0) as u16 + 1;
        out.push(name.len() as u8);
        out.push(0);
        if big {
            out.extend(sector(dir).to_be_bytes());
            out.extend(up.to_be_bytes());
        } else {
            out.extend(sector(dir).to_le_bytes());
            out.extend(up.to_le_bytes());
        }
        out.extend(&name);
        if name.len() % 2 == 1 {
            out.push(0);
        }
    }
    out
}

/// Primary or supplementary volume descriptor (ECMA-119 8.4, 8.5).
fn descriptor(tree: &Tree, root: (u32, u32), sectors: u32) -> Vec<u8> {
    let text = |s: &str, length: usize| -> Vec<u8> {
        let mut v: Vec<u8> = if tree.joliet {
            s.encode_utf16().flat_map(u16::to_be_bytes).collect()
        } else {
            s.bytes().collect()
        };
        while v.len() < length {
            if tree.joliet && length - v.len() >= 2 {
                v.push(0);
            }
            v.push(b' ');
        }
        v.truncate(length);
        v
    };
    let mut d = Vec::with_capacity(SECTOR);
    d.push(if tree.joliet { 2 } else { 1 });
    d.extend(b"CD001\x01\0");
    d.extend(text("LINUX", 32));
    d.extend(text(LABEL, 32));
    d.extend([0; 8]);
    d.extend(both32(sectors));
    // UCS-2 level 3 by its escape sequence.
    d.extend(if tree.joliet { *b"%/E" } else { [0; 3] });
    d.extend([0; 29]);
    d.extend(both16(1));
    d.extend(both16(1));
    d.extend(both16(SECTOR as u16));
    d.extend(both32(tree.table));
    d.extend(tree.little.to_le_bytes());
    d.extend([0; 4]);
    d.extend(tree.big.to_be_bytes());
    d.extend([0; 4]);
    d.extend(entry(&[0], root, true));
    for length in [128, 128, 128, 128, 37, 37, 37] {
        d.extend(text("", length));
    }
    for _ in 0..2 {
        d.extend(b"2000010100000000\0");
    }
    for _ in 0..2 {
        d.extend(b"0000000000000000\0");
    }
    d.extend([1, 0]);
    d.resize(SECTOR, 0);
    d
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn u32_at(b: &[u8], at: usize) -> usize {
        u32::from_le_bytes(b[at..at + 4].try_into().unwrap()) as usize
    }

    /// Walks the Joliet tree as a kernel does.
    fn walk(image: &[u8], at: usize, size: usize, path: &str, found: &mut BTreeMap<String, Vec<u8>>) {
        let dir = &image[at * SECTOR..at * SECTOR + size];
        let mut i = 0;
        let mut n = 0;
        while i < dir.len() {
            let length = dir[i] as usize;
            if length == 0 {
                i = (i + 1).next_multiple_of(SECTOR);
                continue;
            }
            let r = &dir[i..i + length];
            let (sector, bytes) = (u32_at(r, 2), u32_at(r, 10));
            let name = &r[33..33 + r[32] as usize];
            if n >= 2 {
                let units: Vec<u16> = name.chunks(2).map(|c| u16::from_be_bytes([c[0], c[1]])).collect();
                let name = String::from_utf16(&units).unwrap();
                let full = format!("{path}{}", name.trim_end_matches(";1"));
                if r[25] & 2 != 0 {
                    walk(image, sector, bytes, &format!("{full}/"), found);
                } else {
                    found.insert(full, image[sector * SECTOR..sector * SECTOR + bytes].to_vec());
                }
            }
            n += 1;
            i += length;
        }
    }

    #[test]
    fn reads_back() {
        let mut files: Vec<(String, Vec<u8>)> = (0..80)
            .map(|n| {
                (
                    format!("openstack/content/a_rather_long_name_of_a_file_{n:04}.json"),
                    vec![n as u8; n * 50],
                )
            })
            .collect();
        files.push(("openstack/latest/meta_data.json".into(), b"{}".to_vec()));
        files.push(("ec2/latest/meta-data.json".into(), b"[1]".to_vec()));
        let image = config_drive(&files).unwrap();
        assert_eq!(&image[16 * SECTOR + 40..16 * SECTOR + 48], b"config-2");
        assert_eq!(u32_at(&image, 16 * SECTOR + 80) * SECTOR, image.len());
        let svd = &image[17 * SECTOR..18 * SECTOR];
        let mut found = BTreeMap::new();
        walk(&image, u32_at(svd, 158), u32_at(svd, 166), "", &mut found);
        assert_eq!(found, files.into_iter().collect());
        assert!(config_drive(&[("a//b".into(), vec![])]).is_err());
        assert!(config_drive(&[("../b".into(), vec![])]).is_err());
    }
}
