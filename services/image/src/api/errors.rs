//! Errors in the form that the client asks for.
//!
//! Glance's errors come from webob, which answers HTML unless the client prefers JSON. That is not a matter of
//! taste: python-glanceclient takes the message out of HTML, and fails on webob's JSON (its values are
//! strings where it expects objects). So this layer turns the JSON that base/http renders into HTML for
//! everybody who did not ask for JSON first. A 401 is keystonemiddleware's, and JSON always.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use haneul_core::Error;
use haneul_http::{Reply, Service};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::Value;

/// An error as base/http renders it, for handlers that add headers to one.
pub(super) fn reply(e: &Error, request_id: &str) -> Reply {
    Service::Image.render(e, request_id, None)
}

/// Wraps the service's router.
pub(crate) fn layer(router: Router) -> Router {
    router.layer(from_fn(dress))
}

async fn dress(request: Request, next: Next) -> Response {
    let json_wanted = prefers_json(request.headers());
    let is_ours = request.uri().path().starts_with(Service::Image.prefix());
    let response = next.run(request).await;
    let status = response.status();
    let is_json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|t| t.as_bytes().starts_with(b"application/json"));
    let by_keystone = status == StatusCode::UNAUTHORIZED;
    if !is_ours || status.as_u16() < 400 || by_keystone || !is_json {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // Our own error bodies: short, and in memory already.
    let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
    let message = serde_json::from_slice::<Value>(&bytes)
        .ok()
        .and_then(|v| Some(v.get("message")?.as_str()?.split("<br />").next()?.to_owned()))
        .unwrap_or_default();
    let (kind, text) = if json_wanted {
        ("application/json", bytes.to_vec())
    } else {
        ("text/html; charset=UTF-8", html(status, &message).into_bytes())
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    parts
        .headers
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Response::from_parts(parts, Body::from(text))
}

fn html(status: StatusCode, message: &str) -> String {
    let title = format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or("Error"));
    let message = message.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!(
        "<html>\n <head>\n  <title>{title}</title>\n </head>\n <body>\n  <h1>{title}</h1>\n  {message}<br \
         /><br />\n\n\n\n </body>\n</html>"
    )
}

/// Whether `Accept` puts JSON before HTML (RFC 9110, 12.5.1).
fn prefers_json(headers: &HeaderMap) -> bool {
    let (mut json, mut html) = (Quality::default(), Quality::default());
    for value in headers.get_all(header::ACCEPT) {
        for part in value.to_str().unwrap_or_default().split(',') {
            let mut pieces = part.split(';').map(str::trim);
            let range = pieces.next().unwrap_or_default().to_ascii_lowercase();
            let q = pieces
                .filter_map(|p| p.strip_prefix("q="))
                .filter_map(|q| q.parse::<f32>().ok())
                .next()
                .unwrap_or(1.0);
            json.see(&range, "application/*", "application/json", q);
            html.see(&range, "text/*", "text/html", q);
        }
    }
    json.q > html.q
}

/// Quality of one media type: the most specific range that covers it decides.
#[derive(Default)]
struct Quality {
    q: f32,
    specific: u8,
}

impl Quality {
    fn see(&mut self, range: &str, group: &str, exact: &str, q: f32) {
        let specific = match range {
            r if r == exact => 3,
            r if r == group => 2,
            "*/*" => 1,
            _ => return,
        };
        if specific > self.specific {
            *self = Self { q, specific };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept() {
        let wants = |accept: Option<&'static str>| {
            let mut h = HeaderMap::new();
            if let Some(a) = accept {
                h.insert(header::ACCEPT, HeaderValue::from_static(a));
            }
            prefers_json(&h)
        };
        assert!(wants(Some("application/json")));
        assert!(wants(Some("text/html;q=0.5, application/json")));
        assert!(wants(Some("application/json, */*;q=0.1")));
        assert!(!wants(Some("*/*")));
        assert!(!wants(Some("")));
        assert!(!wants(Some("text/html, application/json")));
        assert!(!wants(None));
    }

    #[test]
    fn messages_cannot_write_html() {
        assert!(html(StatusCode::BAD_REQUEST, "<script>").contains("&lt;script&gt;"));
    }
}
