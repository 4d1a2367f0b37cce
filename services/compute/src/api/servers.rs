//! Servers: create, list, show, delete (Nova API reference, "Servers").

use super::input::{self, HINTS, SERVER_CREATE};
use super::view::{Links, Look, ServerList, ServerView};
use crate::Compute;
use crate::logic::create_server::CreateRequest;
use crate::logic::deps::NicRequest;
use crate::model::{Server, ServerGroup};
use crate::policy::acts;
use haneul_auth::fetch;
use haneul_core::{Error, Result, id};
use haneul_http::{Page, Reply, Req, Ver, fields};
use haneul_store::{Stored, Tx};
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// What lists and shows need besides the rows: ports in one query, hosts' names for administrators.
pub(crate) async fn look<'a>(
    app: &Compute,
    tx: &mut Tx,
    req: &'a Req,
    servers: &[Stored<Server>],
    single: bool,
) -> Result<Look<'a>> {
    let ids: Vec<String> = servers.iter().map(|s| s.id.clone()).collect();
    look_for(app, tx, req, &ids, single).await
}

pub(crate) async fn look_for<'a>(
    app: &Compute,
    tx: &mut Tx,
    req: &'a Req,
    ids: &[String],
    single: bool,
) -> Result<Look<'a>> {
    let mut look = Look::of(req.ctx()?, req.version, &req.base);
    look.single = single;
    look.ports = app.network.server_ports(tx, ids).await?;
    if look.extended || look.host_status {
        look.hosts = app.host_states(tx).await?;
    }
    Ok(look)
}

/// `{"server": ...}`
pub(crate) fn wrapped(view: ServerView<'_>) -> impl Serialize + '_ {
    #[derive(Serialize)]
    struct One<'a> {
        server: ServerView<'a>,
    }
    One { server: view }
}

/// `GET /servers`
pub(crate) async fn index(app: Arc<Compute>, req: Req) -> Result<Reply> {
    #[derive(Serialize)]
    struct Short<'a> {
        id: &'a str,
        name: &'a str,
        links: Links<'a>,
    }
    #[derive(Serialize)]
    struct List<'a> {
        servers: Vec<Short<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        servers_links: Option<Value>,
    }
    let page = Page::of(&req)?;
    let mut tx = app.db.read().await?;
    let found = app.list_server_names(&mut tx, &req, &page).await?;
    let next = found
        .rows
        .last()
        .filter(|_| found.more)
        .map(|(id, _)| Page::next_link(&req, "/v2.1/servers", id));
    let servers = found
        .rows
        .iter()
        .map(|(id, name)| Short {
            id,
            name,
            links: Links {
                base: &req.base,
                kind: "servers",
                id,
            },
        })
        .collect();
    Ok(Reply::ok(&List {
        servers,
        servers_links: next,
    }))
}

/// `GET /servers/detail`
pub(crate) async fn detail(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let page = Page::of(&req)?;
    let mut tx = app.db.read().await?;
    let found = app.list_servers(&mut tx, &req, &page, true).await?;
    let look = look(&app, &mut tx, &req, &found.rows, false).await?;
    let next = found
        .rows
        .last()
        .filter(|_| found.more)
        .map(|s| Page::next_link(&req, "/v2.1/servers/detail", &s.id));
    Ok(Reply::ok(&ServerList {
        servers: &found.rows,
        look: &look,
        next,
    }))
}

/// `GET /servers/{id}`
pub(crate) async fn show(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let mut tx = app.db.read().await?;
    let found = fetch(&mut tx, req.ctx()?, acts::Show, req.param("id")).await?;
    let mut s = Stored::clone(&found);
    // A group that was deleted is no group of the server any more.
    if let Some(g) = &s.server_group
        && tx.find::<ServerGroup>(g).await?.is_none()
    {
        s.value.server_group = None;
    }
    let look = look(&app, &mut tx, &req, std::slice::from_ref(&s), true).await?;
    Ok(Reply::ok(&wrapped(ServerView {
        s: &s,
        look: &look,
        admin_pass: None,
        short: false,
    })))
}

/// `DELETE /servers/{id}`
pub(crate) async fn delete(app: Arc<Compute>, req: Req) -> Result<Reply> {
    app.delete_server(req.ctx()?, acts::Delete, req.param("id")).await?;
    Ok(Reply::no_content())
}

/// A password as Nova makes one: 12 characters without those that look alike.
pub(crate) fn password() -> String {
    const ALPHABET: &[u8] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    (0..12)
        .map(|_| {
            ALPHABET
                .get(id::below(ALPHABET.len() as u64) as usize)
                .copied()
                .map_or('x', char::from)
        })
        .collect()
}

