//! The little of netlink that we need: requests, acknowledgements, dumps, attributes.
//!
//! One request is one system call of some ten microseconds; starting `ip` for it costs milliseconds.

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const F_REQUEST: u16 = 1;
const F_ACK: u16 = 4;
const F_DUMP_INTR: u16 = 0x10;
/// Flag: the answer is a list.
pub const F_DUMP: u16 = 0x300;
/// Flags: make it, fail when it is there.
pub const F_CREATE: u16 = 0x400 | 0x200;
/// Flags: make it or replace it.
pub const F_REPLACE: u16 = 0x400 | 0x100;
/// Flags: make it, beside what is there.
pub const F_APPEND: u16 = 0x400 | 0x800;
/// Marks an attribute that holds attributes.
pub const NESTED: u16 = 0x8000;

/// A netlink socket; it stays in the namespace in which it was opened.
pub struct Socket {
    fd: OwnedFd,
    seq: u32,
    buf: Vec<u8>,
}

impl Socket {
    /// For links, addresses and routes.
    pub fn route() -> io::Result<Socket> {
        Self::open(SockProtocol::NetlinkRoute)
    }
    /// For connection tracking.
    pub fn netfilter() -> io::Result<Socket> {
        Self::open(SockProtocol::NetlinkNetFilter)
    }
    fn open(protocol: SockProtocol) -> io::Result<Socket> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        Ok(Socket {
            fd,
            seq: 0,
            buf: vec![0; 1 << 16],
        })
    }

    /// Sends one request and returns the payloads of its answers, up to the acknowledgement.
    pub fn call(&mut self, kind: u16, flags: u16, body: &Msg) -> io::Result<Vec<Vec<u8>>> {
        // A dump that a change ran into is inconsistent and says so: take it again.
        for _ in 0..8 {
            if let Some(out) = self.once(kind, flags, body)? {
                return Ok(out);
            }
        }
        Err(io::Error::other("the kernel's list kept changing while it was read"))
    }

    fn once(&mut self, kind: u16, flags: u16, body: &Msg) -> io::Result<Option<Vec<Vec<u8>>>> {
        self.seq = self.seq.wrapping_add(1);
        let dump = flags & F_DUMP == F_DUMP;
        let flags = flags | F_REQUEST | if dump { 0 } else { F_ACK };
        let mut out = Vec::with_capacity(HEADER + body.0.len());
        out.extend(((HEADER + body.0.len()) as u32).to_ne_bytes());
        out.extend(kind.to_ne_bytes());
        out.extend(flags.to_ne_bytes());
        out.extend(self.seq.to_ne_bytes());
        out.extend(0u32.to_ne_bytes());
        out.extend(&body.0);
        send(self.fd.as_raw_fd(), &out, MsgFlags::empty())?;
        let mut found = vec![];
        let mut torn = false;
        loop {
            let n = match recv(self.fd.as_raw_fd(), &mut self.buf, MsgFlags::empty()) {
                Err(nix::Error::EINTR) => continue,
                other => other?,
            };
            let mut rest = self.buf.get(..n).unwrap_or_default();
            while let Some(h) = header(rest) {
                let Some(payload) = rest.get(HEADER..h.len) else {
                    return Err(io::Error::other("a cut netlink message"));
                };
                rest = rest.get(align(h.len)..).unwrap_or_default();
                if h.seq != self.seq {
                    continue;
                }
                torn |= h.flags & F_DUMP_INTR != 0;
                match h.kind {
                    NLMSG_ERROR => {
                        let code = int(payload, 0);
                        return match code {
                            0 => Ok(Some(found)),
                            e => Err(io::Error::from_raw_os_error(-e)),
                        };
                    }
                    NLMSG_DONE => return Ok((!torn).then_some(found)),
                    _ => found.push(payload.to_vec()),
                }
            }
        }
    }
}

struct Header {
    len: usize,
    kind: u16,
    flags: u16,
    seq: u32,
}

fn header(b: &[u8]) -> Option<Header> {
    let h = b.get(..HEADER)?;
    let len = u32::from_ne_bytes(h.get(..4)?.try_into().ok()?) as usize;
    (len >= HEADER).then_some(Header {
        len,
        kind: u16::from_ne_bytes(h.get(4..6)?.try_into().ok()?),
        flags: u16::from_ne_bytes(h.get(6..8)?.try_into().ok()?),
        seq: u32::from_ne_bytes(h.get(8..12)?.try_into().ok()?),
    })
}

fn align(n: usize) -> usize {
    (n + 3) & !3
}

/// The native integer at `at`; 0 when the bytes end before it.
pub fn int(b: &[u8], at: usize) -> i32 {
    b.get(at..at + 4)
        .and_then(|x| x.try_into().ok())
        .map_or(0, i32::from_ne_bytes)
}

/// The body of a request: a fixed part, then attributes.
#[derive(Default)]
pub struct Msg(Vec<u8>);

impl Msg {
    /// Starts with the fixed part.
    pub fn new(fixed: &[u8]) -> Msg {
        Msg(fixed.to_vec())
    }
    /// Appends an attribute.
    pub fn attr(&mut self, kind: u16, data: &[u8]) -> &mut Self {
        self.0.extend(((4 + data.len()) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(data);
        self.0.resize(align(self.0.len()), 0);
        self
    }
    /// Appends a native 32-bit number.
    pub fn u32(&mut self, kind: u16, v: u32) -> &mut Self {
        self.attr(kind, &v.to_ne_bytes())
    }
    /// Appends a string with its closing zero.
    pub fn str(&mut self, kind: u16, s: &str) -> &mut Self {
        let mut b = s.as_bytes().to_vec();
        b.push(0);
        self.attr(kind, &b)
    }
    /// Appends an attribute that holds `fixed` and further attributes.
    pub fn nest(&mut self, kind: u16, fixed: &[u8], f: impl FnOnce(&mut Msg)) -> &mut Self {
        let mut inner = Msg::new(fixed);
        f(&mut inner);
        self.attr(kind, &inner.0)
    }
}

/// Iterates over attributes: kind without flags, and bytes.
pub fn attrs(mut b: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = u16::from_ne_bytes(b.get(..2)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(b.get(2..4)?.try_into().ok()?) & 0x3fff;
        let data = b.get(4..len)?;
        b = b.get(align(len)..).unwrap_or_default();
        Some((kind, data))
    })
}
