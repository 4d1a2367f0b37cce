//! What a host may say, at the most: what is more is refused with numbers, and nothing of it is taken.

use haneul_agent_api::{Greeting, Kind, MAX_ITEMS, Report};
use haneul_core::{Error, Result};

/// Messages of one host that are read at once.
pub(crate) const AT_ONCE: usize = 8;
/// Bytes of one observation: a failure's texts and a machine with all of its devices are far less.
const MAX_OBSERVATION: usize = 128 << 10;
/// Bytes of a name, and of what else a greeting says in a word.
const MAX_NAME: usize = 255;
const MAX_FEATURES: usize = 2000;
/// CPUs, and MiB or GiB, of one host.
const MAX_VCPUS: u32 = 1 << 16;
const MAX_AMOUNT: u64 = 1 << 40;
/// Bytes of a guest's password, which is encrypted for its owner's key.
const MAX_PASSWORD: usize = 16 << 10;

fn word(what: &str, text: &str) -> Result<()> {
    let bytes = text.len();
    if bytes > MAX_NAME {
        return Err(Error::bad_request(format!(
            "{what} has {bytes} bytes, and {MAX_NAME} are the most."
        )));
    }
    if text.chars().any(char::is_control) {
        return Err(Error::bad_request(format!("{what} has control characters in it.")));
    }
    Ok(())
}

fn most(what: &str, is: u64, most: u64) -> Result<()> {
    match is <= most {
        true => Ok(()),
        false => Err(Error::bad_request(format!("{is} {what}: {most} are the most."))),
    }
}

/// The name of a machine that joins.
pub(crate) fn host_name(name: &str) -> Result<()> {
    word("The host's name", name)
}

pub(crate) fn greeting(g: &Greeting) -> Result<()> {
    let h = &g.hypervisor;
    host_name(&g.host_name)?;
    for (what, text) in [
        ("The release", &g.release),
        ("The boot id", &g.boot_id),
        ("The hypervisor's kind", &h.kind),
        ("The accelerator", &h.accelerator),
        ("The architecture", &h.arch),
        ("The CPU's model", &h.cpu_model),
        ("The CPU's vendor", &h.cpu_vendor),
    ] {
        word(what, text)?;
    }
    most("features of a CPU", h.cpu_features.len() as u64, MAX_FEATURES as u64)?;
    for feature in &h.cpu_features {
        word("A feature of the CPU", feature)?;
    }
    most("CPUs", g.inventory.vcpus.into(), MAX_VCPUS.into())?;
    most("MiB of memory", g.inventory.memory_mib, MAX_AMOUNT)?;
    most("GiB of disk", g.inventory.disk_gib, MAX_AMOUNT)
}

pub(crate) fn report(r: &Report) -> Result<()> {
    most("observations in a report", r.items() as u64, MAX_ITEMS as u64)?;
    for posted in &r.passwords {
        most("bytes of a password", posted.password.len() as u64, MAX_PASSWORD as u64)?;
    }
    for f in &r.fences {
        observation(Kind::Fence, &f.id.to_string(), &serde_json::to_string(f)?)?;
    }
    Ok(())
}

/// One observation, as it is kept.
pub(crate) fn observation(kind: Kind, id: &str, doc: &str) -> Result<()> {
    match doc.len() <= MAX_OBSERVATION {
        true => Ok(()),
        false => Err(Error::bad_request(format!(
            "The observation of {} {id} has {} bytes, and {MAX_OBSERVATION} are the most.",
            kind.as_str(),
            doc.len()
        ))),
    }
}
