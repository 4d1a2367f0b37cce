//! Life cycles.

use crate::cloud::{ADMIN, ALICE, BOB, Cloud, EVE, text};
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub async fn networks_and_subnets(c: &Cloud) {
    let n = c
        .ok(
            "POST",
            "/v2.0/networks",
            ALICE,
            json!({"network": {"name": "n1", "description": "d", "tags": ["a", "b"]}}),
        )
        .await["network"]
        .clone();
    let id = text(&n["id"]);
    for (k, want) in [
        ("status", json!("ACTIVE")),
        ("admin_state_up", json!(true)),
        ("shared", json!(false)),
        ("router:external", json!(false)),
        ("mtu", json!(1500)),
        ("port_security_enabled", json!(true)),
        ("tenant_id", json!("red")),
        ("project_id", json!("red")),
        ("subnets", json!([])),
        ("tags", json!(["a", "b"])),
        ("revision_number", json!(1)),
    ] {
        assert_eq!(n[k], want, "{k}");
    }
    assert!(
        n.get("provider:network_type").is_none(),
        "only administrators see provider attributes"
    );
    assert!(c.get(&format!("/v2.0/networks/{id}"), ADMIN).await["network"]["provider:segmentation_id"].is_i64());
    let s = c
        .ok("POST", "/v2.0/subnets", ALICE, json!({"subnet": {"network_id": id, "cidr": "10.1.0.0/24", "ip_version": 4, "dns_nameservers": ["9.9.9.9"], "host_routes": [{"destination": "10.9.0.0/16", "nexthop": "10.1.0.9"}]}}))
        .await["subnet"]
        .clone();
    assert_eq!(s["gateway_ip"], "10.1.0.1");
    assert_eq!(
        s["allocation_pools"],
        json!([{"start": "10.1.0.2", "end": "10.1.0.254"}])
    );
    assert_eq!(s["enable_dhcp"], true);
    let sid = text(&s["id"]);
    assert_eq!(
        c.get(&format!("/v2.0/networks/{id}"), ALICE).await["network"]["subnets"],
        json!([sid])
    );
    // The service port is there, and its owner sees it.
    let dhcp = c
        .get(&format!("/v2.0/ports?network_id={id}&device_owner=network:dhcp"), ALICE)
        .await["ports"]
        .clone();
    assert_eq!(dhcp.as_array().unwrap().len(), 1);
    assert_eq!(
        dhcp[0]["fixed_ips"],
        json!([{"subnet_id": sid, "ip_address": "10.1.0.2"}])
    );
    let (status, _) = c
        .call(
            "DELETE",
            &format!("/v2.0/ports/{}", text(&dhcp[0]["id"])),
            ALICE,
            Value::Null,
        )
        .await;
    assert_eq!(status, 409);
    // Without DHCP it goes; with DHCP it comes back.
    let path = format!("/v2.0/subnets/{sid}");
    c.ok("PUT", &path, ALICE, json!({"subnet": {"enable_dhcp": false}}))
        .await;
    assert_eq!(
        c.get(&format!("/v2.0/ports?network_id={id}"), ALICE).await["ports"],
        json!([])
    );
    c.ok(
        "PUT",
        &path,
        ALICE,
        json!({"subnet": {"enable_dhcp": true, "name": "s", "gateway_ip": null}}),
    )
    .await;
    let s = c.get(&path, ALICE).await["subnet"].clone();
    assert_eq!((s["gateway_ip"].clone(), s["name"].clone()), (Value::Null, json!("s")));
    // Revisions guard.
    let n = c
        .ok(
            "PUT",
            &format!("/v2.0/networks/{id}"),
            ALICE,
            json!({"network": {"name": "n2"}}),
        )
        .await["network"]
        .clone();
    assert_eq!(
        (n["name"].clone(), n["revision_number"].clone()),
        (json!("n2"), json!(2))
    );
    let (status, v, _) = c
        .raw(
            "PUT",
            &format!("/v2.0/networks/{id}"),
            ALICE,
            r#"{"network":{"name":"n3"}}"#,
            &[("if-match", "revision_number=1")],
        )
        .await;
    assert_eq!(
        (status, v["NeutronError"]["type"].clone()),
        (412, json!("RevisionNumberConstraintFailed"))
    );
    // Bulk is all or nothing.
    let before = c.rows().await;
    let (status, _) = c
        .call(
            "POST",
            "/v2.0/networks",
            ALICE,
            json!({"networks": [{"name": "x"}, {"name": "y", "mtu": 20}]}),
        )
        .await;
    assert_eq!(status, 400);
    assert_eq!(c.rows().await, before);
    let v = c
        .ok(
            "POST",
            "/v2.0/networks",
            ALICE,
            json!({"networks": [{"name": "x"}, {"name": "y"}]}),
        )
        .await;
    assert_eq!(v["networks"].as_array().unwrap().len(), 2);
    // Sharing.
    c.ok(
        "PUT",
        &format!("/v2.0/networks/{id}"),
        ADMIN,
        json!({"network": {"shared": true}}),
    )
    .await;
    assert_eq!(c.get(&path, BOB).await["subnet"]["id"], json!(sid));
    let p = c.port(BOB, &id).await;
    let e = c
        .refused(
            "PUT",
            &format!("/v2.0/networks/{id}"),
            ADMIN,
            json!({"network": {"shared": false}}),
            409,
            "InvalidSharedSetting",
        )
        .await;
    assert!(e.contains("1 ports of others"), "{e}");
    // In use, then not.
    let e = c
        .refused(
            "DELETE",
            &format!("/v2.0/networks/{id}"),
            ALICE,
            Value::Null,
            409,
            "NetworkInUse",
        )
        .await;
    assert!(e.contains(&text(&p["id"])), "{e}");
    c.refused("DELETE", &path, ALICE, Value::Null, 409, "SubnetInUse").await;
    c.ok("DELETE", &format!("/v2.0/ports/{}", text(&p["id"])), BOB, Value::Null)
        .await;
    c.ok("DELETE", &format!("/v2.0/networks/{id}"), ALICE, Value::Null)
        .await;
    c.refused("GET", &path, ALICE, Value::Null, 404, "SubnetNotFound").await;
    c.audit().await;
}

