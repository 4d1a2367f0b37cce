//! clouds.yaml: how the openstack client finds the cloud. Mode 0600, for it holds the password.

use super::Person;
use crate::state::{Deeds, replace};
use crate::{Result, Trouble};
use haneul_core::config::Config;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const MARK: &str = "# Written by `haneul up` for ";

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Written {
    pub path: PathBuf,
    /// The person's own clouds.yaml is another file, which we leave alone.
    pub beside: bool,
    pub changed: bool,
}

impl Written {
    /// The variable that must be set for the client to look at our file.
    pub fn variable(&self) -> Option<String> {
        self.beside
            .then(|| format!("OS_CLIENT_CONFIG_FILE={}", self.path.display()))
    }

    pub fn describe(&self) -> String {
        let path = self.path.display();
        match (self.beside, self.changed) {
            (_, false) => format!("{path} is right"),
            (false, true) => format!("wrote {path}, cloud \"haneul\""),
            (true, true) => format!("wrote {path}, for you have a clouds.yaml of your own"),
        }
    }
}

/// Writes cloud `haneul` to the person's clouds.yaml when there is none, or only ours for this very cloud;
/// otherwise beside it.
pub fn write(config: &Config, person: &Person, password: &str) -> Result<Written> {
    let dir = person.home.join(".config/openstack");
    person.make_dir(&dir)?;
    let usual = dir.join("clouds.yaml");
    let beside = !ours(&usual, config);
    let path = if beside { free_name(&dir, config) } else { usual };
    let authority = authority(config, person, &path)?;
    let text = text(config, password, authority.as_deref());
    let private = std::fs::metadata(&path).is_ok_and(|m| m.permissions().mode() & 0o077 == 0);
    let changed = !private || std::fs::read_to_string(&path).ok().as_deref() != Some(&text);
    if changed {
        replace(&path, text.as_bytes(), 0o600)?;
        person.give(&path)?;
    }
    Deeds::note(config, |d| {
        d.files.insert(path.clone());
    })?;
    Ok(Written { path, beside, changed })
}

/// Puts the certificate of the cloud's own authority beside the file, where clients need it to trust the API.
fn authority(config: &Config, person: &Person, beside: &Path) -> Result<Option<PathBuf>> {
    if !config.tls_on() || config.tls.certificate.is_some() {
        return Ok(None);
    }
    let pem = std::fs::read(config.authority_file()).at(&config.authority_file())?;
    let path = beside.with_extension("ca.pem");
    if std::fs::read(&path).ok().as_ref() != Some(&pem) {
        replace(&path, &pem, 0o644)?;
        person.give(&path)?;
    }
    Deeds::note(config, |d| {
        d.files.insert(path.clone());
    })?;
    Ok(Some(path))
}

/// Whether we may write the file: it is not there, or it is ours for this state directory.
fn ours(path: &Path, config: &Config) -> bool {
    match std::fs::read_to_string(path) {
        Ok(text) => text.lines().next() == Some(&mark(config)),
        Err(e) => e.kind() == std::io::ErrorKind::NotFound,
    }
}

fn free_name(dir: &Path, config: &Config) -> PathBuf {
    let mut names = std::iter::once("haneul.yaml".to_owned()).chain((2..).map(|n| format!("haneul-{n}.yaml")));
    names
        .find_map(|n| Some(dir.join(n)).filter(|p| ours(p, config)))
        .unwrap_or_else(|| dir.join("haneul.yaml"))
}

/// Removes what [`write`] wrote for this cloud; a file that is no longer ours stays. True when removed.
pub fn remove(path: &Path, config: &Config) -> Result<bool> {
    if !path.exists() || !ours(path, config) {
        return Ok(false);
    }
    std::fs::remove_file(path).at(path)?;
    Ok(true)
}

fn mark(config: &Config) -> String {
    format!("{MARK}{}", config.state_dir.0.display())
}

fn text(config: &Config, password: &str, authority: Option<&Path>) -> String {
    let q = |s: &str| format!("\"{}\"", s.replace('\\', "\\\\").replace('"', "\\\""));
    let cacert = authority.map_or_else(String::new, |p| {
        format!("    cacert: {}\n", q(&p.display().to_string()))
    });
    format!(
        "{}\nclouds:\n  haneul:\n    auth:\n      auth_url: {}\n      username: admin\n      password: {}\n      project_name: admin\n      user_domain_id: default\n      project_domain_id: default\n    region_name: {}\n    identity_api_version: 3\n    interface: public\n{cacert}",
        mark(config),
        q(&format!("{}/identity/v3", config.public_url())),
        q(password),
        q(&config.api.region),
    )
}
