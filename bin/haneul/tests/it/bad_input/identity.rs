//! Keystone.

use super::Category::*;
use super::Who::*;
use super::{Row, Table};
use haneul_http::Service;
use serde_json::{Value, json};

const AUTH: &str = "keystone/auth/schema.py";
const CORE: &str = "keystone/auth/core.py";
const USER: &str = "keystone/identity/schema.py";
const RESOURCE: &str = "keystone/resource/schema.py";
const RESOURCE_CORE: &str = "keystone/resource/core.py";
const CRED: &str = "keystone/application_credential/schema.py";
const BODY: &str = "keystone/server/flask/request_processing/json_body.py";
const LIMITED: &str = "oslo.middleware sizelimit, keystone/server/flask/core.py";
const EXCEPTION: &str = "keystone/exception.py";
const POLICY: &str = "keystone/common/policies";
const REF: &str = "api-ref: Identity API v3";

/// A login with this user in the method `password`.
fn password(user: Value, scope: Value) -> Value {
    let mut v = json!({"auth": {"identity": {"methods": ["password"], "password": {"user": user}}}});
    if !scope.is_null() {
        v["auth"]["scope"] = scope;
    }
    v
}

fn someone(name: &str, scope: Value) -> Value {
    password(
        json!({"name": name, "domain": {"id": "default"}, "password": "a-long-password"}),
        scope,
    )
}

