//! Providers and inventories (Placement API reference, "Resource providers", "Resource provider inventories").

use haneul_auth::Secured;
use haneul_core::Error;
use haneul_store::Resource;
use serde::{Deserialize, Serialize};

/// Something that has inventory. Its generation goes up with each change of inventories or allocations by
/// an administrator, and guards their writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResourceProvider {
    pub uuid: String,
    pub name: String,
    /// Placement's own generation, as clients see it.
    pub provider_generation: i64,
    #[serde(default)]
    pub parent: Option<String>,
    #[serde(default)]
    pub traits: Vec<String>,
    #[serde(default)]
    pub aggregates: Vec<String>,
}

impl Resource for ResourceProvider {
    const KIND: &'static str = "resource_provider";
    const TABLE: &'static str = "placement_provider";
    fn id(&self) -> &str {
        &self.uuid
    }
    fn project_id(&self) -> Option<&str> {
        None
    }
    fn name(&self) -> &str {
        &self.name
    }
}

impl Secured for ResourceProvider {
    const HIDDEN: bool = false;
    fn not_found(id: &str) -> Error {
        Error::not_found(format!("No resource provider with uuid {id} found"))
    }
}

/// How much of a resource class a provider has.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    pub total: i64,
    #[serde(default)]
    pub reserved: i64,
    #[serde(default = "one")]
    pub min_unit: i64,
    #[serde(default = "most")]
    pub max_unit: i64,
    #[serde(default = "one")]
    pub step_size: i64,
    #[serde(default = "ratio")]
    pub allocation_ratio: f64,
}

fn one() -> i64 {
    1
}
fn most() -> i64 {
    i64::from(i32::MAX)
}
fn ratio() -> f64 {
    1.0
}

impl Inventory {
    /// An inventory with the usual units.
    pub fn new(total: i64, reserved: i64, allocation_ratio: f64) -> Self {
        Self {
            total,
            reserved,
            min_unit: 1,
            max_unit: total.max(1),
            step_size: 1,
            allocation_ratio,
        }
    }
    /// What can be given out: (total - reserved) x ratio, rounded down.
    pub fn capacity(&self) -> i64 {
        ((self.total - self.reserved) as f64 * self.allocation_ratio).floor() as i64
    }
    /// Why `amount` at once is not allowed here, whatever is free.
    pub fn refuses(&self, amount: i64) -> Option<String> {
        if amount < self.min_unit {
            Some(format!("less than min_unit {}", self.min_unit))
        } else if amount > self.max_unit {
            Some(format!("more than max_unit {}", self.max_unit))
        } else if amount % self.step_size.max(1) != 0 {
            Some(format!("not a multiple of step_size {}", self.step_size))
        } else {
            None
        }
    }
}
