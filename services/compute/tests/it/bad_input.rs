//! Bad input: one row a case. Each row says who asks, at which microversion, what, and what the real service
//! answers (status and the name of the body), with the place that documents it. After each case nothing was
//! written.

use crate::lab::{ADMIN, DEMO, FakeHost, Lab, OTHER, READER};
use http::Method;
use serde_json::{Value, json};

/// Places: the Nova API reference by section, the API guide, or the schema's file in openstack/nova.
struct Row {
    who: &'static str,
    version: &'static str,
    method: Method,
    path: &'static str,
    body: Value,
    status: u16,
    /// A word of the message.
    says: &'static str,
    doc: &'static str,
}

#[allow(clippy::too_many_arguments)]
fn row(
    who: &'static str,
    version: &'static str,
    method: Method,
    path: &'static str,
    body: Value,
    status: u16,
    says: &'static str,
    doc: &'static str,
) -> Row {
    Row {
        who,
        version,
        method,
        path,
        body,
        status,
        says,
        doc,
    }
}

fn server(change: Value) -> Value {
    let mut v = json!({"name": "x", "flavorRef": "1", "imageRef": "IMAGE", "networks": "none"});
    for (k, x) in change.as_object().unwrap() {
        match x {
            Value::Null => {
                v.as_object_mut().unwrap().remove(k);
            }
            _ => {
                v[k] = x.clone();
            }
        }
    }
    json!({"server": v})
}

const CREATE: &str = "api-ref: Create Server; schemas/servers.py";
const LIST: &str = "api-ref: List Servers; schemas/servers.py index_query";
const ACTION: &str = "api-ref: Servers - run an action";
const GUIDE: &str = "api-guide: faults";

