//! A host directory with a guest in it, and its cleaning up whatever happened.

use haneul_agent_api::{Guest, ImageRef, Metadata, Nic, Power, RootDisk};
use haneul_hypervisor::Resources;
use haneul_hypervisor::qemu::{Config, Qemu};
use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

pub const UID: u32 = 2_147_000_001;

/// Why real tests cannot run here.
pub fn cannot() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root".into());
    }
    let installed = fs::metadata("/usr/bin/qemu-system-x86_64").is_ok();
    (!installed).then(|| "qemu-system-x86_64 is not installed".into())
}

/// Prints `B` on the serial port, then waits for the power button and switches off (ACPI of PIIX4:
/// status 0x600, enable 0x602, control 0x604).
pub const OBEYS: &[u8] = &[
    0xfa, 0xba, 0x02, 0x06, 0xb8, 0x00, 0x01, 0xef, 0xba, 0xf8, 0x03, 0xb0, b'B', 0xee, 0xba, 0x00, 0x06, 0xed, 0xf6,
    0xc4, 0x01, 0x74, 0xfa, 0xb8, 0x00, 0x01, 0xef, 0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xeb, 0xfe,
];
/// Prints `B` and switches off.
pub const SWITCHES_OFF: &[u8] = &[
    0xfa, 0xba, 0xf8, 0x03, 0xb0, b'B', 0xee, 0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xeb, 0xfe,
];
/// Prints `B`, then lets go of each PCI card as it is asked to (ACPI hot-plug of PIIX4: select 0xae10, down 0xae04, eject
/// 0xae08).
pub const EJECTS: &[u8] = &[
    0xfa, 0xba, 0xf8, 0x03, 0xb0, b'B', 0xee, 0xba, 0x10, 0xae, 0x66, 0x31, 0xc0, 0x66, 0xef, 0xba, 0x04, 0xae, 0x66,
    0xed, 0x66, 0x85, 0xc0, 0x74, 0xf6, 0xba, 0x08, 0xae, 0x66, 0xef, 0xeb, 0xef,
];
/// Ignores everything.
pub const DEAF: &[u8] = &[0xfa, 0xba, 0xf8, 0x03, 0xb0, b'B', 0xee, 0xeb, 0xfe];

/// Prints `B`, then the alphabet for ever, a letter about every 10 ms, counting in memory.
pub const COUNTS: &[u8] = &[
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0xba, 0xf8, 0x03, 0xb0, b'B', 0xee, 0xc6, 0x06, 0x00, 0x05, b'a', 0xa0, 0x00, 0x05,
    0xee, 0x66, 0xb9, 0x00, 0x00, 0x40, 0x00, 0x66, 0x49, 0x75, 0xfc, 0xfe, 0x06, 0x00, 0x05, 0x80, 0x3e, 0x00, 0x05,
    b'z', 0x76, 0xe7, 0xc6, 0x06, 0x00, 0x05, b'a', 0xeb, 0xe0,
];

/// Prints `B`, then writes a number that grows to two far places of its disk for ever, one after the other (BIOS, int 13h).
pub const WRITES: &[u8] = &[
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0xfb, 0xfc, 0xba, 0xf8, 0x03, 0xb0, b'B',
    0xee, // loop:
    0x66, 0xff, 0x06, 0x00, 0x10, 0xbe, 0x30, 0x7c, 0xb8, 0x00, 0x43, 0xb2, 0x80, 0xcd, 0x13, // the first
    0xbe, 0x40, 0x7c, 0xb8, 0x00, 0x43, 0xb2, 0x80, 0xcd, 0x13, 0xeb, 0xe5, 0, 0, 0, // the second
    0x10, 0x00, 0x01, 0x00, 0x00, 0x10, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0, 0, 0, 0, // sector 1
    0x10, 0x00, 0x01, 0x00, 0x00, 0x10, 0x00, 0x00, 0x00, 0x00, 0x08, 0x00, 0, 0, 0, 0, // sector 0x80000
];

/// Prints `B`, then writes to 32 MiB of its memory for ever, with a letter of the alphabet each time round (protected mode).
pub const SCRIBBLES: &[u8] = &[
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x0f, 0x01, 0x16, 0x60, 0x7c, 0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0, 0xea,
    0x17, 0x7c, 0x08, 0x00, // a flat address space
    0x66, 0xb8, 0x10, 0x00, 0x8e, 0xc0, 0x8e, 0xd8, 0x66, 0xba, 0xf8, 0x03, 0xb0, 0x42, 0xee, 0xfc, // B
    0xb3, 0x61, 0x88, 0xd8, 0xee, 0xbf, 0x00, 0x00, 0x10, 0x00, 0xb9, 0x00, 0x00, 0x80, 0x00, 0xf3,
    0xab, // a letter, and all of it
    0xfe, 0xc3, 0x80, 0xfb, 0x7b, 0x72, 0xea, 0xeb, 0xe6, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, // the next letter
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // the segments
    0xff, 0xff, 0x00, 0x00, 0x00, 0x9a, 0xcf, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0x92, 0xcf, 0x00, 0x17, 0x00, 0x48,
    0x7c, 0x00, 0x00,
];

pub struct Host {
    pub dir: PathBuf,
    pub guest: Guest,
}