pub async fn ports_and_addresses(c: &Cloud) {
    let n = c.network(ALICE, "n").await;
    let s = c.subnet(ALICE, &n, "10.2.0.0/24").await;
    let p = c.port(ALICE, &n).await;
    let id = text(&p["id"]);
    let mac = text(&p["mac_address"]);
    assert!(mac.starts_with("fa:16:3e:"));
    assert_eq!(p["fixed_ips"], json!([{"subnet_id": s, "ip_address": "10.2.0.3"}]));
    assert_eq!(p["status"], "DOWN");
    assert_eq!(p["security_groups"].as_array().unwrap().len(), 1, "the default group");
    assert!(p.get("binding:host_id").is_none());
    assert_eq!(p["binding:vnic_type"], "normal");
    let path = format!("/v2.0/ports/{id}");
    assert_eq!(c.get(&path, ADMIN).await["port"]["binding:vif_type"], "unbound");
    // A wanted address and MAC; both taken afterwards.
    let body = json!({"port": {"network_id": n, "fixed_ips": [{"ip_address": "10.2.0.77"}], "mac_address": "fa:16:3e:11:22:33"}});
    let q = c.ok("POST", "/v2.0/ports", ALICE, body.clone()).await["port"].clone();
    assert_eq!(q["fixed_ips"][0]["subnet_id"], json!(s));
    c.refused("POST", "/v2.0/ports", ALICE, body, 409, "MacAddressInUse")
        .await;
    let e = c
        .refused(
            "POST",
            "/v2.0/ports",
            ALICE,
            json!({"port": {"network_id": n, "fixed_ips": [{"ip_address": "10.2.0.77"}]}}),
            409,
            "IpAddressInUse",
        )
        .await;
    assert!(e.contains("10.2.0.77"), "{e}");
    // Update: addresses move, pairs default to the own MAC, options come and go.
    let body = json!({"port": {"fixed_ips": [{"ip_address": "10.2.0.3"}, {"subnet_id": s}], "allowed_address_pairs": [{"ip_address": "10.9.0.0/16"}],
        "extra_dhcp_opts": [{"opt_name": "mtu", "opt_value": "1400"}], "name": "web", "dns_name": "web"}});
    let v = c.ok("PUT", &path, ALICE, body).await["port"].clone();
    assert_eq!(v["fixed_ips"].as_array().unwrap().len(), 2);
    assert_eq!(v["fixed_ips"][0]["ip_address"], "10.2.0.3");
    assert_eq!(
        v["allowed_address_pairs"],
        json!([{"ip_address": "10.9.0.0/16", "mac_address": mac}])
    );
    assert_eq!(
        v["extra_dhcp_opts"],
        json!([{"opt_name": "mtu", "opt_value": "1400", "ip_version": 4}])
    );
    assert_eq!(v["dns_assignment"][0]["fqdn"], "web.haneul.internal.");
    let v = c
        .ok("PUT", &path, ALICE, json!({"port": {"extra_dhcp_opts": [{"opt_name": "mtu", "opt_value": null}], "fixed_ips": [{"subnet_id": s}]}}))
        .await["port"]
        .clone();
    assert_eq!(
        (v["extra_dhcp_opts"].clone(), v["fixed_ips"].as_array().unwrap().len()),
        (json!([]), 1)
    );
    // Port security off: groups and pairs must go first.
    c.refused(
        "PUT",
        &path,
        ALICE,
        json!({"port": {"port_security_enabled": false}}),
        409,
        "PortSecurityPortHasSecurityGroup",
    )
    .await;
    let v = c
        .ok(
            "PUT",
            &path,
            ALICE,
            json!({"port": {"port_security_enabled": false, "security_groups": [], "allowed_address_pairs": []}}),
        )
        .await["port"]
        .clone();
    assert_eq!(v["port_security_enabled"], false);
    for p in [id, text(&q["id"])] {
        c.ok("DELETE", &format!("/v2.0/ports/{p}"), ALICE, Value::Null).await;
    }
    c.ok("DELETE", &format!("/v2.0/subnets/{s}"), ALICE, Value::Null).await;
    c.ok("DELETE", &format!("/v2.0/networks/{n}"), ALICE, Value::Null).await;
    c.audit().await;
}

