//! Neutron.

use super::Category::*;
use super::Who::*;
use super::{JSON, Row, Table};
use haneul_http::Service;
use serde_json::{Value, json};

const BODY: &str = "neutron/api/v2/base.py, prepare_request_body";
const HOOK: &str = "neutron/pecan_wsgi/hooks/body_validation.py";
const VALID: &str = "neutron-lib api/validators";
const EXC: &str = "neutron-lib exceptions/__init__.py";
const L3: &str = "neutron/db/l3_db.py";
const L3_EXC: &str = "neutron-lib exceptions/l3.py";
const SG: &str = "neutron/extensions/securitygroup.py";
const IPAM: &str = "neutron/db/ipam_backend_mixin.py";
const PLUGIN: &str = "neutron/db/db_base_plugin_v2.py";
const POLICY: &str = "neutron/conf/policies";
const ROOT: &str = "neutron/pecan_wsgi/controllers/root.py";
const API: &str = "neutron/api/api_common.py";
const TAGGING: &str = "neutron/extensions/tagging.py";
const BAD: &str = "HTTPBadRequest";

/// A table whose rows need Neutron's `type` as well.
struct Typed(Table);

impl Typed {
    #[allow(clippy::too_many_arguments)]
    fn row(
        &mut self,
        name: &str,
        who: super::Who,
        call: &str,
        body: impl Into<super::Payload>,
        status: u16,
        kind: &'static str,
        says: &'static str,
        doc: &'static str,
    ) -> &mut Row {
        self.0.row(name, who, call, body, status, says, doc).kind(kind)
    }
}

