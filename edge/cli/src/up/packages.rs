//! What the host must have, from Debian's archive. QEMU comes from backports: 7.2 of Debian 12 boots slower
//! and takes more memory.

use crate::args::UpOptions;
use crate::proc::find_program;
use crate::state::{Deeds, replace};
use crate::supervisor::open_log;
use crate::ui::{self, Step};
use crate::{Result, Trouble, failed, logs};
use haneul_core::config::Config;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Programs that must be there, with the package that has each.
pub const PROGRAMS: [(&str, &str); 5] = [
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
    ("ssh-keygen", "openssh-client"),
    ("mkfs.ext4", "e2fsprogs"),
];
/// QEMU in packages that must all be of one version.
const QEMU: [&str; 5] = [
    "qemu-system-x86",
    "qemu-system-common",
    "qemu-system-data",
    "qemu-utils",
    "seabios",
];
/// The oldest QEMU that Haneul works with.
pub const QEMU_MIN: u32 = 8;
const SOURCE: &str = "/etc/apt/sources.list.d/haneul-backports.sources";

/// Major version of `qemu-system-x86_64`, or `None` when it is not there.
pub fn qemu_version() -> Option<(u32, String)> {
    let output = Command::new(find_program("qemu-system-x86_64")?)
        .arg("--version")
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.split("version ").nth(1)?.split_whitespace().next()?.to_owned();
    Some((version.split('.').next()?.parse().ok()?, version))
}

/// Installs what is missing. Looks only, when nothing is.
pub fn install(config: &Config, options: &UpOptions) -> Result<()> {
    let step = Step::begin("packages");
    let mut wanted: BTreeSet<&str> = PROGRAMS
        .iter()
        .filter(|(p, _)| find_program(p).is_none())
        .map(|(_, package)| *package)
        .collect();
    let old_qemu = qemu_version().is_none_or(|(major, _)| major < QEMU_MIN) || find_program("qemu-img").is_none();
    if find_program("dpkg-query").is_some() {
        let guest = haneul_guest_image::REQUIRED_PACKAGES
            .iter()
            .filter(|p| !QEMU.contains(p) && !installed(p));
        wanted.extend(guest);
    }
    // Screens are shown by the control plane.
    let novnc = config.compute.vnc && !config.is_member() && !has_novnc(config);
    if wanted.is_empty() && !old_qemu {
        step.done(match novnc.then(|| fetch_novnc(config)) {
            None => "all there".to_owned(),
            Some(Ok(())) => "fetched noVNC, for consoles in a browser".to_owned(),
            Some(Err(e)) => format!("all there but noVNC, so no consoles in a browser: {e}"),
        });
        return Ok(());
    }
    let release = Release::read();
    if find_program("apt-get").is_none() || release.id != "debian" {
        let missing: Vec<&str> = wanted
            .into_iter()
            .chain(old_qemu.then_some("qemu-system-x86_64 (8 or newer) and qemu-img"))
            .collect();
        step.fail("missing");
        return Err(failed(format!(
            "`haneul up` can install packages on Debian only, and this is {}. Install these by hand and run it again: {}",
            release.name,
            missing.join(", ")
        )));
    }
    let backports = old_qemu && release.version == "12";
    if backports && !add_backports(config, options, &step)? {
        step.fail("QEMU is missing");
        return Err(failed(format!(
            "QEMU {QEMU_MIN} or newer is needed: install it by hand, or let `haneul up --yes` add {SOURCE}"
        )));
    }
    let log = config.state_dir.0.join("up.log");
    step.doing("apt-get update");
    apt(&log, &["update"])?;
    let before: BTreeSet<String> = all_installed();
    if !wanted.is_empty() {
        step.doing(format!(
            "apt-get install {}",
            wanted.iter().copied().collect::<Vec<_>>().join(" ")
        ));
        apt(
            &log,
            &[
                &["install", "-y", "--no-install-recommends"][..],
                &wanted.iter().copied().collect::<Vec<_>>(),
            ]
            .concat(),
        )?;
    }
    if old_qemu {
        step.doing("apt-get install qemu-system-x86 ...");
        let suite: &[&str] = if backports { &["-t", "bookworm-backports"] } else { &[] };
        apt(
            &log,
            &[&["install", "-y", "--no-install-recommends"][..], suite, &QEMU].concat(),
        )?;
    }
    let new: Vec<String> = all_installed().difference(&before).cloned().collect();
    let said = format!(
        "installed {} packages ({})",
        new.len(),
        wanted
            .iter()
            .copied()
            .chain(old_qemu.then_some("QEMU"))
            .collect::<Vec<_>>()
            .join(", ")
    );
    Deeds::note(config, |d| d.packages.extend(new))?;
    step.done(match novnc.then(|| fetch_novnc(config)) {
        None => said,
        Some(Ok(())) => format!("{said}, and noVNC beside them"),
        Some(Err(e)) => format!("{said}; not noVNC, so no consoles in a browser: {e}"),
    });
    Ok(())
}

