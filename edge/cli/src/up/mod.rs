//! `haneul up`: from a bare machine to a shell on a guest. Every step looks first and acts only on what is
//! missing, so that a second run is quick and changes nothing.

pub mod clouds;
pub mod image;
pub mod launch;
pub mod packages;
pub mod seed;

use crate::args::{Globals, UpOptions};
use crate::client::Client;
use crate::state::Deeds;
use crate::ui::{self, Step};
use crate::{ACCOUNT, Host, Result, Trouble, admin, failed, supervisor};
use haneul_core::config::Config;
use haneul_core::release;
use nix::unistd::{Gid, Uid, User};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The person for whom we work: who called sudo, or who we are. Files for people go to this home.
pub struct Person {
    pub home: PathBuf,
    pub uid: Uid,
    pub gid: Gid,
}

impl Person {
    pub fn find() -> Result<Self> {
        let uid = std::env::var("SUDO_UID").ok().filter(|_| Uid::effective().is_root());
        let uid = uid.and_then(|u| u.parse().ok()).map_or(Uid::current(), Uid::from_raw);
        let user = User::from_uid(uid).ok().flatten();
        let home = if uid == Uid::current() {
            std::env::var_os("HOME").map(PathBuf::from)
        } else {
            None
        };
        let home = home
            .or_else(|| user.as_ref().map(|u| u.dir.clone()))
            .ok_or_else(|| failed(format!("user {uid} has no home directory: set HOME")))?;
        Ok(Self {
            home,
            uid,
            gid: user.map_or(Gid::current(), |u| u.gid),
        })
    }

    /// Makes a directory below the home, with its parents, all of the person.
    pub fn make_dir(&self, dir: &Path) -> Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        if dir.is_dir() {
            return Ok(());
        }
        if let Some(parent) = dir.parent() {
            self.make_dir(parent)?;
        }
        std::fs::DirBuilder::new().mode(0o700).create(dir).at(dir)?;
        self.give(dir)
    }

    /// Gives a file to the person.
    pub fn give(&self, file: &Path) -> Result<()> {
        if self.uid == Uid::effective() {
            return Ok(());
        }
        nix::unistd::chown(file, Some(self.uid), Some(self.gid)).at(file)
    }
}

/// The command.
pub fn up(config: &Config, globals: &Globals, options: &UpOptions, host: &dyn Host) -> Result<()> {
    if config.is_member() {
        return crate::hosts::start(config, globals);
    }
    // A lab with fake drivers needs nothing of the host, and runs as anybody.
    let fake = config.agent.hypervisor == "fake" && config.agent.network == "fake";
    let root = Uid::effective().is_root();
    if !fake && !root {
        return Err(failed(
            "`haneul up` installs packages, makes networks and starts guests: run it as root, for instance `sudo haneul up`",
        ));
    }
    let person = Person::find()?;
    if !fake {
        std::fs::create_dir_all(&config.state_dir.0).at(&config.state_dir.0)?;
        packages::install(config, options)?;
    }
    if root && !config.lab {
        account(config)?;
    }
    if options.packages_only {
        return Ok(());
    }
    if !fake {
        accelerator(config, host);
    }
    supervisor::prepare(config)?;
    launch::start(config, globals)?;
    launch::wait_ready(config)?;

    let password = launch::admin_password(config)?;
    let step = Step::begin("credentials");
    let clouds = clouds::write(config, &person, &password)?;
    step.done(clouds.describe());
    let mut client = Client::api(config)?;
    client.log_in("admin", "admin", &password)?;
    image::ensure(config, &client, options)?;
    seed::flavors(&client)?;
    let first = if options.no_server {
        None
    } else {
        Some(seed::first_server(config, &client, &person, fake)?)
    };
    farewell(config, &clouds, first.as_ref());
    Ok(())
}

/// Says how guests will run.
pub(crate) fn accelerator(config: &Config, host: &dyn Host) {
    let step = Step::begin("accelerator");
    let a = host.accelerator(config);
    if a.kvm {
        step.done(format!("{}: {}", a.chosen, a.why))
    } else {
        step.warn(format!("{}: {}", a.chosen, a.why))
    }
}

/// Makes the account of the control plane.
fn account(config: &Config) -> Result<()> {
    let step = Step::begin("account");
    if User::from_name(ACCOUNT).ok().flatten().is_some() {
        step.done(format!("user {ACCOUNT} is there"));
        return Ok(());
    }
    let args = [
        "--system",
        "--user-group",
        "--no-create-home",
        "--home-dir",
        "/nonexistent",
        "--shell",
        "/usr/sbin/nologin",
        ACCOUNT,
    ];
    let output = Command::new("/usr/sbin/useradd").args(args).output().when("useradd")?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        step.fail("failed");
        return Err(failed(format!("useradd {}: {why}", args.join(" "))));
    }
    Deeds::note(config, |d| d.account = true)?;
    step.done(format!("made user {ACCOUNT}, without a login"));
    Ok(())
}

fn farewell(config: &Config, clouds: &clouds::Written, first: Option<&seed::First>) {
    let releases = [admin::ready(config)
        .ok()
        .and_then(|s| s.get("release")?.as_str().map(str::to_owned))];
    let release = releases.iter().flatten().next().map_or(release::name(), String::as_str);
    ui::line("");
    ui::line(format_args!("Haneul {release} runs: {}", config.public_url()));
    if let Some(first) = first {
        if first.address.is_empty() {
            ui::line(format_args!(
                "The first server is {:?}; its hypervisor is a fake one, so there is no shell on it.",
                first.name
            ));
        } else {
            ui::line("");
            ui::line("A shell on the first server:");
            ui::line(format_args!(
                "  ssh -i {} -o StrictHostKeyChecking=accept-new {}@{}",
                first.key.display(),
                haneul_guest_image::USER,
                first.address
            ));
        }
    }
    ui::line("");
    ui::line(
        "With the openstack client (once, with Debian's package python3-venv: `python3 -m venv ~/openstack && ~/openstack/bin/pip install python-openstackclient`):",
    );
    if let Some(variable) = clouds.variable() {
        ui::line(format_args!("  export {variable}"));
    }
    ui::line("  export OS_CLOUD=haneul");
    ui::line("  ~/openstack/bin/openstack server list");
    ui::line("");
    ui::line(
        "`haneul status`, `haneul logs -f`, `haneul doctor`; `haneul down` stops it all, `haneul down --purge` removes every trace.",
    );
}
