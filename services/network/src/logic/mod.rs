//! One file per use case.

pub(crate) mod attach;
pub(crate) mod audit;
pub(crate) mod bootstrap;
pub(crate) mod compute;
pub(crate) mod floating_ips;
pub(crate) mod gateways;
pub(crate) mod groups;
pub(crate) mod ipam;
pub(crate) mod neighbours;
pub(crate) mod networks;
pub(crate) mod observe;
pub(crate) mod ports;
pub(crate) mod proxies;
pub(crate) mod publish;
pub(crate) mod quotas;
pub(crate) mod routers;
pub(crate) mod rules;
pub(crate) mod subnets;