fn rows() -> Vec<Row> {
    let s = "/v2.1/servers";
    let long = "x".repeat(256);
    let uuid = "11111111-1111-4111-8111-111111111111";
    // One row a case, and so no line breaks by rustfmt.
    #[rustfmt::skip]
    let mut out = vec![
        row(DEMO, "2.96", Method::POST, s, server(json!({"name": ""})), 400, "name", CREATE),
        row(DEMO, "2.96", Method::POST, s, server(json!({"name": long})), 400, "too long", CREATE),
        row(DEMO, "2.96", Method::POST, s, server(json!({"name": " x"})), 400, "white space", CREATE),
        row(DEMO, "2.96", Method::POST, s, server(json!({"name": 5})), 400, "string", CREATE),
        row(DEMO, "2.96", Method::POST, s, server(json!({"name": null})), 400, "'name' is a required property", CREATE),
        row(DEMO, "2.96", Method::POST, s, server(json!({"flavorRef": null})), 400, "'flavorRef' is a required property", CREATE),
        row(DEMO, "2.96", Method::POST, s, server(json!({"flavorRef": "nope"})), 400, "Flavor nope could not be found", CREATE),
        row(DEMO, "2.96", Method::POST, s, server(json!({"flavorRef": {}})), 400, "flavorRef", CREATE),
        row(DEMO, "2.96", Method::POST, s, server(json!({"imageRef": uuid})), 400, "could not be found", CREATE),
        row(DEMO, "2.96", Method::POST, s, server(json!({"imageRef": "../etc"})), 400, "imageRef", CREATE),
        row(DEMO, "2.96", Method::POST, s, server(json!({"imageRef": ""})), 400, "Invalid imageRef", CREATE),
        row(DEMO, "2.96", Method::POST, s, server(json!({"imageRef": null})), 400, "imageRef", CREATE),
        row(DEMO, "2.96", Method::POST, s, server(json!({"networks": null})), 400, "'networks' is a required property", "api-ref: Create Server, 2.37"),
        row(DEMO, "2.96", Method::POST, s, server(json!({"networks": "some"})), 400, "networks", "api-ref: Create Server, 2.37"),
        row(DEMO, "2.96", Method::POST, s, server(json!({"networks": [{"uuid": "nope"}]})), 400, "UUID", CREATE),
        row(DEMO, "2.1", Method::POST, s, server(json!({"networks": [{"uuid": "nope"}]})), 400, "not in proper format", CREATE),
        row(DEMO, "2.96", Method::POST, s, server(json!({"networks": [{"uuid": uuid}]})), 400, "could not be found", CREATE),
        row(DEMO, "2.96", Method::POST, s, server(json!({"networks": [{"port": uuid}]})), 400, "could not be found", CREATE),
        row(DEMO, "2.96", Method::POST, s, server(json!({"networks": [{"port": uuid, "fixed_ip": "10.0.0.1"}]})), 400, "together", CREATE),
        row(DEMO, "2.96", Method::POST, s, server(json!({"networks": [{"uuid": uuid, "fixed_ip": "10.0.0.300"}]})), 400, "address", CREATE),
        row(DEMO, "2.41", Method::POST, s, server(json!({"networks": [{"uuid": uuid, "tag": "a"}]})), 400, "'tag' was unexpected", "api-ref: device tags, 2.32, 2.42"),
        row(DEMO, "2.96", Method::POST, s, server(json!({"security_groups": [{"name": "nope"}], "networks": "NET"})), 400, "nope", CREATE),
        row(DEMO, "2.96", Method::POST, s, server(json!({"key_name": "nope"})), 400, "Invalid key_name", CREATE),
        row(DEMO, "2.96", Method::POST, s, server(json!({"user_data": "%%%"})), 400, "Base64", CREATE),
        row(DEMO, "2.96", Method::POST, s, server(json!({"user_data": "QUFB".repeat(17000)})), 400, "65535", CREATE),
        row(DEMO, "2.96", Method::POST, s, server(json!({"metadata": {"k": 5}})), 400, "string", CREATE),
        row(DEMO, "2.96", Method::POST, s, server(json!({"metadata": {"k/": "v"}})), 400, "k/", CREATE),
        row(DEMO, "2.96", Method::POST, s, server(json!({"metadata": {"k": long}})), 400, "too long", CREATE),
        row(DEMO, "2.96", Method::POST, s, server(json!({"min_count": 0})), 400, "min_count", CREATE),
        row(DEMO, "2.96", Method::POST, s, server(json!({"min_count": 3, "max_count": 2})), 400, "min_count must be <= max_count", CREATE),
        row(DEMO, "2.96", Method::POST, s, server(json!({"availability_zone": "mars"})), 400, "not available", CREATE),
        row(DEMO, "2.96", Method::POST, s, server(json!({"availability_zone": "nova:host"})), 403, "forced_host", "policies/servers.py"),
        row(DEMO, "2.96", Method::POST, s, server(json!({"host": "h"})), 403, "requested_destination", "api-ref: Create Server, 2.74"),
        row(DEMO, "2.73", Method::POST, s, server(json!({"host": "h"})), 400, "'host' was unexpected", "api-ref: Create Server, 2.74"),
        row(DEMO, "2.51", Method::POST, s, server(json!({"tags": ["a"]})), 400, "'tags' was unexpected", "api-ref: Create Server, 2.52"),
        row(DEMO, "2.96", Method::POST, s, server(json!({"tags": ["a,b"]})), 400, "commas", "api-ref: Create Server, 2.52"),
        row(DEMO, "2.18", Method::POST, s, server(json!({"description": "d", "networks": null})), 400, "'description' was unexpected", "api-ref: Create Server, 2.19"),
        row(DEMO, "2.93", Method::POST, s, server(json!({"hostname": "a.b"})), 400, "hostname", "api-ref: Create Server, 2.90, 2.94"),
        row(DEMO, "2.96", Method::POST, s, server(json!({"personality": []})), 400, "'personality' was unexpected", "api-ref: Create Server, 2.57"),
        row(DEMO, "2.96", Method::POST, s, server(json!({"config_drive": "maybe"})), 400, "config_drive", CREATE),
        row(DEMO, "2.96", Method::POST, s, server(json!({"unknown": 1})), 400, "'unknown' was unexpected", CREATE),
        row(DEMO, "2.96", Method::POST, s, server(json!({"accessIPv4": "::1"})), 400, "IPv4", CREATE),
        row(DEMO, "2.96", Method::POST, s, server(json!({"block_device_mapping_v2": [{"source_type": "volume", "uuid": uuid, "boot_index": 0, "destination_type": "volume"}]})), 400, "volume service", CREATE),
        row(DEMO, "2.96", Method::POST, s, json!({"server": []}), 400, "object", CREATE),
        row(DEMO, "2.96", Method::POST, s, json!({}), 400, "server", CREATE),
        row(DEMO, "2.96", Method::POST, s, json!({"server": {}, "more": 1}), 400, "more", CREATE),
        row(DEMO, "2.96", Method::POST, s, { let mut b = server(json!({})); b["os:scheduler_hints"] = json!({"group": "nope"}); b }, 400, "group", CREATE),
        row(DEMO, "2.96", Method::POST, s, { let mut b = server(json!({})); b["os:scheduler_hints"] = json!({"group": uuid}); b }, 400, "could not be found", CREATE),
        row(READER, "2.96", Method::POST, s, server(json!({})), 403, "os_compute_api:servers:create", "policies/servers.py"),
        row("nonsense", "2.96", Method::POST, s, server(json!({})), 401, "authentication", "keystonemiddleware"),
        row(DEMO, "2.105", Method::GET, s, Value::Null, 406, "maximum is 2.104", "api-guide: microversions"),
        row(DEMO, "2.0", Method::GET, s, Value::Null, 406, "Minimum is 2.1", "api-guide: microversions"),
        row(DEMO, "two", Method::GET, s, Value::Null, 400, "invalid format", "api-guide: microversions"),
        row(DEMO, "2.96", Method::GET, "/v2.1/servers?limit=-1", Value::Null, 400, "limit", LIST),
        row(DEMO, "2.96", Method::GET, "/v2.1/servers?limit=x", Value::Null, 400, "integer", LIST),
        row(DEMO, "2.96", Method::GET, "/v2.1/servers?marker=11111111-1111-4111-8111-111111111111", Value::Null, 400, "marker", LIST),
        row(DEMO, "2.96", Method::GET, "/v2.1/servers?marker=x", Value::Null, 400, "marker", LIST),
        row(DEMO, "2.96", Method::GET, "/v2.1/servers?nonsense=1", Value::Null, 400, "nonsense", "api-ref: List Servers, 2.75"),
        row(DEMO, "2.96", Method::GET, "/v2.1/servers?status=nonsense", Value::Null, 400, "Invalid status value", "api-ref: List Servers, 2.38"),
        row(DEMO, "2.96", Method::GET, "/v2.1/servers?status=deleted", Value::Null, 403, "administrators", LIST),
        row(DEMO, "2.96", Method::GET, "/v2.1/servers?all_tenants=1", Value::Null, 403, "get_all_tenants", "policies/servers.py"),
        row(ADMIN, "2.96", Method::GET, "/v2.1/servers?all_tenants=perhaps", Value::Null, 400, "Unrecognized value", LIST),
        row(DEMO, "2.96", Method::GET, "/v2.1/servers?changes-since=yesterday", Value::Null, 400, "date-time", LIST),
        row(DEMO, "2.96", Method::GET, "/v2.1/servers?changes-since=2026-02-01&changes-before=2026-01-01", Value::Null, 400, "less than or equal", "api-ref: List Servers, 2.66"),
        row(DEMO, "2.96", Method::GET, "/v2.1/servers?sort_key=nonsense", Value::Null, 400, "sort_key", LIST),
        row(DEMO, "2.96", Method::GET, "/v2.1/servers?sort_key=host", Value::Null, 403, "host", LIST),
        row(DEMO, "2.96", Method::GET, "/v2.1/servers?sort_dir=up", Value::Null, 400, "sort direction", LIST),
        row(DEMO, "2.96", Method::GET, "/v2.1/servers?name=(", Value::Null, 400, "regular expression", LIST),
        row(DEMO, "2.1", Method::GET, "/v2.1/servers?metadata=1", Value::Null, 400, "Invalid filter field", LIST),
        row(DEMO, "2.96", Method::GET, "/v2.1/servers/nope", Value::Null, 404, "Instance nope could not be found", "api-ref: Show Server Details"),
        row(OTHER, "2.96", Method::GET, "/v2.1/servers/ID", Value::Null, 404, "could not be found", "api-ref: Show Server Details"),
        row(OTHER, "2.96", Method::POST, "/v2.1/servers/ID/action", json!({"os-stop": null}), 404, "could not be found", ACTION),
        row(READER, "2.96", Method::POST, "/v2.1/servers/ID/action", json!({"os-stop": null}), 403, "servers:stop", ACTION),
        row(DEMO, "2.96", Method::POST, "/v2.1/servers/ID/action", json!({"os-start": null}), 409, "while it is in vm_state active", ACTION),
        row(DEMO, "2.96", Method::POST, "/v2.1/servers/ID/action", json!({"unpause": null}), 409, "Cannot 'unpause' instance", ACTION),
        row(DEMO, "2.96", Method::POST, "/v2.1/servers/ID/action", json!({"confirmResize": null}), 409, "confirmResize", ACTION),
        row(DEMO, "2.96", Method::POST, "/v2.1/servers/ID/action", json!({"reboot": {"type": "gently"}}), 400, "reboot.type", ACTION),
        row(DEMO, "2.96", Method::POST, "/v2.1/servers/ID/action", json!({"reboot": {}}), 400, "'type' is a required property", ACTION),
        row(DEMO, "2.96", Method::POST, "/v2.1/servers/ID/action", json!({"resize": {"flavorRef": "1"}}), 400, "must change flavor", ACTION),
        row(DEMO, "2.96", Method::POST, "/v2.1/servers/ID/action", json!({"resize": {"flavorRef": "nope"}}), 400, "could not be found", ACTION),
        row(DEMO, "2.96", Method::POST, "/v2.1/servers/ID/action", json!({"rebuild": {"imageRef": "x"}}), 400, "UUID", ACTION),
        row(DEMO, "2.96", Method::POST, "/v2.1/servers/ID/action", json!({"rebuild": {"imageRef": uuid}}), 400, "could not be found", ACTION),
        row(DEMO, "2.53", Method::POST, "/v2.1/servers/ID/action", json!({"rebuild": {"imageRef": uuid, "key_name": "k"}}), 400, "'key_name' was unexpected", "api-ref: Rebuild, 2.54"),
        row(DEMO, "2.96", Method::POST, "/v2.1/servers/ID/action", json!({"jump": null}), 400, "no such action: jump", ACTION),
        row(DEMO, "2.96", Method::POST, "/v2.1/servers/ID/action", json!({}), 400, "one key", ACTION),
        row(DEMO, "2.96", Method::POST, "/v2.1/servers/ID/action", json!({"os-stop": null, "os-start": null}), 400, "one key", ACTION),
        row(DEMO, "2.96", Method::POST, "/v2.1/servers/ID/action", json!({"shelve": null}), 403, "os-shelve:shelve", "policies/shelve.py, switched off"),
        row(ADMIN, "2.96", Method::POST, "/v2.1/servers/ID/action", json!({"os-migrateLive": {}}), 400, "host", "api-ref: Live-Migrate Server"),
        row(ADMIN, "2.24", Method::POST, "/v2.1/servers/ID/action", json!({"os-migrateLive": {"host": null, "block_migration": "auto", "disk_over_commit": false}}), 400, "block_migration", "api-ref: Live-Migrate Server, 2.25"),
        row(ADMIN, "2.96", Method::POST, "/v2.1/servers/ID/action", json!({"os-migrateLive": {"host": "nobody", "block_migration": "auto"}}), 400, "Compute host nobody could not be found", "api-ref: Live-Migrate Server"),
        row(DEMO, "2.96", Method::POST, "/v2.1/servers/ID/action", json!({"os-migrateLive": {"host": null, "block_migration": "auto"}}), 403, "migrate_live", "policies/migrate_server.py"),
        row(ADMIN, "2.96", Method::POST, "/v2.1/servers/ID/migrations/7/action", json!({"force_complete": null}), 404, "Migration 7 not found", "api-ref: Force Migration Complete"),
        row(ADMIN, "2.96", Method::POST, "/v2.1/servers/ID/migrations/7/action", json!({"force_complete": 1}), 400, "null", "api-ref: Force Migration Complete"),
        row(ADMIN, "2.96", Method::DELETE, "/v2.1/servers/ID/migrations/7", Value::Null, 404, "Migration 7 not found", "api-ref: Abort Live Migration"),
        row(DEMO, "2.96", Method::POST, "/v2.1/servers/ID/action", json!({"os-resetState": {"state": "active"}}), 403, "reset_state", "policies/admin_actions.py"),
        row(ADMIN, "2.96", Method::POST, "/v2.1/servers/ID/action", json!({"os-resetState": {"state": "fine"}}), 400, "active, error", ACTION),
        row(DEMO, "2.96", Method::POST, "/v2.1/servers/ID/remote-consoles", json!({"remote_console": {"protocol": "rdp", "type": "rdp-html5"}}), 400, "Unavailable console type rdp-html5", "api-ref: Create Console"),
        row(DEMO, "2.5", Method::POST, "/v2.1/servers/ID/remote-consoles", json!({"remote_console": {"protocol": "vnc", "type": "novnc"}}), 404, "", "api-ref: Create Console, 2.6"),
        row(DEMO, "2.96", Method::POST, "/v2.1/servers/ID/os-volume_attachments", json!({"volumeAttachment": {"volumeId": uuid}}), 403, "os-volumes-attachments:create", "policies/volumes_attachments.py, switched off"),
        row(DEMO, "2.96", Method::PUT, "/v2.1/servers/ID", json!({"server": {"name": ""}}), 400, "name", "api-ref: Update Server"),
        row(DEMO, "2.96", Method::PUT, "/v2.1/servers/ID", json!({"server": {"flavorRef": "2"}}), 400, "unexpected", "api-ref: Update Server"),
        row(DEMO, "2.96", Method::PUT, "/v2.1/servers/ID/metadata/a", json!({"meta": {"b": "c"}}), 400, "URI mismatch", "api-ref: Server metadata"),
        row(DEMO, "2.96", Method::DELETE, "/v2.1/servers/ID/metadata/a", Value::Null, 404, "Metadata item was not found", "api-ref: Server metadata"),
        row(DEMO, "2.96", Method::GET, "/v2.1/servers/ID/tags/a", Value::Null, 404, "has no tag", "api-ref: Server tags"),
        row(DEMO, "2.25", Method::GET, "/v2.1/servers/ID/tags", Value::Null, 404, "", "api-ref: Server tags, 2.26"),
        row(DEMO, "2.96", Method::PUT, "/v2.1/servers/ID/tags", json!({"tags": ["a/b"]}), 400, "slashes", "api-ref: Server tags"),
        row(DEMO, "2.96", Method::GET, "/v2.1/servers/ID/ips/nope", Value::Null, 404, "not a member", "api-ref: Show IP Addresses Details"),
        row(DEMO, "2.96", Method::GET, "/v2.1/servers/ID/diagnostics", Value::Null, 403, "diagnostics", "policies/server_diagnostics.py"),
        row(DEMO, "2.96", Method::GET, "/v2.1/servers/ID/os-instance-actions/req-x", Value::Null, 404, "Action for request_id req-x", "api-ref: Servers actions log"),
        row(DEMO, "2.96", Method::POST, "/v2.1/flavors", json!({"flavor": {"name": "a", "ram": 1, "vcpus": 1, "disk": 1}}), 403, "flavor-manage:create", "policies/flavor_manage.py"),
        row(ADMIN, "2.96", Method::POST, "/v2.1/flavors", json!({"flavor": {"name": "a", "ram": 0, "vcpus": 1, "disk": 1}}), 400, "flavor.ram", "api-ref: Create Flavor"),
        row(ADMIN, "2.96", Method::POST, "/v2.1/flavors", json!({"flavor": {"name": "f1", "ram": 1, "vcpus": 1, "disk": 1}}), 409, "name f1 already exists", "api-ref: Create Flavor"),
        row(ADMIN, "2.96", Method::POST, "/v2.1/flavors", json!({"flavor": {"name": "a", "id": "1", "ram": 1, "vcpus": 1, "disk": 1}}), 409, "ID 1 already exists", "api-ref: Create Flavor"),
        row(ADMIN, "2.96", Method::POST, "/v2.1/flavors", json!({"flavor": {"name": "a", "id": " 7", "ram": 1, "vcpus": 1, "disk": 1}}), 400, "flavor.id", "api-ref: Create Flavor"),
        row(ADMIN, "2.96", Method::POST, "/v2.1/flavors/1/os-extra_specs", json!({"extra_specs": {"hw:cpu_policy": "sometimes"}}), 400, "dedicated, mixed, shared", "api-ref: Create Extra Specs, 2.86"),
        row(ADMIN, "2.96", Method::POST, "/v2.1/flavors/1/os-extra_specs", json!({"extra_specs": {}}), 400, "at least one", "api-ref: Create Extra Specs"),
        row(ADMIN, "2.96", Method::POST, "/v2.1/flavors/1/action", json!({"addTenantAccess": {"tenant": "p"}}), 409, "public flavor", "api-ref: Flavor access, 2.7"),
        row(ADMIN, "2.96", Method::GET, "/v2.1/flavors/1/os-flavor-access", Value::Null, 404, "public flavors", "api-ref: Flavor access"),
        row(DEMO, "2.96", Method::GET, "/v2.1/flavors/nope", Value::Null, 404, "Flavor nope could not be found", "api-ref: Show Flavor Details"),
        row(DEMO, "2.96", Method::GET, "/v2.1/flavors?sort_key=x", Value::Null, 400, "sort_key", "api-ref: List Flavors"),
        row(DEMO, "2.96", Method::POST, "/v2.1/os-keypairs", json!({"keypair": {"name": "k"}}), 400, "'public_key' is a required property", "api-ref: Import (or create) Keypair, 2.92"),
        row(DEMO, "2.96", Method::POST, "/v2.1/os-keypairs", json!({"keypair": {"name": "k", "public_key": "ssh-rsa nonsense"}}), 400, "Keypair data is invalid", "api-ref: Import (or create) Keypair"),
        row(DEMO, "2.91", Method::POST, "/v2.1/os-keypairs", json!({"keypair": {"name": "k@x"}}), 400, "keypair.name", "api-ref: Import (or create) Keypair, 2.92"),
        row(DEMO, "2.96", Method::POST, "/v2.1/os-keypairs", json!({"keypair": {"name": "k", "user_id": "bob", "public_key": "x"}}), 403, "os-keypairs:create", "policies/keypairs.py"),
        row(DEMO, "2.96", Method::GET, "/v2.1/os-keypairs/nope", Value::Null, 404, "Keypair nope not found for user alice", "api-ref: Show Keypair Details"),
        row(DEMO, "2.96", Method::POST, "/v2.1/os-server-groups", json!({"server_group": {"name": "g", "policy": "near"}}), 400, "policy", "api-ref: Create Server Group"),
        row(DEMO, "2.96", Method::POST, "/v2.1/os-server-groups", json!({"server_group": {"name": "g", "policy": "affinity", "rules": {"max_server_per_host": 2}}}), 400, "Only anti-affinity policy supports rules", "api-ref: Create Server Group, 2.64"),
        row(DEMO, "2.14", Method::POST, "/v2.1/os-server-groups", json!({"server_group": {"name": "g", "policies": ["soft-affinity"]}}), 400, "policies", "api-ref: Create Server Group, 2.15"),
        row(DEMO, "2.96", Method::GET, "/v2.1/os-server-groups/11111111-1111-4111-8111-111111111111", Value::Null, 404, "could not be found", "api-ref: Show Server Group Details"),
        row(ADMIN, "2.96", Method::PUT, "/v2.1/os-quota-sets/demo", json!({"quota_set": {"instances": 0}}), 400, "already used and reserved 1", "api-ref: Update Quotas"),
        row(ADMIN, "2.96", Method::PUT, "/v2.1/os-quota-sets/demo", json!({"quota_set": {"instances": -2}}), 400, "quota_set.instances", "api-ref: Update Quotas"),
        row(ADMIN, "2.96", Method::PUT, "/v2.1/os-quota-sets/demo", json!({"quota_set": {"floating_ips": 1}}), 400, "unexpected", "api-ref: Update Quotas, 2.36"),
        row(DEMO, "2.96", Method::PUT, "/v2.1/os-quota-sets/demo", json!({"quota_set": {"instances": 5}}), 403, "os-quota-sets:update", "policies/quota_sets.py"),
        row(DEMO, "2.96", Method::GET, "/v2.1/os-quota-sets/other", Value::Null, 403, "os-quota-sets:show", "policies/quota_sets.py"),
        row(DEMO, "2.96", Method::GET, "/v2.1/os-hypervisors", Value::Null, 403, "os-hypervisors:list", "policies/hypervisors.py"),
        row(ADMIN, "2.96", Method::GET, "/v2.1/os-hypervisors/7", Value::Null, 400, "Invalid uuid", "api-ref: Show Hypervisor Details, 2.53"),
        row(ADMIN, "2.96", Method::GET, "/v2.1/os-hypervisors/statistics", Value::Null, 404, "", "api-ref: Show Hypervisor Statistics, 2.88"),
        row(ADMIN, "2.96", Method::PUT, "/v2.1/os-services/11111111-1111-4111-8111-111111111111", json!({"status": "disabled"}), 404, "not found", "api-ref: Update Compute Service"),
        row(ADMIN, "2.52", Method::PUT, "/v2.1/os-services/disable", json!({"host": "nope", "binary": "nova-compute"}), 404, "nope", "api-ref: Disable Scheduling"),
        row(DEMO, "2.96", Method::GET, "/v2.1/nonsense", Value::Null, 404, "could not be found", GUIDE),
        row(DEMO, "2.96", Method::DELETE, "/v2.1/servers", Value::Null, 405, "DELETE", GUIDE),
    ];
    out.retain(|r| !r.doc.is_empty());
    out
}