pub async fn routers_and_floating_ips(c: &Cloud) {
    let public = c.public().await;
    let n = c.network(ALICE, "n").await;
    let s = c.subnet(ALICE, &n, "10.3.0.0/24").await;
    let port = text(&c.port(ALICE, &n).await["id"]);
    let body = json!({"floatingip": {"floating_network_id": public, "port_id": port}});
    let before = c.rows().await;
    c.refused(
        "POST",
        "/v2.0/floatingips",
        ALICE,
        body.clone(),
        404,
        "ExternalGatewayForFloatingIPNotFound",
    )
    .await;
    assert_eq!(c.rows().await, before);
    let r = c
        .ok(
            "POST",
            "/v2.0/routers",
            ALICE,
            json!({"router": {"name": "r", "external_gateway_info": {"network_id": public}}}),
        )
        .await["router"]
        .clone();
    let rid = text(&r["id"]);
    assert_eq!(r["external_gateway_info"]["enable_snat"], true);
    assert_eq!(
        r["external_gateway_info"]["external_fixed_ips"][0]["ip_address"],
        "172.24.4.2"
    );
    let i = c
        .ok(
            "PUT",
            &format!("/v2.0/routers/{rid}/add_router_interface"),
            ALICE,
            json!({"subnet_id": s}),
        )
        .await;
    assert_eq!((i["id"].clone(), i["subnet_id"].clone()), (json!(rid), json!(s)));
    let ip = text(&i["port_id"]);
    let shown = c.get(&format!("/v2.0/ports/{ip}"), ALICE).await["port"].clone();
    assert_eq!(
        (
            shown["fixed_ips"][0]["ip_address"].clone(),
            shown["device_owner"].clone()
        ),
        (json!("10.3.0.1"), json!("network:router_interface"))
    );
    c.refused(
        "DELETE",
        &format!("/v2.0/ports/{ip}"),
        ALICE,
        Value::Null,
        409,
        "ServicePortInUse",
    )
    .await;
    // The gateway port is not the tenant's to see.
    let gateways = "/v2.0/ports?device_owner=network:router_gateway";
    assert_eq!(c.get(gateways, ALICE).await["ports"], json!([]));
    assert_eq!(c.get(gateways, ADMIN).await["ports"].as_array().unwrap().len(), 1);
    let f = c.ok("POST", "/v2.0/floatingips", ALICE, body.clone()).await["floatingip"].clone();
    let fid = text(&f["id"]);
    assert_eq!(
        (f["router_id"].clone(), f["status"].clone()),
        (json!(rid), json!("DOWN"))
    );
    assert_eq!(f["fixed_ip_address"], "10.3.0.3");
    assert_eq!(f["port_details"]["network_id"], json!(n));
    assert!(f.get("name").is_none());
    c.refused(
        "POST",
        "/v2.0/floatingips",
        ALICE,
        body,
        409,
        "FloatingIPPortAlreadyAssociated",
    )
    .await;
    // What is in use stays.
    let gone = json!({"subnet_id": s});
    let remove = format!("/v2.0/routers/{rid}/remove_router_interface");
    c.refused(
        "PUT",
        &remove,
        ALICE,
        gone.clone(),
        409,
        "RouterInterfaceInUseByFloatingIP",
    )
    .await;
    c.refused(
        "PUT",
        &format!("/v2.0/routers/{rid}"),
        ALICE,
        json!({"router": {"external_gateway_info": null}}),
        409,
        "RouterExternalGatewayInUseByFloatingIp",
    )
    .await;
    c.refused(
        "DELETE",
        &format!("/v2.0/routers/{rid}"),
        ALICE,
        Value::Null,
        409,
        "RouterInUse",
    )
    .await;
    c.refused(
        "DELETE",
        &format!("/v2.0/subnets/{s}"),
        ALICE,
        Value::Null,
        409,
        "SubnetInUse",
    )
    .await;
    // Disassociate, associate, and the port takes the floating IP off when it goes.
    let path = format!("/v2.0/floatingips/{fid}");
    let f = c
        .ok("PUT", &path, ALICE, json!({"floatingip": {"port_id": null}}))
        .await["floatingip"]
        .clone();
    assert_eq!(
        (f["port_id"].clone(), f["router_id"].clone(), f["port_details"].clone()),
        (Value::Null, Value::Null, Value::Null)
    );
    c.ok("PUT", &path, ALICE, json!({"floatingip": {"port_id": port}}))
        .await;
    c.refused(
        "PUT",
        &format!("/v2.0/ports/{port}"),
        ALICE,
        json!({"port": {"fixed_ips": []}}),
        409,
        "FipAssociated",
    )
    .await;
    c.ok("DELETE", &format!("/v2.0/ports/{port}"), ALICE, Value::Null).await;
    let f = c.get(&path, ALICE).await["floatingip"].clone();
    assert_eq!(
        (f["port_id"].clone(), f["status"].clone()),
        (Value::Null, json!("DOWN"))
    );
    // A wanted address is for managers and administrators.
    let want = json!({"floatingip": {"floating_network_id": public, "floating_ip_address": "172.24.4.200"}});
    c.refused(
        "POST",
        "/v2.0/floatingips",
        ALICE,
        want.clone(),
        403,
        "PolicyNotAuthorized",
    )
    .await;
    let f2 = c.ok("POST", "/v2.0/floatingips", ADMIN, want.clone()).await["floatingip"].clone();
    assert_eq!(f2["floating_ip_address"], "172.24.4.200");
    c.refused("POST", "/v2.0/floatingips", ADMIN, want, 409, "IpAddressInUse")
        .await;
    c.ok(
        "DELETE",
        &format!("/v2.0/floatingips/{}", text(&f2["id"])),
        ADMIN,
        Value::Null,
    )
    .await;
    // Routes.
    let rpath = format!("/v2.0/routers/{rid}");
    let route = json!({"destination": "192.168.9.0/24", "nexthop": "10.3.0.50"});
    let v = c.ok("PUT", &rpath, ALICE, json!({"router": {"routes": [route]}})).await;
    assert_eq!(v["router"]["routes"], json!([route]));
    c.refused("PUT", &remove, ALICE, gone.clone(), 409, "RouterInterfaceInUseByRoute")
        .await;
    let far = json!({"destination": "192.168.10.0/24", "nexthop": "10.77.0.1"});
    let e = c
        .refused(
            "PUT",
            &format!("{rpath}/add_extraroutes"),
            ALICE,
            json!({"router": {"routes": [far]}}),
            400,
            "InvalidRoutes",
        )
        .await;
    assert!(e.contains("10.3.0.0/24"), "{e}");
    // What no host can have; the router's host would refuse it, after it was promised.
    for nobodys in ["10.3.0.255", "10.3.0.0"] {
        let nowhere = json!({"router": {"routes": [{"destination": "192.168.10.0/24", "nexthop": nobodys}]}});
        for path in [format!("{rpath}/add_extraroutes"), rpath.clone()] {
            let e = c
                .refused("PUT", &path, ALICE, nowhere.clone(), 400, "InvalidRoutes")
                .await;
            for word in [nobodys, "10.3.0.0/24", "10.3.0.255"] {
                assert!(e.contains(word), "{word}: {e}");
            }
        }
    }
    let v = c
        .ok(
            "PUT",
            &format!("{rpath}/remove_extraroutes"),
            ALICE,
            json!({"router": {"routes": [route]}}),
        )
        .await;
    assert_eq!(v["router"]["routes"], json!([]));
    // Overlap on one router.
    let other = c.network(ALICE, "other").await;
    let s2 = c.subnet(ALICE, &other, "10.3.0.0/25").await;
    let e = c
        .refused(
            "PUT",
            &format!("{rpath}/add_router_interface"),
            ALICE,
            json!({"subnet_id": s2}),
            400,
            "BadRequest",
        )
        .await;
    assert!(e.contains("10.3.0.0/25") && e.contains("10.3.0.0/24"), "{e}");
    // An interface by port.
    let s3 = c.subnet(ALICE, &other, "10.4.0.0/24").await;
    let body = json!({"port": {"network_id": other, "fixed_ips": [{"subnet_id": s3}]}});
    let p3 = text(&c.ok("POST", "/v2.0/ports", ALICE, body).await["port"]["id"]);
    c.ok(
        "PUT",
        &format!("{rpath}/add_router_interface"),
        ALICE,
        json!({"port_id": p3}),
    )
    .await;
    c.refused(
        "PUT",
        &format!("{rpath}/add_router_interface"),
        ALICE,
        json!({"port_id": p3}),
        409,
        "PortInUse",
    )
    .await;
    c.ok("PUT", &remove, ALICE, json!({"port_id": p3})).await;
    c.refused(
        "GET",
        &format!("/v2.0/ports/{p3}"),
        ALICE,
        Value::Null,
        404,
        "PortNotFound",
    )
    .await;
    c.ok("PUT", &remove, ALICE, gone.clone()).await;
    c.refused("PUT", &remove, ALICE, gone, 404, "RouterInterfaceNotFoundForSubnet")
        .await;
    c.ok("DELETE", &path, ALICE, Value::Null).await;
    c.ok("DELETE", &rpath, ALICE, Value::Null).await;
    assert_eq!(
        c.get(&format!("/v2.0/ports?network_id={public}"), ADMIN).await["ports"],
        json!([])
    );
    c.audit().await;
}