fn has_novnc(config: &Config) -> bool {
    [config.novnc_dir(), "/usr/share/novnc".into()]
        .iter()
        .any(|d| d.join("core/rfb.js").exists())
}

/// noVNC's own files alone: the package's dependencies are a proxy that we do not need. Nothing is installed.
fn fetch_novnc(config: &Config) -> Result<()> {
    let (dir, part) = (config.state_dir.0.join("novnc"), config.state_dir.0.join("novnc.part"));
    let log = config.state_dir.0.join("up.log");
    let _ = std::fs::remove_dir_all(&part);
    std::fs::create_dir_all(&part).at(&part)?;
    let run = |program: &str, args: &[&str]| -> Result<()> {
        let file = open_log(&log)?;
        let status = Command::new(program)
            .args(args)
            .current_dir(&part)
            .stdin(Stdio::null())
            .stdout(file.try_clone().at(&log)?)
            .stderr(file)
            .status()
            .when(program)?;
        status
            .success()
            .then_some(())
            .ok_or_else(|| failed(format!("{program} {} failed: see {}", args.join(" "), log.display())))
    };
    let fetched = run("apt-get", &["-q", "-o", "Acquire::Retries=3", "download", "novnc"])
        .and_then(|()| {
            let found = std::fs::read_dir(&part).at(&part)?.flatten().map(|e| e.file_name());
            let name = found
                .filter_map(|n| n.into_string().ok())
                .find(|n| n.ends_with(".deb"))
                .ok_or_else(|| failed("apt-get download left no package"))?;
            run("dpkg-deb", &["-x", &name, "."])?;
            std::fs::remove_file(part.join(name)).at(&part)
        })
        .and_then(|()| {
            let _ = std::fs::remove_dir_all(&dir);
            std::fs::rename(&part, &dir).at(&dir)
        });
    if fetched.is_err() {
        let _ = std::fs::remove_dir_all(&part);
    }
    fetched
}

/// What `/etc/os-release` says.
struct Release {
    id: String,
    version: String,
    name: String,
}

impl Release {
    fn read() -> Self {
        let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        let get = |key: &str| {
            let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches('"').to_owned()
        };
        Self {
            id: get("ID"),
            version: get("VERSION_ID"),
            name: get("PRETTY_NAME"),
        }
    }
}

fn installed(package: &str) -> bool {
    let query = Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status}", package])
        .stderr(Stdio::null())
        .output();
    query.is_ok_and(|o| o.stdout == b"installed")
}

fn all_installed() -> BTreeSet<String> {
    let query = Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status} ${binary:Package}\n"])
        .output();
    let text = query
        .map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
        .unwrap_or_default();
    text.lines()
        .filter_map(|l| l.strip_prefix("installed "))
        .map(str::to_owned)
        .collect()
}

