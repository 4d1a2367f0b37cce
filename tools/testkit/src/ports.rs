//! Ports of loopback for those who have to know theirs before they listen, or take it again later.

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use std::fs::File;
use std::net::TcpListener;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below those that the kernel gives to connections, and to whoever asks for any.
const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;

/// A port that nobody has, and that no other test is given for as long as this process lives.
pub(crate) fn free_port() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let next = NEXT.get_or_init(|| AtomicU16::new((std::process::id() % u32::from(COUNT)) as u16));
    for _ in 0..COUNT {
        let port = FIRST + next.fetch_add(1, Ordering::Relaxed) % COUNT;
        if reserve(port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("all ports from {FIRST} on are taken");
}

/// Each port is a byte of one file, and whoever holds its lock has the port; a lock ends with its process.
fn reserve(port: u16) -> bool {
    static LOCKS: OnceLock<File> = OnceLock::new();
    lock(LOCKS.get_or_init(locks), port)
}

fn locks() -> File {
    let name = format!("haneul-test-ports-{}", nix::unistd::getuid());
    let path = std::env::temp_dir().join(name);
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    options.open(path).expect("a file of locks")
}

fn lock(file: &File, port: u16) -> bool {
    let byte = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: port.into(),
        l_len: 1,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_SETLK(&byte)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once() {
        let (a, b) = (free_port(), free_port());
        assert_ne!(a, b);
        // As another process asks.
        let theirs = locks();
        assert!(!lock(&theirs, a) && !lock(&theirs, b));
    }
}
