//! An identity service on a loopback port, and short words to speak to it.

use haneul_core::clock::{self, Micros, SECOND};
use haneul_core::config::Config;
use haneul_http::client::{Answer, Peer, send};
use haneul_http::{RouteInfo, Server};
use haneul_identity::Identity;
use haneul_store::{Db, OpenOptions};
use http::Method;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

pub struct Cloud {
    pub identity: Arc<Identity>,
    pub db: Db,
    pub peer: Peer,
    pub url: String,
    pub routes: Vec<RouteInfo>,
    pub password: String,
    /// Of user admin on project admin.
    pub admin: String,
    pub dir: PathBuf,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.server.abort();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub fn token_of(answer: &Answer) -> String {
    answer
        .headers
        .get("x-subject-token")
        .unwrap_or_else(|| panic!("no token: {} {}", answer.status, answer.json()))
        .to_str()
        .unwrap()
        .to_owned()
}

impl Cloud {
    pub async fn sqlite() -> Cloud {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Cloud {
        let file = std::env::temp_dir().join(format!("haneul-identity-{}.db", haneul_core::id::hex()));
        let cloud = Self::open(&format!("sqlite:{}", file.display()), change).await;
        // Open already; the name is not needed any longer. The -wal and -shm files go with the connections.
        cloud
    }

    pub async fn open(url: &str, change: impl FnOnce(&mut Config)) -> Cloud {
        let dir = std::env::temp_dir().join(format!("haneul-identity-{}", haneul_core::id::hex()));
        std::fs::create_dir_all(&dir).unwrap();
        let url = match url.strip_prefix("sqlite:") {
            Some(_) => format!("sqlite:{}", dir.join("t.db").display()),
            None => url.to_owned(),
        };
        let mut config = Config::default();
        config.identity.bcrypt_rounds = 4;
        change(&mut config);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        config.api.listen = listener.local_addr().unwrap();
        let db = Db::open(&OpenOptions { url, readers: 4 }, haneul_identity::MIGRATIONS)
            .await
            .unwrap();
        let identity = Arc::new(Identity::new(db.clone(), &config, dir.join("keys")).unwrap());
        let password = identity
            .bootstrap(None)
            .await
            .unwrap()
            .expect("the first start makes a password");
        assert_eq!(
            identity.bootstrap(None).await.unwrap(),
            None,
            "the second start makes none"
        );
        let server = Server {
            auth: identity.clone(),
            metrics: Arc::default(),
            public_url: config.public_url().into(),
            max_body: config.api.max_body_bytes,
            max_limit: config.api.max_limit,
        };
        let routes = identity.routes().infos();
        let router = identity.routes().into_router(&server);
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let mut cloud = Cloud {
            identity,
            db,
            peer: Peer::Tcp(config.api.listen.to_string()),
            url: config.public_url(),
            routes,
            password,
            admin: String::new(),
            dir,
            server,
        };
        cloud.admin = token_of(
            &cloud
                .login(
                    "admin",
                    &cloud.password,
                    json!({"project": {"name": "admin", "domain": {"id": "default"}}}),
                )
                .await,
        );
        cloud
    }

    /// Any request. `path` is below /identity/v3.
    pub async fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<bytes::Bytes>,
    ) -> Answer {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        send(&self.peer, method, &format!("/identity/v3{path}"), headers, body)
            .await
            .unwrap()
    }

    pub async fn call(&self, token: &str, method: &str, path: &str, body: Value) -> Answer {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        self.raw(
            method,
            path,
            &[("x-auth-token", token), ("content-type", "application/json")],
            body,
        )
        .await
    }

    /// As user admin on project admin: status and body.
    pub async fn admin(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let a = self.call(&self.admin, method, path, body).await;
        (a.status.as_u16(), a.json())
    }

    /// As admin, with this status or the test fails.
    pub async fn ok(&self, status: u16, method: &str, path: &str, body: Value) -> Value {
        let (got, doc) = self.admin(method, path, body).await;
        assert_eq!(got, status, "{method} {path}: {doc}");
        doc
    }

    pub async fn auth(&self, auth: Value) -> Answer {
        self.raw("POST", "/auth/tokens", &[], json!({ "auth": auth }).to_string())
            .await
    }

    /// Password of a user of the default domain. A null scope is left out.
    pub async fn login(&self, user: &str, password: &str, scope: Value) -> Answer {
        let mut auth = json!({"identity": {"methods": ["password"], "password": {
            "user": {"name": user, "password": password, "domain": {"id": "default"}}}}});
        if !scope.is_null() {
            auth["scope"] = scope;
        }
        self.auth(auth).await
    }