pub async fn security_groups(c: &Cloud) {
    let all = c.get("/v2.0/security-groups", ALICE).await["security_groups"].clone();
    assert_eq!(
        (all.as_array().unwrap().len(), all[0]["name"].clone()),
        (1, json!("default"))
    );
    let rules = all[0]["security_group_rules"].as_array().unwrap();
    assert_eq!(rules.len(), 4);
    let default = text(&all[0]["id"]);
    let ingress = rules
        .iter()
        .filter(|r| r["direction"] == "ingress" && r["remote_group_id"] == json!(default))
        .count();
    assert_eq!(ingress, 2);
    c.refused(
        "DELETE",
        &format!("/v2.0/security-groups/{default}"),
        ALICE,
        Value::Null,
        409,
        "SecurityGroupCannotRemoveDefault",
    )
    .await;
    let g = c
        .ok(
            "POST",
            "/v2.0/security-groups",
            ALICE,
            json!({"security_group": {"name": "web"}}),
        )
        .await["security_group"]
        .clone();
    let gid = text(&g["id"]);
    assert_eq!(g["security_group_rules"].as_array().unwrap().len(), 2);
    let rule = |more: Value| {
        let mut r = json!({"security_group_id": gid, "direction": "ingress"});
        r.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"security_group_rule": r})
    };
    let tcp = rule(
        json!({"protocol": "tcp", "port_range_min": 22, "port_range_max": 22, "remote_ip_prefix": "192.0.2.7/24"}),
    );
    let r = c.ok("POST", "/v2.0/security-group-rules", ALICE, tcp.clone()).await["security_group_rule"].clone();
    assert_eq!(
        (&r["remote_ip_prefix"], &r["normalized_cidr"]),
        (&json!("192.0.2.7/24"), &json!("192.0.2.0/24")),
        "as it was written, and the network"
    );
    // The same by number is the same.
    let again =
        rule(json!({"protocol": 6, "port_range_min": "22", "port_range_max": 22, "remote_ip_prefix": "192.0.2.0/24"}));
    let e = c
        .refused(
            "POST",
            "/v2.0/security-group-rules",
            ALICE,
            again,
            409,
            "SecurityGroupRuleExists",
        )
        .await;
    assert!(e.contains(&text(&r["id"])), "{e}");
    for good in [
        json!({"protocol": "icmp", "port_range_min": 8, "port_range_max": 0}),
        json!({"protocol": "icmp", "port_range_min": 0}),
        json!({"protocol": "ipv6-icmp", "ethertype": "IPv6"}),
        json!({"protocol": 112}),
        json!({"remote_group_id": default, "ethertype": "ipv6"}),
        json!({"protocol": "udp"}),
        json!({"protocol": "any", "remote_ip_prefix": "198.51.100.4"}),
    ] {
        c.ok("POST", "/v2.0/security-group-rules", ALICE, rule(good)).await;
    }
    // In use by a port; the default group may not take its name.
    let n = c.network(ALICE, "n").await;
    c.subnet(ALICE, &n, "10.5.0.0/24").await;
    let p = c
        .ok(
            "POST",
            "/v2.0/ports",
            ALICE,
            json!({"port": {"network_id": n, "security_groups": [gid]}}),
        )
        .await["port"]
        .clone();
    assert_eq!(p["security_groups"], json!([gid]));
    let found = c.get(&format!("/v2.0/ports?security_groups={gid}"), ALICE).await["ports"].clone();
    assert_eq!(found[0]["id"], p["id"]);
    let e = c
        .refused(
            "DELETE",
            &format!("/v2.0/security-groups/{gid}"),
            ALICE,
            Value::Null,
            409,
            "SecurityGroupInUse",
        )
        .await;
    assert!(e.contains(&text(&p["id"])), "{e}");
    c.ok("DELETE", &format!("/v2.0/ports/{}", text(&p["id"])), ALICE, Value::Null)
        .await;
    c.ok(
        "DELETE",
        &format!("/v2.0/security-group-rules/{}", text(&r["id"])),
        ALICE,
        Value::Null,
    )
    .await;
    c.ok("DELETE", &format!("/v2.0/security-groups/{gid}"), ALICE, Value::Null)
        .await;
    let left = c
        .get(&format!("/v2.0/security-group-rules?security_group_id={gid}"), ADMIN)
        .await;
    assert_eq!(left["security_group_rules"], json!([]));
    c.audit().await;
}

