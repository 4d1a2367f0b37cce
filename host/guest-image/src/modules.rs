//! The kernel and those of its modules that a virtual machine has use for.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use haneul_core::Result;

use crate::elf;
use crate::packages::Unpacked;
use crate::run::{at, unexpected};

/// Without these nothing boots, or nothing is found: they must be there.
const NEEDED: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_scsi",
    "sd_mod",
    "sr_mod",
    "isofs",
    "vfat",
    "button",
    "evdev",
];

/// Good to have; a kernel may have them built in.
const WELCOME: &[&str] = &[
    "virtio_console",
    "virtio_rng",
    "virtio_balloon",
    "ata_piix",
    "nls_ascii",
    "nls_cp437",
    "nls_iso8859_1",
    "nls_utf8",
    "8021q",
    "loop",
    "dummy",
    "tun",
    "i6300esb",
    "virtio_input",
];

/// For finding and mounting the root.
const INITRAMFS: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_scsi",
    "virtio_rng",
    "sd_mod",
    "ata_piix",
];

/// One module.
struct Module {
    /// File name, `virtio_blk.ko`.
    file: String,
    data: Vec<u8>,
    depends: Vec<String>,
    aliases: Vec<String>,
}

/// The kernel of the unpacked packages.
pub(crate) struct Kernel {
    /// As `uname -r` says it.
    pub(crate) release: String,
    /// The bzImage.
    pub(crate) image: PathBuf,
    /// By name with underscores; closed over dependencies.
    modules: BTreeMap<String, Module>,
}

/// Files of a module directory: name and content.
pub(crate) type Files = Vec<(String, Vec<u8>)>;

impl Kernel {
    pub(crate) fn find(unpacked: &Unpacked) -> Result<Self> {
        let root = unpacked
            .first(&["usr/lib/modules".into(), "lib/modules".into()])
            .ok_or_else(|| unexpected("no kernel modules in them"))?;
        let release = fs::read_dir(&root)
            .map_err(at("read", &root))?
            .flatten()
            .find_map(|e| e.file_name().into_string().ok())
            .ok_or_else(|| unexpected("no kernel modules in them"))?;
        let image = unpacked
            .first(&[format!("boot/vmlinuz-{release}")])
            .ok_or_else(|| unexpected(format_args!("no kernel image for {release}")))?;
        let mut index = BTreeMap::new();
        find_modules(&root.join(&release), &mut index)?;
        let mut modules = BTreeMap::new();
        for name in NEEDED.iter().chain(WELCOME) {
            if index.contains_key(*name) {
                load(name, &index, &mut modules)?;
            } else if NEEDED.contains(name) {
                return Err(unexpected(format_args!("kernel {release} has no module {name}")));
            }
        }
        Ok(Self {
            release,
            image,
            modules,
        })
    }

    /// All modules, for the root file system.
    pub(crate) fn all(&self) -> Files {
        let names: Vec<&str> = self.modules.keys().map(String::as_str).collect();
        self.files(&names)
    }

    /// Those for the initramfs.
    pub(crate) fn early(&self) -> Files {
        let mut names = Vec::new();
        for name in INITRAMFS {
            self.order(name, &mut names);
        }
        self.files(&names)
    }

    /// Appends a module after everything that it depends on.
    fn order<'a>(&'a self, name: &str, into: &mut Vec<&'a str>) {
        let Some((key, module)) = self.modules.get_key_value(name) else {
            return;
        };
        if into.contains(&key.as_str()) {
            return;
        }
        for d in &module.depends {
            self.order(d, into);
        }
        into.push(key);
    }

    fn files(&self, names: &[&str]) -> Files {
        let (mut dep, mut alias) = (String::new(), String::new());
        let mut files = Files::new();
        for name in names {
            let Some(module) = self.modules.get(*name) else {
                continue;
            };
            let mut order = Vec::new();
            self.order(name, &mut order);
            // modprobe loads from the right: what must come first stands last.
            let _ = write!(dep, "{}:", module.file);
            for d in order.iter().rev().skip(1).filter_map(|d| self.modules.get(*d)) {
                let _ = write!(dep, " {}", d.file);
            }
            dep.push('\n');
            for a in &module.aliases {
                let _ = writeln!(alias, "alias {a} {name}");
            }
            files.push((module.file.clone(), module.data.clone()));
        }
        files.push(("modules.dep".into(), dep.into_bytes()));
        files.push(("modules.alias".into(), alias.into_bytes()));
        files.push(("modules.symbols".into(), Vec::new()));
        files
    }
}

fn find_modules(dir: &Path, index: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(at("read", dir))? {
        let entry = entry.map_err(at("read", dir))?;
        let path = entry.path();
        if entry.file_type().map_err(at("read", &path))?.is_dir() {
            find_modules(&path, index)?;
        } else if let Some(stem) = path
            .file_name()
            .and_then(|n| n.to_str())
            .and_then(|n| n.strip_suffix(".ko"))
        {
            index.insert(stem.replace('-', "_"), path);
        }
    }
    Ok(())
}

fn load(name: &str, index: &BTreeMap<String, PathBuf>, modules: &mut BTreeMap<String, Module>) -> Result<()> {
    if modules.contains_key(name) {
        return Ok(());
    }
    let path = index
        .get(name)
        .ok_or_else(|| unexpected(format_args!("kernel module {name} is missing")))?;
    let data = fs::read(path).map_err(at("read", path))?;
    let info = elf::modinfo(&data).ok_or_else(|| unexpected(format_args!("kernel module {name} is not readable")))?;
    let values = |key: &'static str| info.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.clone());
    let depends: Vec<String> = values("depends")
        .flat_map(|v| v.split(',').map(|d| d.replace('-', "_")).collect::<Vec<_>>())
        .filter(|d| !d.is_empty())
        .collect();
    let module = Module {
        file: path
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default(),
        // Checking a signature costs the emulated guest more than loading the module, and this kernel does not ask for it.
        data: elf::without_signature(&data).to_vec(),
        depends: depends.clone(),
        aliases: values("alias").collect(),
    };
    modules.insert(name.to_owned(), module);
    for d in &depends {
        load(d, index, modules)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_stand_right_of_what_needs_them() {
        let module = |file: &str, depends: &[&str]| Module {
            file: file.into(),
            data: Vec::new(),
            depends: depends.iter().map(|d| (*d).to_owned()).collect(),
            aliases: vec!["virtio:d2v*".into()],
        };
        let modules = BTreeMap::from([
            ("ring".to_owned(), module("ring.ko", &[])),
            ("virtio".to_owned(), module("virtio.ko", &["ring"])),
            ("blk".to_owned(), module("blk.ko", &["ring", "virtio"])),
        ]);
        let kernel = Kernel {
            release: "1".into(),
            image: PathBuf::new(),
            modules,
        };
        let files = kernel.files(&["blk"]);
        assert_eq!(
            files[1],
            ("modules.dep".into(), b"blk.ko: virtio.ko ring.ko\n".to_vec())
        );
        assert_eq!(files[2].1, b"alias virtio:d2v* blk\n");
    }
}
