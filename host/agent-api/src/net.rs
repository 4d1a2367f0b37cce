//! What a network driver gets: networks, ports, routers and rules, never bridges or rule text, so that
//! the kernel driver, the fake and OVN fit the same trait.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use uuid::Uuid;

/// A tenant or external network as one host needs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Network {
    pub id: Uuid,
    /// From the cloud's registry of short numbers: names of devices and the VNI come from it.
    pub index: u32,
    pub mtu: u32,
    pub subnets: Vec<Subnet>,
    /// Set for an external network: how this host carries it.
    #[serde(default)]
    pub external: bool,
    pub admin_state_up: bool,
    /// DNS domain given to guests.
    #[serde(default)]
    pub dns_domain: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subnet {
    pub id: Uuid,
    pub cidr: IpNet,
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    pub enable_dhcp: bool,
    /// Address and MAC of the network's own service port (DHCP, DNS, metadata), when DHCP is on.
    #[serde(default)]
    pub service: Option<ServicePort>,
    #[serde(default)]
    pub dns_servers: Vec<IpAddr>,
    /// Destination and next hop.
    #[serde(default)]
    pub host_routes: Vec<(IpNet, IpAddr)>,
    /// IPv6: `slaac`, `dhcpv6-stateful`, `dhcpv6-stateless` or none (no advertisements).
    #[serde(default)]
    pub ipv6_ra_mode: Option<String>,
    #[serde(default)]
    pub ipv6_address_mode: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServicePort {
    pub port_id: Uuid,
    pub mac: String,
    pub ip: IpAddr,
}

/// A guest's port on this host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Port {
    pub id: Uuid,
    /// From the cloud's registry: the tap's name and the packet mark come from it.
    pub index: u32,
    pub network_id: Uuid,
    /// The guest that holds it, whose metadata is served to it.
    #[serde(default)]
    pub guest_id: Option<Uuid>,
    pub mac: String,
    pub fixed_ips: Vec<FixedIp>,
    #[serde(default)]
    pub allowed_address_pairs: Vec<AddressPair>,
    /// False: no anti-spoofing and no security groups.
    pub port_security: bool,
    pub security_groups: Vec<Uuid>,
    pub admin_state_up: bool,
    /// Name for DNS and DHCP's host name option.
    #[serde(default)]
    pub dns_name: String,
    /// DHCP options by Neutron's names or numbers (`extra_dhcp_opts`): name, value, IP version.
    #[serde(default)]
    pub extra_dhcp_opts: Vec<(String, String, u8)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FixedIp {
    pub subnet_id: Uuid,
    pub ip: IpAddr,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AddressPair {
    pub ip: IpNet,
    pub mac: String,
}

/// A security group with its rules and, where a rule of any group names it, its members' addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecurityGroup {
    pub id: Uuid,
    pub rules: Vec<Rule>,
    /// Addresses of all ports in this group, cloud-wide.
    #[serde(default)]
    pub members: Vec<IpAddr>,
    /// Stateless groups track no connections.
    #[serde(default = "yes")]
    pub stateful: bool,
}

fn yes() -> bool {
    true
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rule {
    pub id: Uuid,
    pub direction: Direction,
    pub ethertype: EtherType,
    /// IP protocol number; `None` is any.
    #[serde(default)]
    pub protocol: Option<u8>,
    /// Ports, or ICMP type.
    #[serde(default)]
    pub port_min: Option<u16>,
    /// Ports, or ICMP code.
    #[serde(default)]
    pub port_max: Option<u16>,
    #[serde(default)]
    pub remote_prefix: Option<IpNet>,
    #[serde(default)]
    pub remote_group: Option<Uuid>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    Ingress,
    Egress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EtherType {
    Ipv4,
    Ipv6,
}

/// A router, carried by this host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Router {
    pub id: Uuid,
    pub index: u32,
    pub admin_state_up: bool,
    pub interfaces: Vec<RouterInterface>,
    #[serde(default)]
    pub gateway: Option<RouterGateway>,
    #[serde(default)]
    pub routes: Vec<(IpNet, IpAddr)>,
    #[serde(default)]
    pub floating_ips: Vec<FloatingIp>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouterInterface {
    pub port_id: Uuid,
    pub index: u32,
    pub network_id: Uuid,
    pub mac: String,
    /// Addresses with their subnet's prefix length.
    pub addresses: Vec<IpNet>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouterGateway {
    pub port_id: Uuid,
    pub index: u32,
    pub network_id: Uuid,
    pub mac: String,
    pub addresses: Vec<IpNet>,
    /// Default routes: one per family at the most.
    pub next_hops: Vec<IpAddr>,
    pub enable_snat: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FloatingIp {
    pub id: Uuid,
    pub floating: IpAddr,
    pub fixed: IpAddr,
}

/// A port of a network of this host that is on another host: a guest's, or a router's interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Neighbour {
    /// The port's.
    pub id: Uuid,
    pub network_id: Uuid,
    pub mac: String,
    pub addresses: Vec<IpAddr>,
    /// Name for DNS.
    #[serde(default)]
    pub dns_name: String,
    /// Underlay address of the host that has it.
    pub host: IpAddr,
}

/// Where other hosts reach this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Underlay {
    pub address: IpAddr,
    /// MTU of the interface that has the address.
    pub mtu: u32,
}

/// How the host carries the external network (setting `uplink`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Uplink {
    /// Guests reach what the host reaches, behind the host's address.
    Nat,
    /// The host reaches floating IPs; nothing leaves the host.
    Isolated,
    /// The external network is the segment behind this interface of the host.
    Bridge(String),
}

/// All that a network driver on one host shall bring about.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NetDesired {
    pub networks: Vec<Network>,
    pub ports: Vec<Port>,
    pub security_groups: Vec<SecurityGroup>,
    pub routers: Vec<Router>,
    #[serde(default)]
    pub neighbours: Vec<Neighbour>,
}

/// Observed state of one port, router or network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObservedNet {
    pub id: Uuid,
    pub epoch: u64,
    pub generation: u64,
    pub up: bool,
    #[serde(default)]
    pub failure: Option<crate::Failure>,
}
