//! What hosts are told, and what they tell.

use crate::cloud::{ADMIN, ALICE, Cloud, text};
use haneul_agent_api::{Kind, Object, Port, Router, SecurityGroup};
use haneul_core::id;
use haneul_network::NicRequest;
use serde_json::{Value, json};

/// A server with a port on this network.
async fn boot(c: &Cloud, network: &str) -> (String, String) {
    let (server, mut ports) = boot_on(c, &[network]).await;
    (server, ports.remove(0))
}

/// A server with a port on each of these networks.
async fn boot_on(c: &Cloud, networks: &[&str]) -> (String, Vec<String>) {
    boot_at(c, c.host, networks).await
}

/// The same on any host.
pub async fn boot_at(c: &Cloud, host: uuid::Uuid, networks: &[&str]) -> (String, Vec<String>) {
    let (app, ctx, server, host) = (c.app.clone(), c.ctx(ALICE), id::uuid(), host.to_string());
    let nics: Vec<NicRequest> = networks
        .iter()
        .map(|n| NicRequest {
            network_id: Some((*n).to_owned()),
            ..NicRequest::default()
        })
        .collect();
    let s = server.clone();
    let ports =
        c.db.write(&ctx.actor(), async move |tx| {
            app.create_server_ports(tx, &ctx, &s, "g", "red", &host, "nova", &nics, &[])
                .await
        })
        .await
        .unwrap();
    (server, ports.into_iter().map(|p| p.port_id).collect())
}

pub async fn gone(c: &Cloud, server: &str) {
    let (app, server) = (c.app.clone(), server.to_owned());
    c.db.write(&c.ctx(ADMIN).actor(), async move |tx| {
        app.server_gone(tx, &server).await
    })
    .await
    .unwrap();
}

async fn port(c: &Cloud, id: &str) -> Option<Port> {
    match c.desired(Kind::Port, id).await?.1 {
        Object::Port(p) => Some(p),
        _ => None,
    }
}

async fn router(c: &Cloud, id: &str) -> Router {
    match c.desired(Kind::Router, id).await.unwrap().1 {
        Object::Router(r) => r,
        other => panic!("{other:?}"),
    }
}

async fn group(c: &Cloud, id: &str) -> Option<SecurityGroup> {
    match c.desired(Kind::SecurityGroup, id).await?.1 {
        Object::SecurityGroup(g) => Some(g),
        _ => None,
    }
}

async fn default_group(c: &Cloud) -> String {
    text(&c.get("/v2.0/security-groups?name=default", ALICE).await["security_groups"][0]["id"])
}

