//! What compute's old proxies ask for (Nova API until 2.35): with the caller's rights, and this service's own policies,
//! quotas and refusals.

mod addresses;
mod groups;

pub use addresses::{NamedNetwork, PooledIp};
pub use groups::{NewRule, SecurityGroup, SecurityGroupRule};

use haneul_core::{Error, Result};

fn only<T>(mut list: Vec<T>) -> Result<T> {
    list.pop()
        .ok_or_else(|| Error::internal("what the caller may change is not to be seen"))
}
