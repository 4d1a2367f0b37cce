//! Resource classes and traits: the standard ones by name, and custom ones as rows.

use haneul_core::{Error, Result};
use haneul_store::Tx;
use std::collections::BTreeSet;

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

/// Standard traits that our hosts may have (os-traits); others of its list are not claimed by anybody here.
pub const TRAITS: &[&str] = &[
    "COMPUTE_STATUS_DISABLED",
    "COMPUTE_NODE",
    "COMPUTE_IMAGE_TYPE_QCOW2",
    "COMPUTE_IMAGE_TYPE_RAW",
    "COMPUTE_NET_VIF_MODEL_VIRTIO",
    "COMPUTE_STORAGE_BUS_VIRTIO",
    "COMPUTE_ACCELERATORS",
    "HW_ARCH_X86_64",
    "HW_CPU_X86_VMX",
    "HW_CPU_X86_SVM",
    "HW_CPU_X86_AVX",
    "HW_CPU_X86_AVX2",
    "HW_CPU_X86_SSE42",
    "HW_CPU_HYPERTHREADING",
    "STORAGE_DISK_SSD",
    "STORAGE_DISK_HDD",
    "MISC_SHARES_VIA_AGGREGATE",
];

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
            Names::Trait => TRAITS,
        }
    }
    /// Whether the name exists.
    pub async fn known(self, tx: &mut Tx, name: &str) -> Result<bool> {
        if self.standard().contains(&name) {
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
        let valid = name.strip_prefix("CUSTOM_").is_some_and(|rest| {
            !rest.is_empty()
                && name.len() <= 255
                && rest
                    .bytes()
                    .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
        });
        if !valid {
            return Err(Error::field(
                "name",
                format!(
                    "'{}' is no custom {}: write CUSTOM_ and then A-Z, 0-9 and _, at most 255 characters.",
                    name,
                    self.kind()
                ),
            ));
        }
        let n = tx
            .exec(
                "INSERT INTO placement_name(kind, name) VALUES($1, $2) ON CONFLICT DO NOTHING",
                &[self.kind().into(), name.into()],
            )
            .await?;
        Ok(n == 1)
    }
    /// Refuses to delete a standard one, used or not.
    pub fn must_be_custom(self, name: &str) -> Result<()> {
        if self.standard().contains(&name) {
            return Err(Error::bad_request(format!(
                "Cannot delete standard {} {name}.",
                self.kind()
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
            return Err(Error::not_found(format!("No such {}: {name}.", self.kind())));
        }
        Ok(())
    }
    /// Refuses unknown names, all of them at once.
    pub async fn demand(self, tx: &mut Tx, names: &BTreeSet<String>) -> Result<()> {
        let mut unknown = Vec::new();
        for n in names {
            if !self.known(tx, n).await? {
                unknown.push(n.as_str());
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        Err(Error::bad_request(format!(
            "No such {}(s): {}.",
            self.kind(),
            unknown.join(", ")
        )))
    }
}
