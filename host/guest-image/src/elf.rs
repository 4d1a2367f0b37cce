//! As much of ELF as says which libraries a program needs and what a kernel module declares. Every offset is checked:
//! a broken file gives `None`, never a panic.

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;

struct Elf<'a>(&'a [u8]);

impl<'a> Elf<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        // 64 bits, little-endian.
        (bytes.get(..6)? == b"\x7fELF\x02\x01").then_some(Self(bytes))
    }
    fn u16(&self, at: usize) -> Option<usize> {
        Some(u16::from_le_bytes(self.0.get(at..at.checked_add(2)?)?.try_into().ok()?).into())
    }
    fn u32(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.0.get(at..at.checked_add(4)?)?.try_into().ok()?))
    }
    fn u64(&self, at: usize) -> Option<u64> {
        Some(u64::from_le_bytes(self.0.get(at..at.checked_add(8)?)?.try_into().ok()?))
    }
    fn size(&self, at: usize) -> Option<usize> {
        self.u64(at)?.try_into().ok()
    }
    fn string(&self, at: usize) -> Option<&'a str> {
        let tail = self.0.get(at..)?;
        std::str::from_utf8(tail.get(..tail.iter().position(|b| *b == 0)?)?).ok()
    }
    /// Offsets of the entries of a header table.
    fn table(&self, offset_at: usize, size_at: usize, count_at: usize) -> Option<Vec<usize>> {
        let (start, size, count) = (self.size(offset_at)?, self.u16(size_at)?, self.u16(count_at)?);
        (0..count).map(|n| start.checked_add(n.checked_mul(size)?)).collect()
    }
}

/// The `DT_NEEDED` names of a program or library; empty when it is static.
pub(crate) fn needed(bytes: &[u8]) -> Option<Vec<String>> {
    let elf = Elf::parse(bytes)?;
    let segments = elf.table(32, 54, 56)?;
    let Some(dynamic) = segments.iter().find(|p| elf.u32(**p) == Some(PT_DYNAMIC)) else {
        return Some(Vec::new());
    };
    let (start, size) = (elf.size(dynamic + 8)?, elf.size(dynamic + 32)?);
    let mut names = Vec::new();
    let mut strings = None;
    for at in (start..start.checked_add(size)?).step_by(16) {
        match (elf.u64(at)?, elf.u64(at + 8)?) {
            (0, _) => break,
            (DT_NEEDED, name) => names.push(usize::try_from(name).ok()?),
            (DT_STRTAB, address) => {
                // An address in memory: back to the file by the segment that holds it.
                strings = segments.iter().find_map(|p| {
                    let (offset, base, length) = (elf.u64(p + 8)?, elf.u64(p + 16)?, elf.u64(p + 32)?);
                    let inside = address.checked_sub(base)?;
                    (elf.u32(*p)? == PT_LOAD && inside < length)
                        .then(|| usize::try_from(offset.checked_add(inside)?).ok())?
                });
            }
            _ => {}
        }
    }
    if names.is_empty() {
        return Some(Vec::new());
    }
    let strings = strings?;
    names
        .into_iter()
        .map(|n| elf.string(strings.checked_add(n)?).map(str::to_owned))
        .collect()
}

/// The `key=value` strings of a kernel module.
pub(crate) fn modinfo(bytes: &[u8]) -> Option<Vec<(String, String)>> {
    let elf = Elf::parse(bytes)?;
    let sections = elf.table(40, 58, 60)?;
    let names = elf.size(*sections.get(elf.u16(62)?)? + 24)?;
    for s in &sections {
        if elf.string(names.checked_add(elf.u32(*s)? as usize)?)? != ".modinfo" {
            continue;
        }
        let start = elf.size(s + 24)?;
        let data = bytes.get(start..start.checked_add(elf.size(s + 32)?)?)?;
        return Some(
            data.split(|b| *b == 0)
                .filter_map(|s| std::str::from_utf8(s).ok()?.split_once('='))
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect(),
        );
    }
    None
}

/// The module without the signature appended to it.
pub(crate) fn without_signature(module: &[u8]) -> &[u8] {
    const MAGIC: &[u8] = b"~Module signature appended~\n";
    // Before the magic: 12 bytes, of which the last four hold the signature's length, big-endian.
    let stripped = module.strip_suffix(MAGIC).and_then(|rest| {
        let info = rest.len().checked_sub(12)?;
        let length = u32::from_be_bytes(rest.get(info + 8..)?.try_into().ok()?) as usize;
        rest.get(..info.checked_sub(length)?)
    });
    stripped.unwrap_or(module)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn own_binary_needs_libc() {
        let me = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(needed(&me).unwrap().iter().any(|n| n.starts_with("libc.so")));
    }

    #[test]
    fn broken_files_give_none() {
        let me = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for n in [0, 3, 17, 64, 100, 1000] {
            assert!(needed(&me[..n]).is_none_or(|l| l.is_empty()));
            assert!(modinfo(&me[..n]).is_none());
        }
        assert!(needed(b"#!/bin/sh\n").is_none());
    }

    #[test]
    fn signature_is_cut() {
        let mut m = b"MODULE".to_vec();
        m.extend(b"sig!");
        m.extend([0, 0, 2, 0, 0, 0, 0, 0]);
        m.extend(4u32.to_be_bytes());
        m.extend(b"~Module signature appended~\n");
        assert_eq!(without_signature(&m), b"MODULE");
        assert_eq!(without_signature(b"plain"), b"plain");
        assert_eq!(
            without_signature(b"x~Module signature appended~\n"),
            b"x~Module signature appended~\n"
        );
    }
}
