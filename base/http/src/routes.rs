//! The route table, and serving it.

use crate::metrics::Metrics;
use crate::request::{Req, split_query};
use crate::version::{Ver, Versions};
use crate::{Reply, Service};
use axum::Router;
use axum::body::Body;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{ConnectInfo, RawPathParams, Request};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use haneul_auth::{Asked, Authenticator, Ctx};
use haneul_core::{Error, Kind, Result, id};
use http::{HeaderValue, Method};
use std::future::Future;
use std::net::SocketAddr;
use std::panic::Location;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Instant;

type Handler = Arc<dyn Fn(Req) -> Pin<Box<dyn Future<Output = Result<Reply>> + Send>> + Send + Sync>;

/// One line of a route table, for docs/routes.txt and the sweep test.
#[derive(Clone, Debug)]
pub struct RouteInfo {
    pub service: Service,
    pub method: Method,
    /// With the service's prefix; parameters as `{id}`.
    pub path: String,
    /// The handler's path in Rust.
    pub handler: &'static str,
    /// The policy rule, or `public`, or `own` for rules that the handler decides by the body.
    pub rule: &'static str,
    pub since: Option<Ver>,
    pub until: Option<Ver>,
    pub file: &'static str,
    pub line: u32,
}

#[derive(Clone)]
struct Entry {
    info: RouteInfo,
    public: bool,
    /// See [`Routes::legacy`].
    legacy: bool,
    /// See [`Routes::no_query_since`].
    no_query: Option<Ver>,
    handler: Handler,
}

/// A service's table.
pub struct Routes<S> {
    service: Service,
    state: Arc<S>,
    versions: Option<Versions>,
    entries: Vec<Entry>,
}

/// What all services need to serve.
#[derive(Clone)]
pub struct Server {
    pub auth: Arc<dyn Authenticator>,
    pub metrics: Arc<Metrics>,
    /// `http://127.0.0.1:8774`
    pub public_url: Arc<str>,
    pub max_body: usize,
    pub max_limit: i64,
}

