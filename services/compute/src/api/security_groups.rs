//! Security groups and their rules as compute shows them, until 2.35, and those of a server (Nova API reference, the
//! sections of these names). They are the network service's, in Nova's words.

use super::actions::find;
use super::input::{self, allowed, limited};
use crate::Compute;
use crate::logic::deps::{NewRule, SecurityGroup, SecurityGroupRule};
use crate::policy::{self, acts};
use haneul_core::{Error, Kind, Result, id};
use haneul_http::request::percent_decode;
use haneul_http::{Body, FieldKind as K, Reply, Req, f};
use http::StatusCode;
use ipnet::IpNet;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

const SHORT: K = K::Str { min: 0, max: 255 };
static GROUP: Body = Body {
    open: true,
    fields: &[f("name", SHORT).req(), f("description", SHORT).req()],
};
static RULE: Body = Body {
    open: true,
    fields: &[f("parent_group_id", K::Uuid).req(), f("group_id", K::Uuid).null()],
};

fn rule_view(r: &SecurityGroupRule) -> Value {
    let (from, to) = match (&r.protocol, r.port_min, r.port_max) {
        (Some(p), None, None) if ["tcp", "udp"].iter().any(|n| p.eq_ignore_ascii_case(n)) => (json!(1), json!(65535)),
        (Some(_), None, None) => (json!(-1), json!(-1)),
        (_, min, max) => (json!(min), json!(max)),
    };
    let (group, range) = match &r.from {
        Some((name, project)) => (json!({"name": name, "tenant_id": project}), json!({})),
        None => {
            let cidr = r.prefix.map_or_else(|| "0.0.0.0/0".to_owned(), |p| p.to_string());
            (json!({}), json!({ "cidr": cidr }))
        }
    };
    json!({
        "id": r.id, "parent_group_id": r.group_id, "ip_protocol": r.protocol, "from_port": from, "to_port": to,
        "group": group, "ip_range": range,
    })
}

fn view(g: &SecurityGroup) -> Value {
    json!({
        "id": g.id, "name": g.name, "description": g.description, "tenant_id": g.project_id,
        "rules": g.rules.iter().map(rule_view).collect::<Vec<_>>(),
    })
}

fn uuid(req: &Req) -> Result<String> {
    let text = req.param("id");
    if id::is_uuid(text) {
        return Ok(text.to_owned());
    }
    Err(Error::field(
        "id",
        format!("Security group id should be uuid, and is '{text}'."),
    ))
}

/// What the network service calls a conflict is a bad request in Nova's words.
fn in_novas_words(e: Error) -> Error {
    match e.kind() {
        Kind::Conflict => e.with_kind(Kind::BadRequest),
        _ => e,
    }
}

/// `GET /os-security-groups`
pub(crate) async fn index(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let ctx = allowed(&req, policy::SECURITY_GROUPS)?;
    let all = ctx.is_admin() && req.q("all_tenants").is_some();
    let project = (!all).then(|| ctx.project_id());
    app.network.ensure_default_group(&ctx).await?;
    let mut tx = app.db.read().await?;
    let found = app.network.security_groups(&mut tx, &ctx, project).await?;
    let list: Vec<Value> = limited(&req, found)?.iter().map(view).collect();
    Ok(Reply::ok(&json!({"security_groups": list})))
}

/// `GET /os-security-groups/{id}`
pub(crate) async fn show(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let ctx = allowed(&req, policy::SECURITY_GROUP_SHOW)?;
    let id = uuid(&req)?;
    let mut tx = app.db.read().await?;
    let group = app.network.security_group(&mut tx, &ctx, &id).await?;
    Ok(Reply::ok(&json!({"security_group": view(&group)})))
}

/// Name and description of a checked body.
async fn named(req: &mut Req) -> Result<(String, String)> {
    let v = req.fields("security_group", &GROUP).await?;
    let text = |name| input::text(&v, name).unwrap_or_default();
    Ok((text("name"), text("description")))
}

/// `POST /os-security-groups`
pub(crate) async fn create(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    let ctx = allowed(&req, policy::SECURITY_GROUP_CREATE)?;
    let (name, description) = named(&mut req).await?;
    let network = app.network.clone();
    let made = app
        .db
        .write(&ctx.actor(), async move |tx| {
            network.security_group_create(tx, &ctx, &name, &description).await
        })
        .await
        .map_err(|e| match e.kind() {
            Kind::Conflict => e.with_kind(Kind::Forbidden),
            _ => e,
        })?;
    Ok(Reply::ok(&json!({"security_group": view(&made)})))
}