impl Host {
    pub fn new(code: &[u8]) -> Self {
        Self::below(code, "")
    }

    pub fn below(code: &[u8], more: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("hnh-{}{more}", Uuid::new_v4().simple()));
        fs::create_dir_all(&dir).unwrap();
        let mut sector = code.to_vec();
        sector.resize(510, 0);
        sector.extend([0x55, 0xaa]);
        let image = dir.join("image.raw");
        fs::write(&image, sector).unwrap();
        fs::File::options()
            .write(true)
            .open(&image)
            .unwrap()
            .set_len(1 << 20)
            .unwrap();
        let mut root = fs::File::create(dir.join("root.qcow2")).unwrap();
        haneul_blockdev::qcow2::write_overlay(&mut root, &image, "raw", 16 << 20).unwrap();
        root.flush().unwrap();
        let guest = Guest {
            id: Uuid::new_v4(),
            name: "test".into(),
            project_id: "p".into(),
            request_id: "req-../../x".into(),
            vcpus: 1,
            memory_mib: 64,
            root: RootDisk {
                image: ImageRef {
                    id: Uuid::new_v4(),
                    format: "raw".into(),
                    size: 1 << 20,
                    virtual_size: 1 << 20,
                    sha512: String::new(),
                },
                size_gib: 0,
            },
            shared_disks: None,
            local_disks: Vec::new(),
            nics: vec![Nic {
                port_id: Uuid::new_v4(),
                mac: "fa:16:3e:00:00:01".into(),
                mtu: 1450,
            }],
            power: Power::Running,
            stop_timeout_s: 20,
            start_order: 100,
            soft_reboots: 0,
            hard_reboots: 0,
            rebuilds: 0,
            password_clears: 0,
            config_drive: true,
            metadata: Metadata::default(),
            cpu_model: None,
            hints: Default::default(),
            snapshot: None,
            arriving: None,
            leaving: None,
        };
        let files = [("openstack/latest/meta_data.json".to_owned(), b"{}".to_vec())];
        haneul_hypervisor::iso::write_config_drive(&dir.join("config.iso"), &files).unwrap();
        Self { dir, guest }
    }

    pub fn open(&self) -> Qemu {
        Qemu::open(Config {
            dir: self.dir.join("hv"),
            accelerator: Some("tcg".into()),
            underlay: std::sync::Arc::new(
                haneul_agent_api::Underlay {
                    address: [127, 0, 0, 1].into(),
                    mtu: 1500,
                }
                .into(),
            ),
            ..Config::default()
        })
        .unwrap()
    }

    pub fn resources(&self) -> Resources {
        resources(&self.dir)
    }

    pub fn record(&self) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.guest_dir().join("record.json")).unwrap()).unwrap()
    }

    pub fn guest_dir(&self) -> PathBuf {
        self.dir.join("hv/guests").join(self.guest.id.to_string())
    }

    pub fn pid(&self) -> i32 {
        self.record()["process"]["pid"].as_i64().unwrap() as i32
    }

    /// Processes that carry this host's mark.
    pub fn processes(&self) -> Vec<i32> {
        let Ok(tag) = fs::read_to_string(self.dir.join("hv/tag")) else {
            return vec![];
        };
        fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|e| e.file_name().to_string_lossy().parse::<i32>().ok())
            .filter(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).contains(&format!("haneul:{tag}:"))
            })
            .collect()
    }

    pub fn cgroups(&self) -> Vec<PathBuf> {
        let Ok(tag) = fs::read_to_string(self.dir.join("hv/tag")) else {
            return vec![];
        };
        ["cpu", "memory", "pids", "systemd", "unified", "."]
            .iter()
            .map(|c| PathBuf::from(format!("/sys/fs/cgroup/{c}/haneul-{tag}")))
            .filter(|p| p.exists())
            .collect()
    }
}

pub fn resources(dir: &std::path::Path) -> Resources {
    Resources {
        root: dir.join("root.qcow2"),
        root_format: "qcow2".into(),
        backing: Some((dir.join("image.raw"), "raw".into())),
        local: Vec::new(),
        config_drive: Some(dir.join("config.iso")),
        taps: Arc::new(|_| Ok(tap())),
        uid: UID,
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for pid in self.processes() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        for _ in 0..100 {
            if self.processes().is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        for group in self.cgroups() {
            for _ in 0..100 {
                for child in fs::read_dir(&group).into_iter().flatten().flatten() {
                    let _ = fs::remove_dir(child.path());
                }
                if fs::remove_dir(&group).is_ok() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A tap that goes with its last descriptor.
#[allow(unsafe_code)]
pub fn tap() -> OwnedFd {
    use std::os::fd::AsRawFd;
    let file = fs::File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    let mut request = [0_u8; 40];
    request[..5].copy_from_slice(b"hnt%d");
    // IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
    request[16..18].copy_from_slice(&0x5002_u16.to_ne_bytes());
    // SAFETY: TUNSETIFF takes a pointer to an `ifreq`, which is 40 bytes.
    let r = unsafe { libc::ioctl(file.as_raw_fd(), 0x4004_54ca_u64 as libc::Ioctl, request.as_mut_ptr()) };
    assert_eq!(r, 0, "{}", std::io::Error::last_os_error());
    file.into()
}

pub async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "not within 60 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
