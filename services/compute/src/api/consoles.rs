//! Consoles with a screen (Nova API reference, "Server consoles", "Console auth tokens").

use super::actions::{find, no_console};
use crate::Compute;
use crate::policy::{self, acts};
use haneul_auth::Target;
use haneul_core::{Error, Result};
use haneul_http::{Body, FieldKind as K, Reply, Req, Ver, f};
use serde_json::{Value, json};
use std::sync::Arc;

/// `POST /servers/{id}/remote-consoles`
pub(crate) async fn remote_consoles(app: Arc<Compute>, mut req: Req) -> Result<Reply> {
    static CONSOLE: Body = Body {
        open: false,
        fields: &[
            f("protocol", K::OneOf(&["vnc", "spice", "rdp", "serial", "mks"])).req(),
            f(
                "type",
                K::OneOf(&["novnc", "xvpvnc", "rdp-html5", "spice-html5", "serial", "webmks"]),
            )
            .req()
            .until(2, 98),
            f(
                "type",
                K::OneOf(&[
                    "novnc",
                    "xvpvnc",
                    "rdp-html5",
                    "spice-html5",
                    "spice-direct",
                    "serial",
                    "webmks",
                ]),
            )
            .req()
            .since(2, 99),
        ],
    };
    let v = req.fields("remote_console", &CONSOLE).await?;
    let of = |name: &str| v.get(name).and_then(Value::as_str).unwrap_or_default();
    let (protocol, kind) = (of("protocol"), of("type"));
    let (ctx, id) = (req.ctx()?, req.param("id"));
    if protocol != "vnc" || kind != "novnc" || !app.config.vnc {
        find(&app, ctx, acts::RemoteConsoles, id).await?;
        return Err(no_console(kind));
    }
    let url = app.console_url(ctx, id).await?;
    Ok(Reply::ok(
        &json!({"remote_console": {"protocol": protocol, "type": kind, "url": url}}),
    ))
}

/// `GET /os-console-auth-tokens/{token}`: looks at it without using it up. Nothing listens at a port for one console:
/// `port` is that of the public address, and `internal_access_path` where its websocket is.
pub(crate) async fn console_token(app: Arc<Compute>, req: Req) -> Result<Reply> {
    req.ctx()?.enforce(policy::CONSOLE_TOKENS, &Target::default())?;
    let token = req.param("token");
    let mut tx = app.db.read().await?;
    let ticket = app
        .ticket(&mut tx, token)
        .await?
        .ok_or_else(|| Error::not_found("Token not found"))?;
    if req.version < Ver(2, 31) {
        return Err(Error::new(
            haneul_core::Kind::Unauthorized,
            "The requested console type details are not accessible",
        ));
    }
    let host = app
        .fleet
        .hosts(&mut tx)
        .await?
        .into_iter()
        .find(|h| h.id == ticket.host);
    let public: http::Uri = app.public_url.parse().unwrap_or_default();
    let port = public
        .port_u16()
        .unwrap_or(if public.scheme_str() == Some("https") { 443 } else { 80 });
    let mut out = json!({"console": {
        "instance_uuid": ticket.server, "host": host.map_or(ticket.host, |h| h.name), "port": port,
        "internal_access_path": "console/websockify",
    }});
    if let (true, Some(m)) = (
        req.version >= Ver(2, 99),
        out.pointer_mut("/console").and_then(Value::as_object_mut),
    ) {
        m.insert("tls_port".into(), Value::Null);
    }
    Ok(Reply::ok(&out))
}
