//! Whether KVM is worth using: not whether it starts a guest, but whether it runs one on the CPU.
//!
//! There are hosts with a `/dev/kvm` on which every guest instruction is emulated in the kernel, 4-5 us
//! each; that is far slower than QEMU's own emulation. The probe runs a real-mode loop of known length
//! and looks at the time per step.

// The kernel's KVM interface is ioctls and shared memory; nothing else here is unsafe.
#![allow(unsafe_code)]

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::mpsc;
use std::time::Duration;

/// Slowest step, in nanoseconds, that is still a CPU: a real one takes 1 or 2 with the entry's cost spread.
const MAX_STEP_NS: u128 = 200;
const STEPS: u32 = 2000;
/// An emulating kernel needs 10 ms; what has not ended by now never will.
const PATIENCE: Duration = Duration::from_millis(500);

/// What runs guests here, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accelerator {
    /// `kvm` or `tcg`.
    pub kind: String,
    /// A sentence for `doctor`.
    pub reason: String,
}

impl Accelerator {
    fn tcg(reason: String) -> Self {
        Self {
            kind: "tcg".into(),
            reason,
        }
    }
}

/// Probes KVM; takes 10 ms, 0.5 s at the worst. Blocks.
pub fn probe_accelerator() -> Accelerator {
    let (send, receive) = mpsc::channel();
    // A thread that may be left behind: a vCPU that never returns cannot be called back without a
    // signal, and ends with our process.
    let started = std::thread::Builder::new().name("kvm-probe".into()).spawn(move || {
        let _ = send.send(step_ns());
    });
    if let Err(e) = started {
        return Accelerator::tcg(format!("KVM was not probed: {e}"));
    }
    match receive.recv_timeout(PATIENCE) {
        Ok(Ok(ns)) if ns <= MAX_STEP_NS => Accelerator {
            kind: "kvm".into(),
            reason: format!("/dev/kvm runs guest code on the CPU ({ns} ns per step)"),
        },
        Ok(Ok(ns)) => Accelerator::tcg(format!(
            "/dev/kvm is there but emulates each instruction ({ns} ns per step, at most {MAX_STEP_NS} wanted): QEMU's own emulation is faster"
        )),
        Ok(Err(e)) => Accelerator::tcg(format!("KVM does not work: {e}")),
        Err(_) => Accelerator::tcg(format!(
            "KVM did not get through a loop of {STEPS} steps within {} ms",
            PATIENCE.as_millis()
        )),
    }
}

const fn io_none(nr: u64) -> u64 {
    0xae00 | nr
}
const fn io_write(nr: u64, size: usize) -> u64 {
    0x4000_0000 | ((size as u64) << 16) | 0xae00 | nr
}
const fn io_read(nr: u64, size: usize) -> u64 {
    0x8000_0000 | ((size as u64) << 16) | 0xae00 | nr
}

// Sizes of the kernel's structures on x86-64 (Linux, Documentation/virt/kvm/api.rst).
const REGS: usize = 144;
const SREGS: usize = 312;
const KVM_CREATE_VM: u64 = io_none(0x01);
const KVM_GET_VCPU_MMAP_SIZE: u64 = io_none(0x04);
const KVM_CREATE_VCPU: u64 = io_none(0x41);
const KVM_SET_USER_MEMORY_REGION: u64 = io_write(0x46, 32);
const KVM_SET_TSS_ADDR: u64 = io_none(0x47);
const KVM_RUN: u64 = io_none(0x80);
const KVM_SET_REGS: u64 = io_write(0x82, REGS);
const KVM_GET_SREGS: u64 = io_read(0x83, SREGS);
const KVM_SET_SREGS: u64 = io_write(0x84, SREGS);
const KVM_EXIT_HLT: u32 = 5;

/// A mapping that goes with its owner.
struct Map(*mut libc::c_void, usize);

