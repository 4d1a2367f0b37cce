//! How long after a guest's question the answer is on its wire: from the kernel's own times of the packets that pass the
//! namespace of bridges and taps.

// Packet sockets and the time of a packet are not in safe libraries that are here already.
#![allow(unsafe_code)]

use crate::figures::Samples;
use anyhow::{Context, Result};
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Since 1970.
type Time = Duration;

/// First sighting of a question, and of the answer to it the last: that is where the answer leaves to the guest.
#[derive(Default)]
struct Pairs {
    asked: HashMap<u64, Time>,
    answered: HashMap<u64, Time>,
    /// Which answer to a TCP question came first, by sequence number.
    first: HashMap<u64, u32>,
}

impl Pairs {
    fn samples(&self) -> Samples {
        let mut out = Samples::default();
        for (key, asked) in &self.asked {
            if let Some(took) = self.answered.get(key).and_then(|a| a.checked_sub(*asked)) {
                out.add(took);
            }
        }
        out
    }
}

/// A running capture.
pub struct Sniffer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<(Samples, Samples)>>,
}

impl Sniffer {
    /// Begins in the namespace of this name.
    pub fn start(namespace: &str) -> Result<Sniffer> {
        let namespace = File::open(format!("/run/netns/{namespace}")).context(namespace.to_owned())?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET)?;
            let socket = open()?;
            let (mut dhcp, mut metadata) = (Pairs::default(), Pairs::default());
            let mut frame = vec![0; 65_536];
            while !stopped.load(Ordering::Relaxed) {
                if let Some((n, time)) = receive(&socket, &mut frame) {
                    look(frame.get(..n).unwrap_or_default(), time, &mut dhcp, &mut metadata);
                }
            }
            Ok((dhcp.samples(), metadata.samples()))
        });
        Ok(Sniffer { stop, thread })
    }

    /// Ends it; the times of DHCP and of metadata.
    pub fn stop(self) -> Result<(Samples, Samples)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the capture died"))?
    }
}

fn open() -> Result<OwnedFd> {
    let all = i32::from((libc::ETH_P_ALL as u16).to_be());
    // SAFETY: plain system calls; the descriptor is owned from here on.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, all);
        anyhow::ensure!(fd >= 0, "packet socket: {}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    };
    let wait = libc::timeval {
        tv_sec: 0,
        tv_usec: 100_000,
    };
    // SAFETY: the value lives as long as the call.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw const wait).cast(),
            size_of_val(&wait) as u32,
        );
    }
    Ok(socket)
}

fn receive(socket: &OwnedFd, frame: &mut [u8]) -> Option<(usize, Time)> {
    const SIOCGSTAMPNS: libc::Ioctl = 0x8907;
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the buffer has this length, and the kernel writes a timespec.
    let n = unsafe {
        let n = libc::recv(socket.as_raw_fd(), frame.as_mut_ptr().cast(), frame.len(), 0);
        if n <= 0 || libc::ioctl(socket.as_raw_fd(), SIOCGSTAMPNS, &raw mut at) != 0 {
            return None;
        }
        n
    };
    Some((n as usize, Duration::new(at.tv_sec as u64, at.tv_nsec as u32)))
}

fn u16_at(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(b.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(b.get(at..at + 4)?.try_into().ok()?))
}

fn look(frame: &[u8], time: Time, dhcp: &mut Pairs, metadata: &mut Pairs) -> Option<()> {
    if u16_at(frame, 12)? != 0x0800 {
        return None;
    }
    let ip = frame.get(14..14 + usize::from(u16_at(frame, 16)?))?;
    let l4 = ip.get(usize::from(ip.first()? & 15) * 4..)?;
    let (from, to) = (u16_at(l4, 0)?, u16_at(l4, 2)?);
    match *ip.get(9)? {
        17 if (from, to) == (68, 67) || (from, to) == (67, 68) => {
            let bootp = l4.get(8..)?;
            let mut options = bootp.get(240..)?;
            let kind = loop {
                match *options.first()? {
                    0 => options = options.get(1..)?,
                    53 => break *options.get(2)?,
                    255 => return None,
                    _ => options = options.get(2 + usize::from(*options.get(1)?)..)?,
                }
            };
            // DISCOVER and OFFER, REQUEST and ACK.
            let (step, asked) = match kind {
                1 => (0, true),
                2 => (0, false),
                3 => (1, true),
                5 => (1, false),
                _ => return None,
            };
            let key = u64::from(u32_at(bootp, 4)?) << 1 | step;
            if asked {
                dhcp.asked.entry(key).or_insert(time);
            } else {
                dhcp.answered.insert(key, time);
            }
        }
        6 if to == 80 || from == 80 => {
            let payload = l4.get(usize::from(l4.get(12)? >> 4) * 4..)?;
            let responder = [169, 254, 169, 254];
            if payload.is_empty() {
                return None;
            }
            if ip.get(16..20)? == responder && to == 80 {
                let key = u64::from(u32_at(ip, 12)?) << 16 | u64::from(from);
                metadata.asked.entry(key).or_insert(time);
            } else if ip.get(12..16)? == responder && from == 80 {
                let key = u64::from(u32_at(ip, 16)?) << 16 | u64::from(to);
                let sequence = u32_at(l4, 4)?;
                if *metadata.first.entry(key).or_insert(sequence) == sequence {
                    metadata.answered.insert(key, time);
                }
            }
        }
        _ => {}
    }
    Some(())
}
