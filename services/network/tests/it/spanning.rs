//! Networks and routers on several hosts: what each of them is told.

use crate::cloud::{ADMIN, ALICE, Cloud, text};
use crate::hosts::{boot_at, gone};
use haneul_agent_api::{Kind, Neighbour, Object, Router};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use uuid::Uuid;

const ONE: &str = "10.99.0.1";
const TWO: &str = "10.99.0.2";

/// The cloud's host with an address, and a second one.
async fn two(c: &Cloud) -> (Uuid, Uuid) {
    let other = Uuid::new_v4();
    c.join(c.host, "one", Some(ONE)).await;
    c.join(other, "two", Some(TWO)).await;
    (c.host, other)
}

async fn neighbour(c: &Cloud, host: Uuid, id: &str) -> Option<Neighbour> {
    match c.desired_on(host, Kind::Neighbour, id).await?.1 {
        Object::Neighbour(n) => Some(n),
        other => panic!("{other:?}"),
    }
}

async fn router(c: &Cloud, host: Uuid, id: &str) -> Option<Router> {
    match c.desired_on(host, Kind::Router, id).await?.1 {
        Object::Router(r) => Some(r),
        other => panic!("{other:?}"),
    }
}

/// What compute does with a server's ports while it moves.
#[derive(Clone, Copy)]
enum Step {
    Arrives,
    Stays,
    Moved,
}

async fn step(c: &Cloud, server: &str, what: Step, host: Uuid) {
    let (app, server, host) = (c.app.clone(), server.to_owned(), host.to_string());
    c.db.write(&c.ctx(ADMIN).actor(), async move |tx| match what {
        Step::Arrives => app.server_arrives(tx, &server, &host).await,
        Step::Stays => app.server_stays(tx, &server).await,
        Step::Moved => app.server_moved(tx, &server, &host).await,
    })
    .await
    .unwrap();
}

/// A router with a gateway and an interface on the subnet.
async fn routed(c: &Cloud, subnet: &str) -> (String, String) {
    let public = c.public().await;
    let body = json!({"router": {"external_gateway_info": {"network_id": public}}});
    let r = text(&c.ok("POST", "/v2.0/routers", ALICE, body).await["router"]["id"]);
    let path = format!("/v2.0/routers/{r}/add_router_interface");
    let added = c.ok("PUT", &path, ALICE, json!({"subnet_id": subnet})).await;
    (r, text(&added["port_id"]))
}