fn nics(v: &Value, ver: Ver) -> Result<(Option<Vec<NicRequest>>, bool)> {
    let list = match v.get("networks") {
        None => return Ok((None, false)),
        Some(Value::String(s)) if s == "auto" => return Ok((None, true)),
        Some(Value::String(_)) => return Ok((Some(vec![]), false)),
        Some(Value::Array(list)) => list,
        Some(_) => return Ok((None, false)),
    };
    // Before 2.37 an empty list is the same as none.
    if list.is_empty() && ver < Ver(2, 37) {
        return Ok((None, false));
    }
    let mut out = Vec::new();
    for n in list {
        let nic = NicRequest {
            network_id: input::text(n, "uuid"),
            port_id: input::text(n, "port"),
            fixed_ip: input::ip(n, "fixed_ip"),
            tag: input::text(n, "tag"),
        };
        if let (Some(port), Some(ip)) = (&nic.port_id, nic.fixed_ip) {
            return Err(Error::field(
                "networks",
                format!(
                    "Specified Fixed IP '{ip}' cannot be used with port '{port}': the two cannot be specified together."
                ),
            ));
        }
        match (&nic.port_id, &nic.network_id) {
            (None, None) => return Err(Error::field("networks", "Bad network format: missing 'uuid'")),
            (None, Some(u)) if !id::is_uuid(u) => {
                return Err(Error::field(
                    "networks",
                    format!("Bad networks format: network uuid is not in proper format ({u})"),
                ));
            }
            _ => out.push(nic),
        }
    }
    Ok((Some(out), false))
}

/// The image that block device mappings ask to boot from. Anything but the plain root disk from an image
/// needs a volume service.
fn mapped_image(v: &Value) -> Result<Option<String>> {
    let refused = |why: &str| {
        Error::field(
            "block_device_mapping_v2",
            format!("Block Device Mapping is Invalid: {why}"),
        )
    };
    if v.get("block_device_mapping")
        .and_then(Value::as_array)
        .is_some_and(|a| !a.is_empty())
    {
        return Err(Error::field(
            "block_device_mapping",
            "Block Device Mapping is Invalid: this cloud has no volume service.",
        ));
    }
    let Some(list) = v
        .get("block_device_mapping_v2")
        .and_then(Value::as_array)
        .filter(|a| !a.is_empty())
    else {
        return Ok(None);
    };
    let [one] = list.as_slice() else {
        return Err(refused(
            "only one device, the root disk made from an image, is possible without a volume service.",
        ));
    };
    let kind = one.get("source_type").and_then(Value::as_str);
    let to = one.get("destination_type").and_then(Value::as_str).unwrap_or("local");
    if kind != Some("image") || to != "local" {
        return Err(refused(
            "this cloud has no volume service; use source_type image with destination_type local.",
        ));
    }
    if one.get("boot_index").and_then(fields::int) != Some(0) {
        return Err(refused(
            "Boot sequence for the instance and image/block device mapping combination is not valid.",
        ));
    }
    Ok(input::text(one, "uuid").or(input::text(one, "image_id")))
}