fn apt(log: &Path, args: &[&str]) -> Result<()> {
    let file = open_log(log)?;
    let status = Command::new("apt-get")
        .args(["-q", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"])
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(file.try_clone().at(log)?)
        .stderr(file)
        .status()
        .when("apt-get")?;
    if status.success() {
        return Ok(());
    }
    Err(failed(format!(
        "apt-get {} failed; the end of {}:\n{}",
        args.join(" "),
        log.display(),
        logs::tail(log, 15)
    )))
}

/// Makes sure that the backports suite is among the sources. False when a person said no.
fn add_backports(config: &Config, options: &UpOptions, step: &Step) -> Result<bool> {
    let sources = read_sources(Path::new("/etc/apt"));
    if sources
        .iter()
        .any(|s| s.suites.iter().any(|s| s == "bookworm-backports"))
    {
        return Ok(true);
    }
    let main = sources.iter().find(|s| s.suites.iter().any(|s| s == "bookworm"));
    let text = backports_source(main);
    step.doing("waiting for an answer");
    let asked = if options.yes {
        Some(true)
    } else {
        ui::ask(&format!(
            "\nQEMU 10 comes from Debian's backports. Add {SOURCE}?\n{text}"
        ))
    };
    // Nobody there to ask: `up` is what the person (or the script) wanted.
    if asked == Some(false) {
        return Ok(false);
    }
    replace(Path::new(SOURCE), text.as_bytes(), 0o644)?;
    Deeds::note(config, |d| {
        d.sources.insert(PathBuf::from(SOURCE));
    })?;
    Ok(true)
}

/// One package source, in what matters to us.
#[derive(Debug, Default, PartialEq)]
struct Source {
    uri: String,
    suites: Vec<String>,
    signed_by: Option<String>,
}

/// The same mirror and key as the suite of the release has.
fn backports_source(main: Option<&Source>) -> String {
    let uri = main.map_or("http://deb.debian.org/debian", |s| s.uri.as_str());
    let key = main
        .and_then(|s| s.signed_by.as_deref())
        .unwrap_or("/usr/share/keyrings/debian-archive-keyring.gpg");
    format!(
        "# Added by `haneul up`, for QEMU; `haneul down --purge` removes it.\nTypes: deb\nURIs: {uri}\nSuites: bookworm-backports\nComponents: main\nSigned-By: {key}\n"
    )
}

fn read_sources(etc_apt: &Path) -> Vec<Source> {
    let mut files = vec![etc_apt.join("sources.list")];
    let dir = std::fs::read_dir(etc_apt.join("sources.list.d"));
    files.extend(dir.into_iter().flatten().flatten().map(|e| e.path()));
    files
        .iter()
        .filter_map(|f| Some((f.extension()?.to_str()?, std::fs::read_to_string(f).ok()?)))
        .flat_map(|(kind, text)| match kind {
            "list" => parse_list(&text),
            "sources" => parse_deb822(&text),
            _ => vec![],
        })
        .collect()
}

/// `deb [signed-by=KEY] URI SUITE COMPONENTS...`
fn parse_list(text: &str) -> Vec<Source> {
    let mut out = Vec::new();
    for line in text.lines().filter_map(|l| l.trim().strip_prefix("deb ")) {
        let (options, rest) = match line.trim().strip_prefix('[').and_then(|l| l.split_once(']')) {
            Some((o, r)) => (o, r),
            None => ("", line),
        };
        let mut words = rest.split_whitespace();
        if let (Some(uri), Some(suite)) = (words.next(), words.next()) {
            let signed_by = options
                .split_whitespace()
                .find_map(|o| o.strip_prefix("signed-by="))
                .map(str::to_owned);
            out.push(Source {
                uri: uri.to_owned(),
                suites: vec![suite.to_owned()],
                signed_by,
            });
        }
    }
    out
}

fn parse_deb822(text: &str) -> Vec<Source> {
    let mut out = Vec::new();
    for stanza in text.split("\n\n") {
        let get = |key: &str| {
            stanza.lines().filter(|l| !l.starts_with('#')).find_map(|l| {
                let (k, v) = l.split_once(':')?;
                k.eq_ignore_ascii_case(key).then(|| v.trim().to_owned())
            })
        };
        let off = get("Enabled").is_some_and(|e| e == "no");
        let deb = get("Types").is_some_and(|t| t.split_whitespace().any(|t| t == "deb"));
        if let (Some(uris), Some(suites), true, false) = (get("URIs"), get("Suites"), deb, off) {
            out.push(Source {
                uri: uris.split_whitespace().next().unwrap_or_default().to_owned(),
                suites: suites.split_whitespace().map(str::to_owned).collect(),
                // A key may also stand in the file itself, over many lines; then the archive's own is right.
                signed_by: get("Signed-By").filter(|k| k.starts_with('/')),
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_both_forms() {
        let list = parse_list(
            "# x\ndeb [arch=amd64 signed-by=/k.gpg] http://m/debian bookworm main\ndeb-src http://m bookworm main\n",
        );
        let new = parse_deb822(
            "Types: deb deb-src\n# c\nURIs: http://m/debian\nSuites: bookworm bookworm-updates\nSigned-By: /k.gpg\n\nTypes: deb\nURIs: http://x\nSuites: sid\nEnabled: no\n",
        );
        assert_eq!(list[0].uri, new[0].uri);
        assert_eq!((list.len(), new.len()), (1, 1));
        let text = backports_source(new.first());
        assert_eq!(
            parse_deb822(&text),
            [Source {
                uri: "http://m/debian".into(),
                suites: vec!["bookworm-backports".into()],
                signed_by: Some("/k.gpg".into()),
            }]
        );
    }
}
