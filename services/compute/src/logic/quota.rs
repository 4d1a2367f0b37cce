//! Quotas of servers: counted in the transaction of the rows that they count.

use crate::Compute;
use haneul_auth::quota;
use haneul_core::Result;
use haneul_store::Tx;

pub const INSTANCES: &str = "compute.instances";
pub const CORES: &str = "compute.cores";
pub const RAM: &str = "compute.ram";

impl Compute {
    /// Takes servers, cores and MiB; all may be negative to give back.
    pub(crate) async fn quota_change(
        &self,
        tx: &mut Tx,
        project: &str,
        servers: i64,
        cores: i64,
        ram: i64,
    ) -> Result<()> {
        let c = &self.config;
        for (name, n, default) in [
            (INSTANCES, servers, c.quota_instances),
            (CORES, cores, c.quota_cores),
            (RAM, ram, c.quota_ram_mib),
        ] {
            if n >= 0 {
                quota::take(tx, project, name, n, default).await?;
            } else {
                quota::give_back(tx, project, name, -n).await?;
            }
        }
        Ok(())
    }
}
