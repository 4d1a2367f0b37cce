//! What hangs below a server: metadata, tags, addresses, volumes, topology,
//! diagnostics (Nova API reference, the sections of these names).

use super::actions::find;
use super::input::{self, metadata_ok, tag_ok};
use super::view::Addresses;
use crate::Compute;
use crate::logic::actions::check_lock;
use crate::logic::guest::{START_ORDER_KEY, start_order};
use crate::model::{Server, VmState};
use crate::policy::acts;
use haneul_auth::{Action, Ctx, fetch};
use haneul_core::{Error, Result};
use haneul_http::{Body, FieldKind as K, Reply, Req, Ver, f};
use haneul_store::Stored;
use http::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Changes a server's own description of itself, and tells the host when the guest can see it.
pub(crate) async fn change<A>(
    app: &Arc<Compute>,
    ctx: &Ctx,
    action: A,
    id: &str,
    f: impl Fn(&mut Server) -> Result<()> + Send + 'static,
) -> Result<Stored<Server>>
where
    A: Action<On = Server> + Copy,
{
    let (a, c, id) = (app.clone(), ctx.clone(), id.to_owned());
    app.db
        .write(&ctx.actor(), async move |tx| {
            let old = fetch(tx, &c, action, &id).await?;
            check_lock(&c, &old, action)?;
            let mut s = old.edit();
            f(&mut s)?;
            if s == old.value {
                return Ok(Stored::clone(&old));
            }
            if s.metadata.get(START_ORDER_KEY) != old.metadata.get(START_ORDER_KEY) {
                start_order(&s.metadata)?;
            }
            if s.metadata.len() > old.metadata.len() {
                a.check_metadata(tx, &s.project_id, &s.metadata).await?;
            }
            let told = s.metadata != old.metadata || s.hostname != old.hostname;
            // The host hears of it; nothing that is being done waits for anything else because of it.
            if told && s.host_id.is_some() && (s.launched_at.is_some() || s.vm_state == VmState::Building) {
                a.push_guest(tx, &mut s).await?;
            }
            tx.update(&old, &s).await
        })
        .await
}

pub(super) static METADATA: Body = Body {
    open: true,
    fields: &[],
};

pub(super) fn checked(v: &Value, field: &str) -> Result<BTreeMap<String, String>> {
    metadata_ok(v, false)
        .map_err(|why| Error::field(field, format!("Invalid input for field/attribute {field}. {why}")))?;
    Ok(v.as_object()
        .into_iter()
        .flatten()
        .filter_map(|(k, x)| Some((k.clone(), x.as_str()?.to_owned())))
        .collect())
}

/// `GET /servers/{id}/metadata`
pub(crate) async fn metadata(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let s = find(&app, req.ctx()?, acts::MetaList, req.param("id")).await?;
    Ok(Reply::ok(&json!({"metadata": s.metadata})))
}

/// `POST /servers/{id}/metadata`: adds and replaces items.
pub(crate) async fn metadata_create(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let new = checked(&req.fields("metadata", &METADATA).await?, "metadata")?;
    let s = change(&app, &ctx, acts::MetaCreate, req.param("id"), move |s| {
        s.metadata.extend(new.clone());
        Ok(())
    })
    .await?;
    Ok(Reply::ok(&json!({"metadata": s.metadata})))
}

/// `PUT /servers/{id}/metadata`: replaces all.
pub(crate) async fn metadata_replace(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let new = checked(&req.fields("metadata", &METADATA).await?, "metadata")?;
    let s = change(&app, &ctx, acts::MetaUpdateAll, req.param("id"), move |s| {
        s.metadata.clone_from(&new);
        Ok(())
    })
    .await?;
    Ok(Reply::ok(&json!({"metadata": s.metadata})))
}

pub(super) fn no_item() -> Error {
    Error::not_found("Metadata item was not found")
}

/// `GET /servers/{id}/metadata/{key}`
pub(crate) async fn metadata_item(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let key = req.param("key");
    let s = find(&app, req.ctx()?, acts::MetaShow, req.param("id")).await?;
    let value = s.metadata.get(key).ok_or_else(no_item)?;
    Ok(Reply::ok(&json!({"meta": {key: value}})))
}

/// `PUT /servers/{id}/metadata/{key}`
pub(crate) async fn metadata_item_set(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let new = checked(&req.fields("meta", &METADATA).await?, "meta")?;
    let key = req.param("key").to_owned();
    if new.len() != 1 || !new.contains_key(&key) {
        return Err(Error::field("meta", "Request body and URI mismatch"));
    }
    let shown = new.clone();
    change(&app, &ctx, acts::MetaUpdate, req.param("id"), move |s| {
        s.metadata.extend(new.clone());
        Ok(())
    })
    .await?;
    Ok(Reply::ok(&json!({"meta": shown})))
}