impl Map {
    fn new(size: usize, fd: Option<i32>) -> io::Result<Self> {
        let flags = if fd.is_some() {
            libc::MAP_SHARED
        } else {
            libc::MAP_SHARED | libc::MAP_ANONYMOUS
        };
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let p = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                fd.unwrap_or(-1),
                0,
            )
        };
        if p == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(p, size))
    }
    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is ours and lives as long as `self`; the guest is not running meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.0.cast(), self.1) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: made by `new`, unmapped once.
        unsafe { libc::munmap(self.0, self.1) };
    }
}

fn call(fd: i32, request: u64, argument: u64) -> io::Result<i32> {
    // SAFETY: each caller gives the argument that the request takes: a number, or a pointer to a live
    // buffer of the size that is coded in the request.
    let r = unsafe { libc::ioctl(fd, request as libc::Ioctl, argument) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(r) }
}

/// Nanoseconds per step of `l: dec ecx; jnz l`, the best of three runs.
#[allow(clippy::disallowed_methods)]
fn step_ns() -> io::Result<u128> {
    let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm")?;
    let owned = |fd: i32| {
        // SAFETY: a descriptor that the kernel has just given us, owned once.
        unsafe { OwnedFd::from_raw_fd(fd) }
    };
    let vm = owned(call(kvm.as_raw_fd(), KVM_CREATE_VM, 0)?);
    let mut memory = Map::new(1 << 20, None)?;
    let mut region = [0_u8; 32];
    region[16..24].copy_from_slice(&(memory.1 as u64).to_ne_bytes());
    region[24..32].copy_from_slice(&(memory.0 as u64).to_ne_bytes());
    call(vm.as_raw_fd(), KVM_SET_USER_MEMORY_REGION, region.as_ptr() as u64)?;
    // Intel without unrestricted guest needs it; elsewhere it is refused without harm.
    let _ = call(vm.as_raw_fd(), KVM_SET_TSS_ADDR, 0xfffb_d000);
    let cpu = owned(call(vm.as_raw_fd(), KVM_CREATE_VCPU, 0)?);
    let size = call(kvm.as_raw_fd(), KVM_GET_VCPU_MMAP_SIZE, 0)?;
    let mut run = Map::new(size as usize, Some(cpu.as_raw_fd()))?;

    let n = STEPS.to_le_bytes();
    // mov ecx, STEPS; l: dec ecx; jnz l; hlt
    let code = [0x66, 0xb9, n[0], n[1], n[2], n[3], 0x66, 0x49, 0x75, 0xfc, 0xf4];
    if let Some(at) = memory.bytes().get_mut(0x1000..0x1000 + code.len()) {
        at.copy_from_slice(&code);
    }
    let mut sregs = [0_u64; SREGS / 8];
    call(cpu.as_raw_fd(), KVM_GET_SREGS, sregs.as_mut_ptr() as u64)?;
    // The first segment is CS: base (8 bytes), limit (4), selector (2).
    sregs[0] = 0;
    sregs[1] &= !(0xffff << 32);
    let mut best = u128::MAX;
    for _ in 0..3 {
        call(cpu.as_raw_fd(), KVM_SET_SREGS, sregs.as_ptr() as u64)?;
        let mut regs = [0_u64; REGS / 8];
        regs[16] = 0x1000; // rip
        regs[17] = 2; // rflags
        call(cpu.as_raw_fd(), KVM_SET_REGS, regs.as_ptr() as u64)?;
        let start = std::time::Instant::now();
        call(cpu.as_raw_fd(), KVM_RUN, 0)?;
        let took = start.elapsed().as_nanos();
        // exit_reason stands at offset 8 of the shared page.
        let reason = run
            .bytes()
            .get(8..12)
            .and_then(|b| b.try_into().ok())
            .map(u32::from_ne_bytes);
        if reason != Some(KVM_EXIT_HLT) {
            return Err(io::Error::other(format!(
                "the probe left the guest for reason {reason:?}"
            )));
        }
        best = best.min(took / u128::from(STEPS));
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    /// Nothing to compare with; it must end, quickly, with a reason.
    #[test]
    fn answers() {
        let a = super::probe_accelerator();
        assert!(a.kind == "kvm" || a.kind == "tcg");
        assert!(!a.reason.is_empty());
        eprintln!("{a:?}");
    }
}
