//! The facade that compute calls inside its transactions.

use crate::cloud::{ADMIN, ALICE, BOB, Cloud, text};
use haneul_auth::Ctx;
use haneul_core::{Error, Kind, Result, id};
use haneul_network::{NicRequest, ServerPort};
use serde_json::{Value, json};

fn net(id: &str) -> NicRequest {
    NicRequest {
        network_id: Some(id.into()),
        ..NicRequest::default()
    }
}

async fn create(
    c: &Cloud,
    token: &str,
    server: &str,
    nics: Vec<NicRequest>,
    groups: Vec<String>,
) -> Result<Vec<ServerPort>> {
    let (app, ctx, server, host) = (c.app.clone(), c.ctx(token), server.to_owned(), c.host.to_string());
    c.db.write(&ctx.actor(), async move |tx| {
        let project = ctx.project_id().to_owned();
        app.create_server_ports(
            tx,
            &ctx,
            &server,
            "Web Server 1",
            &project,
            &host,
            "nova",
            &nics,
            &groups,
        )
        .await
    })
    .await
}

async fn resolve(c: &Cloud, token: &str, nics: Option<Vec<NicRequest>>, auto: bool) -> Result<Vec<NicRequest>> {
    let (app, ctx): (_, Ctx) = (c.app.clone(), c.ctx(token));
    c.db.write(&ctx.actor(), async move |tx| {
        app.resolve_nics(tx, &ctx, nics.as_deref(), auto).await
    })
    .await
}

async fn gone(c: &Cloud, server: &str) {
    let (app, server) = (c.app.clone(), server.to_owned());
    c.db.write(&c.ctx(ADMIN).actor(), async move |tx| {
        app.server_gone(tx, &server).await
    })
    .await
    .unwrap();
}

fn says<T: std::fmt::Debug>(r: Result<T>, kind: Kind, words: &str) -> Error {
    let e = r.unwrap_err();
    assert_eq!(e.kind(), kind, "{e}");
    assert!(e.public().contains(words), "{e}");
    e
}

pub async fn servers_ports(c: &Cloud) {
    let a = c.network(ALICE, "a").await;
    let s = c.subnet(ALICE, &a, "10.11.0.0/24").await;
    let b = c.network(ALICE, "b").await;
    c.subnet(ALICE, &b, "10.12.0.0/24").await;
    let own = c.port(ALICE, &b).await;
    let own_id = text(&own["id"]);
    let server = id::uuid();
    let nics = vec![
        NicRequest {
            fixed_ip: Some("10.11.0.50".parse().unwrap()),
            tag: Some("front".into()),
            ..net(&a)
        },
        NicRequest {
            port_id: Some(own_id.clone()),
            ..NicRequest::default()
        },
        net(&a),
    ];
    let ports = create(c, ALICE, &server, nics, vec![]).await.unwrap();
    assert_eq!(ports.len(), 3);
    assert_eq!(ports[0].fixed_ips, vec![(s, "10.11.0.50".parse().unwrap())]);
    assert_eq!(
        (ports[0].tag.as_deref(), ports[0].created_by_compute),
        (Some("front"), true)
    );
    assert_eq!(
        (
            ports[1].port_id.as_str(),
            ports[1].created_by_compute,
            ports[1].network_name.as_str()
        ),
        (own_id.as_str(), false, "b")
    );
    assert_eq!(ports[0].security_groups, ["default"]);
    assert_eq!(ports[0].mtu, 1500);
    let shown = c.get(&format!("/v2.0/ports/{}", ports[0].port_id), ADMIN).await["port"].clone();
    assert_eq!(shown["device_owner"], "compute:nova");
    assert_eq!(shown["binding:host_id"], json!(c.host.to_string()));
    assert_eq!(shown["dns_name"], "web-server-1");
    let mut tx = c.db.read().await.unwrap();
    let again = c
        .app
        .server_ports(&mut tx, &[server.clone(), id::uuid()])
        .await
        .unwrap();
    drop(tx);
    assert_eq!(again.get(&server), Some(&ports));
    // Nobody puts a port of their own onto another's server or router by writing its id into it.
    let theirs = c.network(BOB, "theirs").await;
    c.subnet(BOB, &theirs, "10.66.0.0/24").await;
    let body = json!({"port": {"network_id": theirs, "device_id": server, "device_owner": "compute:nova"}});
    let planted = text(&c.ok("POST", "/v2.0/ports", BOB, body).await["port"]["id"]);
    let mut tx = c.db.read().await.unwrap();
    let again = c
        .app
        .server_ports(&mut tx, std::slice::from_ref(&server))
        .await
        .unwrap();
    drop(tx);
    assert_eq!(again.get(&server).map(Vec::len), Some(3));
    let body = json!({"port": {"network_id": theirs, "device_id": server, "device_owner": "network:router_interface"}});
    c.refused("POST", "/v2.0/ports", BOB, body, 409, "UnsupportedPortDeviceOwner")
        .await;
    let body = json!({"port": {"device_owner": "network:dhcp"}});
    c.refused(
        "PUT",
        &format!("/v2.0/ports/{planted}"),
        BOB,
        body,
        409,
        "UnsupportedPortDeviceOwner",
    )
    .await;
    let body = json!({"port": {"device_id": id::uuid()}});
    let e = c
        .refused(
            "PUT",
            &format!("/v2.0/ports/{own_id}"),
            ALICE,
            body,
            409,
            "UnsupportedPortDeviceOwner",
        )
        .await;
    assert!(e.contains(&server), "{e}");
    // A port that is used cannot be used again; unknown things have Nova's words.
    let reuse = vec![NicRequest {
        port_id: Some(own_id.clone()),
        ..NicRequest::default()
    }];
    says(
        resolve(c, ALICE, Some(reuse), false).await,
        Kind::Conflict,
        "is still in use",
    );
    let before = c.rows().await;
    says(
        create(c, ALICE, &id::uuid(), vec![net(&a)], vec!["nope".into()]).await,
        Kind::BadRequest,
        "Security group nope not found for project red.",
    );
    assert_eq!(c.rows().await, before, "a refusal writes nothing");
    gone(c, &server).await;
    c.refused(
        "GET",
        &format!("/v2.0/ports/{}", ports[0].port_id),
        ALICE,
        Value::Null,
        404,
        "PortNotFound",
    )
    .await;
    let freed = c.get(&format!("/v2.0/ports/{own_id}"), ADMIN).await["port"].clone();
    assert_eq!(
        (
            freed["device_id"].clone(),
            freed["binding:host_id"].clone(),
            freed["device_owner"].clone()
        ),
        (json!(""), json!(""), json!(""))
    );
    assert_eq!(freed["fixed_ips"], own["fixed_ips"]);
    // Groups by name and id, and on a running server.
    let g = text(
        &c.ok(
            "POST",
            "/v2.0/security-groups",
            ALICE,
            json!({"security_group": {"name": "web"}}),
        )
        .await["security_group"]["id"],
    );
    let ports = create(
        c,
        ALICE,
        &server,
        vec![net(&a)],
        vec!["web".into(), g.clone(), "default".into()],
    )
    .await
    .unwrap();
    assert_eq!(ports[0].security_groups, ["web", "default"]);
    // Quota: nothing of it is written when it does not fit as a whole.
    c.ok("PUT", "/v2.0/quotas/red", ADMIN, json!({"quota": {"port": 6}}))
        .await;
    let before = c.rows().await;
    let e = says(
        create(c, ALICE, &id::uuid(), vec![net(&a), net(&a), net(&a)], vec![]).await,
        Kind::OverQuota,
        "of 6 port",
    );
    assert_eq!(e.details().unwrap()["asked"], 3);
    assert_eq!(c.rows().await, before);
    gone(c, &server).await;
    c.audit().await;
}

