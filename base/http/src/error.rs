//! Errors in each service's own body shape and status.

use crate::{Reply, Ver};
use haneul_core::{Error, Kind};
use http::StatusCode;
use serde_json::{Value, json};

/// Which service speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    Identity,
    Image,
    Network,
    Compute,
    Placement,
    /// `/`, `/healthz` and the like.
    Front,
}

impl Service {
    /// Its type in the catalog.
    pub fn kind(self) -> &'static str {
        match self {
            Service::Identity => "identity",
            Service::Image => "image",
            Service::Network => "network",
            Service::Compute => "compute",
            Service::Placement => "placement",
            Service::Front => "",
        }
    }

    /// The first part of its paths.
    pub fn prefix(self) -> &'static str {
        match self {
            Service::Identity => "/identity",
            Service::Image => "/image",
            Service::Network => "/network",
            Service::Compute => "/compute",
            Service::Placement => "/placement",
            Service::Front => "",
        }
    }

    /// The status that this service gives for a kind of error.
    pub fn status(self, e: &Error) -> StatusCode {
        let code = match (self, e.kind()) {
            // Neutron: OverQuota is a conflict. Glance: too large.
            (Service::Network, Kind::OverQuota) => 409,
            (Service::Image, Kind::OverQuota) => 413,
            // Glance speaks of a full store with 413.
            (Service::Image, Kind::InsufficientStorage) => 413,
            (_, kind) => kind.status(),
        };
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The whole answer for an error, at the microversion that was agreed on.
    pub fn render(self, e: &Error, request_id: &str, version: Option<Ver>) -> Reply {
        let status = self.status(e);
        let code = status.as_u16();
        let title = status.canonical_reason().unwrap_or("Error");
        let message = e.public();
        let body = match self {
            // Whichever the service, keystonemiddleware answers in front of it.
            _ if code == 401 => json!({"error": {"code": code, "title": title, "message": message}}),
            Service::Compute => {
                // nova/api/openstack/wsgi.py, Fault: the name depends on the status.
                let name = match code {
                    400 => "badRequest",
                    403 => "forbidden",
                    404 => "itemNotFound",
                    405 => "badMethod",
                    409 => "conflictingRequest",
                    413 => "overLimit",
                    415 => "badMediaType",
                    429 => "overLimit",
                    501 => "notImplemented",
                    503 => "serviceUnavailable",
                    _ => "computeFault",
                };
                let mut fault = json!({"code": code, "message": message});
                if let (Some(d), Some(map)) = (e.details(), fault.as_object_mut()) {
                    map.insert("details".into(), d.clone());
                }
                json!({ name: fault })
            }
            Service::Network => {
                let kind = if e.code().is_empty() {
                    match code {
                        400 => "HTTPBadRequest",
                        403 => "HTTPForbidden",
                        404 => "HTTPNotFound",
                        405 => "HTTPMethodNotAllowed",
                        409 => "HTTPConflict",
                        412 => "HTTPPreconditionFailed",
                        413 => "HTTPRequestEntityTooLarge",
                        503 => "HTTPServiceUnavailable",
                        _ => "HTTPInternalServerError",
                    }
                } else {
                    e.code()
                };
                let detail = e.details().map_or_else(String::new, Value::to_string);
                json!({"NeutronError": {"type": kind, "message": message, "detail": detail}})
            }
            Service::Identity | Service::Front => {
                json!({"error": {"code": code, "message": message, "title": title}})
            }
            Service::Placement => {
                let mut one = json!({"status": code, "title": title, "detail": message, "request_id": request_id});
                if let Some(map) = one.as_object_mut() {
                    let c = if e.code().is_empty() {
                        "placement.undefined_code"
                    } else {
                        e.code()
                    };
                    // Codes came with 1.23 (Placement's REST API version history).
                    if version.is_some_and(|v| v >= Ver(1, 23)) {
                        map.insert("code".into(), c.into());
                    }
                    match e.details() {
                        // A version that there is not: its details are Placement's own.
                        Some(Value::Object(versions)) if code == 406 => map.extend(versions.clone()),
                        Some(d) => {
                            map.insert("haneul:details".into(), d.clone());
                        }
                        None => {}
                    }
                }
                json!({"errors": [one]})
            }
            Service::Image => {
                // Glance (webob) gives JSON to who accepts it: code, title, message.
                json!({"message": format!("{message}<br /><br />\n\n\n"), "code": format!("{code} {title}"), "title": title})
            }
        };
        let mut reply = Reply::json(status, &body);
        if code == 401 {
            reply = reply.header("www-authenticate", "Keystone uri=\"/identity\"");
        }
        if code == 503 {
            reply = reply.header("retry-after", "1");
        }
        reply
    }
}
