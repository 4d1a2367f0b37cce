//! A small cloud: one image service with fixed tokens.

use crate::{Images, MIGRATIONS, RULES};
use axum::Router;
use axum::body::Body;
use haneul_auth::{Authenticator, BoxFuture, Ctx, Policy, RoleRef, ScopeKind, context::CtxInner};
use haneul_core::config::Config;
use haneul_core::{Error, Result, id};
use haneul_http::Server;
use haneul_jobs::Jobs;
use haneul_store::{Db, OpenOptions};
use haneul_testkit::postgres::Postgres;
use http::{HeaderMap, Method, Request, StatusCode};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::task::AbortHandle;
use tower::ServiceExt;

thread_local! {
    /// Set for a thread whose tests run on PostgreSQL.
    static POSTGRES: RefCell<Option<Postgres>> = const { RefCell::new(None) };
}

/// From here on, clouds of this thread keep their state in PostgreSQL.
pub(crate) fn use_postgres() {
    let server = Postgres::start().unwrap();
    POSTGRES.with(|p| *p.borrow_mut() = Some(server));
}

/// An empty database.
fn database_url(dir: &Path) -> String {
    POSTGRES.with(|p| match &*p.borrow() {
        Some(server) => server.create_database(&id::hex()).unwrap(),
        None => format!("sqlite:{}", dir.join("test.db").display()),
    })
}

/// Tokens: `admin`, `alice` and `amy` (member and reader of project `aaa`), `bob` (member of `bbb`).
pub(crate) struct Cloud {
    pub app: Arc<Images>,
    pub router: Router,
    pub db: Db,
    pub config: Config,
    dir: PathBuf,
    running: AbortHandle,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: bytes::Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or(Value::Null)
    }
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
    /// Demands a status.
    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        self
    }
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
    }
}

struct Tokens(Arc<Policy>);

impl Authenticator for Tokens {
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Arc<CtxInner>>> {
        Box::pin(async move {
            let (project, roles): (&str, &[&str]) = match token {
                "admin" => ("adm", &["admin", "manager", "member", "reader"]),
                "alice" => ("aaa", &["member", "reader"]),
                "amy" => ("aaa", &["reader"]),
                "service" => ("aaa", &["service", "member", "reader"]),
                "bob" => ("bbb", &["member", "reader"]),
                _ => return Err(Error::unauthorized()),
            };
            Ok(Arc::new(CtxInner {
                user_id: token.into(),
                user_name: token.into(),
                user_domain_id: "default".into(),
                user_domain_name: "Default".into(),
                scope: ScopeKind::Project {
                    id: project.into(),
                    name: project.into(),
                    domain_id: "default".into(),
                    domain_name: "Default".into(),
                },
                roles: roles
                    .iter()
                    .map(|r| RoleRef {
                        id: (*r).into(),
                        name: (*r).into(),
                    })
                    .collect(),
                expires_at: i64::MAX,
                issued_at: 0,
                audit_ids: vec![],
                methods: vec!["password".into()],
                application_credential_id: None,
                password_expires_at: None,
            }))
        })
    }
    fn policy(&self) -> Arc<Policy> {
        self.0.clone()
    }
}