pub async fn neighbours(c: &Cloud) {
    let old = c.network(ALICE, "old").await;
    assert_eq!(
        c.get(&format!("/v2.0/networks/{old}"), ALICE).await["network"]["mtu"],
        1500
    );
    let (one, two) = two(c).await;
    let n = c.network(ALICE, "n").await;
    let mtu = c.get(&format!("/v2.0/networks/{n}"), ALICE).await["network"]["mtu"].clone();
    assert_eq!(mtu, 1450, "what fits between the hosts");
    let s = c.subnet(ALICE, &n, "10.40.0.0/24").await;
    let (sa, pa) = boot_at(c, one, &[&n]).await;
    let pa = &pa[0];
    for host in [one, two] {
        assert!(
            neighbour(c, host, pa).await.is_none(),
            "a network on one host has no neighbours"
        );
    }
    let (sb, pb) = boot_at(c, two, &[&n]).await;
    let pb = &pb[0];
    let seen = neighbour(c, two, pa).await.expect("the new host hears of who is there");
    let shown = c.get(&format!("/v2.0/ports/{pa}"), ADMIN).await["port"].clone();
    assert_eq!(shown["binding:host_id"], one.to_string());
    assert_eq!(
        (
            json!(seen.mac),
            json!(seen.addresses[0].to_string()),
            seen.host.to_string(),
            seen.dns_name.as_str()
        ),
        (
            shown["mac_address"].clone(),
            shown["fixed_ips"][0]["ip_address"].clone(),
            ONE.to_owned(),
            "g"
        )
    );
    assert_eq!(neighbour(c, one, pb).await.unwrap().host.to_string(), TWO);
    assert!(neighbour(c, one, pa).await.is_none() && neighbour(c, two, pb).await.is_none());
    // The service's port is on both, with one address; nobody's neighbour.
    for host in [one, two] {
        let Object::Network(o) = c.desired_on(host, Kind::Network, &n).await.unwrap().1 else {
            panic!()
        };
        let service = o.subnets[0].service.clone().unwrap();
        assert_eq!(service.ip.to_string(), "10.40.0.2");
        assert!(neighbour(c, host, &service.port_id.to_string()).await.is_none());
    }
    // Who is told too little or too much is found, and told anew with the port's next change.
    c.audit().await;
    let (host, port) = (two.to_string(), pa.to_owned());
    let fleet = c.fleet.clone();
    let stray = Object::Neighbour(Neighbour {
        id: pb.parse().unwrap(),
        ..neighbour(c, two, pa).await.unwrap()
    });
    c.db.write(&c.ctx(ADMIN).actor(), async move |tx| {
        fleet.remove(tx, &host, Kind::Neighbour, &port).await?;
        fleet.put(tx, &host, &stray).await
    })
    .await
    .unwrap();
    let found = until_found(c, &format!("host 'two' is not told of the way to port {pa}")).await;
    assert!(found.contains(&format!("no use for, to port {pb}")), "{found}");
    let told_anew = async |name: &str| {
        for p in [pa, pb] {
            let renamed = json!({"port": {"name": name}});
            c.ok("PUT", &format!("/v2.0/ports/{p}"), ALICE, renamed).await;
        }
        c.audit().await;
    };
    told_anew("again").await;
    let (host, fleet) = (two.to_string(), c.fleet.clone());
    let astray = Object::Neighbour(Neighbour {
        host: "192.0.2.99".parse().unwrap(),
        ..neighbour(c, two, pa).await.unwrap()
    });
    c.db.write(&c.ctx(ADMIN).actor(), async move |tx| {
        fleet.put(tx, &host, &astray).await
    })
    .await
    .unwrap();
    until_found(
        c,
        &format!("host 'two' is told of another way than there is to port {pa}"),
    )
    .await;
    told_anew("once more").await;
    // A router's port has the addresses of all of its IPv6 subnets.
    let first = c.subnet(ALICE, &n, "2001:db8:40::/64").await;
    let second = c.subnet(ALICE, &n, "2001:db8:41::/64").await;
    let (r, port) = routed(c, &first).await;
    let on = c.get(&format!("/v2.0/routers/{r}/l3-agents"), ADMIN).await;
    let other = if on["agents"][0]["host"] == "one" { two } else { one };
    let addresses = async || neighbour(c, other, &port).await.unwrap().addresses.len();
    assert_eq!(addresses().await, 1);
    for (what, left) in [("add", 2), ("remove", 1)] {
        let path = format!("/v2.0/routers/{r}/{what}_router_interface");
        c.ok("PUT", &path, ALICE, json!({"subnet_id": second})).await;
        assert_eq!(addresses().await, left, "{what}");
        c.audit().await;
    }
    let path = format!("/v2.0/routers/{r}/remove_router_interface");
    c.ok("PUT", &path, ALICE, json!({"subnet_id": first})).await;
    let all = [("routers", &r), ("subnets", &first), ("subnets", &second)];
    for (what, id) in all {
        let path = format!("/v2.0/{what}/{id}");
        assert_eq!(c.call("DELETE", &path, ALICE, json!(null)).await.0, 204, "{what}");
    }
    // What changes is told, and only that.
    let before = c.desired_on(two, Kind::Neighbour, pa).await.unwrap().0;
    let path = format!("/v2.0/ports/{pa}");
    c.ok("PUT", &path, ALICE, json!({"port": {"name": "x"}})).await;
    assert_eq!(c.desired_on(two, Kind::Neighbour, pa).await.unwrap().0, before);
    let ips = json!({"port": {"fixed_ips": [{"subnet_id": s, "ip_address": "10.40.0.77"}]}});
    c.ok("PUT", &path, ALICE, ips).await;
    assert_eq!(
        neighbour(c, two, pa).await.unwrap().addresses[0].to_string(),
        "10.40.0.77"
    );
    // A router's inner interface is a neighbour of all other hosts; its gateway is not.
    let (r, interface) = routed(c, &s).await;
    assert!(router(c, one, &r).await.is_some());
    let seen = neighbour(c, two, &interface).await.unwrap();
    assert_eq!(
        (seen.addresses[0].to_string(), seen.host.to_string()),
        ("10.40.0.1".into(), ONE.into())
    );
    assert!(neighbour(c, one, &interface).await.is_none());
    let gateway = router(c, one, &r).await.unwrap().gateway.unwrap();
    assert!(neighbour(c, two, &gateway.port_id.to_string()).await.is_none());
    // The next router goes to the host with fewer.
    let body = json!({"router": {"name": "second"}});
    let second = text(&c.ok("POST", "/v2.0/routers", ALICE, body).await["router"]["id"]);
    assert!(router(c, two, &second).await.is_some());
    // A host has another address.
    c.join(two, "two", Some("10.99.0.22")).await;
    assert_eq!(neighbour(c, one, pb).await.unwrap().host.to_string(), "10.99.0.22");
    c.join(two, "two", None).await;
    assert!(
        neighbour(c, one, pb).await.is_none(),
        "without an address it is no neighbour"
    );
    let found = until_found(c, "host 'two' has no underlay address").await;
    assert!(found.contains(&n), "{found}");
    c.join(two, "two", Some(TWO)).await;
    assert!(neighbour(c, one, pb).await.is_some());
    // The last port of a host takes all it knew of the network along.
    gone(c, &sb).await;
    assert!(neighbour(c, one, pb).await.is_none());
    assert!(neighbour(c, two, pa).await.is_none() && neighbour(c, two, &interface).await.is_none());
    assert!(c.desired_on(two, Kind::Network, &n).await.is_none());
    gone(c, &sa).await;
    let path = format!("/v2.0/routers/{r}/remove_router_interface");
    c.ok("PUT", &path, ALICE, json!({"subnet_id": s})).await;
    assert!(c.desired_on(one, Kind::Network, &n).await.is_none());
    c.audit().await;
}