/// `PUT /os-security-groups/{id}`
pub(crate) async fn update(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    let ctx = allowed(&req, policy::SECURITY_GROUP_UPDATE)?;
    let id = uuid(&req)?;
    let (name, description) = named(&mut req).await?;
    let network = app.network.clone();
    let changed = app
        .db
        .write(&ctx.actor(), async move |tx| {
            network.security_group_update(tx, &ctx, &id, &name, &description).await
        })
        .await
        .map_err(in_novas_words)?;
    Ok(Reply::ok(&json!({"security_group": view(&changed)})))
}

/// `DELETE /os-security-groups/{id}`
pub(crate) async fn delete(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let ctx = allowed(&req, policy::SECURITY_GROUP_DELETE)?;
    let id = uuid(&req)?;
    let network = app.network.clone();
    app.db
        .write(&ctx.actor(), async move |tx| {
            network.security_group_delete(tx, &ctx, &id).await
        })
        .await
        .map_err(in_novas_words)?;
    Ok(Reply::empty(StatusCode::ACCEPTED))
}

/// `POST /os-security-group-rules`
pub(crate) async fn rule_create(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    let ctx = allowed(&req, policy::SECURITY_GROUP_RULE_CREATE)?;
    let new = new_rule(&req.fields("security_group_rule", &RULE).await?)?;
    let network = app.network.clone();
    let made = app
        .db
        .write(&ctx.actor(), async move |tx| {
            network.security_group_rule_create(tx, &ctx, &new).await
        })
        .await
        .map_err(in_novas_words)?;
    Ok(Reply::ok(&json!({"security_group_rule": rule_view(&made)})))
}

/// `DELETE /os-security-group-rules/{id}`
pub(crate) async fn rule_delete(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let ctx = allowed(&req, policy::SECURITY_GROUP_RULE_DELETE)?;
    let id = uuid(&req)?;
    let network = app.network.clone();
    app.db
        .write(&ctx.actor(), async move |tx| {
            network.security_group_rule_delete(tx, &ctx, &id).await
        })
        .await?;
    Ok(Reply::empty(StatusCode::ACCEPTED))
}

/// A rule of Nova's fields: a protocol with its ports (type and code of ICMP), -1 for any, from a range of addresses or
/// from a group; with a group alone everything of its members.
fn new_rule(body: &Value) -> Result<NewRule> {
    // Nova takes numbers and texts for any of them.
    let text = |name: &str| match body.get(name) {
        None | Some(Value::Null) => None,
        Some(Value::String(s)) => Some(s.clone()),
        Some(other) => Some(other.to_string()),
    };
    let mut new = NewRule {
        group_id: text("parent_group_id").unwrap_or_default(),
        from_group: text("group_id"),
        ..NewRule::default()
    };
    if new.from_group.is_none() {
        new.prefix = Some(range(text("cidr").as_deref().unwrap_or_default())?);
    }
    let protocol = text("ip_protocol").unwrap_or_default().to_ascii_lowercase();
    let (mut from, mut to) = (text("from_port"), text("to_port"));
    if new.from_group.is_some() && from.is_none() && to.is_none() {
        let all = match protocol.as_str() {
            "icmp" => Some(("-1", "-1")),
            "tcp" | "udp" => Some(("1", "65535")),
            _ => None,
        };
        (from, to) = (all.map(|a| a.0.to_owned()), all.map(|a| a.1.to_owned()));
    }
    let (false, Some(from), Some(to)) = (protocol.is_empty(), from, to) else {
        if new.from_group.is_some() {
            return Ok(new);
        }
        return Err(Error::field(
            "security_group_rule",
            "Not enough parameters to build a valid rule: ip_protocol, from_port and to_port are needed with a cidr.",
        ));
    };
    let (low, high) = match protocol.as_str() {
        "icmp" => (-1, 255),
        "tcp" | "udp" => (1, 65535),
        other => {
            return Err(Error::field(
                "ip_protocol",
                format!("Invalid IP protocol {other}: it must be tcp, udp or icmp."),
            ));
        }
    };
    let port = |name: &'static str, text: &str| match text.trim().parse::<i64>() {
        Ok(n) if (low..=high).contains(&n) => Ok(n),
        _ => Err(Error::field(
            name,
            format!(
                "Invalid port range: {name} is '{text}', and for {protocol} it must be a number from {low} to {high}."
            ),
        )),
    };
    let (from, to) = (port("from_port", &from)?, port("to_port", &to)?);
    if protocol != "icmp" && from > to {
        return Err(Error::field(
            "from_port",
            format!("Invalid port range {from}:{to}. from_port cannot be greater than to_port."),
        ));
    }
    new.protocol = Some(protocol);
    new.port_min = Some(from).filter(|n| *n >= 0);
    new.port_max = Some(to).filter(|n| *n >= 0);
    Ok(new)
}

