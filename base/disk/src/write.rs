//! Writers of raw and qcow2.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Takes a disk front to back, without its zeros.
pub(super) trait Target {
    /// Bytes at a place of the disk; places only grow.
    fn data(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Completes the file; answers the size of the disk inside.
    fn finish(self: Box<Self>) -> io::Result<u64>;
}

pub(super) fn too_large(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("the disk is too large for {what}"))
}

/// The plain bytes of the disk, with holes.
pub(super) struct Raw {
    out: File,
    size: u64,
}

impl Raw {
    pub fn begin(out: File, size: u64) -> io::Result<Self> {
        out.set_len(size)?;
        Ok(Self { out, size })
    }
}

impl Target for Raw {
    fn data(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all_at(bytes, at)
    }
    fn finish(self: Box<Self>) -> io::Result<u64> {
        Ok(self.size)
    }
}

const BITS: u32 = 16;
const CLUSTER: u64 = 1 << BITS;
/// Entries of an L2 table.
const PER_TABLE: u64 = CLUSTER / 8;
/// The refcount is 1 and nobody shares it.
const COPIED: u64 = 1 << 63;

/// qcow2 version 3: header, L1 table, then data and L2 tables as they come, refcounts at the end.
pub(super) struct Qcow2 {
    out: File,
    size: u64,
    l1: Vec<u64>,
    /// The table that is being filled, and for which entry of L1.
    l2: Option<(u64, Vec<u64>)>,
    /// The first cluster that is free.
    next: u64,
}

impl Qcow2 {
    pub fn begin(out: File, size: u64) -> io::Result<Self> {
        let size = size.next_multiple_of(512);
        let entries = size.div_ceil(CLUSTER * PER_TABLE).max(1);
        let l1_clusters = (entries * 8).div_ceil(CLUSTER);
        let l1 = vec![0; usize::try_from(entries).map_err(|_| too_large("qcow2"))?];
        Ok(Self {
            out,
            size,
            l1,
            l2: None,
            next: 1 + l1_clusters,
        })
    }

    fn take(&mut self) -> u64 {
        self.next += 1;
        (self.next - 1) * CLUSTER
    }

    fn close_table(&mut self) -> io::Result<()> {
        let Some((n, entries)) = self.l2.take() else {
            return Ok(());
        };
        let at = self.take();
        let bytes: Vec<u8> = entries.iter().flat_map(|e| e.to_be_bytes()).collect();
        self.out.write_all_at(&bytes, at)?;
        if let Some(entry) = usize::try_from(n).ok().and_then(|n| self.l1.get_mut(n)) {
            *entry = at | COPIED;
        }
        Ok(())
    }

    fn cluster_of(&mut self, index: u64) -> io::Result<u64> {
        let (table, entry) = (index / PER_TABLE, usize::try_from(index % PER_TABLE).unwrap_or(0));
        if self.l2.as_ref().is_none_or(|(n, _)| *n != table) {
            self.close_table()?;
            self.l2 = Some((table, vec![0; usize::try_from(PER_TABLE).unwrap_or(0)]));
        }
        let held = |l2: &Option<(u64, Vec<u64>)>| l2.as_ref().and_then(|(_, t)| t.get(entry).copied()).unwrap_or(0);
        let there = held(&self.l2);
        if there != 0 {
            return Ok(there & !COPIED);
        }
        let at = self.take();
        if let Some(slot) = self.l2.as_mut().and_then(|(_, t)| t.get_mut(entry)) {
            *slot = at | COPIED;
        }
        Ok(at)
    }
}

impl Target for Qcow2 {
    fn data(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let (mut at, mut rest) = (at, bytes);
        while !rest.is_empty() {
            let inside = at % CLUSTER;
            let room = usize::try_from(CLUSTER - inside).unwrap_or(0).min(rest.len());
            let (now, later) = rest.split_at(room);
            let place = self.cluster_of(at / CLUSTER)?;
            self.out.write_all_at(now, place + inside)?;
            at += room as u64;
            rest = later;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> io::Result<u64> {
        self.close_table()?;
        // Refcount blocks count themselves and their table too: add blocks until all are covered.
        let per_block = CLUSTER / 2;
        let (mut blocks, mut table) = (1_u64, 1_u64);
        loop {
            let all = self.next + blocks + table;
            let (b, t) = (all.div_ceil(per_block), all.div_ceil(per_block).div_ceil(PER_TABLE));
            if (b, t) == (blocks, table) {
                break;
            }
            (blocks, table) = (b.max(blocks), t.max(table));
        }
        let table_at = self.next * CLUSTER;
        let all = self.next + blocks + table;
        let ones: Vec<u8> = 1_u16.to_be_bytes().repeat(usize::try_from(per_block).unwrap_or(0));
        for n in 0..blocks {
            let at = table_at + (table + n) * CLUSTER;
            self.out.write_all_at(&at.to_be_bytes(), table_at + n * 8)?;
            let counted = (all - n * per_block).min(per_block);
            let len = usize::try_from(counted * 2).unwrap_or(0);
            self.out.write_all_at(ones.get(..len).unwrap_or(&[]), at)?;
        }
        let l1: Vec<u8> = self.l1.iter().flat_map(|e| e.to_be_bytes()).collect();
        self.out.write_all_at(&l1, CLUSTER)?;
        let mut h = Vec::with_capacity(112);
        h.extend(b"QFI\xfb");
        h.extend(3_u32.to_be_bytes());
        h.extend([0; 12]); // no backing file
        h.extend(BITS.to_be_bytes());
        h.extend(self.size.to_be_bytes());
        h.extend([0; 4]); // no encryption
        h.extend(
            u32::try_from(self.l1.len())
                .map_err(|_| too_large("qcow2"))?
                .to_be_bytes(),
        );
        h.extend(CLUSTER.to_be_bytes()); // L1 table
        h.extend(table_at.to_be_bytes());
        h.extend(u32::try_from(table).map_err(|_| too_large("qcow2"))?.to_be_bytes());
        h.extend([0; 12]); // no snapshots
        h.extend([0; 24]); // no features
        h.extend(4_u32.to_be_bytes()); // refcounts of 1 << 4 bits
        h.extend(104_u32.to_be_bytes());
        h.extend([0; 8]); // end of extensions
        self.out.write_all_at(&h, 0)?;
        self.out.set_len(all * CLUSTER)?;
        Ok(self.size)
    }
}