pub async fn a_server_moves(c: &Cloud) {
    let (one, two) = two(c).await;
    let three = Uuid::new_v4();
    c.join(three, "three", Some("10.99.0.3")).await;
    let n = c.network(ALICE, "n").await;
    c.subnet(ALICE, &n, "10.41.0.0/24").await;
    let (_, beside) = boot_at(c, three, &[&n]).await;
    let (server, ports) = boot_at(c, one, &[&n]).await;
    let p = ports[0].as_str();
    let group = text(&c.get(&format!("/v2.0/ports/{p}"), ALICE).await["port"]["security_groups"][0]);
    c.report(Kind::Port, p, true).await;
    step(c, &server, Step::Arrives, two).await;
    // Ready on the target, where it is still heard of as elsewhere.
    for host in [one, two] {
        for (kind, id) in [(Kind::Port, p), (Kind::Network, &n), (Kind::SecurityGroup, &group)] {
            assert!(c.desired_on(host, kind, id).await.is_some(), "{kind:?}");
        }
    }
    for host in [two, three] {
        assert_eq!(neighbour(c, host, p).await.unwrap().host.to_string(), ONE);
    }
    assert!(
        neighbour(c, two, &beside[0]).await.is_some(),
        "the target knows the others"
    );
    // It stays: nothing is left on the target.
    step(c, &server, Step::Stays, two).await;
    for (kind, id) in [
        (Kind::Port, p),
        (Kind::Network, &n),
        (Kind::SecurityGroup, &group),
        (Kind::Neighbour, p),
    ] {
        assert!(c.desired_on(two, kind, id).await.is_none(), "{kind:?}");
    }
    assert!(neighbour(c, two, &beside[0]).await.is_none());
    assert!(c.desired_on(one, Kind::Port, p).await.is_some());
    // It goes.
    step(c, &server, Step::Arrives, two).await;
    step(c, &server, Step::Moved, two).await;
    for (kind, id) in [
        (Kind::Port, p),
        (Kind::Network, &n),
        (Kind::SecurityGroup, &group),
        (Kind::Neighbour, p),
    ] {
        assert!(c.desired_on(one, kind, id).await.is_none(), "{kind:?}");
    }
    assert!(c.desired_on(two, Kind::Port, p).await.is_some());
    assert!(neighbour(c, two, p).await.is_none());
    assert_eq!(neighbour(c, three, p).await.unwrap().host.to_string(), TWO);
    let shown = c.get(&format!("/v2.0/ports/{p}"), ADMIN).await["port"].clone();
    assert_eq!(
        (&shown["status"], &shown["binding:host_id"]),
        (&json!("ACTIVE"), &json!(two.to_string()))
    );
    gone(c, &server).await;
    for host in [one, two, three] {
        assert!(c.desired_on(host, Kind::Port, p).await.is_none() && neighbour(c, host, p).await.is_none());
    }
    c.audit().await;
}

/// Waits for what the service does by itself; how long it took.
async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !is().await {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}

