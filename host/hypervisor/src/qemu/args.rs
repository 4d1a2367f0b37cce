//! QEMU's command line for one guest: a pure function of the guest and of numbers of open files.
//!
//! Everything the process uses beside its firmware is handed over open, so no path of ours appears, and
//! the process needs no right to any file. Every device has a fixed PCI slot, so that a restart shows the
//! guest the same machine.

use super::record::Device;
use haneul_agent_api::MAX_NICS;
use serde_json::{Value, json};
use std::os::fd::RawFd;
use uuid::Uuid;

/// CPU model under emulation: named and versioned, never `max` (what `max` is changes with each QEMU).
/// RDRAND saves a first boot about a second: without it the guest gathers entropy for its host keys.
pub const TCG_CPU: &str = "Nehalem-v1,+rdrand";
/// CPU model under KVM without a wish.
pub const KVM_CPU: &str = "host";
/// Machine type when the installed QEMU has it; else its newest `pc-i440fx-*`.
pub const MACHINE: &str = "pc-i440fx-10.0";

const SLOT_VGA: u8 = 2;
const SLOT_RNG: u8 = 3;
const SLOT_BALLOON: u8 = 4;
const SLOT_ROOT: u8 = 5;
const SLOT_CONFIG: u8 = 6;
pub(crate) const SLOT_NIC: u8 = 7;
// PCI has 32 slots.
const _: () = assert!(MAX_NICS == 32 - SLOT_NIC as usize);

/// What the record calls a local disk.
pub(crate) const LOCAL: &str = "local-disk";

/// An open disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DiskFd<'a> {
    pub fd: RawFd,
    /// Opened with O_DIRECT.
    pub direct: bool,
    pub format: &'a str,
    /// The read-only image below, opened without O_DIRECT: guests share it in the page cache.
    pub backing: Option<(RawFd, &'a str)>,
}

/// An open tap.
#[derive(Clone, Debug)]
pub(crate) struct NicFd {
    pub fd: RawFd,
    pub port: Uuid,
    pub mac: String,
    pub mtu: u32,
    pub slot: u8,
}

pub(crate) struct Spec<'a> {
    pub id: Uuid,
    /// Mark of the host directory; see [`super::process::marked`].
    pub tag: &'a str,
    pub machine: &'a str,
    pub cpu: &'a str,
    /// `kvm` or `tcg`.
    pub accelerator: &'a str,
    pub kvm: Option<RawFd>,
    pub vcpus: u32,
    pub memory_mib: u64,
    pub paused: bool,
    /// Waits for memory: of a suspended guest, or of one that comes from another host.
    pub incoming: bool,
    pub io_uring: bool,
    /// A display, which nothing shows until a connection is handed over.
    pub vnc: bool,
    pub qmp: RawFd,
    pub serial: RawFd,
    pub console_log: RawFd,
    pub root: DiskFd<'a>,
    /// Local disks, with whether they were opened with O_DIRECT.
    pub local: &'a [(RawFd, bool)],
    /// The config drive, and its bytes.
    pub config_drive: Option<(RawFd, u64)>,
    pub nics: &'a [NicFd],
}