/// Reads the checked body into the request in its newest form.
pub(crate) fn create_request(v: &Value, hints: Value, ver: Ver) -> Result<CreateRequest> {
    let mapped = mapped_image(v)?;
    let image = input::text(v, "imageRef").filter(|i| !i.is_empty());
    let image = match (image, mapped) {
        (Some(a), Some(b)) if a != b => {
            return Err(Error::field(
                "imageRef",
                "Block Device Mapping is Invalid: it names another image than imageRef.",
            ));
        }
        (Some(a), _) => a,
        (None, Some(b)) => b,
        (None, None) => {
            return Err(Error::field(
                "imageRef",
                "Invalid imageRef provided. A server is made from an image here; name one.",
            ));
        }
    };
    if v.get("personality")
        .and_then(Value::as_array)
        .is_some_and(|a| !a.is_empty())
    {
        return Err(Error::field(
            "personality",
            "File injection is switched off. Use user_data and a config drive, or metadata, instead.",
        ));
    }
    let min = input::int(v, "min_count").unwrap_or(1);
    let max = input::int(v, "max_count").unwrap_or(min);
    if min > max {
        return Err(Error::field(
            "min_count",
            format!("min_count must be <= max_count: {min} is more than {max}."),
        ));
    }
    let (nics, auto) = nics(v, ver)?;
    if max > 1 {
        for nic in nics.iter().flatten() {
            if nic.port_id.is_some() {
                return Err(Error::field(
                    "networks",
                    "Unable to launch multiple instances with a single configured port ID. Please launch your instance one by one with different ports.",
                ));
            }
            if let Some(ip) = nic.fixed_ip {
                return Err(Error::field(
                    "networks",
                    format!("Invalid fixed IP Address {ip} requested: one address cannot be given to {max} servers."),
                ));
            }
        }
    }
    // Nova's form zone:host:node; who may not name a host is refused later.
    let asked_zone = input::text(v, "availability_zone");
    let (zone, mut host) = match asked_zone.as_deref().map(|z| z.splitn(3, ':').collect::<Vec<_>>()) {
        None => (None, None),
        Some(parts) => (
            parts.first().filter(|z| !z.is_empty()).map(|z| (*z).to_owned()),
            parts
                .get(2)
                .or(parts.get(1))
                .filter(|h| !h.is_empty())
                .map(|h| (*h).to_owned()),
        ),
    };
    let mut destination = false;
    for name in ["host", "hypervisor_hostname"] {
        if let Some(h) = input::text(v, name) {
            destination = true;
            if host.as_ref().is_some_and(|o| *o != h) {
                return Err(Error::field(name, "Two different hosts are asked for."));
            }
            host = Some(h);
        }
    }
    let mut tags = Vec::new();
    for t in input::strings(v, "tags").unwrap_or_default() {
        if !tags.contains(&t) {
            tags.push(t);
        }
    }
    tags.sort();
    let groups = v.get("security_groups").and_then(Value::as_array);
    Ok(CreateRequest {
        name: input::text(v, "name").unwrap_or_default(),
        hostname: input::text(v, "hostname"),
        // Before 2.19 the description is the name.
        description: if ver < Ver(2, 19) {
            input::text(v, "name")
        } else {
            input::text(v, "description")
        },
        flavor: input::loose_id(v, "flavorRef").unwrap_or_default(),
        image,
        key_name: input::text(v, "key_name"),
        user_data: input::text(v, "user_data"),
        metadata: input::pairs(v, "metadata").unwrap_or_default(),
        tags,
        config_drive: input::boolean(v, "config_drive").unwrap_or(false),
        zone,
        host,
        destination,
        nics,
        auto,
        security_groups: groups
            .map(|g| g.iter().filter_map(|x| input::text(x, "name")).collect())
            .unwrap_or_default(),
        min_count: min as usize,
        max_count: max as usize,
        admin_pass: input::text(v, "adminPass"),
        access_ip_v4: input::ip(v, "accessIPv4"),
        access_ip_v6: input::ip(v, "accessIPv6"),
        auto_disk_config: v.get("OS-DCF:diskConfig").and_then(Value::as_str) == Some("AUTO"),
        hints,
        trusted_image_certificates: input::strings(v, "trusted_image_certificates"),
    })
}

/// `POST /servers`
pub(crate) async fn create(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    let mut body = req.json().await?;
    let hints = ["os:scheduler_hints", "OS-SCH-HNT:scheduler_hints"]
        .into_iter()
        .find_map(|k| body.as_object_mut().and_then(|o| o.remove(k).map(|h| (k, h))));
    let Some(v) = body.get_mut("server").map(Value::take) else {
        return Err(Error::field(
            "server",
            "Invalid input for field/attribute server: the request body must be an object with the key 'server'.",
        ));
    };
    if let Some(extra) = body.as_object().and_then(|o| o.keys().find(|k| *k != "server")) {
        return Err(Error::field(
            extra.clone(),
            format!("Additional properties are not allowed ('{extra}' was unexpected)"),
        ));
    }
    fields::check(&SERVER_CREATE, &v, req.version, "server")?;
    if let Some((k, h)) = &hints {
        fields::check(&HINTS, h, req.version, k)?;
    }
    let mut r = create_request(&v, hints.map_or(Value::Null, |(_, h)| h), req.version)?;
    let admin_pass = r.admin_pass.clone().unwrap_or_else(password);
    if r.config_drive {
        r.admin_pass = Some(admin_pass.clone());
    }
    let groups = v
        .get("security_groups")
        .cloned()
        .unwrap_or_else(|| json!([{"name": "default"}]));
    let servers = app.create_servers(req.ctx()?, r).await?;
    let Some(first) = servers.first() else {
        return Err(Error::internal("no server was made"));
    };
    if input::boolean(&v, "return_reservation_id") == Some(true) {
        return Ok(Reply::accepted(&json!({"reservation_id": first.reservation_id})));
    }
    let location = format!("{}/v2.1/servers/{}", req.base, first.id);
    Ok(Reply::accepted(&json!({"server": {
        "id": first.id,
        "links": Links { base: &req.base, kind: "servers", id: &first.id },
        "OS-DCF:diskConfig": if first.auto_disk_config { "AUTO" } else { "MANUAL" },
        "security_groups": groups,
        "adminPass": admin_pass,
    }}))
    .header("location", location))
}