impl Cloud {
    pub async fn open() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(bend: impl FnOnce(&mut Config)) -> Self {
        let dir = std::env::temp_dir().join(format!("haneul-image-{}", id::hex()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut config = Config::default();
        config.state_dir.0.clone_from(&dir);
        config.image.reserve_bytes = 0;
        bend(&mut config);
        std::fs::create_dir_all(config.control_dir()).unwrap();
        let url = database_url(&dir);
        let db = Db::open(
            &OpenOptions { url, readers: 2 },
            &[haneul_jobs::MIGRATIONS, MIGRATIONS].concat(),
        )
        .await
        .unwrap();
        let (app, router, running) = Self::serve(&db, &config);
        Self {
            app,
            router,
            db,
            config,
            dir,
            running,
        }
    }

    fn serve(db: &Db, config: &Config) -> (Arc<Images>, Router, AbortHandle) {
        let jobs = Jobs::new(db.clone());
        let app = Images::new(db.clone(), config, jobs.clone()).unwrap();
        jobs.register(app.sagas());
        let running = tokio::spawn(async move { jobs.run().await }).abort_handle();
        let policy = Arc::new(Policy::new(RULES, &[]).unwrap());
        let server = Server {
            auth: Arc::new(Tokens(policy)),
            metrics: Arc::default(),
            public_url: "http://127.0.0.1:8774".into(),
            max_body: 1 << 20,
            max_limit: 1000,
        };
        let router = app.router(&server);
        (app, router, running)
    }

    /// The process dies and starts again over the same state.
    pub fn restart(&mut self) {
        self.running.abort();
        (self.app, self.router, self.running) = Self::serve(&self.db, &self.config);
    }

    pub async fn ctx(&self, token: &str) -> Ctx {
        let tokens = Tokens(Arc::new(Policy::new(RULES, &[]).unwrap()));
        Ctx {
            inner: tokens.authenticate(token).await.unwrap(),
            request_id: "req-test".into(),
            policy: tokens.policy(),
        }
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            bytes,
        }
    }

    pub async fn call(
        &self,
        token: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(format!("/image{path}"))
            .header("x-auth-token", token);
        for (k, v) in headers {
            request = request.header(*k, *v);
        }
        self.send(request.body(body.into()).unwrap()).await
    }

    pub async fn get(&self, token: &str, path: &str) -> Answer {
        self.call(token, "GET", path, &[], Body::empty()).await
    }

    pub async fn delete(&self, token: &str, path: &str) -> Answer {
        self.call(token, "DELETE", path, &[], Body::empty()).await
    }

    pub async fn post(&self, token: &str, path: &str, body: &Value) -> Answer {
        let headers = [("content-type", "application/json")];
        self.call(token, "POST", path, &headers, body.to_string()).await
    }

    pub async fn put(&self, token: &str, path: &str, body: &Value) -> Answer {
        let headers = [("content-type", "application/json")];
        self.call(token, "PUT", path, &headers, body.to_string()).await
    }

    pub async fn patch(&self, token: &str, id: &str, body: &Value) -> Answer {
        let headers = [("content-type", "application/openstack-images-v2.1-json-patch")];
        self.call(token, "PATCH", &format!("/v2/images/{id}"), &headers, body.to_string())
            .await
    }

    pub async fn upload(&self, token: &str, id: &str, data: impl Into<Body>) -> Answer {
        let headers = [("content-type", "application/octet-stream")];
        self.call(token, "PUT", &format!("/v2/images/{id}/file"), &headers, data)
            .await
    }

    /// A new image with these fields beside its formats; gives its id.
    pub async fn image(&self, token: &str, fields: Value) -> String {
        let mut body = json!({"disk_format": "raw", "container_format": "bare"});
        for (k, v) in fields.as_object().unwrap() {
            body[k] = v.clone();
        }
        let made = self.post(token, "/v2/images", &body).await.is(201);
        made.json()["id"].as_str().unwrap().to_owned()
    }

    pub async fn show(&self, token: &str, id: &str) -> Value {
        self.get(token, &format!("/v2/images/{id}")).await.is(200).json()
    }

    /// Ids of a list.
    pub async fn list(&self, token: &str, query: &str) -> Vec<String> {
        let answer = self.get(token, &format!("/v2/images{query}")).await.is(200);
        let ids = answer.json()["images"].as_array().unwrap().clone();
        ids.iter().map(|i| i["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Rows of each table: what a refused request must leave as it was.
    pub async fn counts(&self) -> Vec<(String, i64)> {
        let mut tx = self.db.read().await.unwrap();
        let mut out = Vec::new();
        for table in [
            "image",
            "image_member",
            "image_tag",
            "image_property",
            "image_trash",
            "image_task",
            "image_cache",
            "job",
            "metadef_namespace",
            "metadef_object",
            "metadef_property",
            "metadef_tag",
            "metadef_association",
            "metadef_resource_type",
            "change_log",
        ] {
            let row = tx
                .row(&format!("SELECT COUNT(*) FROM {table}"), &[])
                .await
                .unwrap()
                .unwrap();
            out.push((table.to_owned(), row.i64(0).unwrap()));
        }
        out
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.running.abort();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