pub async fn desired_state(c: &Cloud) {
    let n = c.network(ALICE, "n").await;
    let s = c.subnet(ALICE, &n, "10.20.0.0/24").await;
    assert!(c.desired(Kind::Network, &n).await.is_none(), "no host needs it yet");
    c.port(ALICE, &n).await;
    assert!(
        c.desired(Kind::Network, &n).await.is_none(),
        "an unbound port is nobody's"
    );
    let (server, p) = boot(c, &n).await;
    let object = port(c, &p).await.unwrap();
    assert_eq!(object.guest_id.unwrap().to_string(), server);
    assert_eq!(object.fixed_ips.len(), 1);
    assert!(object.port_security && object.dns_name == "g");
    let (generation, object) = c.desired(Kind::Network, &n).await.unwrap();
    let Object::Network(net) = object else { panic!() };
    let service = net.subnets[0].service.clone().unwrap();
    assert_eq!(
        (service.ip.to_string(), net.mtu, net.external),
        ("10.20.0.2".to_owned(), 1500, false)
    );
    // The first two ports of a network on a host come at once: neither takes it for the other's.
    let twice = c.network(ALICE, "twice").await;
    c.subnet(ALICE, &twice, "10.21.0.0/24").await;
    let (twin, ports) = boot_on(c, &[&twice, &n, &twice]).await;
    assert_eq!(ports.len(), 3);
    assert!(
        c.desired(Kind::Network, &twice).await.is_some(),
        "the host knows the network"
    );
    gone(c, &twin).await;
    assert!(
        c.desired(Kind::Network, &twice).await.is_none(),
        "nothing on the host needs it"
    );
    // A second server changes neither the network nor the group's rules.
    let (second, _) = boot(c, &n).await;
    assert_eq!(c.desired(Kind::Network, &n).await.unwrap().0, generation);
    // What changes is told.
    c.ok(
        "PUT",
        &format!("/v2.0/subnets/{s}"),
        ALICE,
        json!({"subnet": {"dns_nameservers": ["9.9.9.9"]}}),
    )
    .await;
    assert!(c.desired(Kind::Network, &n).await.unwrap().0 > generation);
    c.ok(
        "PUT",
        &format!("/v2.0/ports/{p}"),
        ALICE,
        json!({"port": {"admin_state_up": false, "allowed_address_pairs": [{"ip_address": "10.20.0.99"}]}}),
    )
    .await;
    let object = port(c, &p).await.unwrap();
    assert!(!object.admin_state_up);
    assert_eq!(object.allowed_address_pairs[0].ip.to_string(), "10.20.0.99/32");
    // Router, gateway, floating IP.
    let public = c.public().await;
    let body = json!({"router": {"external_gateway_info": {"network_id": public}}});
    let r = text(&c.ok("POST", "/v2.0/routers", ALICE, body).await["router"]["id"]);
    let Object::Network(ext) = c.desired(Kind::Network, &public).await.unwrap().1 else {
        panic!()
    };
    assert!(ext.external);
    c.ok(
        "PUT",
        &format!("/v2.0/routers/{r}/add_router_interface"),
        ALICE,
        json!({"subnet_id": s}),
    )
    .await;
    let o = router(c, &r).await;
    assert_eq!(o.interfaces[0].addresses[0].to_string(), "10.20.0.1/24");
    let gateway = o.gateway.unwrap();
    assert_eq!(
        (gateway.next_hops[0].to_string(), gateway.enable_snat),
        ("172.24.4.1".to_owned(), true)
    );
    let body = json!({"floatingip": {"floating_network_id": public, "port_id": p}});
    let f = c.ok("POST", "/v2.0/floatingips", ALICE, body).await["floatingip"].clone();
    let o = router(c, &r).await;
    assert_eq!(o.floating_ips[0].floating.to_string(), text(&f["floating_ip_address"]));
    // A guest's end takes its floating IP off the router, and its port off the host.
    gone(c, &server).await;
    assert!(port(c, &p).await.is_none());
    assert!(router(c, &r).await.floating_ips.is_empty());
    assert!(
        c.desired(Kind::Network, &n).await.is_some(),
        "the second server needs it"
    );
    let default = default_group(c).await;
    assert!(group(c, &default).await.is_some());
    gone(c, &second).await;
    assert!(
        group(c, &default).await.is_none(),
        "nobody uses the group here any more"
    );
    assert!(c.desired(Kind::Network, &n).await.is_some(), "the router needs it");
    c.ok(
        "PUT",
        &format!("/v2.0/routers/{r}/remove_router_interface"),
        ALICE,
        json!({"subnet_id": s}),
    )
    .await;
    assert!(c.desired(Kind::Network, &n).await.is_none());
    c.ok(
        "PUT",
        &format!("/v2.0/routers/{r}"),
        ALICE,
        json!({"router": {"external_gateway_info": null}}),
    )
    .await;
    assert!(c.desired(Kind::Network, &public).await.is_none());
    c.ok("DELETE", &format!("/v2.0/routers/{r}"), ALICE, Value::Null).await;
    assert!(c.desired(Kind::Router, &r).await.is_none());
    c.audit().await;
}