/// `DELETE /servers/{id}/metadata/{key}`
pub(crate) async fn metadata_item_delete(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let key = req.param("key").to_owned();
    change(&app, req.ctx()?, acts::MetaDelete, req.param("id"), move |s| {
        s.metadata.remove(&key).map(|_| ()).ok_or_else(no_item)
    })
    .await?;
    Ok(Reply::no_content())
}

/// `GET /servers/{id}/tags`
pub(crate) async fn tags(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let s = find(&app, req.ctx()?, acts::TagList, req.param("id")).await?;
    Ok(Reply::ok(&json!({"tags": s.tags})))
}

/// `GET /servers/{id}/tags/{tag}`
pub(crate) async fn tag(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let s = find(&app, req.ctx()?, acts::TagShow, req.param("id")).await?;
    if s.tags.iter().any(|t| t == req.param("tag")) {
        return Ok(Reply::no_content());
    }
    Err(no_tag(&s.id, req.param("tag")))
}

fn no_tag(id: &str, tag: &str) -> Error {
    Error::not_found(format!("Server {id} has no tag '{tag}'"))
}

fn good_tag(tag: &str, field: &str) -> Result<()> {
    tag_ok(tag).map_err(|why| Error::field(field, format!("Invalid tag '{tag}'. {why}")))
}

/// `PUT /servers/{id}/tags/{tag}`: 201 when it is new, 204 when it was there.
pub(crate) async fn tag_set(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let (id, tag) = (req.param("id"), req.param("tag").to_owned());
    good_tag(&tag, "tag")?;
    let before = find(&app, req.ctx()?, acts::TagUpdate, id).await?;
    let had = before.tags.contains(&tag);
    let t = tag.clone();
    change(&app, req.ctx()?, acts::TagUpdate, id, move |s| {
        if !s.tags.contains(&t) {
            if s.tags.len() >= 50 {
                return Err(Error::field(
                    "tag",
                    "The number of tags exceeded the per-server limit 50",
                ));
            }
            s.tags.push(t.clone());
            s.tags.sort();
        }
        Ok(())
    })
    .await?;
    if had {
        return Ok(Reply::no_content());
    }
    let location = format!(
        "{}/v2.1/servers/{id}/tags/{}",
        req.base,
        haneul_http::request::percent_encode(&tag)
    );
    Ok(Reply::empty(StatusCode::CREATED).header("location", location))
}

/// `PUT /servers/{id}/tags`
pub(crate) async fn tags_replace(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    let ctx = req.ctx()?.clone();
    let body = req.json().await?;
    let list = body
        .get("tags")
        .and_then(Value::as_array)
        .filter(|_| body.as_object().is_some_and(|o| o.len() == 1))
        .ok_or_else(|| {
            Error::field(
                "tags",
                "Invalid input for field/attribute tags: the request body must be an object with a list under 'tags'.",
            )
        })?;
    if list.len() > 50 {
        return Err(Error::field(
            "tags",
            format!(
                "The number of tags exceeded the per-server limit 50: there are {}.",
                list.len()
            ),
        ));
    }
    let mut new: Vec<String> = Vec::new();
    for t in list {
        let text = t
            .as_str()
            .ok_or_else(|| Error::field("tags", format!("Invalid tag {t}: it must be a string.")))?;
        good_tag(text, "tags")?;
        if !new.iter().any(|n| n == text) {
            new.push(text.to_owned());
        }
    }
    new.sort();
    let s = change(&app, &ctx, acts::TagUpdateAll, req.param("id"), move |s| {
        s.tags.clone_from(&new);
        Ok(())
    })
    .await?;
    Ok(Reply::ok(&json!({"tags": s.tags})))
}

/// `DELETE /servers/{id}/tags/{tag}`
pub(crate) async fn tag_delete(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let tag = req.param("tag").to_owned();
    change(&app, req.ctx()?, acts::TagDelete, req.param("id"), move |s| {
        let before = s.tags.len();
        s.tags.retain(|t| *t != tag);
        if s.tags.len() == before {
            Err(no_tag(&s.id, &tag))
        } else {
            Ok(())
        }
    })
    .await?;
    Ok(Reply::no_content())
}

/// `DELETE /servers/{id}/tags`
pub(crate) async fn tags_delete(app: Arc<Compute>, req: Req) -> Result<Reply> {
    change(&app, req.ctx()?, acts::TagDeleteAll, req.param("id"), |s| {
        s.tags.clear();
        Ok(())
    })
    .await?;
    Ok(Reply::no_content())
}

