//! What either side takes from the other one, at the most: what is more, or is nothing of this protocol, is refused with
//! numbers, and nothing of it is taken. `fuzz/` has a target for each direction.

use crate::{Greeting, Kind, MAX_ITEMS, MAX_LINE, Report, ToAgent};
use bytes::BytesMut;
use haneul_core::{Error, Result};

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
///
/// # Errors
/// Bad request, with what is wrong with it.
pub fn host_name(name: &str) -> Result<()> {
    word("The host's name", name)
}

/// What control hears first.
///
/// # Errors
/// Bad request, with what is too much.
pub fn greeting(g: &Greeting) -> Result<()> {
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

/// What control hears then, but for each observation.
///
/// # Errors
/// Bad request, with what is too much.
pub fn report(r: &Report) -> Result<()> {
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
///
/// # Errors
/// Bad request, with its size.
pub fn observation(kind: Kind, id: &str, doc: &str) -> Result<()> {
    match doc.len() <= MAX_OBSERVATION {
        true => Ok(()),
        false => Err(Error::bad_request(format!(
            "The observation of {} {id} has {} bytes, and {MAX_OBSERVATION} are the most.",
            kind.as_str(),
            doc.len()
        ))),
    }
}

/// What a host hears: takes the whole lines out of what has come. One that is of no protocol that we know ends the link, with
/// all behind it: what it would have changed is not known.
///
/// # Errors
/// Bad request, with what is wrong.
pub fn lines(buffer: &mut BytesMut) -> Result<Vec<ToAgent>> {
    let mut all = Vec::new();
    while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
        let line = buffer.split_to(end + 1);
        if line.len() > MAX_LINE {
            return Err(too_long());
        }
        all.push(
            serde_json::from_slice(&line)
                .map_err(|e| Error::bad_request("control has sent what is not of this protocol").with_private(e))?,
        );
    }
    match buffer.len() > MAX_LINE {
        true => Err(too_long()),
        false => Ok(all),
    }
}

fn too_long() -> Error {
    Error::bad_request(format!("a line of control is longer than {MAX_LINE} bytes"))
}