macro_rules! verb {
    ($($name:ident $method:ident),*) => {$(
        /// A route of this method, with its policy rule.
        #[track_caller]
        pub fn $name<F, Fut>(self, path: &str, handler: F, rule: &'static str) -> Self
        where F: Fn(Arc<S>, Req) -> Fut + Send + Sync + 'static, Fut: Future<Output = Result<Reply>> + Send + 'static {
            self.add(Method::$method, path, handler, rule, false)
        }
    )*};
}

impl<S: Send + Sync + 'static> Routes<S> {
    pub fn new(service: Service, state: Arc<S>) -> Self {
        Self {
            service,
            state,
            versions: None,
            entries: Vec::new(),
        }
    }

    /// The service has microversions.
    pub fn versions(mut self, versions: Versions) -> Self {
        self.versions = Some(versions);
        self
    }

    verb!(get GET, post POST, put PUT, patch PATCH, delete DELETE, head HEAD);

    /// A route without authentication.
    #[track_caller]
    pub fn public<F, Fut>(self, method: Method, path: &str, handler: F) -> Self
    where
        F: Fn(Arc<S>, Req) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply>> + Send + 'static,
    {
        self.add(method, path, handler, "public", true)
    }

    /// The route added last exists only from this microversion on.
    pub fn since(mut self, major: u16, minor: u16) -> Self {
        if let Some(e) = self.entries.last_mut() {
            e.info.since = Some(Ver(major, minor));
        }
        self
    }

    /// The route added last exists only up to this microversion.
    pub fn until(mut self, major: u16, minor: u16) -> Self {
        if let Some(e) = self.entries.last_mut() {
            e.info.until = Some(Ver(major, minor));
        }
        self
    }

    /// The routes that `add` adds exist only up to this microversion.
    pub fn all_until(self, major: u16, minor: u16, add: impl FnOnce(Self) -> Self) -> Self {
        let before = self.entries.len();
        let mut all = add(self);
        for e in all.entries.iter_mut().skip(before) {
            e.info.until = Some(Ver(major, minor));
        }
        all
    }

    #[track_caller]
    fn add<F, Fut>(mut self, method: Method, path: &str, handler: F, rule: &'static str, public: bool) -> Self
    where
        F: Fn(Arc<S>, Req) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply>> + Send + 'static,
    {
        let at = Location::caller();
        let state = self.state.clone();
        self.entries.push(Entry {
            info: RouteInfo {
                service: self.service,
                method,
                path: format!("{}{path}", self.service.prefix()),
                handler: std::any::type_name::<F>(),
                rule,
                since: None,
                until: None,
                file: at.file(),
                line: at.line(),
            },
            public,
            legacy: false,
            no_query: None,
            handler: Arc::new(move |req| Box::pin(handler(state.clone(), req))),
        });
        self
    }

    /// What the table has below `from` is served below `to` as well, as it was before there were microversions: in the
    /// oldest, whatever a header asks for, and unknown fields of a body are dropped instead of refused (Nova's /v2).
    pub fn legacy(mut self, from: &str, to: &str) -> Self {
        let prefix = self.service.prefix();
        let (from, to) = (format!("{prefix}{from}/"), format!("{prefix}{to}/"));
        let mut again: Vec<Entry> = self.entries.iter().filter(|e| !e.public).cloned().collect();
        again.retain_mut(|e| {
            let Some(rest) = e.info.path.strip_prefix(&from) else {
                return false;
            };
            e.info.path = format!("{to}{rest}");
            e.legacy = true;
            true
        });
        self.entries.extend(again);
        self
    }

    /// From this version on a query is refused, but on these paths, whose handlers look at it themselves.
    pub fn no_query_since(mut self, version: Ver, but: &[&str]) -> Self {
        let prefix = self.service.prefix();
        for e in &mut self.entries {
            let own = e.info.path.strip_prefix(prefix).unwrap_or_default();
            e.no_query = Some(version).filter(|_| !but.contains(&own));
        }
        self
    }

    /// The table, for documents and tests, without what [`Routes::legacy`] repeats.
    pub fn infos(&self) -> Vec<RouteInfo> {
        let own = self.entries.iter().filter(|e| !e.legacy);
        own.map(|e| e.info.clone()).collect()
    }

    /// The router. Anything below the service's prefix that is not in the table is answered in the
    /// service's shape: 401 without a good token, else 404 or 405.
    pub fn into_router(self, server: &Server) -> Router {
        let mut router = Router::new();
        let service = self.service;
        let versions = self.versions;
        // One path may stand in the table once per method.
        let mut paths: Vec<String> = Vec::new();
        for e in &self.entries {
            if !paths.contains(&e.info.path) {
                paths.push(e.info.path.clone());
            }
        }
        let base: Arc<str> = format!("{}{}", server.public_url, service.prefix()).into();
        for path in paths {
            let mut methods = MethodRouter::new();
            for e in self.entries.iter().filter(|e| e.info.path == path) {
                let Ok(filter) = MethodFilter::try_from(e.info.method.clone()) else {
                    continue;
                };
                let (server, base) = (server.clone(), base.clone());
                let (handler, public, legacy, no_query) = (e.handler.clone(), e.public, e.legacy, e.no_query);
                let window = (e.info.since, e.info.until);
                methods = methods.merge(on(
                    filter,
                    move |params: Result<RawPathParams, RawPathParamsRejection>, request: Request| {
                        let (server, base, handler) = (server.clone(), base.clone(), handler.clone());
                        async move {
                            let call = Call {
                                server,
                                base,
                                service,
                                versions,
                                public,
                                legacy,
                                no_query,
                                window,
                            };
                            // Decoded already; a part that is no UTF-8 names nothing that we have.
                            let params = params
                                .map(|p| p.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
                                .ok();
                            call.run(params, request, handler).await
                        }
                    },
                ));
            }
            let server_ = server.clone();
            let there = self.entries.iter().filter(|e| e.info.path == path);
            let allow: Arc<str> = there
                .map(|e| e.info.method.as_str())
                .collect::<Vec<_>>()
                .join(", ")
                .into();
            methods = methods.fallback(move |request: Request| {
                let (server, allow) = (server_.clone(), allow.clone());
                async move { unknown(&server, service, versions, request, Some(&allow)).await }
            });
            // Keystone takes a slash off the end of any path.
            let slashed = format!("{path}/");
            if service == Service::Identity
                && !path.ends_with('/')
                && !self.entries.iter().any(|e| e.info.path == slashed)
            {
                router = router.route(&slashed, methods.clone());
            }
            router = router.route(&path, methods);
        }
        if service != Service::Front {
            for pattern in ["", "/", "/{*rest}"] {
                let path = format!("{}{pattern}", service.prefix());
                if self.entries.iter().any(|e| e.info.path == path) {
                    continue;
                }
                let server = server.clone();
                router = router.route(
                    &path,
                    axum::routing::any(move |request: Request| {
                        let server = server.clone();
                        async move { unknown(&server, service, versions, request, None).await }
                    }),
                );
            }
        }
        router
    }
}

struct Call {
    server: Server,
    base: Arc<str>,
    service: Service,
    versions: Option<Versions>,
    public: bool,
    legacy: bool,
    no_query: Option<Ver>,
    window: (Option<Ver>, Option<Ver>),
}

impl Call {
    async fn run(self, params: Option<Vec<(String, String)>>, request: Request, handler: Handler) -> Response {
        let start = Instant::now();
        let request_id: Arc<str> = id::request().into();
        let mut version = None;
        let path = request.uri().path().to_owned();
        let result = self.inner(params, request, handler, &request_id, &mut version).await;
        finish(
            &self.server,
            self.service,
            self.versions.filter(|_| !self.legacy),
            version,
            &request_id,
            start,
            result,
            &path,
        )
    }

    async fn inner(
        &self,
        params: Option<Vec<(String, String)>>,
        request: Request,
        handler: Handler,
        request_id: &Arc<str>,
        version: &mut Option<Ver>,
    ) -> Result<Reply> {
        let (parts, body) = request.into_parts();
        let peer = parts
            .extensions
            .get::<ConnectInfo<SocketAddr>>()
            .map(|info| info.0.ip());
        let ctx = if self.public {
            None
        } else {
            let asked = asked(self.service, &parts.method, parts.uri.path());
            Some(authenticate(&self.server, &parts.headers, asked, request_id).await?)
        };
        if let Some(v) = &self.versions {
            *version = Some(match self.legacy {
                true => v.min,
                false => v.negotiate(&parts.headers)?,
            });
        }
        let ver = version.unwrap_or(Ver(0, 0));
        if self.versions.is_some() && (self.window.0.is_some_and(|s| ver < s) || self.window.1.is_some_and(|u| ver > u))
        {
            return Err(Error::not_found("The resource could not be found."));
        }
        let query = split_query(parts.uri.query().unwrap_or_default());
        if self.no_query.is_some_and(|since| ver >= since)
            && let Some((name, _)) = query.first()
        {
            return Err(Error::field(
                name.clone(),
                format!(
                    "Additional properties are not allowed ('{name}' was unexpected): this takes no query parameters."
                ),
            ));
        }
        let own = parts.uri.path().strip_prefix(self.service.prefix()).unwrap_or_default();
        let own = match self.service {
            Service::Identity => own.strip_suffix('/').unwrap_or(own),
            _ => own,
        };
        let req = Req {
            ctx,
            service: self.service,
            method: parts.method,
            uri_path: own.to_owned(),
            params: params.ok_or_else(|| Error::not_found("The resource could not be found."))?,
            query,
            headers: parts.headers,
            version: ver,
            legacy: self.legacy,
            body: Mutex::new(body),
            max_body: self.server.max_body,
            max_limit: self.server.max_limit,
            base: self.base.clone(),
            request_id: request_id.clone(),
            peer,
        };
        handler(req).await
    }
}

fn asked<'a>(service: Service, method: &'a Method, path: &'a str) -> Asked<'a> {
    Asked {
        service: service.kind(),
        method: method.as_str(),
        path,
        prefix: service.prefix(),
    }
}

async fn authenticate(
    server: &Server,
    headers: &http::HeaderMap,
    asked: Asked<'_>,
    request_id: &Arc<str>,
) -> Result<Ctx> {
    let token = headers
        .get("x-auth-token")
        .and_then(|t| t.to_str().ok())
        .ok_or_else(Error::unauthorized)?;
    Ok(Ctx {
        inner: server.auth.authenticate_for(token, asked).await?,
        request_id: request_id.clone(),
        policy: server.auth.policy(),
    })
}

/// A path that is not in the table, or one whose methods `allow` lists.
async fn unknown(
    server: &Server,
    service: Service,
    versions: Option<Versions>,
    request: Request,
    allow: Option<&str>,
) -> Response {
    let start = Instant::now();
    let request_id: Arc<str> = id::request().into();
    let path = request.uri().path().to_owned();
    let asked = asked(service, request.method(), &path);
    let mut version = None;
    let error = match authenticate(server, request.headers(), asked, &request_id).await {
        Err(e) => e,
        Ok(_) => {
            version = versions.and_then(|v| v.negotiate(request.headers()).ok());
            match allow {
                Some(_) => Error::new(
                    Kind::MethodNotAllowed,
                    format!("The method {} is not allowed for this resource.", request.method()),
                ),
                None => Error::new(Kind::NotFound, "The resource could not be found."),
            }
        }
    };
    let kind = error.kind();
    let mut response = finish(
        server,
        service,
        versions,
        version,
        &request_id,
        start,
        Err(error),
        &path,
    );
    if kind == Kind::MethodNotAllowed
        && let Some(Ok(value)) = allow.map(HeaderValue::from_str)
    {
        response.headers_mut().insert(http::header::ALLOW, value);
    }
    response
}

#[allow(clippy::too_many_arguments)]
fn finish(
    server: &Server,
    service: Service,
    versions: Option<Versions>,
    version: Option<Ver>,
    request_id: &str,
    start: Instant,
    result: Result<Reply>,
    path: &str,
) -> Response {
    let mut response: http::Response<Body> = match result {
        Ok(reply) => reply.0,
        Err(e) => {
            let status = service.status(&e).as_u16();
            // Logged here, where it is handled, and nowhere on its way.
            if status >= 500 {
                tracing::error!(request_id, path, status, error = %e, "request failed");
            } else {
                tracing::debug!(request_id, path, status, error = %e, "request refused");
            }
            service.render(&e, request_id, version).0
        }
    };
    let headers = response.headers_mut();
    if let Ok(v) = HeaderValue::from_str(request_id) {
        headers.insert("x-openstack-request-id", v.clone());
        if service == Service::Compute {
            headers.insert("x-compute-request-id", v);
        }
    }
    if let Some(versions) = versions {
        let v = version.unwrap_or(versions.min);
        if let Ok(text) = HeaderValue::from_str(&format!("{} {v}", versions.name)) {
            headers.insert("openstack-api-version", text);
        }
        let mut vary = versions.vary().to_owned();
        if let Some(h) = versions.legacy_header {
            if let (Ok(name), Ok(text)) = (
                http::HeaderName::from_bytes(h.as_bytes()),
                HeaderValue::from_str(&v.to_string()),
            ) {
                headers.insert(name, text);
            }
            vary = format!("{vary}, {h}");
        }
        if let Ok(text) = HeaderValue::from_str(&vary) {
            headers.insert("vary", text);
        }
    } else if service != Service::Front {
        headers
            .entry("vary")
            .or_insert(HeaderValue::from_static("X-Auth-Token"));
    }
    server
        .metrics
        .count(service, response.status().as_u16(), start.elapsed());
    response
}
