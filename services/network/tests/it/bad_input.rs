//! Wrong requests: one row a case, with Neutron's status and type, the words that the message must contain and
//! where Neutron documents it. After each case nothing has been written.

use crate::cloud::{ADMIN, ALICE, BOB, Cloud, EVE, text};
use serde_json::{Value, json};

/// name, method, path, body, status, type, words, where it is documented.
type Case = (
    &'static str,
    &'static str,
    String,
    Value,
    u16,
    &'static str,
    &'static [&'static str],
    &'static str,
);

const REF: &str = "api-ref network/v2";
const DEFS: &str = "neutron-lib api/validators";
const EXC: &str = "neutron-lib exceptions";
const SG: &str = "neutron extensions/securitygroup.py";
const L3: &str = "neutron-lib exceptions/l3.py";

pub async fn table(c: &Cloud) {
    let n = c.network(ALICE, "n").await;
    let s = c.subnet(ALICE, &n, "10.0.0.0/24").await;
    let g = text(
        &c.ok(
            "POST",
            "/v2.0/security-groups",
            ALICE,
            json!({"security_group": {"name": "g"}}),
        )
        .await["security_group"]["id"],
    );
    let r = text(&c.ok("POST", "/v2.0/routers", ALICE, json!({"router": {}})).await["router"]["id"]);
    let p = text(&c.port(ALICE, &n).await["id"]);
    let public = c.public().await;
    let no = haneul_core::id::uuid();
    let net = |v: Value| json!({"network": v});
    let sub = |v: Value| {
        let mut o = json!({"network_id": n, "ip_version": 4, "cidr": "10.1.0.0/24"});
        o.as_object_mut().unwrap().extend(v.as_object().unwrap().clone());
        json!({"subnet": o})
    };
    let sub6 = |v: Value| {
        let mut o = json!({"network_id": n, "ip_version": 6, "cidr": "2001:db8::/64"});
        o.as_object_mut().unwrap().extend(v.as_object().unwrap().clone());
        json!({"subnet": o})
    };
    let port = |v: Value| {
        let mut o = json!({"network_id": n});
        o.as_object_mut().unwrap().extend(v.as_object().unwrap().clone());
        json!({"port": o})
    };
    let rule = |v: Value| {
        let mut o = json!({"security_group_id": g, "direction": "ingress"});
        o.as_object_mut().unwrap().extend(v.as_object().unwrap().clone());
        json!({"security_group_rule": o})
    };
    let at = |path: &str| format!("/v2.0/{path}");
    // One row a case, and so no line breaks by rustfmt.
    #[rustfmt::skip]
    let cases: Vec<Case> = vec![
        // Bodies.
        ("no wrapper", "POST", at("networks"), json!({"net": {}}), 400, "HTTPBadRequest", &["network"], REF),
        ("a list for an object", "POST", at("networks"), json!({"network": []}), 400, "HTTPBadRequest", &["network"], REF),
        ("empty bulk", "POST", at("networks"), json!({"networks": []}), 400, "HTTPBadRequest", &["networks"], REF),
        ("unknown attribute", "POST", at("networks"), net(json!({"colour": 1})), 400, "HTTPBadRequest", &["Unrecognized attribute", "colour"], REF),
        ("read-only attribute", "POST", at("networks"), net(json!({"status": "X"})), 400, "HTTPBadRequest", &["status", "not allowed in POST"], REF),
        ("read-only update", "PUT", at(&format!("subnets/{s}")), json!({"subnet": {"cidr": "10.3.0.0/24"}}), 400, "HTTPBadRequest", &["read-only", "cidr"], REF),
        ("name is a number", "POST", at("networks"), net(json!({"name": 5})), 400, "HTTPBadRequest", &["name", "string"], DEFS),
        ("name is too long", "POST", at("networks"), net(json!({"name": "x".repeat(256)})), 400, "HTTPBadRequest", &["name", "256", "255"], DEFS),
        ("admin_state_up is a word", "POST", at("networks"), net(json!({"admin_state_up": "maybe"})), 400, "HTTPBadRequest", &["admin_state_up"], DEFS),
        ("mtu is too small", "POST", at("networks"), net(json!({"mtu": 20})), 400, "InvalidInput", &["mtu", "68"], REF),
        ("foreign project", "POST", at("networks"), net(json!({"project_id": "blue"})), 400, "HTTPBadRequest", &["project_id", "admin"], "neutron pecan_wsgi ownership hook"),
        ("project and tenant differ", "POST", at("networks"), net(json!({"project_id": "red", "tenant_id": "blue"})), 400, "HTTPBadRequest", &["do not match"], "neutron api/v2"),
        ("shared by a member", "POST", at("networks"), net(json!({"shared": true})), 403, "PolicyNotAuthorized", &["shared"], "conf/policies/network.py"),
        ("external by a member", "POST", at("networks"), net(json!({"router:external": true})), 403, "PolicyNotAuthorized", &["router:external"], "conf/policies/network.py"),
        ("unknown zone", "POST", at("networks"), net(json!({"availability_zone_hints": ["moon"]})), 400, "AvailabilityZoneNotFound", &["moon", "nova"], "extensions/availability_zone"),
        // Ids.
        ("network that is not there", "GET", at(&format!("networks/{no}")), Value::Null, 404, "NetworkNotFound", &[], EXC),
        ("id that is no uuid", "GET", at("networks/abc"), Value::Null, 404, "NetworkNotFound", &["abc"], EXC),
        ("port that is not there", "DELETE", at(&format!("ports/{no}")), Value::Null, 404, "PortNotFound", &[], EXC),
        ("subnet on no network", "POST", at("subnets"), sub(json!({"network_id": no})), 404, "NetworkNotFound", &[], EXC),
        ("network_id is no uuid", "POST", at("subnets"), sub(json!({"network_id": "x"})), 400, "HTTPBadRequest", &["network_id", "UUID"], DEFS),
        ("network_id is missing", "POST", at("ports"), json!({"port": {}}), 400, "HTTPBadRequest", &["network_id"], DEFS),
        // Ranges.
        ("cidr is a word", "POST", at("subnets"), sub(json!({"cidr": "lots"})), 400, "HTTPBadRequest", &["cidr", "lots"], DEFS),
        ("cidr with host bits", "POST", at("subnets"), sub(json!({"cidr": "10.1.0.5/24"})), 400, "HTTPBadRequest", &["10.1.0.0/24"], DEFS),
        ("cidr of the wrong family", "POST", at("subnets"), sub(json!({"cidr": "2001:db8::/64"})), 400, "InvalidInput", &["ip_version"], EXC),
        ("cidr is missing", "POST", at("subnets"), json!({"subnet": {"network_id": n, "ip_version": 4}}), 400, "BadRequest", &["cidr"], REF),
        ("ip_version is missing", "POST", at("subnets"), json!({"subnet": {"network_id": n, "cidr": "10.1.0.0/24"}}), 400, "HTTPBadRequest", &["ip_version"], REF),
        ("ip_version is 5", "POST", at("subnets"), sub(json!({"ip_version": 5})), 400, "HTTPBadRequest", &["[4, 6]"], REF),
        ("multicast range", "POST", at("subnets"), sub(json!({"cidr": "224.0.0.0/8"})), 400, "InvalidInput", &["Multicast"], "ipam_backend_mixin"),
        ("loopback with DHCP", "POST", at("subnets"), sub(json!({"cidr": "127.0.0.0/8"})), 400, "InvalidInput", &["Loopback"], "ipam_backend_mixin"),
        ("too small for DHCP", "POST", at("subnets"), sub(json!({"cidr": "10.1.0.0/31"})), 400, "InvalidInput", &["/31", "/30"], "db_base_plugin_v2"),
        ("everything", "POST", at("subnets"), sub(json!({"cidr": "0.0.0.0/0"})), 400, "InvalidInput", &["prefix"], "ipam_backend_mixin"),
        ("overlap", "POST", at("subnets"), sub(json!({"cidr": "10.0.0.128/25"})), 400, "InvalidInput", &["10.0.0.128/25", "10.0.0.0/24"], "ipam_backend_mixin"),
        ("pool outside", "POST", at("subnets"), sub(json!({"allocation_pools": [{"start": "10.1.0.5", "end": "10.1.1.5"}]})), 400, "OutOfBoundsAllocationPool", &["10.1.1.5", "10.1.0.0/24"], EXC),
        ("pool backwards", "POST", at("subnets"), sub(json!({"allocation_pools": [{"start": "10.1.0.9", "end": "10.1.0.5"}]})), 400, "InvalidAllocationPool", &["10.1.0.9"], EXC),
        ("pools overlap", "POST", at("subnets"), sub(json!({"allocation_pools": [{"start": "10.1.0.5", "end": "10.1.0.9"}, {"start": "10.1.0.8", "end": "10.1.0.20"}]})), 409, "OverlappingAllocationPools", &["10.1.0.5", "10.1.0.8"], EXC),
        ("pool without an end", "POST", at("subnets"), sub(json!({"allocation_pools": [{"start": "10.1.0.5"}]})), 400, "HTTPBadRequest", &["allocation_pools", "end"], DEFS),
        ("gateway in a pool", "POST", at("subnets"), sub(json!({"gateway_ip": "10.1.0.9", "allocation_pools": [{"start": "10.1.0.5", "end": "10.1.0.20"}]})), 409, "GatewayConflictWithAllocationPools", &["10.1.0.9"], EXC),
        ("gateway is the network", "POST", at("subnets"), sub(json!({"gateway_ip": "10.1.0.0"})), 400, "InvalidInput", &["Gateway is not valid"], "db_base_plugin_v2"),
        ("gateway is a word", "POST", at("subnets"), sub(json!({"gateway_ip": "x"})), 400, "HTTPBadRequest", &["gateway_ip"], DEFS),
        ("too many nameservers", "POST", at("subnets"), sub(json!({"dns_nameservers": ["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4", "1.1.1.5", "1.1.1.6"]})), 400, "DNSNameServersExhausted", &["5", "6"], EXC),
        ("nameserver twice", "POST", at("subnets"), sub(json!({"dns_nameservers": ["1.1.1.1", "1.1.1.1"]})), 400, "HTTPBadRequest", &["Duplicate nameserver"], DEFS),
        ("route of the wrong family", "POST", at("subnets"), sub(json!({"host_routes": [{"destination": "2001:db8::/64", "nexthop": "10.1.0.7"}]})), 400, "InvalidInput", &["ip_version"], "ipam_backend_mixin"),
        ("slaac on IPv4", "POST", at("subnets"), sub(json!({"ipv6_ra_mode": "slaac"})), 400, "InvalidInput", &["ip_version 6"], "db_base_plugin_v2"),
        ("slaac on /80", "POST", at("subnets"), sub6(json!({"cidr": "2001:db8::/80", "ipv6_address_mode": "slaac"})), 400, "InvalidInput", &["/64"], "db_base_plugin_v2"),
        ("modes differ", "POST", at("subnets"), sub6(json!({"ipv6_ra_mode": "slaac", "ipv6_address_mode": "dhcpv6-stateful"})), 400, "InvalidInput", &["same value"], "db_base_plugin_v2"),
        ("modes without DHCP", "POST", at("subnets"), sub6(json!({"ipv6_ra_mode": "slaac", "enable_dhcp": false})), 400, "InvalidInput", &["enable_dhcp"], "db_base_plugin_v2"),
        ("mode that is none", "POST", at("subnets"), sub6(json!({"ipv6_ra_mode": "magic"})), 400, "HTTPBadRequest", &["ipv6_ra_mode", "slaac"], DEFS),
        // Ports.
        ("MAC is a word", "POST", at("ports"), port(json!({"mac_address": "x"})), 400, "HTTPBadRequest", &["mac_address"], DEFS),
        ("multicast MAC", "POST", at("ports"), port(json!({"mac_address": "01:00:5e:00:00:01"})), 400, "HTTPBadRequest", &["multicast"], DEFS),
        ("address elsewhere", "POST", at("ports"), port(json!({"fixed_ips": [{"ip_address": "10.9.0.1"}]})), 400, "InvalidIpForNetwork", &["10.9.0.1", "10.0.0.0/24"], EXC),
        ("address not of the subnet", "POST", at("ports"), port(json!({"fixed_ips": [{"subnet_id": s, "ip_address": "10.9.0.1"}]})), 400, "InvalidIpForSubnet", &["10.9.0.1"], EXC),
        ("broadcast address", "POST", at("ports"), port(json!({"fixed_ips": [{"ip_address": "10.0.0.255"}]})), 400, "InvalidIpForSubnet", &["10.0.0.255"], EXC),
        ("subnet elsewhere", "POST", at("ports"), port(json!({"fixed_ips": [{"subnet_id": no}]})), 400, "InvalidInput", &["fixed_ips"], EXC),
        ("neither subnet nor address", "POST", at("ports"), port(json!({"fixed_ips": [{}]})), 400, "InvalidInput", &["subnet_id"], EXC),
        ("address twice", "POST", at("ports"), port(json!({"fixed_ips": [{"ip_address": "10.0.0.9"}, {"ip_address": "10.0.0.9"}]})), 400, "HTTPBadRequest", &["Duplicate"], DEFS),
        ("too many addresses", "POST", at("ports"), port(json!({"fixed_ips": vec![json!({"subnet_id": s}); 6]})), 400, "InvalidInput", &["6", "5"], "conf max_fixed_ips_per_port"),
        ("taken address", "POST", at("ports"), port(json!({"fixed_ips": [{"ip_address": "10.0.0.2"}]})), 409, "IpAddressInUse", &["10.0.0.2"], EXC),
        ("unknown group", "POST", at("ports"), port(json!({"security_groups": [no]})), 404, "SecurityGroupNotFound", &[], SG),
        ("group is no uuid", "POST", at("ports"), port(json!({"security_groups": ["web"]})), 400, "HTTPBadRequest", &["security_groups", "UUID"], DEFS),
        ("pair without an address", "POST", at("ports"), port(json!({"allowed_address_pairs": [{"mac_address": "fa:16:3e:00:00:01"}]})), 400, "AllowedAddressPairsMissingIP", &["ip_address"], "extensions/allowedaddresspairs"),
        ("pair twice", "POST", at("ports"), port(json!({"allowed_address_pairs": [{"ip_address": "10.0.0.7"}, {"ip_address": "10.0.0.7"}]})), 400, "DuplicateAddressPairInRequest", &["10.0.0.7"], "extensions/allowedaddresspairs"),
        ("pairs without port security", "POST", at("ports"), port(json!({"port_security_enabled": false, "allowed_address_pairs": [{"ip_address": "10.0.0.7"}]})), 409, "AddressPairAndPortSecurityRequired", &["Port Security"], "extensions/allowedaddresspairs"),
        ("groups without port security", "POST", at("ports"), port(json!({"port_security_enabled": false, "security_groups": [g]})), 400, "PortSecurityAndIPRequiredForSecurityGroups", &["Port security"], "extensions/portsecurity"),
        ("vnic that is none", "POST", at("ports"), port(json!({"binding:vnic_type": "direct"})), 400, "HTTPBadRequest", &["binding:vnic_type", "normal"], REF),
        ("host by a member", "POST", at("ports"), port(json!({"binding:host_id": "h"})), 403, "PolicyNotAuthorized", &["binding:host_id"], "conf/policies/port.py"),
        ("dns_name with spaces", "POST", at("ports"), port(json!({"dns_name": "a b"})), 400, "HTTPBadRequest", &["dns_name"], "extensions/dns"),
        ("port on the external network", "POST", at("ports"), json!({"port": {"network_id": public}}), 403, "PolicyNotAuthorized", &["external"], "conf/policies/port.py"),
        // Routers and floating IPs.
        ("gateway that is not there", "POST", at("routers"), json!({"router": {"external_gateway_info": {"network_id": no}}}), 404, "NetworkNotFound", &[], EXC),
        ("gateway on a tenant network", "POST", at("routers"), json!({"router": {"external_gateway_info": {"network_id": n}}}), 400, "BadRequest", &["not an external network"], "db/l3_db.py"),
        ("gateway without a network", "POST", at("routers"), json!({"router": {"external_gateway_info": {"enable_snat": true}}}), 403, "PolicyNotAuthorized", &["enable_snat"], "conf/policies/router.py"),
        ("interface of nothing", "PUT", at(&format!("routers/{r}/add_router_interface")), json!({}), 400, "BadRequest", &["subnet_id or port_id"], "db/l3_db.py"),
        ("interface of both", "PUT", at(&format!("routers/{r}/add_router_interface")), json!({"subnet_id": s, "port_id": p}), 400, "BadRequest", &["both"], "db/l3_db.py"),
        ("interface on no subnet", "PUT", at(&format!("routers/{r}/add_router_interface")), json!({"subnet_id": no}), 404, "SubnetNotFound", &[], EXC),
        ("interface that is none", "PUT", at(&format!("routers/{r}/remove_router_interface")), json!({"port_id": p}), 404, "RouterInterfaceNotFound", &[], L3),
        ("route into nowhere", "PUT", at(&format!("routers/{r}")), json!({"router": {"routes": [{"destination": "10.7.0.0/24", "nexthop": "10.6.0.1"}]}}), 400, "InvalidRoutes", &["10.6.0.1", "not connected"], "extensions/extraroute"),
        ("floating IP on a tenant network", "POST", at("floatingips"), json!({"floatingip": {"floating_network_id": n}}), 400, "BadRequest", &["not a valid external network"], "db/l3_db.py"),
        ("floating IP on no network", "POST", at("floatingips"), json!({"floatingip": {"floating_network_id": no}}), 404, "NetworkNotFound", &[], EXC),
        ("floating IP out of reach", "POST", at("floatingips"), json!({"floatingip": {"floating_network_id": public, "port_id": p}}), 404, "ExternalGatewayForFloatingIPNotFound", &["not reachable"], L3),
        ("floating IP to no port", "POST", at("floatingips"), json!({"floatingip": {"floating_network_id": public, "port_id": no}}), 404, "PortNotFound", &[], EXC),
        ("fixed address without a port", "POST", at("floatingips"), json!({"floatingip": {"floating_network_id": public, "fixed_ip_address": "10.0.0.9"}}), 400, "BadRequest", &["fixed_ip_address", "port_id"], "db/l3_db.py"),
        // Security groups.
        ("group called default", "POST", at("security-groups"), json!({"security_group": {"name": "Default"}}), 409, "SecurityGroupDefaultAlreadyExists", &["Default"], SG),
        ("rule without a direction", "POST", at("security-group-rules"), json!({"security_group_rule": {"security_group_id": g}}), 400, "HTTPBadRequest", &["direction"], SG),
        ("direction sideways", "POST", at("security-group-rules"), rule(json!({"direction": "sideways"})), 400, "HTTPBadRequest", &["direction", "ingress"], SG),
        ("ethertype of yore", "POST", at("security-group-rules"), rule(json!({"ethertype": "IPX"})), 400, "SecurityGroupRuleInvalidEtherType", &["ipx"], SG),
        ("protocol of dreams", "POST", at("security-group-rules"), rule(json!({"protocol": "dream"})), 400, "SecurityGroupRuleInvalidProtocol", &["dream", "tcp"], SG),
        ("protocol 300", "POST", at("security-group-rules"), rule(json!({"protocol": "300"})), 400, "SecurityGroupRuleInvalidProtocol", &["300", "255"], SG),
        ("ports without a protocol", "POST", at("security-group-rules"), rule(json!({"port_range_min": 1, "port_range_max": 2})), 400, "SecurityGroupProtocolRequiredWithPorts", &["protocol"], SG),
        ("ports backwards", "POST", at("security-group-rules"), rule(json!({"protocol": "tcp", "port_range_min": 9, "port_range_max": 2})), 400, "SecurityGroupInvalidPortRange", &["9", "2"], SG),
        ("half a range", "POST", at("security-group-rules"), rule(json!({"protocol": "tcp", "port_range_min": 9})), 400, "SecurityGroupInvalidPortRange", &["port_range_max"], SG),
        ("port 70000", "POST", at("security-group-rules"), rule(json!({"protocol": "tcp", "port_range_min": 1, "port_range_max": 70000})), 400, "SecurityGroupInvalidPortValue", &["70000", "65535"], SG),
        ("ports of a protocol without", "POST", at("security-group-rules"), rule(json!({"protocol": "ah", "port_range_min": 1, "port_range_max": 2})), 400, "SecurityGroupInvalidProtocolForPort", &["ah", "tcp"], SG),
        ("ICMP code without a type", "POST", at("security-group-rules"), rule(json!({"protocol": "icmp", "port_range_max": 2})), 400, "SecurityGroupMissingIcmpType", &["type"], SG),
        ("ICMP type 256", "POST", at("security-group-rules"), rule(json!({"protocol": "icmp", "port_range_min": 256})), 400, "SecurityGroupInvalidIcmpValue", &["256", "255"], SG),
        ("ICMPv6 on IPv4", "POST", at("security-group-rules"), rule(json!({"protocol": "ipv6-icmp"})), 400, "SecurityGroupEthertypeConflictWithProtocol", &["IPv4"], SG),
        ("prefix of the wrong family", "POST", at("security-group-rules"), rule(json!({"remote_ip_prefix": "2001:db8::/64"})), 400, "SecurityGroupRuleParameterConflict", &["IPv4", "2001:db8::/64"], SG),
        ("prefix is a word", "POST", at("security-group-rules"), rule(json!({"remote_ip_prefix": "all"})), 400, "InvalidCIDR", &["all"], EXC),
        ("two remotes", "POST", at("security-group-rules"), rule(json!({"remote_ip_prefix": "10.0.0.0/8", "remote_group_id": g})), 400, "SecurityGroupMultipleRemoteEntites", &["remote_group_id"], SG),
        ("remote that is not there", "POST", at("security-group-rules"), rule(json!({"remote_group_id": no})), 404, "SecurityGroupNotFound", &[], SG),
        ("group that is not there", "POST", at("security-group-rules"), rule(json!({"security_group_id": no})), 404, "SecurityGroupNotFound", &[], SG),
        // The rest.
        ("quota that is none", "PUT", at("quotas/red"), json!({"quota": {"moon": 1}}), 403, "AdminRequired", &["admin"], "extensions/quotasv2"),
        ("path that is none", "GET", at("moons"), Value::Null, 404, "HTTPNotFound", &[], REF),
        ("method that is none", "PATCH", at("networks"), json!({}), 405, "HTTPMethodNotAllowed", &["PATCH"], REF),
    ];
    let count = cases.len();
    for (name, method, path, body, status, kind, words, doc) in cases {
        let before = c.rows().await;
        let (got, value) = c.call(method, &path, ALICE, body).await;
        let error = &value["NeutronError"];
        assert_eq!((got, &error["type"]), (status, &json!(kind)), "{name} ({doc}): {value}");
        let message = error["message"].as_str().unwrap_or_else(|| panic!("{name}: {value}"));
        for w in words {
            assert!(message.contains(w), "{name} ({doc}): \"{message}\" does not say {w}");
        }
        assert!(error["detail"].is_string(), "{name}");
        assert_eq!(c.rows().await, before, "{name}: something was written");
    }
    println!("{count} cases");
    for (name, body) in [
        ("malformed JSON", "{\"network\": "),
        ("not JSON", "hello"),
        ("empty", ""),
    ] {
        let (status, v, _) = c.raw("POST", "/v2.0/networks", ALICE, body, &[]).await;
        assert_eq!(
            (status, &v["NeutronError"]["type"]),
            (400, &json!("HTTPBadRequest")),
            "{name}: {v}"
        );
    }
    let huge = format!("{{\"network\": {{\"name\": \"{}\"}}}}", "x".repeat(2 << 20));
    let (status, ..) = c.raw("POST", "/v2.0/networks", ALICE, &huge, &[]).await;
    assert_eq!(status, 413);
    // Without a token, and with one that is none: the same whether it exists or not.
    let (a, _, x) = c.raw("GET", &format!("/v2.0/networks/{n}"), "forged", "", &[]).await;
    let (b, _, y) = c.raw("GET", &format!("/v2.0/networks/{no}"), "forged", "", &[]).await;
    assert_eq!((a, b, &x), (401, 401, &y));
    c.audit().await;
}