/// The arguments after the program's name, and the devices for the record.
pub(crate) fn build(s: &Spec<'_>) -> (Vec<String>, Vec<Device>) {
    let mut a: Vec<String> = Vec::new();
    let mut devices = Vec::new();
    let mut sets = 0;
    let mut set = |a: &mut Vec<String>, fd: RawFd| {
        sets += 1;
        a.extend(["-add-fd".into(), format!("fd={fd},set={sets}")]);
        format!("/dev/fdset/{sets}")
    };
    let opt = |a: &mut Vec<String>, name: &str, value: String| {
        a.push(name.to_owned());
        a.push(value);
    };
    let device = |id: &str, kind: &str, slot: u8| Device {
        id: id.into(),
        kind: kind.into(),
        slot,
        port: None,
        mac: None,
        size: None,
    };

    // The mark finds stray processes; thread names help `top`.
    opt(
        &mut a,
        "-name",
        format!("guest=haneul:{}:{},debug-threads=on", s.tag, s.id),
    );
    opt(&mut a, "-uuid", s.id.to_string());
    opt(
        &mut a,
        "-machine",
        format!("{},usb=off,vmport=off,smm=off,dump-guest-core=off", s.machine),
    );
    match (s.accelerator, s.kvm) {
        ("kvm", Some(fd)) => {
            let path = set(&mut a, fd);
            opt(&mut a, "-accel", format!("kvm,device={path}"));
        }
        ("kvm", None) => opt(&mut a, "-accel", "kvm".into()),
        _ => opt(&mut a, "-accel", "tcg,thread=multi".into()),
    }
    opt(&mut a, "-cpu", s.cpu.to_owned());
    opt(&mut a, "-m", format!("size={}M", s.memory_mib));
    opt(
        &mut a,
        "-smp",
        format!("{0},sockets=1,cores={0},threads=1", s.vcpus.max(1)),
    );
    for flag in ["-nodefaults", "-no-user-config"] {
        a.push(flag.into());
    }
    opt(&mut a, "-display", "none".into());
    if s.vnc {
        // Nothing listens: connections come through the monitor, already open.
        opt(&mut a, "-vnc", "none".into());
        opt(&mut a, "-device", format!("VGA,id=vga,addr={SLOT_VGA:#x}"));
        devices.push(device("vga", "vga", SLOT_VGA));
    }
    opt(
        &mut a,
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".into(),
    );
    opt(&mut a, "-msg", "timestamp=on".into());
    opt(&mut a, "-rtc", "base=utc".into());
    opt(&mut a, "-boot", "strict=on".into());
    // The process outlives the guest's power-off, so that it cannot be missed: even an agent that was
    // dead at the time sees that the guest switched itself off and did not crash.
    opt(&mut a, "-action", "shutdown=pause".into());
    if s.paused || s.incoming {
        a.push("-S".into());
    }
    if s.incoming {
        opt(&mut a, "-incoming", "defer".into());
    }
    // cloud-init knows the platform by the product name.
    opt(
        &mut a,
        "-smbios",
        format!(
            "type=1,manufacturer=OpenStack Foundation,product=OpenStack Nova,version=1.0,serial={0},uuid={0},family=Virtual Machine",
            s.id
        ),
    );
    opt(
        &mut a,
        "-chardev",
        format!("socket,id=qmp,fd={},server=on,wait=off", s.qmp),
    );
    opt(&mut a, "-mon", "chardev=qmp,mode=control".into());
    let log = set(&mut a, s.console_log);
    opt(
        &mut a,
        "-chardev",
        format!(
            "socket,id=serial0,fd={},server=on,wait=off,logfile={log},logappend=on",
            s.serial
        ),
    );
    opt(&mut a, "-device", "isa-serial,chardev=serial0,id=ttyS0".into());

    opt(&mut a, "-object", "rng-builtin,id=rng0".into());
    opt(
        &mut a,
        "-device",
        format!("virtio-rng-pci,rng=rng0,id=rng,addr={SLOT_RNG:#x}"),
    );
    devices.push(device("rng", "rng", SLOT_RNG));
    // Pages that the guest has freed go back to the host.
    opt(
        &mut a,
        "-device",
        format!("virtio-balloon-pci,id=balloon,free-page-reporting=on,addr={SLOT_BALLOON:#x}"),
    );
    devices.push(device("balloon", "balloon", SLOT_BALLOON));

    let aio = if s.io_uring { "io_uring" } else { "threads" };
    let cache = json!({"direct": s.root.direct, "no-flush": false});
    let mut top = json!({
        "driver": s.root.format, "node-name": "root", "file": "root-file",
        "discard": "unmap", "cache": cache,
    });
    if let Some((fd, format)) = s.root.backing {
        let path = set(&mut a, fd);
        let file = json!({
            "driver": "file", "node-name": "image-file", "filename": path,
            "read-only": true, "aio": "threads",
        });
        let node = json!({"driver": format, "node-name": "image", "file": "image-file", "read-only": true});
        opt(&mut a, "-blockdev", file.to_string());
        opt(&mut a, "-blockdev", node.to_string());
        // Named, so that what the layer's header says of its backing file is never looked at.
        if let Some(map) = top.as_object_mut() {
            map.insert("backing".into(), "image".into());
        }
    } else if let (true, Some(map)) = (s.root.format == "qcow2", top.as_object_mut()) {
        map.insert("backing".into(), serde_json::Value::Null);
    }
    let path = set(&mut a, s.root.fd);
    let file = json!({
        "driver": "file", "node-name": "root-file", "filename": path,
        "aio": aio, "discard": "unmap", "cache": cache,
    });
    opt(&mut a, "-blockdev", file.to_string());
    opt(&mut a, "-blockdev", top.to_string());
    // Local disks are further functions of the root disk's slot: behind it and before all others in the guest's eyes.
    let more = if s.local.is_empty() { "" } else { ",multifunction=on" };
    opt(
        &mut a,
        "-device",
        format!("virtio-blk-pci,drive=root,id=disk0,bootindex=1,addr={SLOT_ROOT:#x}{more}"),
    );
    devices.push(device("disk0", "disk", SLOT_ROOT));
    for (n, (fd, direct)) in (1..).zip(s.local) {
        let path = set(&mut a, *fd);
        let cache = json!({"direct": direct, "no-flush": false});
        let file = json!({
            "driver": "file", "node-name": format!("local{n}-file"), "filename": path,
            "aio": aio, "discard": "unmap", "cache": cache,
        });
        let node = json!({
            "driver": "raw", "node-name": format!("local{n}"), "file": format!("local{n}-file"),
            "discard": "unmap", "cache": cache,
        });
        opt(&mut a, "-blockdev", file.to_string());
        opt(&mut a, "-blockdev", node.to_string());
        opt(
            &mut a,
            "-device",
            format!("virtio-blk-pci,drive=local{n},id=disk{n},addr={SLOT_ROOT:#x}.{n:#x}"),
        );
        devices.push(device(&format!("disk{n}"), LOCAL, SLOT_ROOT));
    }

    if let Some((fd, size)) = s.config_drive {
        let path = set(&mut a, fd);
        let file = json!({
            "driver": "file", "node-name": "config-file", "filename": path,
            "read-only": true, "aio": "threads",
        });
        let node = json!({"driver": "raw", "node-name": "config", "file": "config-file", "read-only": true});
        opt(&mut a, "-blockdev", file.to_string());
        opt(&mut a, "-blockdev", node.to_string());
        opt(
            &mut a,
            "-device",
            format!("virtio-blk-pci,drive=config,id=config-drive,addr={SLOT_CONFIG:#x}"),
        );
        let mut drive = device("config-drive", "config-drive", SLOT_CONFIG);
        drive.size = Some(size);
        devices.push(drive);
    }
    for nic in s.nics.iter().take(MAX_NICS) {
        let backend = netdev_id(nic.slot);
        opt(&mut a, "-netdev", format!("tap,id={backend},fd={},vhost=off", nic.fd));
        opt(&mut a, "-device", nic_model(nic).to_string());
        devices.push(nic_device(nic));
    }
    (a, devices)
}