pub async fn a_router_fails_over(c: &Cloud) {
    let (one, two) = two(c).await;
    let (first, second) = (c.watch(one).await, c.watch(two).await);
    let n = c.network(ALICE, "n").await;
    let s = c.subnet(ALICE, &n, "10.42.0.0/24").await;
    let (_, p) = boot_at(c, two, &[&n]).await;
    let (r, interface) = routed(c, &s).await;
    let body = json!({"floatingip": {"floating_network_id": c.public().await, "port_id": p[0]}});
    c.ok("POST", "/v2.0/floatingips", ALICE, body).await;
    assert!(router(c, one, &r).await.is_some());
    // A short silence moves nothing.
    drop(first);
    let down = |host: Uuid| async move {
        let mut tx = c.db.read().await.unwrap();
        !c.fleet.host(&mut tx, &host.to_string()).await.unwrap().unwrap().up
    };
    until("the end of the stream is heard", async || down(one).await).await;
    c.join(one, "one", Some(ONE)).await;
    let first = c.watch(one).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(router(c, one, &r).await.is_some(), "the host came back in time");
    // A long one does.
    drop(first);
    let took = until("the router moves", async || router(c, two, &r).await.is_some()).await;
    assert!(
        took >= Duration::from_millis(1900) && took < Duration::from_secs(5),
        "{took:?}"
    );
    assert!(router(c, one, &r).await.is_none(), "the silent host finds a tombstone");
    assert!(c.desired_on(one, Kind::Network, &n).await.is_none());
    let moved = router(c, two, &r).await.unwrap();
    assert_eq!(
        (
            moved.floating_ips.len(),
            moved.interfaces.len(),
            moved.gateway.is_some()
        ),
        (1, 1, true)
    );
    assert!(neighbour(c, two, &interface).await.is_none(), "it is here now");
    // With nobody to go to it stays, and why is said.
    drop(second);
    until("the end of the stream is heard", async || down(two).await).await;
    let found = until_found(c, "of 2 hosts none is up (one, two)").await;
    assert!(
        found.contains(&format!("router {r} is on host 'two', which is not up")),
        "{found}"
    );
    assert!(router(c, two, &r).await.is_some());
    // The first that is up gets it.
    c.join(one, "one", Some(ONE)).await;
    let _first = c.watch(one).await;
    until("the router moves", async || router(c, one, &r).await.is_some()).await;
    assert_eq!(neighbour(c, two, &interface).await.unwrap().host.to_string(), ONE);
    c.audit().await;
}

async fn until_found(c: &Cloud, what: &str) -> String {
    let mut all = String::new();
    until(what, async || {
        let mut tx = c.db.read().await.unwrap();
        let found = c.app.audit(&mut tx).await.unwrap();
        all = found.into_iter().map(|f| f.what).collect::<Vec<_>>().join("\n");
        all.contains(what)
    })
    .await;
    all
}

pub async fn agents(c: &Cloud) {
    let (one, two) = two(c).await;
    let n = c.network(ALICE, "n").await;
    let s = c.subnet(ALICE, &n, "10.43.0.0/24").await;
    boot_at(c, two, &[&n]).await;
    let (r, _) = routed(c, &s).await;
    let all = c.get("/v2.0/agents", ADMIN).await["agents"].clone();
    assert_eq!(all.as_array().unwrap().len(), 6, "three of each host");
    let of = |kind: &str, host: &str| {
        let found = all.as_array().unwrap().iter();
        let mut found = found.filter(|a| a["agent_type"] == kind && a["host"] == host);
        text(&found.next().unwrap()["id"])
    };
    assert_eq!(of("Linux bridge agent", "one"), one.to_string());
    let l3 = c.get(&format!("/v2.0/routers/{r}/l3-agents"), ADMIN).await["agents"].clone();
    assert_eq!(l3[0]["id"], of("L3 agent", "one"));
    let dhcp = c.get(&format!("/v2.0/networks/{n}/dhcp-agents"), ADMIN).await["agents"].clone();
    assert_eq!(dhcp.as_array().unwrap().len(), 2);
    let held = c
        .get(&format!("/v2.0/agents/{}/l3-routers", of("L3 agent", "one")), ADMIN)
        .await;
    assert_eq!(held["routers"][0]["id"], r);
    let held = c
        .get(
            &format!("/v2.0/agents/{}/dhcp-networks", of("DHCP agent", "two")),
            ADMIN,
        )
        .await;
    assert_eq!(held["networks"][0]["id"], n);
    let one = c.get(&format!("/v2.0/agents/{}", of("DHCP agent", "two")), ADMIN).await["agent"].clone();
    assert_eq!((&one["binary"], &one["alive"]), (&json!("haneul-agent"), &json!(true)));
    let (status, _) = c
        .call("GET", &format!("/v2.0/routers/{r}/l3-agents"), ALICE, Value::Null)
        .await;
    assert_eq!(status, 403);
}
