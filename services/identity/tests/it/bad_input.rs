//! What is wrong with a request, one row a case: the answer's status, what its text must contain, and where
//! the real service's answer is documented. After each case nothing has changed.

use crate::cloud::Cloud;
use serde_json::{Value, json};

struct Case {
    name: &'static str,
    method: &'static str,
    path: String,
    body: Vec<u8>,
    status: u16,
    says: &'static str,
    /// Keystone's own place for it.
    doc: &'static str,
}

fn case(
    name: &'static str,
    method: &'static str,
    path: impl Into<String>,
    body: Value,
    status: u16,
    says: &'static str,
    doc: &'static str,
) -> Case {
    let body = if body.is_null() {
        vec![]
    } else {
        body.to_string().into_bytes()
    };
    Case {
        name,
        method,
        path: path.into(),
        body,
        status,
        says,
        doc,
    }
}

const AUTH: &str = "keystone/auth/schema.py";
const CORE: &str = "keystone/auth/core.py";
const USER: &str = "keystone/identity/schema.py";
const RESOURCE: &str = "keystone/resource/schema.py";
const RESOURCE_CORE: &str = "keystone/resource/core.py";
const APP_CRED: &str = "keystone/application_credential/schema.py";
const EXCEPTION: &str = "keystone/exception.py";
const CATALOG: &str = "keystone/catalog/schema.py, keystone/catalog/core.py";
const TRUST: &str = "keystone/trust/schema.py, keystone/trust/core.py";
const CREDENTIAL: &str = "keystone/credential/schema.py";
const API: &str = "API reference: Identity API v3";