/// QEMU's name of the backend of the card in a slot.
pub(crate) fn netdev_id(slot: u8) -> String {
    format!("net{}", slot.saturating_sub(SLOT_NIC))
}

/// A card as the record names it.
pub(crate) fn nic_device(nic: &NicFd) -> Device {
    Device {
        id: format!("nic{}", nic.slot.saturating_sub(SLOT_NIC)),
        kind: "nic".into(),
        slot: nic.slot,
        port: Some(nic.port),
        mac: Some(nic.mac.clone()),
        size: None,
    }
}

/// A card as QEMU is asked for it. No boot ROM: nothing boots from the network, and it costs 256 KiB and time. Values come
/// from the desired state and are not to be trusted with commas.
pub(crate) fn nic_model(nic: &NicFd) -> Value {
    json!({
        "driver": "virtio-net-pci", "netdev": netdev_id(nic.slot), "id": nic_device(nic).id, "mac": nic.mac,
        "host_mtu": nic.mtu.clamp(68, 65535), "romfile": "", "addr": format!("{:#x}", nic.slot),
    })
}

/// Whether a CPU model's name may stand on the command line: a name with feature flags, nothing else.
pub(crate) fn cpu_name_ok(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 256
        && name != "max"
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.,+=".contains(c))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn no_paths_and_fixed_slots() {
        let id = Uuid::from_u128(1);
        let nics = [NicFd {
            fd: 20,
            port: Uuid::from_u128(2),
            mac: "fa:16:3e:00:00:01,romfile=/etc/shadow".into(),
            mtu: 1450,
            slot: SLOT_NIC,
        }];
        let spec = Spec {
            id,
            tag: "abc",
            machine: MACHINE,
            cpu: TCG_CPU,
            accelerator: "tcg",
            kvm: None,
            vcpus: 2,
            memory_mib: 128,
            paused: false,
            incoming: false,
            io_uring: true,
            vnc: true,
            qmp: 10,
            serial: 11,
            console_log: 12,
            root: DiskFd {
                fd: 13,
                direct: true,
                format: "qcow2",
                backing: Some((14, "raw")),
            },
            local: &[(21, true), (22, true)],
            config_drive: Some((15, 1 << 20)),
            nics: &nics,
        };
        let (args, devices) = build(&spec);
        for a in &args {
            let paths = a.replace("/dev/fdset/", "").replace("/etc/shadow", "");
            assert!(!paths.contains('/'), "{a}");
        }
        // A comma in a value stays in the value.
        assert!(
            args.iter()
                .any(|a| a.contains(r#""mac":"fa:16:3e:00:00:01,romfile=/etc/shadow""#))
        );
        // Local disks share the root disk's slot.
        let alone: Vec<u8> = devices.iter().filter(|d| d.kind != LOCAL).map(|d| d.slot).collect();
        let slots: std::collections::BTreeSet<u8> = alone.iter().copied().collect();
        assert_eq!((slots.len(), devices.len()), (alone.len(), alone.len() + 2));
        assert_eq!(devices.last().unwrap().port, Some(Uuid::from_u128(2)));
        let (again, _) = build(&spec);
        assert_eq!(args, again);
        assert!(!cpu_name_ok("max") && !cpu_name_ok("host\" x") && cpu_name_ok("Haswell-v4,-avx2"));
    }
}