// One row a case, and so no line breaks by rustfmt.
#[rustfmt::skip]
pub fn rows() -> Vec<Row> {
    let mut t = Typed(Table::new(Service::Network, None));
    let (nets, subs, ports) = ("POST /v2.0/networks", "POST /v2.0/subnets", "POST /v2.0/ports");
    let (routers, fips, rules) = ("POST /v2.0/routers", "POST /v2.0/floatingips", "POST /v2.0/security-group-rules");
    let (add, remove) = ("PUT /v2.0/routers/{router}/add_router_interface", "PUT /v2.0/routers/{router}/remove_router_interface");
    let net = |v: Value| json!({"network": v});
    let with = |base: Value, v: Value, wrapper: &str| {
        let mut o = base;
        o.as_object_mut().expect("an object").extend(v.as_object().expect("an object").clone());
        json!({ wrapper: o })
    };
    let sub = |v: Value| with(json!({"network_id": "{bare}", "ip_version": 4, "cidr": "10.7.0.0/24"}), v, "subnet");
    let port = |v: Value| with(json!({"network_id": "{net}"}), v, "port");
    let rule = |v: Value| with(json!({"security_group_id": "{web}", "direction": "ingress"}), v, "security_group_rule");
    let fip = |v: Value| with(json!({"floating_network_id": "{public}"}), v, "floatingip");
    let long = "x".repeat(256);

    t.0.about(Malformed);
    t.row("cut off", Member, nets, "{\"network\": ", 400, BAD, "JSON", HOOK);
    t.row("no JSON", Member, ports, "hello", 400, BAD, "JSON", HOOK);
    t.row("a list", Member, subs, "[]", 400, BAD, "subnet", HOOK);
    t.row("no body", Member, nets, "", 400, BAD, "", "neutron/pecan_wsgi/controllers/resource.py, post");
    t.row("ten thousand brackets", Member, nets, "[".repeat(10_000).as_str(), 400, BAD, "JSON", HOOK);
    t.row("another wrapper", Member, nets, json!({"net": {}}), 400, BAD, "network", BODY);
    t.row("an empty bulk", Member, nets, json!({"networks": []}), 400, BAD, "networks", BODY);

    t.0.about(WrongType);
    t.row("name is a number", Member, nets, net(json!({"name": 5})), 400, BAD, "name", VALID);
    t.row("admin_state_up is a word", Member, nets, net(json!({"admin_state_up": "maybe"})), 400, BAD, "admin_state_up", VALID);
    t.row("network is a list", Member, nets, json!({"network": []}), 400, BAD, "network", BODY);
    t.row("fixed_ips is a word", Member, ports, port(json!({"fixed_ips": "10.1.0.9"})), 400, BAD, "fixed_ips", VALID);
    t.row("security_groups is a word", Member, ports, port(json!({"security_groups": "web"})), 400, BAD, "security_groups", VALID);
    t.row("MAC is a word", Member, ports, port(json!({"mac_address": "x"})), 400, BAD, "mac_address", VALID);
    t.row("ip_version is a word", Member, subs, sub(json!({"ip_version": "four"})), 400, BAD, "ip_version", VALID);
    t.row("pools are a word", Member, subs, sub(json!({"allocation_pools": "all"})), 400, BAD, "allocation_pools", VALID);
    t.row("gateway is a number", Member, routers, json!({"router": {"external_gateway_info": 5}}), 400, BAD, "external_gateway_info", VALID);
    t.row("quota is a word", Admin, "PUT /v2.0/quotas/{mine}", json!({"quota": {"network": "many"}}), 400, BAD, "network", "neutron/extensions/quotasv2.py");

    t.0.about(UnknownField);
    t.row("network with a colour", Member, nets, net(json!({"colour": 1})), 400, BAD, "colour", BODY);
    t.row("status is ours", Member, nets, net(json!({"status": "X"})), 400, BAD, "status", BODY);
    t.row("cidr is read-only", Member, "PUT /v2.0/subnets/{subnet}", json!({"subnet": {"cidr": "10.3.0.0/24"}}), 400, BAD, "cidr", BODY);
    t.row("network of a port is read-only", Member, "PUT /v2.0/ports/{port}", json!({"port": {"network_id": "{full}"}}), 400, BAD, "network_id", BODY);
    t.row("a quota of dreams", Admin, "PUT /v2.0/quotas/{mine}", json!({"quota": {"moon": 1}}), 400, BAD, "moon", "neutron/extensions/quotasv2.py");
    t.row("a filter of dreams", Member, "GET /v2.0/networks?colour=1", (), 400, BAD, "colour", API);
    t.row("sorted by dreams", Member, "GET /v2.0/networks?sort_key=colour&sort_dir=asc", (), 400, BAD, "colour", API);

    t.0.about(TooLong);
    t.row("name of a network", Member, nets, net(json!({"name": long})), 400, BAD, "name", VALID);
    t.row("name of a port", Member, "PUT /v2.0/ports/{port}", json!({"port": {"name": long}}), 400, BAD, "name", VALID);
    t.row("name of a router", Member, routers, json!({"router": {"name": long}}), 400, BAD, "name", VALID);
    t.row("name of a group", Member, "POST /v2.0/security-groups", json!({"security_group": {"name": long}}), 400, BAD, "name", VALID);
    t.row("description", Member, subs, sub(json!({"description": long})), 400, BAD, "description", VALID);
    t.row("device_id", Member, ports, port(json!({"device_id": long})), 400, BAD, "device_id", VALID);
    t.row("tag", Member, &format!("PUT /v2.0/networks/{{net}}/tags/{}", "t".repeat(256)), (), 400, "InvalidInput", "tag", TAGGING);
    t.row("51 tags", Member, "PUT /v2.0/networks/{net}/tags", json!({"tags": (0..51).map(|n| n.to_string()).collect::<Vec<_>>()}), 400, "BadRequest", "50", TAGGING);

    t.0.about(HugeBody);
    t.row("a network of blanks", Member, nets, (JSON, &vec![b' '; (1 << 20) + 1][..]), 413, "HTTPRequestEntityTooLarge", "too large", "RFC 9110, 15.5.14; oslo.middleware sizelimit, as in front of the others");

    t.0.about(BadId);
    t.row("network that is not there", Member, "GET /v2.0/networks/{no}", (), 404, "NetworkNotFound", "{no}", EXC);
    t.row("a name for an id", Member, "GET /v2.0/networks/public", (), 404, "NetworkNotFound", "public", EXC);
    t.row("subnet that is not there", Member, "GET /v2.0/subnets/{no}", (), 404, "SubnetNotFound", "{no}", EXC);
    t.row("port that is not there", Member, "DELETE /v2.0/ports/{no}", (), 404, "PortNotFound", "{no}", EXC);
    t.row("router that is not there", Member, "DELETE /v2.0/routers/{no}", (), 404, "RouterNotFound", "{no}", L3_EXC);
    t.row("floating IP that is not there", Member, "PUT /v2.0/floatingips/{no}", json!({"floatingip": {"port_id": null}}), 404, "FloatingIPNotFound", "{no}", L3_EXC);
    t.row("group that is not there", Member, "DELETE /v2.0/security-groups/{no}", (), 404, "SecurityGroupNotFound", "{no}", SG);
    t.row("rule that is not there", Member, "DELETE /v2.0/security-group-rules/{no}", (), 404, "SecurityGroupRuleNotFound", "{no}", SG);
    t.row("subnet on nothing", Member, subs, sub(json!({"network_id": "{no}"})), 404, "NetworkNotFound", "{no}", EXC);
    t.row("network_id is no UUID", Member, subs, sub(json!({"network_id": "x"})), 400, BAD, "network_id", VALID);
    t.row("network_id is missing", Member, ports, json!({"port": {}}), 400, BAD, "network_id", VALID);
    t.row("group is no UUID", Member, ports, port(json!({"security_groups": ["web"]})), 400, BAD, "security_groups", VALID);
    t.row("group of a port that is not there", Member, ports, port(json!({"security_groups": ["{no}"]})), 404, "SecurityGroupNotFound", "{no}", SG);
    t.row("gateway that is not there", Member, routers, json!({"router": {"external_gateway_info": {"network_id": "{no}"}}}), 404, "NetworkNotFound", "{no}", EXC);
    t.row("interface on nothing", Member, add, json!({"subnet_id": "{no}"}), 404, "SubnetNotFound", "{no}", EXC);
    t.row("interface on no UUID", Member, add, json!({"subnet_id": "x"}), 400, "BadRequest", "x", "neutron/db/l3_db.py, _validate_interface_info");
    t.row("takes away what is no interface", Member, remove, json!({"port_id": "{port}"}), 404, "RouterInterfaceNotFound", "{port}", L3_EXC);
    t.row("takes away no interface of a subnet", Member, remove, json!({"subnet_id": "{full_subnet}"}), 404, "RouterInterfaceNotFoundForSubnet", "{full_subnet}", L3_EXC);
    t.row("floating IP to nothing", Member, fips, fip(json!({"port_id": "{no}"})), 404, "PortNotFound", "{no}", EXC);
    t.row("tag that is none", Member, "DELETE /v2.0/networks/{net}/tags/none", (), 404, "TagNotFound", "none", TAGGING);
    t.row("path that is none", Member, "GET /v2.0/moons", (), 404, "HTTPNotFound", "", ROOT);

    t.0.about(BadCidr);
    t.row("a word", Member, subs, sub(json!({"cidr": "lots"})), 400, BAD, "cidr", VALID);
    t.row("host bits", Member, subs, sub(json!({"cidr": "10.7.0.5/24"})), 400, BAD, "10.7.0.0/24", VALID);
    t.row("too long a prefix", Member, subs, sub(json!({"cidr": "10.7.0.0/33"})), 400, BAD, "cidr", VALID);
    t.row("octets over 255", Member, subs, sub(json!({"cidr": "10.300.0.0/24"})), 400, BAD, "cidr", VALID);
    t.row("the wrong family", Member, subs, sub(json!({"cidr": "2001:db8::/64"})), 400, "InvalidInput", "ip_version", PLUGIN);
    t.row("multicast", Member, subs, sub(json!({"cidr": "224.0.0.0/8"})), 400, "InvalidInput", "Multicast", IPAM);
    t.row("loopback", Member, subs, sub(json!({"cidr": "127.0.0.0/8"})), 400, "InvalidInput", "Loopback", IPAM);
    t.row("everything", Member, subs, sub(json!({"cidr": "0.0.0.0/0"})), 400, "InvalidInput", "prefix", IPAM);
    t.row("too small for DHCP", Member, subs, sub(json!({"cidr": "10.7.0.0/31"})), 400, "InvalidInput", "/31", PLUGIN);
    t.row("missing", Member, subs, json!({"subnet": {"network_id": "{bare}", "ip_version": 4}}), 400, "BadRequest", "cidr", PLUGIN);
    t.row("ip_version of dreams", Member, subs, sub(json!({"ip_version": 5})), 400, BAD, "ip_version", VALID);
    t.row("pool outside", Member, subs, sub(json!({"allocation_pools": [{"start": "10.7.0.5", "end": "10.7.1.5"}]})), 400, "OutOfBoundsAllocationPool", "10.7.0.0/24", EXC);
    t.row("pool backwards", Member, subs, sub(json!({"allocation_pools": [{"start": "10.7.0.9", "end": "10.7.0.5"}]})), 400, "InvalidAllocationPool", "10.7.0.9", EXC);
    t.row("gateway is the network", Member, subs, sub(json!({"gateway_ip": "10.7.0.0"})), 400, "InvalidInput", "Gateway is not valid", PLUGIN);
    t.row("route of the wrong family", Member, subs, sub(json!({"host_routes": [{"destination": "2001:db8::/64", "nexthop": "10.7.0.7"}]})), 400, "InvalidInput", "ip_version", IPAM);
    t.row("address elsewhere", Member, ports, port(json!({"fixed_ips": [{"ip_address": "10.9.9.1"}]})), 400, "InvalidIpForNetwork", "10.9.9.1", EXC);
    t.row("broadcast address", Member, ports, port(json!({"fixed_ips": [{"ip_address": "10.1.0.255"}]})), 400, "InvalidIpForSubnet", "10.1.0.255", EXC);
    t.row("prefix of a rule", Member, rules, rule(json!({"remote_ip_prefix": "all"})), 400, "InvalidCIDR", "all", EXC);
    t.row("prefix of another family", Member, rules, rule(json!({"remote_ip_prefix": "2001:db8::/64"})), 400, "SecurityGroupRuleParameterConflict", "2001:db8::/64", SG);

    t.0.about(Overlap);
    t.row("the same", Member, subs, json!({"subnet": {"network_id": "{net}", "ip_version": 4, "cidr": "10.1.0.0/24"}}), 400, "InvalidInput", "10.1.0.0/24", IPAM);
    t.row("a part", Member, subs, json!({"subnet": {"network_id": "{net}", "ip_version": 4, "cidr": "10.1.0.128/25"}}), 400, "InvalidInput", "10.1.0.128/25", IPAM);
    t.row("more", Member, subs, json!({"subnet": {"network_id": "{net}", "ip_version": 4, "cidr": "10.0.0.0/8"}}), 400, "InvalidInput", "10.0.0.0/8", IPAM);
    t.row("pools", Member, subs, sub(json!({"allocation_pools": [{"start": "10.7.0.5", "end": "10.7.0.9"}, {"start": "10.7.0.8", "end": "10.7.0.20"}]})), 409, "OverlappingAllocationPools", "10.7.0.8", EXC);
    t.row("gateway in a pool", Member, subs, sub(json!({"gateway_ip": "10.7.0.9", "allocation_pools": [{"start": "10.7.0.5", "end": "10.7.0.20"}]})), 409, "GatewayConflictWithAllocationPools", "10.7.0.9", EXC);
    t.row("two subnets of a router", Member, add, json!({"subnet_id": "{twin_subnet}"}), 400, "BadRequest", "overlaps", "neutron/db/l3_db.py, _raise_on_subnets_overlap");
    t.row("the same subnet of a router", Member, add, json!({"subnet_id": "{subnet}"}), 400, "BadRequest", "already has a port", "neutron/db/l3_db.py, _check_for_dup_router_subnets");

    t.0.about(Exhausted);
    t.row("no address is left", Member, ports, json!({"port": {"network_id": "{full}"}}), 409, "IpAddressGenerationFailure", "{full}", EXC);
    t.row("no address of the subnet is left", Member, ports, json!({"port": {"network_id": "{full}", "fixed_ips": [{"subnet_id": "{full_subnet}"}]}}), 409, "IpAddressGenerationFailure", "{full_subnet}", EXC);
    t.row("no floating address is left", Member, fips, fip(json!({})), 409, "IpAddressGenerationFailure", "{public}", EXC);
    t.row("no address for a gateway is left", Member, routers, json!({"router": {"external_gateway_info": {"network_id": "{public}"}}}), 409, "IpAddressGenerationFailure", "{public}", EXC);
    t.row("quota of networks", Other, nets, net(json!({"name": "second"})), 409, "OverQuota", "network", "neutron/quota/__init__.py; neutron-lib OverQuota");
    t.row("quota of networks, in bulk", Other, nets, json!({"networks": [{"name": "second"}, {"name": "third"}]}), 409, "OverQuota", "network", "neutron/pecan_wsgi/hooks/quota_enforcement.py");
    t.row("quota of subnets", Other, subs, json!({"subnet": {"network_id": "{their_net}", "ip_version": 4, "cidr": "10.3.0.0/24"}}), 409, "OverQuota", "subnet", EXC);
    t.row("quota of routers", Other, routers, json!({"router": {"name": "r"}}), 409, "OverQuota", "router", EXC);
    t.row("quota of floating IPs", Other, fips, fip(json!({})), 409, "OverQuota", "floatingip", EXC);
    t.row("quota of groups", Other, "POST /v2.0/security-groups", json!({"security_group": {"name": "g"}}), 409, "OverQuota", "security_group", EXC);
    t.row("six addresses on a port", Member, ports, port(json!({"fixed_ips": vec![json!({"subnet_id": "{subnet}"}); 6]})), 400, "InvalidInput", "5", "neutron.conf max_fixed_ips_per_port");
    t.row("six nameservers", Member, subs, sub(json!({"dns_nameservers": ["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4", "1.1.1.5", "1.1.1.6"]})), 400, "DNSNameServersExhausted", "5", EXC);

    t.0.about(InUse);
    t.row("a network with ports", Member, "DELETE /v2.0/networks/{net}", (), 409, "NetworkInUse", "{net}", EXC);
    t.row("a subnet with addresses", Member, "DELETE /v2.0/subnets/{subnet}", (), 409, "SubnetInUse", "{subnet}", EXC);
    t.row("a router with interfaces", Member, "DELETE /v2.0/routers/{router}", (), 409, "RouterInUse", "{router}", L3_EXC);
    t.row("the port of an interface", Member, "DELETE /v2.0/ports/{router_port}", (), 409, "ServicePortInUse", "{router_port}", "neutron/db/l3_db.py, prevent_l3_port_deletion");
    t.row("a group with ports", Member, "DELETE /v2.0/security-groups/{web}", (), 409, "SecurityGroupInUse", "{web}", SG);
    t.row("the default group", Member, "DELETE /v2.0/security-groups/{default_group}", (), 409, "SecurityGroupCannotRemoveDefault", "default", SG);
    t.row("an interface that a floating IP needs", Member, remove, json!({"subnet_id": "{subnet}"}), 409, "RouterInterfaceInUseByFloatingIP", "{subnet}", L3_EXC);
    t.row("the gateway that a floating IP needs", Member, "PUT /v2.0/routers/{router}", json!({"router": {"external_gateway_info": {}}}), 409, "RouterExternalGatewayInUseByFloatingIp", "{router}", L3_EXC);
    t.row("the external network with gateways", Admin, "DELETE /v2.0/networks/{public}", (), 409, "NetworkInUse", "{public}", EXC);
    t.row("no more external", Admin, "PUT /v2.0/networks/{public}", json!({"network": {"router:external": false}}), 409, "ExternalNetworkInUse", "{public}", "neutron-lib exceptions/external_net.py");
    t.row("the gateway's address of a subnet with a router", Member, "PUT /v2.0/subnets/{subnet}", json!({"subnet": {"gateway_ip": "10.1.0.3"}}), 409, "GatewayIpInUse", "10.1.0.1", EXC);
    t.row("an address that is taken", Member, ports, port(json!({"fixed_ips": [{"ip_address": "10.1.0.77"}]})), 409, "IpAddressInUse", "10.1.0.77", EXC);
    t.row("a MAC that is taken", Member, ports, port(json!({"mac_address": "fa:16:3e:00:00:77"})), 409, "MacAddressInUse", "fa:16:3e:00:00:77", EXC);
    t.row("a rule that is there", Member, rules, rule(json!({"protocol": "tcp", "port_range_min": 80, "port_range_max": 80})), 409, "SecurityGroupRuleExists", "{rule}", SG);
    t.row("a port with a floating IP for another", Member, "PUT /v2.0/floatingips/{free_fip}", json!({"floatingip": {"port_id": "{port}"}}), 409, "FloatingIPPortAlreadyAssociated", "{port}", L3_EXC);
    t.row("a server's port as an interface", Member, add, json!({"port_id": "{server_port}"}), 409, "PortInUse", "{server_port}", "neutron/db/l3_db.py, _check_router_port");
    t.row("a quota below what is used", Admin, "PUT /v2.0/quotas/{mine}", json!({"quota": {"network": 1, "check_limit": true}}), 400, BAD, "network", "neutron/extensions/quotasv2.py, update");

    t.0.about(WrongState);
    t.row("the name of the default group", Member, "PUT /v2.0/security-groups/{default_group}", json!({"security_group": {"name": "mine"}}), 409, "SecurityGroupCannotUpdateDefault", "default", SG);
    t.row("a second default group", Member, "POST /v2.0/security-groups", json!({"security_group": {"name": "default"}}), 409, "SecurityGroupDefaultAlreadyExists", "efault", SG);
    t.row("an interface on a subnet without a gateway", Member, add, json!({"subnet_id": "{bare_subnet}"}), 400, "BadRequest", "gateway", "neutron/db/l3_db.py, _add_interface_by_subnet");
    t.row("a gateway on a network of one's own", Member, routers, json!({"router": {"external_gateway_info": {"network_id": "{net}"}}}), 400, "BadRequest", "external", "neutron/db/l3_db.py, _validate_gw_info");
    t.row("a floating IP of one's own network", Member, fips, json!({"floatingip": {"floating_network_id": "{net}"}}), 400, "BadRequest", "external", L3);
    t.row("a floating IP out of reach", Member, "PUT /v2.0/floatingips/{free_fip}", json!({"floatingip": {"port_id": "{full_port}"}}), 404, "ExternalGatewayForFloatingIPNotFound", "not reachable", L3_EXC);
    t.row("a floating IP for another address", Member, "PUT /v2.0/floatingips/{free_fip}", json!({"floatingip": {"port_id": "{free_port}", "fixed_ip_address": "10.1.0.222"}}), 400, "BadRequest", "10.1.0.222", L3);
    t.row("a fixed address without a port", Member, fips, fip(json!({"fixed_ip_address": "10.1.0.9"})), 400, "BadRequest", "fixed_ip_address", L3);
    t.row("groups without port security", Member, ports, port(json!({"port_security_enabled": false, "security_groups": ["{web}"]})), 400, "PortSecurityAndIPRequiredForSecurityGroups", "Port security", "neutron-lib exceptions/port_security.py");
    t.row("a route into nowhere", Member, "PUT /v2.0/routers/{router}", json!({"router": {"routes": [{"destination": "10.66.0.0/24", "nexthop": "10.66.0.1"}]}}), 400, "InvalidRoutes", "10.66.0.1", "neutron/db/extraroute_db.py");
    t.row("an interface of nothing", Member, add, json!({}), 400, "BadRequest", "subnet_id or port_id", "neutron/db/l3_db.py, _validate_interface_info");
    t.row("an interface of both", Member, add, json!({"subnet_id": "{full_subnet}", "port_id": "{port}"}), 400, "BadRequest", "both", "neutron/db/l3_db.py, _validate_interface_info");

    t.0.about(Others);
    t.row("another's network", Other, "GET /v2.0/networks/{net}", (), 404, "NetworkNotFound", "{net}", EXC);
    t.row("changes another's network", Other, "PUT /v2.0/networks/{net}", net(json!({"name": "mine"})), 404, "NetworkNotFound", "{net}", EXC);
    t.row("deletes another's port", Other, "DELETE /v2.0/ports/{free_port}", (), 404, "PortNotFound", "{free_port}", EXC);
    t.row("deletes another's router", Other, "DELETE /v2.0/routers/{router}", (), 404, "RouterNotFound", "{router}", L3_EXC);
    t.row("deletes another's floating IP", Other, "DELETE /v2.0/floatingips/{free_fip}", (), 404, "FloatingIPNotFound", "{free_fip}", L3_EXC);
    t.row("deletes another's rule", Other, "DELETE /v2.0/security-group-rules/{rule}", (), 404, "SecurityGroupRuleNotFound", "{rule}", SG);
    t.row("a rule in another's group", Other, rules, rule(json!({"protocol": "udp"})), 404, "SecurityGroupNotFound", "{web}", SG);
    t.row("a port on another's network", Other, ports, port(json!({})), 404, "NetworkNotFound", "{net}", EXC);
    t.row("a subnet on another's network", Other, subs, sub(json!({})), 404, "NetworkNotFound", "{bare}", EXC);
    t.row("an interface on another's subnet", Member, add, json!({"subnet_id": "{their_subnet}"}), 404, "SubnetNotFound", "{their_subnet}", EXC);
    t.row("tags another's network", Other, "PUT /v2.0/networks/{net}/tags/mine", (), 404, "NetworkNotFound", "{net}", TAGGING);
    t.row("in another's name", Member, nets, net(json!({"project_id": "{theirs}"})), 400, BAD, "project_id", "neutron-lib api/attributes.py, populate_project_id");
    t.row("shared by a member", Member, nets, net(json!({"shared": true})), 403, "PolicyNotAuthorized", "shared", POLICY);
    t.row("external by a member", Member, nets, net(json!({"router:external": true})), 403, "PolicyNotAuthorized", "router:external", POLICY);
    t.row("on a host of his choice", Member, ports, port(json!({"binding:host_id": "h"})), 403, "PolicyNotAuthorized", "binding:host_id", POLICY);
    t.row("the cloud's own port", Member, ports, port(json!({"device_owner": "network:dhcp"})), 409, "UnsupportedPortDeviceOwner", "device_owner", "ours: Neutron lets the network's owner do it (neutron/conf/policies/port.py); its type for an update is taken");
    t.row("changes the public network", Member, "PUT /v2.0/networks/{public}", net(json!({"name": "mine"})), 403, "PolicyNotAuthorized", "update_network", POLICY);
    t.row("a network of a reader", Reader, nets, net(json!({"name": "x"})), 403, "PolicyNotAuthorized", "create_network", POLICY);
    t.row("a reader deletes", Reader, "DELETE /v2.0/ports/{free_port}", (), 403, "PolicyNotAuthorized", "delete_port", POLICY);
    t.row("a quota of a member", Member, "PUT /v2.0/quotas/{mine}", json!({"quota": {"network": 99}}), 403, "AdminRequired", "admin", "neutron/extensions/quotasv2.py, validate_policy");

    t.0.tokens("GET /v2.0/networks/{net}", "GET /v2.0/networks/{no}");

    t.0.about(super::Category::Value);
    t.row("mtu too small", Member, nets, net(json!({"mtu": 20})), 400, "InvalidInput", "mtu", "api-ref: Networking, mtu");
    t.row("multicast MAC", Member, ports, port(json!({"mac_address": "01:00:5e:00:00:01"})), 400, BAD, "multicast", VALID);
    t.row("vnic of dreams", Member, ports, port(json!({"binding:vnic_type": "dream"})), 400, BAD, "binding:vnic_type", "neutron-lib api/definitions/portbindings.py");
    t.row("direction of dreams", Member, rules, rule(json!({"direction": "sideways"})), 400, BAD, "direction", SG);
    t.row("protocol of dreams", Member, rules, rule(json!({"protocol": "dream"})), 400, "SecurityGroupRuleInvalidProtocol", "dream", SG);
    t.row("ports backwards", Member, rules, rule(json!({"protocol": "tcp", "port_range_min": 9, "port_range_max": 2})), 400, "SecurityGroupInvalidPortRange", "port_range_min", SG);
    t.row("limit is a word", Member, "GET /v2.0/networks?limit=x", (), 400, "BadRequest", "imit", API);
    t.row("limit below nothing", Member, "GET /v2.0/networks?limit=-1", (), 400, "BadRequest", "imit", API);
    t.row("sorted in a circle", Member, "GET /v2.0/networks?sort_key=name&sort_dir=round", (), 400, BAD, "round", API);
    t.row("one key, two directions", Member, "GET /v2.0/networks?sort_key=name&sort_dir=asc&sort_dir=desc", (), 400, BAD, "sort_dir", API);
    t.row("a quota below all", Admin, "PUT /v2.0/quotas/{mine}", json!({"quota": {"network": -2}}), 400, BAD, "network", "neutron/extensions/quotasv2.py");
    t.row("a revision of dreams", Member, "DELETE /v2.0/ports/{free_port}", (), 400, "BadRequest", "revision_number", "neutron/api/api_common.py, check_request_for_revision_constraint").header("if-match", "newest");
    t.row("a body where none may be", Member, "DELETE /v2.0/ports/{free_port}", json!({"port": {}}), 400, BAD, "DELETE", "neutron/pecan_wsgi/controllers/resource.py, delete");
    t.row("method not in the table", Member, "PATCH /v2.0/networks", json!({}), 405, "HTTPMethodNotAllowed", "PATCH", "neutron/pecan_wsgi/controllers/resource.py, not_supported");
    t.0.rows
}