pub async fn choosing_networks(c: &Cloud) {
    // None: no device. One: that one. Several: ambiguous.
    assert_eq!(resolve(c, ALICE, None, false).await.unwrap(), vec![]);
    says(
        resolve(c, ALICE, None, true).await,
        Kind::BadRequest,
        "automatically allocate",
    );
    let a = c.network(ALICE, "a").await;
    c.subnet(ALICE, &a, "10.13.0.0/24").await;
    assert_eq!(resolve(c, ALICE, None, false).await.unwrap(), vec![net(&a)]);
    assert_eq!(resolve(c, ALICE, None, true).await.unwrap(), vec![net(&a)]);
    let b = c.network(ALICE, "b").await;
    assert_eq!(
        resolve(c, ALICE, None, false).await.unwrap(),
        vec![net(&a)],
        "a network without a subnet is no choice"
    );
    says(
        resolve(c, ALICE, Some(vec![net(&b)]), false).await,
        Kind::BadRequest,
        "requires a subnet",
    );
    c.subnet(ALICE, &b, "10.14.0.0/24").await;
    says(
        resolve(c, ALICE, None, false).await,
        Kind::Conflict,
        "Multiple possible networks found, use a Network ID to be more specific.",
    );
    assert_eq!(resolve(c, ALICE, Some(vec![]), false).await.unwrap(), vec![]);
    // Another's network, and one that is not there, in the same words.
    let nowhere = id::uuid();
    let x = says(
        resolve(c, BOB, Some(vec![net(&a)]), false).await,
        Kind::BadRequest,
        "could not be found",
    );
    let y = says(
        resolve(c, BOB, Some(vec![net(&nowhere)]), false).await,
        Kind::BadRequest,
        "could not be found",
    );
    assert_eq!(x.public().replace(&a, ""), y.public().replace(&nowhere, ""));
    says(
        resolve(c, BOB, Some(vec![net(&c.public().await)]), false).await,
        Kind::Forbidden,
        "external network",
    );
    let port = NicRequest {
        port_id: Some(nowhere),
        ..NicRequest::default()
    };
    says(
        resolve(c, BOB, Some(vec![port]), false).await,
        Kind::BadRequest,
        "Port id",
    );
    // Addresses.
    let at = |ip: &str| {
        vec![NicRequest {
            fixed_ip: Some(ip.parse().unwrap()),
            ..net(&a)
        }]
    };
    says(
        resolve(c, ALICE, Some(at("10.99.0.1")), false).await,
        Kind::BadRequest,
        "not a valid ip address for network",
    );
    says(
        resolve(c, ALICE, Some(at("10.13.0.2")), false).await,
        Kind::BadRequest,
        "already in use",
    );
}