/// A range of addresses; nothing is all of IPv4.
fn range(text: &str) -> Result<IpNet> {
    let wrong = |why: &str| Error::field("cidr", format!("Invalid cidr {text}: {why}"));
    let plain = match percent_decode(text, false) {
        empty if empty.is_empty() => "0.0.0.0/0".to_owned(),
        plain => plain,
    };
    let net: IpNet = plain
        .parse()
        .map_err(|_| wrong("write an address and a prefix length, for example 192.0.2.0/24."))?;
    if net.prefix_len() == 0 && !net.addr().is_unspecified() {
        return Err(wrong("the prefix length 0 is for 0.0.0.0 and :: only."));
    }
    Ok(net)
}

/// `GET /servers/{id}/os-security-groups`: those of its ports.
pub(crate) async fn of_server(app: Arc<Compute>, req: Req) -> Result<Reply> {
    let ctx = req.ctx()?;
    let s = find(&app, ctx, acts::SecurityGroups, req.param("id")).await?;
    let ports = super::sub::ports(&app, &s.id).await?;
    let ids: BTreeSet<String> = ports.into_iter().flat_map(|p| p.security_group_ids).collect();
    let mut tx = app.db.read().await?;
    let found = app.network.security_groups_of(&mut tx, ctx, &ids).await?;
    let list: Vec<Value> = found.iter().map(view).collect();
    Ok(Reply::ok(&json!({"security_groups": list})))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_novas_fields() {
        let made =
            |v: Value| new_rule(&v).map(|r| (r.protocol, r.port_min, r.port_max, r.prefix.map(|p| p.to_string())));
        let tcp = Some("tcp".to_owned());
        assert_eq!(
            made(json!({"ip_protocol": "TCP", "from_port": "22", "to_port": 23, "cidr": "10.2.3.124%2F24"})).unwrap(),
            (tcp.clone(), Some(22), Some(23), Some("10.2.3.124/24".into()))
        );
        assert_eq!(
            made(json!({"ip_protocol": "icmp", "from_port": -1, "to_port": -1})).unwrap(),
            (Some("icmp".into()), None, None, Some("0.0.0.0/0".into()))
        );
        assert_eq!(
            made(json!({"ip_protocol": "tcp", "group_id": "g"})).unwrap(),
            (tcp, Some(1), Some(65535), None)
        );
        assert_eq!(made(json!({"group_id": "g"})).unwrap(), (None, None, None, None));
        for (body, field) in [
            (json!({"ip_protocol": "tcp"}), "security_group_rule"),
            (
                json!({"ip_protocol": "sctp", "from_port": 1, "to_port": 2}),
                "ip_protocol",
            ),
            (json!({"ip_protocol": "tcp", "from_port": 0, "to_port": 2}), "from_port"),
            (json!({"ip_protocol": "udp", "from_port": 1, "to_port": "x"}), "to_port"),
            (
                json!({"ip_protocol": "tcp", "from_port": 22, "to_port": 21}),
                "from_port",
            ),
            (
                json!({"ip_protocol": "icmp", "from_port": 256, "to_port": 0}),
                "from_port",
            ),
            (
                json!({"ip_protocol": "tcp", "from_port": 1, "to_port": 2, "cidr": "10.0.0.1"}),
                "cidr",
            ),
            (
                json!({"ip_protocol": "tcp", "from_port": 1, "to_port": 2, "cidr": "10.0.0.1/0"}),
                "cidr",
            ),
        ] {
            assert_eq!(made(body.clone()).unwrap_err().field_name(), Some(field), "{body}");
        }
    }
}