pub async fn quotas_and_usage(c: &Cloud) {
    let q = c.get("/v2.0/quotas/red", ALICE).await["quota"].clone();
    assert_eq!(
        (
            q["network"].clone(),
            q["port"].clone(),
            q["security_group_rule"].clone()
        ),
        (json!(100), json!(500), json!(100))
    );
    c.refused(
        "PUT",
        "/v2.0/quotas/red",
        ALICE,
        json!({"quota": {"network": 1}}),
        403,
        "AdminRequired",
    )
    .await;
    c.refused("GET", "/v2.0/quotas/blue", ALICE, Value::Null, 403, "AdminRequired")
        .await;
    c.ok(
        "PUT",
        "/v2.0/quotas/red",
        ADMIN,
        json!({"quota": {"network": 1, "port": 1}}),
    )
    .await;
    let n = c.network(ALICE, "one").await;
    let e = c
        .refused(
            "POST",
            "/v2.0/networks",
            ALICE,
            json!({"network": {"name": "two"}}),
            409,
            "OverQuota",
        )
        .await;
    assert!(e.contains("1 of 1"), "{e}");
    let d = c.get("/v2.0/quotas/red/details.json", ALICE).await["quota"].clone();
    assert_eq!(d["network"], json!({"limit": 1, "used": 1, "reserved": 0}));
    c.ok("DELETE", &format!("/v2.0/networks/{n}"), ALICE, Value::Null).await;
    let d = c.get("/v2.0/quotas/red/details", ALICE).await["quota"].clone();
    assert_eq!(d["network"]["used"], 0);
    assert_eq!(c.get("/v2.0/quotas", ADMIN).await["quotas"][0]["project_id"], "red");
    c.ok("DELETE", "/v2.0/quotas/red", ADMIN, Value::Null).await;
    assert_eq!(c.get("/v2.0/quotas/red", ALICE).await["quota"]["network"], 100);
    assert_eq!(c.get("/v2.0/quotas/red/default", ALICE).await["quota"]["router"], 10);
    // Usage of addresses, with numbers.
    let n = c.network(ALICE, "n").await;
    c.subnet(ALICE, &n, "10.6.0.0/29").await;
    let u = c.get(&format!("/v2.0/network-ip-availabilities/{n}"), ADMIN).await["network_ip_availability"].clone();
    assert_eq!((u["total_ips"].clone(), u["used_ips"].clone()), (json!(5), json!(1)));
    c.refused(
        "GET",
        "/v2.0/network-ip-availabilities",
        ALICE,
        Value::Null,
        403,
        "PolicyNotAuthorized",
    )
    .await;
    c.refused(
        "POST",
        "/v2.0/networks",
        EVE,
        json!({"network": {}}),
        403,
        "PolicyNotAuthorized",
    )
    .await;
    c.audit().await;
}