fn fill(v: &Value, lab: &Lab) -> Value {
    let text = v.to_string().replace("\"IMAGE\"", &json!(lab.image).to_string());
    let text = text.replace("\"NET\"", &json!([{"uuid": lab.network}]).to_string());
    serde_json::from_str(&text).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn table() {
    let lab = Lab::start().await;
    FakeHost::join(&lab, 8, 8192, 100).await;
    let id = lab.create("here", "1").await;
    lab.wait(&id, "ACTIVE").await;
    let before = lab.rows().await;
    let mut wrong = Vec::new();
    for r in rows() {
        let path = r.path.replace("ID", &id);
        let body = if r.body.is_null() {
            None
        } else {
            Some(fill(&r.body, &lab))
        };
        let a = lab.call(r.who, r.version, r.method.clone(), &path, body).await;
        let name = match r.status {
            400 => "badRequest",
            401 => "error",
            403 => "forbidden",
            404 => "itemNotFound",
            405 => "badMethod",
            409 => "conflictingRequest",
            _ => "computeFault",
        };
        let message = a.body[name]["message"].as_str().unwrap_or_default();
        let shaped = a.body[name]["code"] == r.status && !message.is_empty();
        if a.status.as_u16() != r.status || !shaped || !message.contains(r.says) {
            wrong.push(format!(
                "{} {} at {} ({}): {} {}",
                r.method, path, r.version, r.doc, a.status, a.body
            ));
        }
        let after = lab.rows().await;
        if after != before {
            wrong.push(format!(
                "{} {} at {}: rows changed from {before:?} to {after:?}",
                r.method, path, r.version
            ));
            break;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    lab.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_and_huge() {
    let lab = Lab::start().await;
    for (text, status) in [("{", 400), ("[]", 400), ("\"x\"", 400), ("", 400), ("nul", 400)] {
        let a = lab
            .at(DEMO, "2.96")
            .raw(
                &lab,
                Method::POST,
                "/compute/v2.1/servers",
                text.to_owned().into(),
                "application/json",
            )
            .await;
        assert_eq!(a.status, status, "{text}: {}", a.body);
        assert_eq!(a.body["badRequest"]["code"], 400);
    }
    let huge = format!("{{\"server\": \"{}\"}}", "x".repeat(2 << 20));
    let a = lab
        .at(DEMO, "2.96")
        .raw(
            &lab,
            Method::POST,
            "/compute/v2.1/servers",
            huge.into(),
            "application/json",
        )
        .await;
    assert_eq!(a.status, 413);
}