pub async fn members(c: &Cloud) {
    let n = c.network(ALICE, "n").await;
    c.subnet(ALICE, &n, "10.21.0.0/24").await;
    let (a, pa) = boot(c, &n).await;
    let default = default_group(c).await;
    c.app.settle().await.unwrap();
    assert_eq!(group(c, &default).await.unwrap().members.len(), 1);
    let (b, _) = boot(c, &n).await;
    c.app.settle().await.unwrap();
    let g = group(c, &default).await.unwrap();
    assert_eq!((g.members.len(), g.rules.len()), (2, 4));
    // A rule that names another group brings that group with its members.
    let other = text(
        &c.ok(
            "POST",
            "/v2.0/security-groups",
            ALICE,
            json!({"security_group": {"name": "lb"}}),
        )
        .await["security_group"]["id"],
    );
    let lb = c
        .ok(
            "POST",
            "/v2.0/ports",
            ALICE,
            json!({"port": {"network_id": n, "security_groups": [other]}}),
        )
        .await["port"]
        .clone();
    assert!(group(c, &other).await.is_none());
    let rule = json!({"security_group_rule": {"security_group_id": default, "direction": "ingress", "protocol": "tcp",
        "port_range_min": 80, "port_range_max": 80, "remote_group_id": other}});
    let rule = text(&c.ok("POST", "/v2.0/security-group-rules", ALICE, rule).await["security_group_rule"]["id"]);
    let o = group(c, &other).await.unwrap();
    assert_eq!(o.members[0].to_string(), text(&lb["fixed_ips"][0]["ip_address"]));
    assert_eq!(group(c, &default).await.unwrap().rules.len(), 5);
    // A port leaves the group.
    c.ok(
        "PUT",
        &format!("/v2.0/ports/{pa}"),
        ALICE,
        json!({"port": {"security_groups": [other]}}),
    )
    .await;
    c.app.settle().await.unwrap();
    assert_eq!(group(c, &default).await.unwrap().members.len(), 1);
    assert_eq!(group(c, &other).await.unwrap().members.len(), 2);
    c.ok(
        "PUT",
        &format!("/v2.0/ports/{pa}"),
        ALICE,
        json!({"port": {"security_groups": [default]}}),
    )
    .await;
    // The rule goes, and with it the reason for the other group.
    c.ok(
        "DELETE",
        &format!("/v2.0/security-group-rules/{rule}"),
        ALICE,
        Value::Null,
    )
    .await;
    assert!(group(c, &other).await.is_none());
    gone(c, &a).await;
    gone(c, &b).await;
    c.app.settle().await.unwrap();
    assert!(group(c, &default).await.is_none());
    c.audit().await;
}

pub async fn observed(c: &Cloud) {
    let n = c.network(ALICE, "n").await;
    let s = c.subnet(ALICE, &n, "10.22.0.0/24").await;
    let (_, p) = boot(c, &n).await;
    let path = format!("/v2.0/ports/{p}");
    assert_eq!(c.get(&path, ALICE).await["port"]["status"], "DOWN");
    c.report(Kind::Port, &p, true).await;
    let up = c.get(&path, ALICE).await["port"].clone();
    assert_eq!(up["status"], "ACTIVE");
    c.report(Kind::Port, &p, true).await;
    assert_eq!(c.get(&path, ALICE).await["port"], up, "the same again writes nothing");
    let public = c.public().await;
    let body = json!({"router": {"external_gateway_info": {"network_id": public}}});
    let r = text(&c.ok("POST", "/v2.0/routers", ALICE, body).await["router"]["id"]);
    c.ok(
        "PUT",
        &format!("/v2.0/routers/{r}/add_router_interface"),
        ALICE,
        json!({"subnet_id": s}),
    )
    .await;
    let body = json!({"floatingip": {"floating_network_id": public, "port_id": p}});
    let f = text(&c.ok("POST", "/v2.0/floatingips", ALICE, body).await["floatingip"]["id"]);
    c.report(Kind::Router, &r, true).await;
    assert_eq!(
        c.get(&format!("/v2.0/floatingips/{f}"), ALICE).await["floatingip"]["status"],
        "ACTIVE"
    );
    let ports = c.get(&format!("/v2.0/ports?device_id={r}"), ADMIN).await["ports"].clone();
    assert!(ports.as_array().unwrap().iter().all(|p| p["status"] == "ACTIVE"));
    c.report(Kind::Port, &p, false).await;
    assert_eq!(c.get(&path, ALICE).await["port"]["status"], "DOWN");
    // Reports of what is unknown are heard and forgotten.
    c.report(Kind::Port, &id::uuid(), true).await;
    c.audit().await;
}
