//! What settings of the scheduler and of balancing may be.

use super::{Balance, Compute, Scheduler};
use crate::{Error, Result};
use toml::Value;

impl Compute {
    pub(super) fn check(&self) -> Result<()> {
        for (name, ratio) in [
            ("initial_cpu_allocation_ratio", Some(self.initial_cpu_allocation_ratio)),
            ("initial_ram_allocation_ratio", Some(self.initial_ram_allocation_ratio)),
            (
                "initial_disk_allocation_ratio",
                Some(self.initial_disk_allocation_ratio),
            ),
            ("cpu_allocation_ratio", self.cpu_allocation_ratio),
            ("ram_allocation_ratio", self.ram_allocation_ratio),
            ("disk_allocation_ratio", self.disk_allocation_ratio),
        ] {
            if let Some(ratio) = ratio.filter(|r| !(*r > 0.0 && *r <= 1000.0)) {
                let name = format!("compute.{name}");
                let why = format!("{name} = {ratio}: write a number above 0, and 1000 at the most");
                return Err(Error::field(name, why));
            }
        }
        Ok(())
    }
}

impl Scheduler {
    pub(super) fn check(&self) -> Result<()> {
        let Value::Table(all) = Value::try_from(self).map_err(Error::internal)? else {
            return Err(Error::internal("a section is a table"));
        };
        let bad = all.iter().find(|(_, v)| !v.as_float().is_some_and(f64::is_finite));
        bad.map_or(Ok(()), |(name, value)| {
            let name = format!("scheduler.{name}");
            let why = format!("{name} = {value}: write a number");
            Err(Error::field(name, why))
        })
    }
}

impl Balance {
    pub(super) fn check(&self) -> Result<()> {
        let bad = if self.interval_s == 0 {
            ("interval_s", "0", "write a number of seconds above 0")
        } else if !(self.min_gain > 0.0 && self.min_gain <= 100.0) {
            (
                "min_gain",
                &*self.min_gain.to_string(),
                "write a number above 0, and 100 at the most",
            )
        } else {
            return Ok(());
        };
        let name = format!("balance.{}", bad.0);
        let why = format!("{name} = {}: {}", bad.1, bad.2);
        Err(Error::field(name, why))
    }
}
