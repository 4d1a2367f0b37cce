//! Taps: made persistent in the switch namespace, opened for QEMU.
//!
//! Persistent, because QEMU holds the descriptor and outlives us, and because the device has to stand
//! (with its rules) before the guest runs.

// System calls that no safe wrapper in the tree offers; each says why it is sound.
#![allow(unsafe_code)]

use super::ns::Ns;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

const FLAGS: libc::c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// Opens `name`, making it when it is not there. Single queue, virtio-net header, so that checksums
/// and segmentation are left to the receiver.
pub fn open(ns: &Ns, name: &str) -> io::Result<OwnedFd> {
    ns.enter(|| attach(name))?
}

/// Makes `name` and lets it stand.
pub fn make(ns: &Ns, name: &str) -> io::Result<()> {
    ns.enter(|| {
        let fd = attach(name)?;
        // SAFETY: TUNSETPERSIST takes its argument by value; the descriptor is open.
        let rc = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETPERSIST as _, 1 as libc::c_ulong) };
        if rc < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    })?
}

fn attach(name: &str) -> io::Result<OwnedFd> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: ifreq is plain data for which all zeroes is a valid value.
    let mut req: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= req.ifr_name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in req.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    req.ifr_ifru.ifru_flags = FLAGS as libc::c_short;
    // SAFETY: `req` is a valid ifreq that lives through the call; the descriptor is open.
    let rc = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &mut req) };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file.into())
}