pub(crate) async fn ports(app: &Compute, id: &str) -> Result<Vec<crate::logic::deps::ServerPort>> {
    let mut tx = app.db.read().await?;
    let ids = [id.to_owned()];
    Ok(app
        .network
        .server_ports(&mut tx, &ids)
        .await?
        .remove(id)
        .unwrap_or_default())
}

/// Addresses without the extended fields, as this resource shows them.
fn plain(ports: &[crate::logic::deps::ServerPort]) -> Result<Value> {
    Ok(serde_json::to_value(Addresses { ports, plain: true })?)
}

/// `GET /servers/{id}/ips`
pub(crate) async fn ips(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let s = find(&app, req.ctx()?, acts::Ips, req.param("id")).await?;
    Ok(Reply::ok(&json!({"addresses": plain(&ports(&app, &s.id).await?)?})))
}

/// `GET /servers/{id}/ips/{network}`
pub(crate) async fn ips_of(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let s = find(&app, req.ctx()?, acts::IpsShow, req.param("id")).await?;
    let all = plain(&ports(&app, &s.id).await?)?;
    match all.get(req.param("network")) {
        Some(list) => Ok(Reply::ok(&json!({ req.param("network"): list }))),
        None => Err(Error::not_found("Instance is not a member of specified network")),
    }
}