    pub async fn rescope(&self, token: &str, scope: Value) -> Answer {
        let mut auth = json!({"identity": {"methods": ["token"], "token": {"id": token}}});
        if !scope.is_null() {
            auth["scope"] = scope;
        }
        self.auth(auth).await
    }

    /// Whether a token is good, asked by the administrator.
    pub async fn is_good(&self, token: &str) -> bool {
        // Twice: not from a cache that knows better the second time.
        let mut seen = [false; 2];
        for s in &mut seen {
            let own = self
                .raw("GET", "/auth/projects", &[("x-auth-token", token)], "")
                .await
                .status
                == 200;
            let told = self
                .raw(
                    "HEAD",
                    "/auth/tokens",
                    &[("x-auth-token", &self.admin), ("x-subject-token", token)],
                    "",
                )
                .await
                .status;
            assert_eq!(own, told == 200, "both ways agree");
            assert!(told == 200 || told == 404, "{told}");
            *s = own;
        }
        assert_eq!(seen[0], seen[1]);
        seen[0]
    }

    pub async fn make(&self, what: &str, body: Value) -> String {
        let collection = if what == "project" || what == "user" || what == "domain" || what == "role" || what == "group"
        {
            format!("/{what}s")
        } else {
            panic!("{what}")
        };
        let doc = self.ok(201, "POST", &collection, json!({ what: body })).await;
        doc[what]["id"].as_str().unwrap().to_owned()
    }

    pub async fn role(&self, name: &str) -> String {
        let doc = self.ok(200, "GET", &format!("/roles?name={name}"), Value::Null).await;
        doc["roles"][0]["id"]
            .as_str()
            .unwrap_or_else(|| panic!("no role {name}"))
            .to_owned()
    }

    /// A user with a role on a new project, both of this name; password `secret`. Answers (user, project,
    /// token).
    pub async fn tenant(&self, name: &str, role: &str) -> (String, String, String) {
        let project = self
            .make("project", json!({"name": name, "domain_id": "default"}))
            .await;
        let user = self
            .make(
                "user",
                json!({"name": name, "domain_id": "default", "password": "secret"}),
            )
            .await;
        let role = self.role(role).await;
        self.ok(
            204,
            "PUT",
            &format!("/projects/{project}/users/{user}/roles/{role}"),
            Value::Null,
        )
        .await;
        let token = token_of(&self.login(name, "secret", json!({"project": {"id": project}})).await);
        (user, project, token)
    }

    /// Rows of all of identity's tables and of the change log. Failures are counted in place.
    pub async fn rows(&self) -> Vec<i64> {
        let mut tx = self.db.read().await.unwrap();
        let mut out = Vec::new();
        for table in [
            "identity_domain",
            "identity_project",
            "identity_user",
            "identity_group",
            "identity_membership",
            "identity_role",
            "identity_implied_role",
            "identity_assignment",
            "identity_app_cred",
            "identity_credential",
            "identity_trust",
            "identity_access_rule",
            "identity_policy",
            "identity_consumer",
            "identity_domain_config",
            "identity_endpoint_group",
            "identity_endpoint_filter",
            "identity_credential_blob",
            "identity_request_token",
            "identity_access_token",
            "identity_registered_limit",
            "identity_limit",
            "identity_policy_association",
            "identity_region",
            "identity_service",
            "identity_endpoint",
            "identity_secret",
            "identity_revocation",
            "change_log",
        ] {
            let row = tx
                .row(&format!("SELECT COUNT(*) FROM {table}"), &[])
                .await
                .unwrap()
                .unwrap();
            out.push(row.i64(0).unwrap());
        }
        out
    }
}

/// Waits for an instant: it is time itself that is waited for.
pub async fn past(end: Micros) {
    while clock::now() <= end {
        let left = u64::try_from(end - clock::now()).unwrap_or(0);
        tokio::time::sleep(std::time::Duration::from_micros(left + 1000)).await;
    }
}

/// What is done before an end that is near, and that end, when it has passed. Where a machine was too slow for it, all is
/// done once more with a later one.
pub async fn until_the_end<T>(mut done: impl AsyncFnMut(Micros) -> T) -> (Micros, T) {
    for seconds in [2, 8, 32] {
        let end = clock::now() + seconds * SECOND;
        let all = done(end).await;
        if clock::now() < end {
            past(end).await;
            return (end, all);
        }
    }
    panic!("32 s are not enough for a few calls")
}