pub async fn ipv6(c: &Cloud) {
    let n = c.network(ALICE, "n").await;
    let early = c.port(ALICE, &n).await;
    assert_eq!(early["fixed_ips"], json!([]));
    let slaac = json!({"subnet": {"network_id": n, "cidr": "2001:db8:1::/64", "ip_version": 6, "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}});
    let s = c.ok("POST", "/v2.0/subnets", ALICE, slaac).await["subnet"].clone();
    assert_eq!(s["gateway_ip"], "2001:db8:1::1");
    // A port from before makes itself an address.
    let early = c.get(&format!("/v2.0/ports/{}", text(&early["id"])), ALICE).await["port"].clone();
    let mac = text(&early["mac_address"]);
    let tail: Vec<&str> = mac.split(':').collect();
    let want = format!(":f816:3eff:fe{}:{}{}", tail[3], tail[4], tail[5]);
    let got = text(&early["fixed_ips"][0]["ip_address"]);
    let long = |a: &str| a.parse::<std::net::Ipv6Addr>().unwrap();
    assert_eq!(long(&got), long(&format!("2001:db8:1:0{want}")));
    // Dual stack: one of each.
    c.subnet(ALICE, &n, "10.7.0.0/24").await;
    let p = c.port(ALICE, &n).await;
    assert_eq!(p["fixed_ips"].as_array().unwrap().len(), 2);
    // Stateful: from the pool.
    let m = c.network(ALICE, "m").await;
    let stateful = json!({"subnet": {"network_id": m, "cidr": "2001:db8:2::/64", "ip_version": 6, "ipv6_ra_mode": "dhcpv6-stateful", "ipv6_address_mode": "dhcpv6-stateful"}});
    c.ok("POST", "/v2.0/subnets", ALICE, stateful).await;
    assert_eq!(c.port(ALICE, &m).await["fixed_ips"][0]["ip_address"], "2001:db8:2::3");
    // A router's v6 interfaces on one network share a port.
    let r = text(&c.ok("POST", "/v2.0/routers", ALICE, json!({"router": {}})).await["router"]["id"]);
    let add = format!("/v2.0/routers/{r}/add_router_interface");
    let a = c.ok("PUT", &add, ALICE, json!({"subnet_id": s["id"]})).await;
    let s2 = c.subnet(ALICE, &n, "2001:db8:3::/64").await;
    let b = c.ok("PUT", &add, ALICE, json!({"subnet_id": s2})).await;
    assert_eq!(a["port_id"], b["port_id"]);
    let remove = format!("/v2.0/routers/{r}/remove_router_interface");
    c.ok("PUT", &remove, ALICE, json!({"subnet_id": s2})).await;
    let left = c.get(&format!("/v2.0/ports/{}", text(&a["port_id"])), ALICE).await["port"]["fixed_ips"].clone();
    assert_eq!(left, json!([{"subnet_id": s["id"], "ip_address": "2001:db8:1::1"}]));
    c.ok("PUT", &remove, ALICE, json!({"subnet_id": s["id"]})).await;
    // The SLAAC subnet goes although guests have addresses: they made them themselves.
    c.ok(
        "DELETE",
        &format!("/v2.0/subnets/{}", text(&s["id"])),
        ALICE,
        Value::Null,
    )
    .await;
    c.audit().await;
}

/// Many at once: no address twice, every address given, then a refusal with numbers.
pub async fn concurrent_addresses(c: &Cloud) {
    let n = c.network(ALICE, "n").await;
    c.subnet(ALICE, &n, "10.8.0.0/26").await;
    let body = json!({"port": {"network_id": n}});
    let calls = (0..60).map(|_| c.call("POST", "/v2.0/ports", ALICE, body.clone()));
    let answers = futures_util::future::join_all(calls).await;
    let ips: BTreeSet<String> = answers
        .iter()
        .map(|(status, v)| {
            assert_eq!(*status, 201, "{v}");
            text(&v["port"]["fixed_ips"][0]["ip_address"])
        })
        .collect();
    assert_eq!(ips.len(), 60, "61 in the pool, one is the service port's");
    let e = c
        .refused(
            "POST",
            "/v2.0/ports",
            ALICE,
            body.clone(),
            409,
            "IpAddressGenerationFailure",
        )
        .await;
    assert!(e.contains("61 addresses") && e.contains("61 are used"), "{e}");
    // One freed is found again.
    let ip = ips.iter().nth(30).unwrap();
    let p = c.get(&format!("/v2.0/ports?fixed_ips=ip_address={ip}"), ALICE).await["ports"][0]["id"].clone();
    c.ok("DELETE", &format!("/v2.0/ports/{}", text(&p)), ALICE, Value::Null)
        .await;
    assert_eq!(c.port(ALICE, &n).await["fixed_ips"][0]["ip_address"], json!(ip));
    c.audit().await;
}