macro_rules! refused {
    ($($(#[$doc:meta])* $name:ident $act:ident $what:literal;)*) => {$(
        $(#[$doc])*
        pub(crate) async fn $name(app: Arc<Compute>, req: Req) -> Result<Reply> {
            // Seen first, so that others' servers stay hidden; the rule then refuses.
            find(&app, req.ctx()?, acts::Show, req.param("id")).await?;
            find(&app, req.ctx()?, acts::$act, req.param("id")).await?;
            Err(Error::new(haneul_core::Kind::NotImplemented, concat!($what, " is not served by this cloud.")))
        }
    )*};
}
refused! {
    /// `POST /servers/{id}/os-volume_attachments`
    volume_attach VolumeAttach "Attaching volumes";
    /// `PUT /servers/{id}/os-volume_attachments/{volume}`
    volume_update VolumeUpdate "Swapping volumes";
    /// `DELETE /servers/{id}/os-volume_attachments/{volume}`
    volume_detach VolumeDetach "Detaching volumes";
}

/// `GET /servers/{id}/os-volume_attachments`: there are none without a volume service.
pub(crate) async fn volumes(app: Arc<Compute>, req: Req) -> Result<Reply> {
    input::check_query(&req, &["limit", "offset"])?;
    find(&app, req.ctx()?, acts::Volumes, req.param("id")).await?;
    Ok(Reply::ok(&json!({"volumeAttachments": []})))
}

/// `GET /servers/{id}/os-volume_attachments/{volume}`
pub(crate) async fn volume(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let s = find(&app, req.ctx()?, acts::VolumeShow, req.param("id")).await?;
    Err(Error::not_found(format!(
        "Instance {} is not attached to volume {}",
        s.id,
        req.param("volume")
    )))
}

/// `GET /servers/{id}/topology`: one NUMA node, no pinning.
pub(crate) async fn topology(app: Arc<Compute>, req: Req) -> Result<Reply> {
    find(&app, req.ctx()?, acts::Topology, req.param("id")).await?;
    // Nova shows nodes only for servers with a NUMA topology; nothing here asks for one.
    Ok(Reply::ok(&json!({"nodes": [], "pagesize_kb": null})))
}

/// `GET /servers/{id}/diagnostics`
pub(crate) async fn diagnostics(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let s = find(&app, req.ctx()?, acts::Diagnostics, req.param("id")).await?;
    if s.vm_state != VmState::Active && s.vm_state != VmState::Paused {
        return Err(Error::conflict(format!(
            "Cannot 'get_diagnostics' instance {} while it is in vm_state {}",
            s.id,
            s.vm_state.as_str()
        )));
    }
    if req.version < Ver(2, 48) {
        return Ok(Reply::ok(&json!({"memory": s.flavor.ram * 1024})));
    }
    let host = s.host_id.clone().unwrap_or_default();
    let mut tx = app.db.read().await?;
    let kind = app
        .fleet
        .host(&mut tx, &host)
        .await?
        .map_or_else(String::new, |h| h.hypervisor.kind);
    let nics: Vec<Value> = ports(&app, &s.id)
        .await?
        .iter()
        .map(|p| {
            json!({"mac_address": p.mac, "rx_octets": null, "rx_packets": null, "rx_drop": null, "rx_errors": null, "rx_rate": null,
                "tx_octets": null, "tx_packets": null, "tx_drop": null, "tx_errors": null, "tx_rate": null})
        })
        .collect();
    let state = match s.power_state {
        1 => "running",
        3 => "paused",
        4 => "shutdown",
        6 => "crashed",
        _ => "pending",
    };
    let uptime = s
        .launched_at
        .map(|t| (haneul_core::clock::now() - t) / haneul_core::clock::SECOND);
    Ok(Reply::ok(&json!({
        "state": state, "driver": "libvirt", "hypervisor": kind.to_lowercase(), "hypervisor_os": "linux", "uptime": uptime,
        "config_drive": s.config_drive, "num_cpus": s.flavor.vcpus, "num_nics": nics.len(), "num_disks": 1,
        "cpu_details": (0..s.flavor.vcpus).map(|i| json!({"id": i, "time": null, "utilisation": null})).collect::<Vec<_>>(),
        "disk_details": [{"read_bytes": null, "read_requests": null, "write_bytes": null, "write_requests": null, "errors_count": null}],
        "memory_details": {"maximum": s.flavor.ram, "used": null}, "nic_details": nics,
    })))
}

/// `GET /servers/{id}/os-server-password`
pub(crate) async fn server_password(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let s = find(&app, req.ctx()?, acts::Password, req.param("id")).await?;
    Ok(Reply::ok(
        &json!({"password": s.password.as_deref().unwrap_or_default()}),
    ))
}

/// `DELETE /servers/{id}/os-server-password`
pub(crate) async fn server_password_clear(app: Arc<Compute>, req: Req) -> Result<Reply> {
    app.clear_password(req.ctx()?, req.param("id")).await?;
    Ok(Reply::no_content())
}

/// A server is let go of its zone, or pinned to the one that it is in.
fn pinned(s: &Server, wanted: Option<String>) -> Result<Option<String>> {
    let refused = |why: String| Err(Error::conflict(why).with_field("pinned_availability_zone"));
    match (&s.pinned_availability_zone, &wanted) {
        (Some(now), Some(zone)) if now != zone => refused(format!(
            "Cannot change pinned availability zone directly from '{now}' to '{zone}'. Unpin first by setting pinned_availability_zone to null."
        )),
        (None, Some(zone)) if *zone != s.availability_zone => refused(format!(
            "Server can only be pinned to its current availability zone '{}', but '{zone}' was requested.",
            s.availability_zone
        )),
        _ => Ok(wanted),
    }
}

/// Reads a `PUT /servers/{id}` body into what changes.
pub(crate) async fn update(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    static UPDATE: Body = Body {
        open: false,
        fields: &[
            f("name", K::Name),
            f("OS-DCF:diskConfig", input::DISK_CONFIG),
            f("accessIPv4", input::IP4),
            f("accessIPv6", input::IP6),
            f("description", input::DESCRIPTION).since(2, 19),
            f("hostname", input::HOSTNAME).since(2, 90).until(2, 93),
            f("hostname", input::FQDN).since(2, 94),
            f("pinned_availability_zone", K::Name).null().since(2, 104),
        ],
    };
    let ctx = req.ctx()?.clone();
    let v = req.fields("server", &UPDATE).await?;
    let s = change(&app, &ctx, acts::Update, req.param("id"), move |s| {
        if let Some(n) = input::text(&v, "name") {
            s.name = n;
        }
        if let Some(d) = input::resettable(&v, "description") {
            s.description = d;
        }
        if let Some(h) = input::text(&v, "hostname") {
            s.hostname = h;
        }
        if let Some(zone) = input::resettable(&v, "pinned_availability_zone") {
            s.pinned_availability_zone = pinned(s, zone)?;
        }
        if let Some(d) = v.get("OS-DCF:diskConfig").and_then(Value::as_str) {
            s.auto_disk_config = d == "AUTO";
        }
        s.access_ip_v4 = input::ip(&v, "accessIPv4").or(s.access_ip_v4);
        s.access_ip_v6 = input::ip(&v, "accessIPv6").or(s.access_ip_v6);
        Ok(())
    })
    .await?;
    let mut tx = app.db.read().await?;
    let look = super::servers::look(&app, &mut tx, &req, std::slice::from_ref(&s), true).await?;
    let view = super::view::ServerView {
        s: &s,
        look: &look,
        admin_pass: None,
        short: req.version < Ver(2, 75),
    };
    Ok(Reply::ok(&super::servers::wrapped(view)))
}