#[rustfmt::skip]
pub async fn table(c: &Cloud) {
    let (user, project, _) = c.tenant("wanda", "member").await;
    let (member, admin) = (c.role("member").await, c.role("admin").await);
    let me = c.ok(200, "GET", "/users?name=admin", Value::Null).await["users"][0]["id"].as_str().unwrap().to_owned();
    let creds = format!("/users/{me}/application_credentials");
    let identity = c.ok(200, "GET", "/services?type=identity", Value::Null).await["services"][0]["id"].as_str().unwrap().to_owned();
    let mine = c.ok(200, "GET", "/projects?name=admin", Value::Null).await["projects"][0]["id"].clone();
    let trust = |more: Value| {
        let mut doc = json!({"trustor_user_id": me, "trustee_user_id": user, "project_id": mine, "impersonation": false, "roles": [{"name": "admin"}]});
        doc.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "trust": doc })
    };
    let long = "n".repeat(256);
    let auth = |identity: Value| json!({"auth": {"identity": identity}});
    let password = |user: Value| auth(json!({"methods": ["password"], "password": {"user": user}}));
    let scoped = |scope: Value| json!({"auth": {"identity": {"methods": ["token"], "token": {"id": c.admin}}, "scope": scope}});
    let mut cases = vec![
        case("no auth", "POST", "/auth/tokens", json!({}), 400, "auth", AUTH),
        case("auth is a list", "POST", "/auth/tokens", json!({"auth": []}), 400, "auth", AUTH),
        case("no identity", "POST", "/auth/tokens", json!({"auth": {}}), 400, "identity", AUTH),
        case("no methods", "POST", "/auth/tokens", auth(json!({})), 400, "methods", AUTH),
        case("methods is a string", "POST", "/auth/tokens", auth(json!({"methods": "password"})), 400, "methods", AUTH),
        case("a method is a number", "POST", "/auth/tokens", auth(json!({"methods": [1]})), 400, "methods.0", AUTH),
        case("method without data", "POST", "/auth/tokens", auth(json!({"methods": ["password"]})), 400, "Expecting to find password in identity", CORE),
        case("no user", "POST", "/auth/tokens", auth(json!({"methods": ["password"], "password": {}})), 400, "user", AUTH),
        case("no password", "POST", "/auth/tokens", password(json!({"name": "x", "domain": {"id": "default"}})), 400, "Expecting to find password in user", CORE),
        case("user without a name", "POST", "/auth/tokens", password(json!({"password": "x"})), 400, "id or name", AUTH),
        case("user without a domain", "POST", "/auth/tokens", password(json!({"name": "x", "password": "x"})), 400, "domain", CORE),
        case("domain without id or name", "POST", "/auth/tokens", password(json!({"name": "x", "password": "x", "domain": {}})), 400, "id or name", AUTH),
        case("user name is a number", "POST", "/auth/tokens", password(json!({"name": 5, "password": "x"})), 400, "user.name", AUTH),
        case("token without id", "POST", "/auth/tokens", auth(json!({"methods": ["token"], "token": {}})), 400, "id", AUTH),
        case("app cred without secret", "POST", "/auth/tokens", auth(json!({"methods": ["application_credential"], "application_credential": {"id": "x"}})), 400, "secret", CORE),
        case("app cred without id and name", "POST", "/auth/tokens", auth(json!({"methods": ["application_credential"], "application_credential": {"secret": "x"}})), 400, "id or name", CORE),
        case("app cred by name without user", "POST", "/auth/tokens", auth(json!({"methods": ["application_credential"], "application_credential": {"name": "n", "secret": "x"}})), 400, "user", CORE),
        case("scope is a number", "POST", "/auth/tokens", scoped(json!(5)), 400, "scope", AUTH),
        case("scope is an unknown word", "POST", "/auth/tokens", scoped(json!("all")), 400, "scope", AUTH),
        case("empty scope", "POST", "/auth/tokens", scoped(json!({})), 400, "scope", CORE),
        case("two scopes", "POST", "/auth/tokens", scoped(json!({"project": {"id": project}, "system": {"all": true}})), 400, "scope", CORE),
        case("project without id and name", "POST", "/auth/tokens", scoped(json!({"project": {}})), 400, "id or name", AUTH),
        case("project by name without domain", "POST", "/auth/tokens", scoped(json!({"project": {"name": "admin"}})), 400, "domain", CORE),
        case("system without all", "POST", "/auth/tokens", scoped(json!({"system": {}})), 400, "all", CORE),
        case("trust scope", "POST", "/auth/tokens", scoped(json!({"OS-TRUST:trust": {"id": "x"}})), 403, "trust cannot be used", CORE),
        case("trust scope without an id", "POST", "/auth/tokens", scoped(json!({"OS-TRUST:trust": {}})), 400, "OS-TRUST:trust", CORE),
        case("trust scope and another", "POST", "/auth/tokens", scoped(json!({"OS-TRUST:trust": {"id": "x"}, "project": {"id": project}})), 400, "scope", CORE),
        case("trust without roles", "POST", "/OS-TRUST/trusts", trust(json!({"roles": []})), 403, "role", TRUST),
        case("trust that has ended", "POST", "/OS-TRUST/trusts", trust(json!({"expires_at": "2020-01-01T00:00:00Z"})), 400, "expires_at", TRUST),
        case("trust until nonsense", "POST", "/OS-TRUST/trusts", trust(json!({"expires_at": "bad.123Z"})), 400, "trust.expires_at", TRUST),
        case("trust without a project", "POST", "/OS-TRUST/trusts", trust(json!({"project_id": null})), 400, "project_id", TRUST),
        case("impersonation in quotes", "POST", "/OS-TRUST/trusts", trust(json!({"impersonation": "true"})), 400, "impersonation", TRUST),
        case("no uses", "POST", "/OS-TRUST/trusts", trust(json!({"remaining_uses": 0})), 400, "remaining_uses", TRUST),
        case("uses and redelegation", "POST", "/OS-TRUST/trusts", trust(json!({"remaining_uses": 1, "allow_redelegation": true})), 400, "remaining_uses", TRUST),
        case("too long a chain", "POST", "/OS-TRUST/trusts", trust(json!({"allow_redelegation": true, "redelegation_count": 4})), 403, "greater than allowed", TRUST),
        case("trust for nobody", "POST", "/OS-TRUST/trusts", trust(json!({"trustee_user_id": "nobody"})), 404, "nobody", TRUST),
        case("trust of another", "POST", "/OS-TRUST/trusts", trust(json!({"trustor_user_id": user})), 403, "identity:create_trust", TRUST),
        case("nothing to change", "PATCH", format!("/users/{me}"), json!({"user": {}}), 400, "Name at least one", USER),
        case("something beside the project", "POST", "/projects", json!({"project": {"name": "x"}, "more": 1}), 400, "'more' beside 'project'", RESOURCE),
        case("enabled is a number", "POST", "/domains", json!({"domain": {"name": "x", "enabled": 0}}), 400, "domain.enabled", RESOURCE),
        case("no such option", "POST", "/roles", json!({"role": {"name": "x", "options": {"x": true}}}), 400, "There is no option x", RESOURCE),
        case("immutable is an object", "POST", "/roles", json!({"role": {"name": "x", "options": {"immutable": {}}}}), 400, "immutable", RESOURCE),
        case("ec2 blob that is no JSON", "POST", "/credentials", json!({"credential": {"type": "ec2", "user_id": me, "project_id": project, "blob": "x"}}), 400, "blob", CREDENTIAL),
        case("ec2 blob without access", "POST", "/credentials", json!({"credential": {"type": "ec2", "user_id": me, "project_id": project, "blob": "{}"}}), 400, "access", CREDENTIAL),
        case("ec2 without a project", "POST", "/credentials", json!({"credential": {"type": "ec2", "user_id": me, "blob": "{\"access\": \"a\"}"}}), 400, "project_id", CREDENTIAL),
        case("credential of nobody", "POST", "/credentials", json!({"credential": {"type": "x", "user_id": "nobody", "blob": "x"}}), 404, "nobody", CREDENTIAL),
        case("credential without a blob", "POST", "/credentials", json!({"credential": {"type": "x", "user_id": me}}), 400, "blob", CREDENTIAL),
        case("endpoint of no service", "POST", "/endpoints", json!({"endpoint": {"service_id": "x", "interface": "public", "url": "http://x", "region": "New"}}), 400, "service_id", CATALOG),
        case("endpoint in no region", "POST", "/endpoints", json!({"endpoint": {"service_id": identity, "interface": "public", "url": "http://x", "region_id": "nowhere"}}), 400, "region_id", CATALOG),
        case("interface of old", "POST", "/endpoints", json!({"endpoint": {"service_id": identity, "interface": "publicURL", "url": "http://x"}}), 400, "endpoint.interface", CATALOG),
        case("URL without a scheme", "POST", "/endpoints", json!({"endpoint": {"service_id": identity, "interface": "public", "url": "10.0.0.1/v1"}}), 400, "endpoint.url", CATALOG),
        case("URL wants a secret", "POST", "/endpoints", json!({"endpoint": {"service_id": identity, "interface": "public", "url": "http://x/$(admin_token)s"}}), 400, "endpoint.url", CATALOG),
        case("enabled in quotes", "POST", "/endpoints", json!({"endpoint": {"service_id": identity, "interface": "public", "url": "http://x", "enabled": "True"}}), 400, "endpoint.enabled", CATALOG),
        case("endpoint without a URL", "POST", "/endpoints", json!({"endpoint": {"service_id": identity, "interface": "public"}}), 400, "url", CATALOG),
        case("service without a type", "POST", "/services", json!({"service": {"name": "x"}}), 400, "type", CATALOG),
        case("service with an empty type", "POST", "/services", json!({"service": {"type": ""}}), 400, "service.type", CATALOG),
        case("another service id", "PATCH", format!("/services/{identity}"), json!({"service": {"id": "x"}}), 400, "service ID", CATALOG),
        case("two region ids", "PUT", "/regions/a", json!({"region": {"id": "b"}}), 400, "region IDs", CATALOG),
        case("long region id", "PUT", format!("/regions/{long}"), json!({"region": {}}), 400, "255", CATALOG),
        case("unknown parent region", "POST", "/regions", json!({"region": {"parent_region_id": "nowhere"}}), 404, "nowhere", CATALOG),
        case("region with endpoints", "DELETE", "/regions/RegionOne", Value::Null, 403, "endpoints", CATALOG),
        case("no wrapper", "POST", "/users", json!({"name": "x"}), 400, "user", USER),
        case("wrapper is null", "POST", "/users", json!({"user": null}), 400, "user", USER),
        case("body is a list", "POST", "/users", json!([1]), 400, "user", USER),
        case("user without a name", "POST", "/users", json!({"user": {}}), 400, "name", USER),
        case("empty name", "POST", "/users", json!({"user": {"name": ""}}), 400, "user.name", USER),
        case("white space for a name", "POST", "/users", json!({"user": {"name": "  "}}), 400, "user.name", USER),
        case("long name", "POST", "/users", json!({"user": {"name": long}}), 400, "255", USER),
        case("enabled is a word", "POST", "/users", json!({"user": {"name": "x", "enabled": "perhaps"}}), 400, "user.enabled", USER),
        case("domain_id is a number", "POST", "/users", json!({"user": {"name": "x", "domain_id": 5}}), 400, "user.domain_id", USER),
        case("domain_id with a slash", "POST", "/users", json!({"user": {"name": "x", "domain_id": "a/b"}}), 400, "user.domain_id", USER),
        case("unknown domain", "POST", "/users", json!({"user": {"name": "x", "domain_id": "nowhere"}}), 404, "nowhere", EXCEPTION),
        case("options is a list", "POST", "/users", json!({"user": {"name": "x", "options": []}}), 400, "user.options", USER),
        case("long password", "POST", "/users", json!({"user": {"name": "x", "password": "p".repeat(4097)}}), 400, "user.password", "keystone.conf [identity] max_password_length"),
        case("federated is an object", "POST", "/users", json!({"user": {"name": "x", "federated": {}}}), 400, "user.federated", USER),
        case("federated by a number", "POST", "/users", json!({"user": {"name": "x", "federated": [5]}}), 400, "idp_id", USER),
        case("federated by nobody", "PATCH", format!("/users/{user}"), json!({"user": {"federated": [{"idp_id": "there", "protocols": [{"protocol_id": "saml2", "unique_id": "x"}]}]}}), 400, "Could not find Identity Provider: there", "keystone/identity/core.py"),
        case("name is taken", "POST", "/users", json!({"user": {"name": "wanda", "domain_id": "default"}}), 409, "wanda", EXCEPTION),
        case("default project is a domain", "POST", "/users", json!({"user": {"name": "x", "default_project_id": "default"}}), 400, "default_project_id", "keystone/identity/core.py"),
        case("another id", "PATCH", format!("/users/{user}"), json!({"user": {"id": "x"}}), 400, "id", "keystone/server/flask/common.py"),
        case("another domain", "PATCH", format!("/users/{user}"), json!({"user": {"domain_id": "x"}}), 400, "domain_id", "keystone/common/manager.py"),
        case("unknown user", "GET", "/users/nobody", Value::Null, 404, "Could not find user: nobody.", EXCEPTION),
        case("id of another kind", "GET", format!("/users/{project}"), Value::Null, 404, "Could not find user", EXCEPTION),
        case("id with odd characters", "GET", "/users/%00%ff%2e%2e", Value::Null, 404, "could not be found", EXCEPTION),
        case("change password without old", "POST", format!("/users/{user}/password"), json!({"user": {"password": "x"}}), 400, "original_password", USER),
        case("method not in the table", "PUT", "/users", json!({}), 405, "PUT", "RFC 9110, 15.5.6"),
        case("path not in the table", "GET", "/nothing", Value::Null, 404, "could not be found", EXCEPTION),
        case("long project name", "POST", "/projects", json!({"project": {"name": "n".repeat(65)}}), 400, "64", RESOURCE),
        case("project name is a list", "POST", "/projects", json!({"project": {"name": []}}), 400, "project.name", RESOURCE),
        case("unknown parent", "POST", "/projects", json!({"project": {"name": "x", "domain_id": "default", "parent_id": "nothing"}}), 404, "nothing", RESOURCE_CORE),
        case("unknown domain of a project", "POST", "/projects", json!({"project": {"name": "x", "domain_id": "nowhere"}}), 404, "nowhere", RESOURCE_CORE),
        case("tag with a comma", "POST", "/projects", json!({"project": {"name": "x", "tags": ["a,b"]}}), 400, "project.tags.0", RESOURCE),
        case("81 tags", "POST", "/projects", json!({"project": {"name": "x", "tags": (0..81).map(|n| n.to_string()).collect::<Vec<_>>()}}), 400, "80", RESOURCE),
        case("a domain with a parent", "POST", "/projects", json!({"project": {"name": "x", "is_domain": true, "parent_id": project}}), 400, "parent_id", RESOURCE_CORE),
        case("another parent", "PATCH", format!("/projects/{project}"), json!({"project": {"parent_id": "x"}}), 403, "parent_id", RESOURCE_CORE),
        case("into a domain", "PATCH", format!("/projects/{project}"), json!({"project": {"is_domain": true}}), 400, "is_domain", RESOURCE_CORE),
        case("both relatives", "GET", format!("/projects/{project}?parents_as_list&parents_as_ids"), Value::Null, 400, "parents_as_list", "keystone/api/projects.py"),
        case("a domain deleted as a project", "DELETE", "/projects/default", Value::Null, 403, "domain", RESOURCE_CORE),
        case("an enabled domain", "DELETE", "/domains/default", Value::Null, 403, "enabled", RESOURCE_CORE),
        case("odd domain id", "POST", "/domains", json!({"domain": {"name": "x", "explicit_domain_id": "ä"}}), 400, "explicit_domain_id", RESOURCE),
        case("domain id is taken", "POST", "/domains", json!({"domain": {"name": "x", "explicit_domain_id": "default"}}), 409, "default", EXCEPTION),
        case("role without a name", "POST", "/roles", json!({"role": {}}), 400, "name", "keystone/assignment/schema.py"),
        case("role of an unknown domain", "POST", "/roles", json!({"role": {"name": "x", "domain_id": "nowhere"}}), 404, "nowhere", EXCEPTION),
        case("a role that policy stands on", "DELETE", format!("/roles/{admin}"), Value::Null, 403, "immutable", EXCEPTION),
        case("grant of no role", "PUT", format!("/projects/{project}/users/{user}/roles/nothing"), Value::Null, 404, "Could not find role: nothing.", EXCEPTION),
        case("grant to nobody", "PUT", format!("/projects/{project}/users/nobody/roles/{member}"), Value::Null, 404, "Could not find user: nobody.", EXCEPTION),
        case("grant that is not there", "DELETE", format!("/system/users/{user}/roles/{member}"), Value::Null, 404, "Could not find role assignment", EXCEPTION),
        case("everybody an administrator", "PUT", format!("/roles/{member}/implies/{admin}"), Value::Null, 403, "implied", "keystone.conf [assignment] prohibited_implied_role"),
        case("limit is a word", "GET", "/users?limit=many", Value::Null, 400, "limit", API),
        case("negative limit", "GET", "/users?limit=-1", Value::Null, 400, "limit", API),
        case("unknown marker", "GET", "/users?limit=1&marker=nothing", Value::Null, 404, "Marker nothing", EXCEPTION),
        case("enabled=perhaps", "GET", "/users?enabled=perhaps", Value::Null, 400, "enabled", USER),
        case("user and group", "GET", "/role_assignments?user.id=a&group.id=b", Value::Null, 400, "group", "keystone/api/role_assignments.py"),
        case("app cred without a name", "POST", &creds, json!({"application_credential": {}}), 400, "name", APP_CRED),
        case("app cred with an unknown field", "POST", &creds, json!({"application_credential": {"name": "x", "colour": "red"}}), 400, "colour", APP_CRED),
        case("app cred that ended", "POST", &creds, json!({"application_credential": {"name": "x", "expires_at": "2020-01-01T00:00:00"}}), 400, "expires_at", EXCEPTION),
        case("app cred with a broken end", "POST", &creds, json!({"application_credential": {"name": "x", "expires_at": "tomorrow"}}), 400, "expires_at", EXCEPTION),
        case("app cred with no such role", "POST", &creds, json!({"application_credential": {"name": "x", "roles": [{"name": "king"}]}}), 404, "king", EXCEPTION),
        case("app cred with a role by both", "POST", &creds, json!({"application_credential": {"name": "x", "roles": [{"id": member, "name": "member"}]}}), 400, "roles.0", APP_CRED),
        case("access rule without a method", "POST", &creds, json!({"application_credential": {"name": "x", "access_rules": [{"path": "/v2.1/servers", "service": "compute"}]}}), 400, "access_rules.0", APP_CRED),
        case("access rule with an odd method", "POST", &creds, json!({"application_credential": {"name": "x", "access_rules": [{"path": "/v2.1/servers", "method": "get", "service": "compute"}]}}), 400, "access_rules.0.method", APP_CRED),
        case("access rule without a path", "POST", &creds, json!({"application_credential": {"name": "x", "access_rules": [{"path": "servers", "method": "GET", "service": "compute"}]}}), 400, "access_rules.0.path", APP_CRED),
        case("access rule of nobody", "POST", &creds, json!({"application_credential": {"name": "x", "access_rules": [{"id": "nothing"}]}}), 404, "nothing", APP_CRED),
        case("tags is a string", "PUT", format!("/projects/{project}/tags"), json!({"tags": "x"}), 400, "tags", RESOURCE),
    ];
    for (name, body) in [
        ("malformed JSON", &b"{\"user\": {\"name\": \"x\""[..]),
        ("not UTF-8", b"{\"user\": {\"name\": \"\xff\xfe\"}}"),
        ("empty body", b""),
        ("not JSON at all", b"<user/>"),
        ("very deep JSON", &[b'['; 10_000]),
    ] {
        cases.push(Case { name, method: "POST", path: "/users".into(), body: body.to_vec(), status: 400, says: "JSON", doc: API });
    }
    cases.push(Case {
        name: "huge body",
        method: "POST",
        path: "/auth/tokens".into(),
        body: vec![b' '; (1 << 20) + 1],
        status: 413,
        says: "too large",
        doc: "oslo.middleware sizelimit",
    });
    let before = c.rows().await;
    for x in &cases {
        let a = c
            .raw(x.method, &x.path, &[("x-auth-token", &c.admin), ("content-type", "application/json")], x.body.clone())
            .await;
        let doc = a.json();
        let what = format!("{} ({} {}; {}): {} {doc}", x.name, x.method, x.path, x.doc, a.status);
        assert_eq!(a.status, x.status, "{what}");
        assert_eq!(doc["error"]["code"], json!(x.status), "{what}");
        assert!(doc["error"]["title"].is_string(), "{what}");
        let message = doc["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(x.says), "{what} should say {}", x.says);
        assert_eq!(c.rows().await, before, "{what}");
    }
    println!("{} cases", cases.len());
}