// One row a case, and so no line breaks by rustfmt.
#[rustfmt::skip]
pub fn rows() -> Vec<Row> {
    let mut t = Table::new(Service::Identity, None);
    let user = |v: Value| json!({"user": v});
    let project = |v: Value| json!({"project": v});
    let cred = |v: Value| json!({"application_credential": v});
    let creds = "POST /v3/users/{mia}/application_credentials";
    let long = "n".repeat(256);

    t.about(Malformed);
    t.row("cut off", Admin, "POST /v3/users", "{\"user\": {\"name\": \"x\"", 400, "JSON", BODY);
    t.row("no JSON", Admin, "POST /v3/users", "<user/>", 400, "JSON", BODY);
    t.row("not UTF-8", Admin, "POST /v3/users", ("application/json", &b"{\"user\": {\"name\": \"\xff\xfe\"}}"[..]), 400, "JSON", BODY);
    t.row("ten thousand brackets", Admin, "POST /v3/users", "[".repeat(10_000).as_str(), 400, "JSON", BODY);
    t.row("a list", Admin, "POST /v3/users", "[1]", 400, "", BODY);
    t.row("a form instead of JSON", Admin, "POST /v3/users", ("application/x-www-form-urlencoded", &b"name=x"[..]), 400, "Content-Type", BODY);
    t.row("a login that is cut off", Nobody, "POST /v3/auth/tokens", "{\"auth\": ", 400, "JSON", BODY);
    t.row("no body", Admin, "POST /v3/projects", json!({}), 400, "project", RESOURCE);

    t.about(WrongType);
    t.row("name is a number", Admin, "POST /v3/users", user(json!({"name": 5})), 400, "user.name", USER);
    t.row("enabled is a word", Admin, "POST /v3/users", user(json!({"name": "x", "enabled": "perhaps"})), 400, "user.enabled", USER);
    t.row("options is a list", Admin, "POST /v3/users", user(json!({"name": "x", "options": []})), 400, "user.options", USER);
    t.row("user is null", Admin, "POST /v3/users", user(Value::Null), 400, "user", USER);
    t.row("project name is a list", Admin, "POST /v3/projects", project(json!({"name": []})), 400, "project.name", RESOURCE);
    t.row("tags is a word", Admin, "PUT /v3/projects/{mine}/tags", json!({"tags": "x"}), 400, "tags", RESOURCE);
    t.row("methods is a word", Nobody, "POST /v3/auth/tokens", json!({"auth": {"identity": {"methods": "password"}}}), 400, "methods", AUTH);
    t.row("scope is a number", Nobody, "POST /v3/auth/tokens", someone("mia", json!(5)), 400, "scope", AUTH);
    t.row("password is a number", Nobody, "POST /v3/auth/tokens", password(json!({"name": "mia", "domain": {"id": "default"}, "password": 5}), Value::Null), 400, "password", AUTH);

    t.about(UnknownField);
    t.row("app cred with a colour", Member, creds, cred(json!({"name": "x", "colour": "red"})), 400, "colour", CRED);
    t.row("a role with id, name and more", Member, creds, cred(json!({"name": "x", "roles": [{"king": true}]})), 400, "roles.0", CRED);

    t.about(TooLong);
    t.row("user name", Admin, "POST /v3/users", user(json!({"name": long})), 400, "255", USER);
    t.row("project name", Admin, "POST /v3/projects", project(json!({"name": "n".repeat(65)})), 400, "64", RESOURCE);
    t.row("role name", Admin, "POST /v3/roles", json!({"role": {"name": long}}), 400, "255", "keystone/assignment/schema.py");
    t.row("password", Admin, "POST /v3/users", user(json!({"name": "x", "password": "p".repeat(4097)})), 400, "user.password", "keystone.conf [identity] max_password_length");
    t.row("tag", Admin, "PUT /v3/projects/{mine}/tags", json!({"tags": [long]}), 400, "tags.0", RESOURCE);
    t.row("empty name", Admin, "POST /v3/users", user(json!({"name": ""})), 400, "user.name", USER);

    t.about(HugeBody);
    let huge = vec![b' '; (1 << 20) + 1];
    t.row("two logins' worth of blanks", Nobody, "POST /v3/auth/tokens", ("application/json", &huge[..]), 413, "too large", LIMITED);
    t.row("a huge user", Admin, "POST /v3/users", ("application/json", &huge[..]), 413, "too large", LIMITED);

    t.about(BadId);
    t.row("user that is not there", Admin, "GET /v3/users/{nohex}", (), 404, "{nohex}", EXCEPTION);
    t.row("id of another kind", Admin, "GET /v3/users/{mine}", (), 404, "{mine}", EXCEPTION);
    t.row("bytes that are no text", Admin, "GET /v3/users/%00%ff%2e%2e", (), 404, "could not be found", EXCEPTION);
    t.row("out of the tree", Admin, "GET /v3/projects/..%2f..%2fetc%2fpasswd", (), 404, "etc/passwd", EXCEPTION);
    t.row("unknown domain", Admin, "POST /v3/users", user(json!({"name": "x", "domain_id": "nowhere"})), 404, "nowhere", EXCEPTION);
    t.row("unknown parent", Admin, "POST /v3/projects", project(json!({"name": "x", "domain_id": "default", "parent_id": "{nohex}"})), 404, "{nohex}", RESOURCE_CORE);
    t.row("domain_id with a slash", Admin, "POST /v3/users", user(json!({"name": "x", "domain_id": "a/b"})), 400, "user.domain_id", USER);
    t.row("grant of no role", Admin, "PUT /v3/projects/{mine}/users/{mia}/roles/{nohex}", (), 404, "{nohex}", EXCEPTION);
    t.row("grant to nobody", Admin, "PUT /v3/projects/{mine}/users/{nohex}/roles/{member}", (), 404, "{nohex}", EXCEPTION);
    t.row("grant on nothing", Admin, "PUT /v3/projects/{nohex}/users/{mia}/roles/{member}", (), 404, "{nohex}", EXCEPTION);
    t.row("path that is none", Admin, "GET /v3/nothing", (), 404, "could not be found", EXCEPTION);
    t.row("marker that is none", Admin, "GET /v3/users?limit=1&marker=nothing", (), 404, "nothing", EXCEPTION);

    t.about(Exhausted);
    let tags: Vec<String> = (0..81).map(|n| n.to_string()).collect();
    t.row("81 tags", Admin, "PUT /v3/projects/{mine}/tags", json!({"tags": tags}), 400, "80", RESOURCE);

    t.about(InUse);
    t.row("name is taken", Admin, "POST /v3/users", user(json!({"name": "mia", "domain_id": "default"})), 409, "mia", EXCEPTION);
    t.row("project name is taken", Admin, "POST /v3/projects", project(json!({"name": "theirs", "domain_id": "default"})), 409, "theirs", EXCEPTION);
    t.row("domain id is taken", Admin, "POST /v3/domains", json!({"domain": {"name": "x", "explicit_domain_id": "default"}}), 409, "default", EXCEPTION);
    t.row("a project with children", Admin, "DELETE /v3/projects/{mine}", (), 403, "not a leaf", "keystone/resource/core.py, _delete_project");
    t.row("an enabled domain", Admin, "DELETE /v3/domains/{domain}", (), 403, "disable", "keystone/resource/core.py, delete_domain");
    t.row("a role that policy stands on", Admin, "DELETE /v3/roles/{admin}", (), 403, "immutable", "keystone/exception.py, ResourceDeleteForbidden");
    t.row("an app cred's name", Other, "POST /v3/users/{otto}/application_credentials", cred(json!({"name": "robot"})), 409, "robot", EXCEPTION);

    t.about(WrongState);
    t.row("a disabled user logs in", Nobody, "POST /v3/auth/tokens", someone("dora", Value::Null), 401, "requires authentication", CORE);
    t.row("into a disabled project", Nobody, "POST /v3/auth/tokens", someone("mia", json!({"project": {"id": "{closed}"}})), 401, "requires authentication", CORE);
    t.row("wrong password", Nobody, "POST /v3/auth/tokens", password(json!({"id": "{dora}", "password": "guess"}), Value::Null), 401, "requires authentication", EXCEPTION);
    t.row("a grant that is not there", Admin, "DELETE /v3/projects/{theirs}/users/{mia}/roles/{member}", (), 404, "role assignment", EXCEPTION);
    t.row("app cred that has ended", Member, creds, cred(json!({"name": "x", "expires_at": "2020-01-01T00:00:00"})), 400, "expires_at", EXCEPTION);
    t.row("a domain as a project", Admin, "DELETE /v3/projects/{domain}", (), 403, "domain", RESOURCE_CORE);
    t.row("another parent", Admin, "PATCH /v3/projects/{child}", project(json!({"parent_id": "{theirs}"})), 403, "parent_id", RESOURCE_CORE);
    t.row("into a domain", Admin, "PATCH /v3/projects/{mine}", project(json!({"is_domain": true})), 400, "is_domain", RESOURCE_CORE);
    t.row("disable what has an enabled child", Admin, "PATCH /v3/projects/{mine}", project(json!({"enabled": false})), 403, "enabled", "keystone/resource/core.py, _disable_project");

    t.about(Others);
    t.row("another's user", Member, "GET /v3/users/{otto}", (), 403, "identity:get_user", POLICY);
    t.row("nobody's user, the same", Member, "GET /v3/users/{nohex}", (), 403, "identity:get_user", POLICY);
    t.row("another's project", Member, "GET /v3/projects/{theirs}", (), 403, "identity:get_project", POLICY);
    t.row("all users", Member, "GET /v3/users", (), 403, "identity:list_users", POLICY);
    t.row("all assignments", Member, "GET /v3/role_assignments", (), 403, "identity:list_role_assignments", POLICY);
    t.row("makes himself king", Member, "PUT /v3/projects/{mine}/users/{mia}/roles/{admin}", (), 403, "identity:create_grant", POLICY);
    t.row("a project for a reader", Reader, "POST /v3/projects", project(json!({"name": "x", "domain_id": "default"})), 403, "identity:create_project", POLICY);
    t.row("another's app creds", Member, "GET /v3/users/{otto}/application_credentials", (), 403, "identity:list_application_credentials", POLICY);
    t.row("another's app cred", Member, "DELETE /v3/users/{otto}/application_credentials/{otto_cred}", (), 403, "identity:delete_application_credential", POLICY);
    t.row("an app cred for another", Member, "POST /v3/users/{otto}/application_credentials", cred(json!({"name": "x"})), 403, "identity:create_application_credential", POLICY);
    t.row("into another's project", Nobody, "POST /v3/auth/tokens", someone("mia", json!({"project": {"id": "{theirs}"}})), 401, "requires authentication", CORE);
    t.row("the system", Nobody, "POST /v3/auth/tokens", someone("mia", json!({"system": {"all": true}})), 401, "requires authentication", CORE);
    t.row("rename another", Member, "PATCH /v3/users/{otto}", user(json!({"name": "x"})), 403, "identity:update_user", POLICY);

    t.tokens("GET /v3/projects/{mine}", "GET /v3/projects/{nohex}");
    let subject = "keystone/token/provider.py, validate_token";
    t.row("validates nothing", Admin, "GET /v3/auth/tokens", (), 404, "token", subject);
    t.row("validates nonsense", Admin, "GET /v3/auth/tokens", (), 404, "token", subject).header("x-subject-token", "nonsense");
    t.row("validates an expired one", Admin, "GET /v3/auth/tokens", (), 404, "token", subject).header("x-subject-token", "{expired}");
    t.row("validates a revoked one", Admin, "GET /v3/auth/tokens", (), 404, "token", subject).header("x-subject-token", "{revoked}");
    t.row("an expired token for a new one", Nobody, "POST /v3/auth/tokens", json!({"auth": {"identity": {"methods": ["token"], "token": {"id": "{expired}"}}}}), 404, "Could not find token", CORE);
    t.row("a revoked token for a new one", Nobody, "POST /v3/auth/tokens", json!({"auth": {"identity": {"methods": ["token"], "token": {"id": "{revoked}"}}}}), 404, "Could not find token", CORE);

    t.about(super::Category::Value);
    t.row("method not in the table", Admin, "PUT /v3/users", json!({}), 405, "PUT", "RFC 9110, 15.5.6");
    t.row("limit is a word", Admin, "GET /v3/users?limit=many", (), 400, "limit", REF);
    t.row("limit below nothing", Admin, "GET /v3/users?limit=-1", (), 400, "limit", REF);
    t.row("user and group", Admin, "GET /v3/role_assignments?user.id=a&group.id=b", (), 400, "group", "keystone/api/role_assignments.py");
    t.row("two scopes", Nobody, "POST /v3/auth/tokens", someone("mia", json!({"project": {"id": "{mine}"}, "system": {"all": true}})), 400, "scope", CORE);
    t.row("user without a domain", Nobody, "POST /v3/auth/tokens", password(json!({"name": "x", "password": "x"}), Value::Null), 400, "domain", CORE);
    t.row("another id", Admin, "PATCH /v3/users/{mia}", user(json!({"id": "x"})), 400, "id", "keystone/server/flask/common.py");
    t.row("another domain", Admin, "PATCH /v3/users/{mia}", user(json!({"domain_id": "{domain}"})), 400, "domain_id", "keystone/common/manager.py");
    t.row("everybody an administrator", Admin, "PUT /v3/roles/{member}/implies/{admin}", (), 403, "implied", "keystone.conf [assignment] prohibited_implied_role");
    t.row("tag with a comma", Admin, "PUT /v3/projects/{mine}/tags", json!({"tags": ["a,b"]}), 400, "tags.0", RESOURCE);
    t.row("app cred without a name", Member, creds, cred(json!({})), 400, "name", CRED);
    t.row("app cred with a broken end", Member, creds, cred(json!({"name": "x", "expires_at": "tomorrow"})), 400, "expires_at", EXCEPTION);
    t.row("app cred with a role he has not", Member, creds, cred(json!({"name": "x", "roles": [{"name": "admin"}]})), 400, "role", "keystone/application_credential/core.py, _require_user_has_role_in_project");
    extensions(&mut t);
    t.rows
}

