//! Resource classes and traits: the standard ones by name, and custom ones as rows.

use haneul_core::{Error, Result};
use haneul_store::Tx;
use std::collections::BTreeSet;
use std::sync::LazyLock;

/// Standard resource classes (os-resource-classes).
pub const CLASSES: &[&str] = &[
    "VCPU",
    "MEMORY_MB",
    "DISK_GB",
    "PCI_DEVICE",
    "SRIOV_NET_VF",
    "NUMA_SOCKET",
    "NUMA_CORE",
    "NUMA_THREAD",
    "NUMA_MEMORY_MB",
    "IPV4_ADDRESS",
    "VGPU",
    "VGPU_DISPLAY_HEAD",
    "NET_BW_EGR_KILOBIT_PER_SEC",
    "NET_BW_IGR_KILOBIT_PER_SEC",
    "PCPU",
    "MEM_ENCRYPTION_CONTEXT",
    "FPGA",
    "PGPU",
    "NET_PACKET_RATE_KILOPACKET_PER_SEC",
    "NET_PACKET_RATE_EGR_KILOPACKET_PER_SEC",
    "NET_PACKET_RATE_IGR_KILOPACKET_PER_SEC",
];

/// Standard traits (os-traits 3.9), in order.
static TRAITS: LazyLock<Vec<&str>> = LazyLock::new(|| include_str!("traits.txt").lines().collect());

/// A kind of name: the table's `kind` column.
#[derive(Clone, Copy)]
pub enum Names {
    Class,
    Trait,
}

impl Names {
    fn kind(self) -> &'static str {
        match self {
            Names::Class => "class",
            Names::Trait => "trait",
        }
    }
    fn standard(self) -> &'static [&'static str] {
        match self {
            Names::Class => CLASSES,
            Names::Trait => &TRAITS,
        }
    }
    fn is_standard(self, name: &str) -> bool {
        self.standard().contains(&name)
    }
    /// Whether the name exists.
    pub async fn known(self, tx: &mut Tx, name: &str) -> Result<bool> {
        if self.is_standard(name) {
            return Ok(true);
        }
        Ok(tx
            .row(
                "SELECT 1 FROM placement_name WHERE kind = $1 AND name = $2",
                &[self.kind().into(), name.into()],
            )
            .await?
            .is_some())
    }
    /// All names, standard ones first.
    pub async fn all(self, tx: &mut Tx) -> Result<Vec<String>> {
        let mut out: Vec<String> = self.standard().iter().map(|s| (*s).to_owned()).collect();
        for r in tx
            .rows(
                "SELECT name FROM placement_name WHERE kind = $1 ORDER BY name",
                &[self.kind().into()],
            )
            .await?
        {
            out.push(r.str(0)?);
        }
        Ok(out)
    }
    /// Makes a custom one; false when it is there.
    pub async fn add(self, tx: &mut Tx, name: &str) -> Result<bool> {
        self.must_be_valid(name)?;
        let n = tx
            .exec(
                "INSERT INTO placement_name(kind, name) VALUES($1, $2) ON CONFLICT DO NOTHING",
                &[self.kind().into(), name.into()],
            )
            .await?;
        Ok(n == 1)
    }
    /// Refuses names that people may not make.
    pub fn must_be_valid(self, name: &str) -> Result<()> {
        let allowed = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
        let rest = name.strip_prefix("CUSTOM_").unwrap_or_default();
        let form = !rest.is_empty() && rest.bytes().all(allowed);
        if form && name.len() <= 255 {
            return Ok(());
        }
        let shown: String = name.chars().take(300).collect();
        let why = match self {
            Names::Class if form => format!(
                "JSON does not validate: name is too long: {} characters, and at most 255 are allowed. Failed validating 'maxLength'",
                name.len()
            ),
            Names::Class => format!(
                "JSON does not validate: name '{shown}' does not match '^CUSTOM_[A-Z0-9_]+$'. Failed validating 'pattern'"
            ),
            Names::Trait => format!(
                "The trait is invalid. A valid trait must be no longer than 255 characters, start with the prefix \"CUSTOM_\" and use following characters: \"A\"-\"Z\", \"0\"-\"9\" and \"_\". Got: {shown}"
            ),
        };
        Err(Error::field("name", why))
    }
    /// As people call it.
    fn spoken(self) -> &'static str {
        match self {
            Names::Class => "resource class",
            Names::Trait => "trait",
        }
    }
    /// Refuses to delete a standard one, used or not.
    pub fn must_be_custom(self, name: &str) -> Result<()> {
        if self.is_standard(name) {
            return Err(Error::bad_request(format!(
                "Cannot delete standard {} {name}.",
                self.spoken()
            )));
        }
        Ok(())
    }
    /// Removes a custom one.
    pub async fn remove(self, tx: &mut Tx, name: &str) -> Result<()> {
        let n = tx
            .exec(
                "DELETE FROM placement_name WHERE kind = $1 AND name = $2",
                &[self.kind().into(), name.into()],
            )
            .await?;
        if n == 0 {
            return Err(self.none(name));
        }
        Ok(())
    }
    /// That there is none of this name.
    pub fn none(self, name: &str) -> Error {
        match self {
            Names::Class => Error::not_found(format!("No such resource class {name}.")),
            Names::Trait => Error::not_found(format!("No such trait(s): {name}.")),
        }
    }
    /// Refuses unknown names, all of them at once; `about` says what was asked for.
    pub async fn demand(self, tx: &mut Tx, about: &str, names: &BTreeSet<String>) -> Result<()> {
        let mut unknown = Vec::new();
        for n in names {
            if !self.known(tx, n).await? {
                unknown.push(n.as_str());
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        let unknown = unknown.join(", ");
        Err(Error::bad_request(match self {
            Names::Class => format!("{about}No such resource class {unknown}."),
            Names::Trait => format!("{about}No such trait(s): {unknown}."),
        }))
    }
}