/// Another project sees nothing, and cannot tell a hidden id from one that is not there.
pub async fn other_projects(c: &Cloud) {
    let n = c.network(ALICE, "n").await;
    let s = c.subnet(ALICE, &n, "10.0.0.0/24").await;
    let p = text(&c.port(ALICE, &n).await["id"]);
    let r = text(&c.ok("POST", "/v2.0/routers", ALICE, json!({"router": {}})).await["router"]["id"]);
    let g = text(
        &c.ok(
            "POST",
            "/v2.0/security-groups",
            ALICE,
            json!({"security_group": {"name": "g"}}),
        )
        .await["security_group"]["id"],
    );
    let rule = text(
        &c.get(&format!("/v2.0/security-group-rules?security_group_id={g}"), ALICE)
            .await["security_group_rules"][0]["id"],
    );
    let f = c
        .ok(
            "POST",
            "/v2.0/floatingips",
            ALICE,
            json!({"floatingip": {"floating_network_id": c.public().await}}),
        )
        .await;
    let f = text(&f["floatingip"]["id"]);
    let no = haneul_core::id::uuid();
    for (many, one, id) in [
        ("networks", "network", &n),
        ("subnets", "subnet", &s),
        ("ports", "port", &p),
        ("routers", "router", &r),
        ("security-groups", "security_group", &g),
        ("security-group-rules", "security_group_rule", &rule),
        ("floatingips", "floatingip", &f),
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            if method == "PUT" && one == "security_group_rule" {
                continue;
            }
            let body = if method == "PUT" {
                json!({ one: {"description": "x"} }).to_string()
            } else {
                String::new()
            };
            let (a, _, x) = c.raw(method, &format!("/v2.0/{many}/{id}"), BOB, &body, &[]).await;
            let (b, _, y) = c.raw(method, &format!("/v2.0/{many}/{no}"), BOB, &body, &[]).await;
            assert_eq!((a, b), (404, 404), "{method} {many}: {x}");
            assert_eq!(x.replace(id.as_str(), ""), y.replace(&no, ""), "{method} {many}");
        }
        let list = c.get(&format!("/v2.0/{many}?id={id}"), BOB).await;
        let key = many.replace('-', "_");
        assert_eq!(list[&key], json!([]), "{many}");
        // A reader of the same project sees, and may not change.
        c.get(&format!("/v2.0/{many}/{id}"), EVE).await;
        c.refused(
            "DELETE",
            &format!("/v2.0/{many}/{id}"),
            EVE,
            Value::Null,
            403,
            "PolicyNotAuthorized",
        )
        .await;
        assert_eq!(
            c.get(&format!("/v2.0/{many}?id={id}"), ADMIN).await[&key]
                .as_array()
                .unwrap()
                .len(),
            1
        );
    }
    // Another's things cannot be used either.
    c.refused(
        "POST",
        "/v2.0/ports",
        BOB,
        json!({"port": {"network_id": n}}),
        404,
        "NetworkNotFound",
    )
    .await;
    c.refused(
        "POST",
        "/v2.0/subnets",
        BOB,
        json!({"subnet": {"network_id": n, "cidr": "10.9.0.0/24", "ip_version": 4}}),
        404,
        "NetworkNotFound",
    )
    .await;
    let mine = text(&c.ok("POST", "/v2.0/routers", BOB, json!({"router": {}})).await["router"]["id"]);
    let add = format!("/v2.0/routers/{mine}/add_router_interface");
    c.refused("PUT", &add, BOB, json!({"subnet_id": s}), 404, "SubnetNotFound")
        .await;
    c.refused("PUT", &add, BOB, json!({"port_id": p}), 404, "PortNotFound")
        .await;
    c.audit().await;
}