/// Signatures, limits, trusts, policies, more than one method.
#[rustfmt::skip]
fn extensions(t: &mut Table) {
    const EC2: &str = "keystone/api/_shared/EC2_S3_Resource.py";
    const OAUTH: &str = "keystone/api/os_oauth1.py";
    const LIMIT: &str = "keystone/limit/schema.py";
    const TRUST: &str = "keystone/trust/schema.py";
    const CREDENTIAL: &str = "keystone/credential/schema.py";
    const OPTION: &str = "keystone/identity/backends/resource_options.py";
    let limits = |v: Value| json!({"limits": [v]});
    let registered = |v: Value| json!({"registered_limits": [v]});
    let trust = |more: Value| {
        let mut v = json!({"trustor_user_id": "{mia}", "trustee_user_id": "{otto}", "impersonation": false,
            "project_id": "{mine}", "roles": [{"name": "member"}]});
        v.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        json!({"trust": v})
    };
    let options = |v: Value| json!({"user": {"options": v}});

    t.about(Malformed);
    t.row("no signature", Admin, "POST /v3/ec2tokens", json!({}), 400, "request body", EC2);
    t.row("a list of signatures", Admin, "POST /v3/s3tokens", json!([]), 400, "request body", EC2);
    t.row("an empty list of limits", Admin, "POST /v3/limits", json!({"limits": []}), 400, "limits", LIMIT);
    t.row("limits without their name", Admin, "POST /v3/registered_limits", json!({}), 400, "registered_limits", LIMIT);
    t.row("OAuth without a header", Nobody, "POST /v3/OS-OAUTH1/request_token", (), 400, "Authorization", OAUTH);
    t.row("OAuth of another type", Nobody, "POST /v3/OS-OAUTH1/access_token", (), 400, "Authorization", OAUTH).header("authorization", "Basic eDp5");
    t.row("OAuth without a consumer", Nobody, "POST /v3/OS-OAUTH1/request_token", (), 400, "oauth_consumer_key", OAUTH).header("authorization", "OAuth oauth_nonce=\"1\"");
    t.row("OAuth without a project", Nobody, "POST /v3/OS-OAUTH1/request_token", (), 400, "Requested-Project-Id", OAUTH).header("authorization", "OAuth oauth_consumer_key=\"1\"");
    t.row("OAuth without a verifier", Nobody, "POST /v3/OS-OAUTH1/access_token", (), 400, "oauth_verifier", OAUTH).header("authorization", "OAuth oauth_consumer_key=\"1\", oauth_token=\"1\"");
    t.row("a login by OAuth without a header", Nobody, "POST /v3/auth/tokens", json!({"auth": {"identity": {"methods": ["oauth1"], "oauth1": {}}}}), 400, "Authorization", AUTH);
    t.row("no passcode", Nobody, "POST /v3/auth/tokens", json!({"auth": {"identity": {"methods": ["totp"], "totp": {"user": {"id": "{mia}"}}}}}), 400, "passcode", AUTH);

    t.about(WrongType);
    t.row("a limit as a word", Admin, "POST /v3/registered_limits", registered(json!({"service_id": "x", "resource_name": "x", "default_limit": "10"})), 400, "default_limit", LIMIT);
    t.row("a limit as a fraction", Admin, "POST /v3/limits", limits(json!({"service_id": "x", "resource_name": "x", "resource_limit": 1.5, "project_id": "{mine}"})), 400, "resource_limit", LIMIT);
    t.row("a passcode as a number", Nobody, "POST /v3/auth/tokens", json!({"auth": {"identity": {"methods": ["totp"], "totp": {"user": {"id": "{mia}", "passcode": 123_456}}}}}), 400, "passcode", AUTH);
    t.row("rules as a word", Admin, "PATCH /v3/users/{mia}", options(json!({"multi_factor_auth_rules": "password"})), 400, "multi_factor_auth_rules", OPTION);
    t.row("an empty rule", Admin, "PATCH /v3/users/{mia}", options(json!({"multi_factor_auth_rules": [[]]})), 400, "multi_factor_auth_rules", OPTION);
    t.row("an option as a word", Admin, "PATCH /v3/users/{mia}", options(json!({"ignore_password_expiry": "yes"})), 400, "ignore_password_expiry", OPTION);
    t.row("impersonation as a word", Member, "POST /v3/OS-TRUST/trusts", trust(json!({"impersonation": "no"})), 400, "impersonation", TRUST);
    t.row("uses as a word", Member, "POST /v3/OS-TRUST/trusts", trust(json!({"remaining_uses": "2"})), 400, "remaining_uses", TRUST);

    t.about(UnknownField);
    t.row("a limit with a colour", Admin, "POST /v3/limits", limits(json!({"service_id": "x", "resource_name": "x", "resource_limit": 1, "project_id": "{mine}", "colour": "red"})), 400, "colour", LIMIT);

    t.about(TooLong);
    t.row("a resource's name", Admin, "POST /v3/registered_limits", registered(json!({"service_id": "x", "resource_name": "n".repeat(256), "default_limit": 1})), 400, "255", LIMIT);

    t.about(BadId);
    t.row("a key that is not there", Admin, "POST /v3/ec2tokens", json!({"credentials": {"access": "{nohex}", "signature": "x"}}), 404, "access key", EC2);
    t.row("a limit that is not there", Admin, "GET /v3/limits/{nohex}", (), 404, "{nohex}", EXCEPTION);
    t.row("a registered limit that is not there", Admin, "PATCH /v3/registered_limits/{nohex}", json!({"registered_limit": {"default_limit": 1}}), 404, "{nohex}", EXCEPTION);
    t.row("a limit of no service", Admin, "POST /v3/registered_limits", registered(json!({"service_id": "{nohex}", "resource_name": "x", "default_limit": 1})), 400, "service_id", "keystone/limit/core.py");
    t.row("a trust that is not there", Member, "GET /v3/OS-TRUST/trusts/{nohex}", (), 404, "{nohex}", EXCEPTION);
    t.row("a trust for nobody", Member, "POST /v3/OS-TRUST/trusts", trust(json!({"trustee_user_id": "{nohex}"})), 404, "{nohex}", EXCEPTION);
    t.row("a request token that is not there", Admin, "PUT /v3/OS-OAUTH1/authorize/{nohex}", json!({"roles": [{"name": "member"}]}), 404, "Request token", OAUTH);
    t.row("an access token that is not there", Admin, "GET /v3/users/{mia}/OS-OAUTH1/access_tokens/{nohex}", (), 404, "{nohex}", EXCEPTION);
    t.row("a policy that is not there", Admin, "PUT /v3/policies/{nohex}/OS-ENDPOINT-POLICY/services/{nohex}", (), 404, "{nohex}", EXCEPTION);
    t.row("an endpoint that is not there", Admin, "GET /v3/endpoints/{nohex}/OS-ENDPOINT-POLICY/policy", (), 404, "{nohex}", EXCEPTION);
    t.row("a credential that is not there", Admin, "GET /v3/credentials/{nohex}", (), 404, "{nohex}", EXCEPTION);

    t.about(WrongState);
    t.row("a key without a signature", Admin, "POST /v3/ec2tokens", json!({"credentials": {}}), 401, "requires authentication", EC2);
    t.row("an unknown consumer", Nobody, "POST /v3/OS-OAUTH1/request_token", (), 401, "requires authentication", OAUTH).header("authorization", "OAuth oauth_consumer_key=\"1\"").header("requested-project-id", "{mine}");
    t.row("a passcode of nobody", Nobody, "POST /v3/auth/tokens", json!({"auth": {"identity": {"methods": ["totp"], "totp": {"user": {"id": "{nohex}", "passcode": "000000"}}}}}), 401, "requires authentication", AUTH);
    t.row("a receipt that is none", Nobody, "POST /v3/auth/tokens", someone("mia", Value::Null), 401, "requires authentication", "keystone/receipt").header("openstack-auth-receipt", "nonsense");
    t.row("a trust that has ended", Member, "POST /v3/OS-TRUST/trusts", trust(json!({"expires_at": "2020-01-01T00:00:00Z"})), 400, "expires_at", TRUST);
    t.row("a limit that is not registered", Admin, "POST /v3/limits", limits(json!({"service_id": "{nohex}", "resource_name": "x", "resource_limit": 1, "project_id": "{mine}"})), 400, "service_id", "keystone/limit/core.py");

    t.about(Others);
    t.row("a signature for a member", Member, "POST /v3/ec2tokens", json!({"credentials": {}}), 403, "identity:ec2tokens_validate", POLICY);
    t.row("an S3 signature for a member", Member, "POST /v3/s3tokens", json!({"credentials": {}}), 403, "identity:s3tokens_validate", POLICY);
    t.row("revocations for a member", Member, "GET /v3/OS-REVOKE/events", (), 403, "identity:list_revoke_events", POLICY);
    t.row("a limit by a member", Member, "POST /v3/limits", limits(json!({})), 403, "identity:create_limits", POLICY);
    t.row("a registered limit by a member", Member, "POST /v3/registered_limits", registered(json!({})), 403, "identity:create_registered_limits", POLICY);
    t.row("another's trust", Member, "POST /v3/OS-TRUST/trusts", trust(json!({"trustor_user_id": "{otto}"})), 403, "identity:create_trust", POLICY);
    t.row("another's credential", Member, "POST /v3/credentials", json!({"credential": {"type": "cert", "user_id": "{otto}", "blob": "x"}}), 403, "identity:create_credential", POLICY);
    t.row("another's EC2 credentials", Member, "GET /v3/users/{otto}/credentials/OS-EC2", (), 403, "identity:ec2_list_credentials", POLICY);
    t.row("an EC2 credential by a reader", Reader, "POST /v3/credentials", json!({"credential": {"type": "ec2", "user_id": "{mia}", "project_id": "{mine}", "blob": "{}"}}), 403, "identity:create_credential", POLICY);
    t.row("authorizes as a member", Member, "PUT /v3/OS-OAUTH1/authorize/{nohex}", json!({"roles": []}), 403, "identity:authorize_request_token", POLICY);
    t.row("a consumer by a member", Member, "POST /v3/OS-OAUTH1/consumers", json!({"consumer": {}}), 403, "identity:create_consumer", POLICY);
    t.row("a policy for all by a member", Member, "PUT /v3/policies/{nohex}/OS-ENDPOINT-POLICY/services/{nohex}", (), 403, "identity:create_policy_association_for_service", POLICY);

    t.about(super::Category::Value);
    t.row("less than no limit", Admin, "POST /v3/registered_limits", registered(json!({"service_id": "x", "resource_name": "x", "default_limit": -2})), 400, "default_limit", LIMIT);
    t.row("a limit for two", Admin, "POST /v3/limits", limits(json!({"service_id": "x", "resource_name": "x", "resource_limit": 1, "project_id": "{mine}", "domain_id": "default"})), 400, "domain_id", LIMIT);
    t.row("a limit for nobody", Admin, "POST /v3/limits", limits(json!({"service_id": "x", "resource_name": "x", "resource_limit": 1})), 400, "project_id", LIMIT);
    t.row("a limit for another project", Admin, "PATCH /v3/limits/{nohex}", json!({"limit": {"project_id": "x"}}), 400, "project_id", LIMIT);
    t.row("since a word", Admin, "GET /v3/OS-REVOKE/events?since=yesterday", (), 400, "since", "keystone/api/os_revoke.py");
    t.row("an EC2 key without its project", Member, "POST /v3/credentials", json!({"credential": {"type": "ec2", "user_id": "{mia}", "blob": "{\"access\": \"a\"}"}}), 400, "project_id", CREDENTIAL);
    t.row("an EC2 key that is no JSON", Member, "POST /v3/credentials", json!({"credential": {"type": "ec2", "user_id": "{mia}", "project_id": "{mine}", "blob": "x"}}), 400, "blob", CREDENTIAL);
    t.row("a trust without roles", Member, "POST /v3/OS-TRUST/trusts", trust(json!({"roles": []})), 403, "role", "keystone/api/trusts.py");
    t.row("no uses", Member, "POST /v3/OS-TRUST/trusts", trust(json!({"remaining_uses": 0})), 400, "remaining_uses", TRUST);
    t.row("GET of what is posted", Nobody, "GET /v3/ec2tokens", (), 405, "GET", EC2);
    t.row("certificates of PKI", Nobody, "GET /v3/OS-SIMPLE-CERT/ca", (), 410, "PKI", "keystone/api/os_simple_cert.py");
}
