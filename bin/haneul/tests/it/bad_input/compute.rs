//! Nova.

use super::Category::*;
use super::Who::*;
use super::{JSON, Row, Table};
use haneul_http::Service;
use serde_json::{Value, json};

const WSGI: &str = "nova/api/openstack/wsgi.py";
const SCHEMA: &str = "nova/api/openstack/compute/schemas/servers.py";
const SERVERS: &str = "nova/api/openstack/compute/servers.py, create";
const ACTION: &str = "api-ref: Servers - run an action";
const STATE: &str = "nova/compute/api.py, check_instance_state; nova/api/openstack/common.py, raise_http_conflict_for_instance_invalid_state";
const LIST: &str = "api-ref: List Servers";
const KEYS: &str = "nova/api/openstack/compute/keypairs.py";
const FLAVORS: &str = "nova/api/openstack/compute/flavors.py";
const ACCESS: &str = "nova/api/openstack/compute/flavor_access.py";
const QUOTAS: &str = "nova/api/openstack/compute/quota_sets.py";
const GROUPS: &str = "nova/api/openstack/compute/server_groups.py";
const SERVICES: &str = "nova/api/openstack/compute/services.py";
const POLICY: &str = "nova/policies";
const NICS: &str = "nova/api/openstack/compute/attach_interfaces.py";
const META: &str = "nova/api/openstack/compute/server_metadata.py";

/// Body of a create that would be right, but for `change`; null takes away.
fn server(change: Value) -> Value {
    let mut v = json!({"name": "x", "flavorRef": "tiny", "imageRef": "{image}", "networks": "none"});
    let o = v.as_object_mut().expect("an object");
    for (k, x) in change.as_object().expect("an object") {
        if x.is_null() {
            o.remove(k);
        } else {
            o.insert(k.clone(), x.clone());
        }
    }
    json!({"server": v})
}

// One row a case, and so no line breaks by rustfmt.
#[rustfmt::skip]
pub fn rows() -> Vec<Row> {
    let mut t = Table::new(Service::Compute, Some("compute 2.90"));
    let create = "POST /v2.1/servers";
    let act = |name: &str| format!("POST /v2.1/servers/{{{name}}}/action");
    let (active, stopped, locked, paused) = (act("active"), act("stopped"), act("locked"), act("paused"));
    let nic = "POST /v2.1/servers/{active}/os-interface";
    let wish = |v: Value| json!({"interfaceAttachment": v});
    let key = |v: Value| json!({"keypair": v});
    let flavor = |v: Value| {
        let mut o = json!({"name": "f", "ram": 1, "vcpus": 1, "disk": 1});
        o.as_object_mut().expect("an object").extend(v.as_object().expect("an object").clone());
        json!({"flavor": o})
    };
    let good = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO3wzmbDhTTMCBUcPVTPBVZ8vAoB4TUxIWRnZ6YeGDqM me";
    let long = "x".repeat(256);

    t.about(Malformed);
    t.row("cut off", Member, create, "{\"server\": ", 400, "Malformed request body", WSGI);
    t.row("no JSON", Member, create, "nul", 400, "Malformed request body", WSGI);
    t.row("no body", Member, create, "", 400, "", WSGI);
    t.row("a list", Member, create, "[]", 400, "server", SCHEMA);
    t.row("ten thousand brackets", Member, create, "[".repeat(10_000).as_str(), 400, "Malformed request body", WSGI);
    t.row("a form instead of JSON", Member, create, ("application/x-www-form-urlencoded", &b"name=x"[..]), 415, "Content-Type", "nova/api/openstack/wsgi.py, get_content_type");
    t.row("an action that is cut off", Member, &active, "{\"os-stop\"", 400, "Malformed request body", WSGI);
    t.row("an action without a name", Member, &active, json!({}), 400, "Malformed request body", "nova/api/openstack/wsgi.py, action_peek");
    t.row("two actions at once", Member, &active, json!({"os-stop": null, "os-start": null}), 400, "Malformed request body", "nova/api/openstack/wsgi.py, action_peek");

    t.about(WrongType);
    t.row("name is a number", Member, create, server(json!({"name": 5})), 400, "name", SCHEMA);
    t.row("server is a list", Member, create, json!({"server": []}), 400, "server", SCHEMA);
    t.row("flavorRef is an object", Member, create, server(json!({"flavorRef": {}})), 400, "flavorRef", SCHEMA);
    t.row("metadata of numbers", Member, create, server(json!({"metadata": {"k": 5}})), 400, "metadata", SCHEMA);
    t.row("config_drive is a word", Member, create, server(json!({"config_drive": "maybe"})), 400, "config_drive", SCHEMA);
    t.row("networks is a number", Member, create, server(json!({"networks": 5})), 400, "networks", SCHEMA);
    t.row("user_data is no base64", Member, create, server(json!({"user_data": "%%%"})), 400, "user_data", SCHEMA);
    t.row("vcpus is a word", Admin, "POST /v2.1/flavors", flavor(json!({"vcpus": "two"})), 400, "vcpus", "nova/api/openstack/compute/schemas/flavors.py");
    t.row("reboot of a word", Member, &active, json!({"reboot": "now"}), 400, "reboot", ACTION);
    t.row("quota is a word", Admin, "PUT /v2.1/os-quota-sets/{mine}", json!({"quota_set": {"instances": "many"}}), 400, "instances", QUOTAS);

    t.about(UnknownField);
    t.row("server with a colour", Member, create, server(json!({"colour": 1})), 400, "colour", SCHEMA);
    t.row("personality after its end", Member, create, server(json!({"personality": []})), 400, "personality", "api-ref: Create Server, 2.57");
    t.row("tags before their time", Member, create, server(json!({"tags": ["a"]})), 400, "tags", "api-ref: Create Server, 2.52").at("compute 2.51");
    t.row("host before its time", Member, create, server(json!({"host": "h"})), 400, "host", "api-ref: Create Server, 2.74").at("compute 2.73");
    t.row("another flavor by an update", Member, "PUT /v2.1/servers/{active}", json!({"server": {"flavorRef": "small"}}), 400, "flavorRef", "api-ref: Update Server");
    t.row("an action of dreams", Member, &active, json!({"jump": null}), 400, "jump", WSGI);
    t.row("a query of dreams", Member, "GET /v2.1/servers?colour=1", (), 400, "colour", "api-ref: List Servers, 2.75");
    t.row("a key with a colour", Member, "POST /v2.1/os-keypairs", key(json!({"name": "k", "public_key": good, "colour": 1})), 400, "colour", "nova/api/openstack/compute/schemas/keypairs.py");
    t.row("a network quota of Nova's", Admin, "PUT /v2.1/os-quota-sets/{mine}", json!({"quota_set": {"floating_ips": 1}}), 400, "floating_ips", "api-ref: Update Quotas, 2.36");

    t.about(TooLong);
    t.row("name", Member, create, server(json!({"name": long})), 400, "name", SCHEMA);
    t.row("value of metadata", Member, create, server(json!({"metadata": {"k": long}})), 400, "metadata", SCHEMA);
    t.row("key of metadata", Member, "POST /v2.1/servers/{active}/metadata", json!({"metadata": {long.as_str(): "v"}}), 400, "metadata", META);
    t.row("user_data", Member, create, server(json!({"user_data": "QUFB".repeat(17000)})), 400, "user_data", SCHEMA);
    t.row("name of a key", Member, "POST /v2.1/os-keypairs", key(json!({"name": long, "public_key": good})), 400, "name", "nova/api/openstack/compute/schemas/keypairs.py");
    t.row("name of a flavor", Admin, "POST /v2.1/flavors", flavor(json!({"name": long})), 400, "name", "nova/api/openstack/compute/schemas/flavors.py");
    t.row("tag", Member, &format!("PUT /v2.1/servers/{{active}}/tags/{}", "t".repeat(61)), (), 400, "60", "nova/api/openstack/compute/server_tags.py");
    t.row("name of nothing but blanks", Member, create, server(json!({"name": "  "})), 400, "name", SCHEMA);

    t.about(HugeBody);
    t.row("a server of blanks", Member, create, (JSON, &vec![b' '; (1 << 20) + 1][..]), 413, "too large", "oslo.middleware sizelimit; nova/etc api-paste.ini");
    t.row("a script of two million bytes", Member, create, server(json!({"user_data": "QUFB".repeat(1 << 19)})), 413, "too large", "oslo.middleware sizelimit; nova/etc api-paste.ini");

    t.about(BadId);
    t.row("server that is not there", Member, "GET /v2.1/servers/{no}", (), 404, "{no}", "api-ref: Show Server Details");
    t.row("a name for an id", Member, "GET /v2.1/servers/active", (), 404, "active", "api-ref: Show Server Details");
    t.row("stops nothing", Member, &act("no"), json!({"os-stop": null}), 404, "{no}", ACTION);
    t.row("deletes nothing", Member, "DELETE /v2.1/servers/{no}", (), 404, "{no}", "api-ref: Delete Server");
    t.row("flavor that is none", Member, create, server(json!({"flavorRef": "nope"})), 400, "nope", SERVERS);
    t.row("image that is none", Member, create, server(json!({"imageRef": "{no}"})), 400, "{no}", SERVERS);
    t.row("image out of the tree", Member, create, server(json!({"imageRef": "../etc/passwd"})), 400, "imageRef", SCHEMA);
    t.row("network that is none", Member, create, server(json!({"networks": [{"uuid": "{no}"}]})), 400, "{no}", SERVERS);
    t.row("network that is no UUID", Member, create, server(json!({"networks": [{"uuid": "nope"}]})), 400, "uuid", SCHEMA);
    t.row("port that is none", Member, create, server(json!({"networks": [{"port": "{no}"}]})), 400, "{no}", SERVERS);
    t.row("key that is none", Member, create, server(json!({"key_name": "nope"})), 400, "key_name", SERVERS);
    t.row("group that is none", Member, create, server(json!({"security_groups": [{"name": "nope"}], "networks": [{"uuid": "{net}"}]})), 400, "nope", SERVERS);
    t.row("address of another network", Member, create, server(json!({"networks": [{"uuid": "{net}", "fixed_ip": "10.200.0.1"}]})), 400, "10.200.0.1", SERVERS);
    t.row("address that is none", Member, create, server(json!({"networks": [{"uuid": "{net}", "fixed_ip": "10.1.0.300"}]})), 400, "fixed_ip", SCHEMA);
    t.row("flavor to show", Member, "GET /v2.1/flavors/nope", (), 404, "nope", FLAVORS);
    t.row("key to show", Member, "GET /v2.1/os-keypairs/nope", (), 404, "nope", KEYS);
    t.row("key to delete", Member, "DELETE /v2.1/os-keypairs/nope", (), 404, "nope", KEYS);
    t.row("server group to show", Member, "GET /v2.1/os-server-groups/{no}", (), 404, "{no}", GROUPS);
    t.row("resize to nothing", Member, &active, json!({"resize": {"flavorRef": "nope"}}), 400, "nope", "nova/api/openstack/compute/servers.py, _resize");
    t.row("rebuild of nothing", Member, &active, json!({"rebuild": {"imageRef": "{no}"}}), 400, "{no}", "nova/api/openstack/compute/servers.py, _action_rebuild");
    t.row("hypervisor by a number", Admin, "GET /v2.1/os-hypervisors/7", (), 400, "7", "api-ref: Show Hypervisor Details, 2.53");
    t.row("service that is none", Admin, "DELETE /v2.1/os-services/{no}", (), 404, "{no}", SERVICES);
    t.row("metadata that is none", Member, "DELETE /v2.1/servers/{active}/metadata/none", (), 404, "etadata item was not found", META);
    t.row("tag that is none", Member, "DELETE /v2.1/servers/{active}/tags/none", (), 404, "none", "nova/api/openstack/compute/server_tags.py");
    t.row("an interface on no network", Member, nic, wish(json!({"net_id": "{no}"})), 404, "{no}", NICS);
    t.row("an interface by a port that is none", Member, nic, wish(json!({"port_id": "{no}"})), 404, "{no}", NICS);
    t.row("an interface by another's port", Member, nic, wish(json!({"port_id": "{their_port}"})), 404, "{their_port}", NICS);
    t.row("an interface with an address of another network", Member, nic, wish(json!({"net_id": "{net}", "fixed_ips": [{"ip_address": "10.200.0.1"}]})), 400, "10.200.0.1", NICS);
    t.row("takes an interface off that is none", Member, "DELETE /v2.1/servers/{active}/os-interface/{free_port}", (), 404, "{free_port}", NICS);
    t.row("path that is none", Member, "GET /v2.1/nothing", (), 404, "", WSGI);

    t.about(Exhausted);
    t.row("quota of instances", Other, create, server(json!({})), 403, "instances", "nova/compute/utils.py, check_num_instances_quota");
    t.row("more than the quota at once", Member, create, server(json!({"min_count": 1000, "max_count": 1000})), 403, "instances", "nova/compute/utils.py, check_num_instances_quota");
    t.row("quota of keys", Other, "POST /v2.1/os-keypairs", key(json!({"name": "k", "public_key": good})), 403, "key pairs", KEYS);
    t.row("quota of server groups", Other, "POST /v2.1/os-server-groups", json!({"server_group": {"name": "g", "policy": "affinity"}}), 403, "server groups", GROUPS);
    t.row("quota of metadata", Member, create, server(json!({"metadata": (0..129).map(|n| (n.to_string(), json!("v"))).collect::<serde_json::Map<_, _>>()})), 403, "metadata", "nova/compute/api.py, _check_metadata_properties_quota");
    t.row("quota of metadata, one by one", Member, "POST /v2.1/servers/{active}/metadata", json!({"metadata": (0..128).map(|n| (n.to_string(), json!("v"))).collect::<serde_json::Map<_, _>>()}), 403, "metadata", META);
    t.row("51 tags", Member, "PUT /v2.1/servers/{active}/tags", json!({"tags": (0..51).map(|n| n.to_string()).collect::<Vec<_>>()}), 400, "tags", "nova/api/openstack/compute/schemas/server_tags.py");
    t.row("no address is left", Member, create, server(json!({"networks": [{"uuid": "{full}"}]})), 409, "{full}", "ours: refused before anything is written, with Neutron's status. Nova takes it, and the server ends in ERROR (NoMoreFixedIps)");
    t.row("a memory that is too small", Member, create, server(json!({"imageRef": "{needy}"})), 400, "memory", "nova/exception.py, FlavorMemoryTooSmall");
    t.row("a disk that is too small", Member, create, server(json!({"imageRef": "{large}"})), 400, "disk", "nova/exception.py, FlavorDiskSmallerThanMinDisk");

    t.about(InUse);
    t.row("a port that another server has", Member, create, server(json!({"networks": [{"port": "{server_port}"}]})), 409, "{server_port}", "nova/api/openstack/compute/servers.py, create: PortInUse");
    t.row("an address that is taken", Member, create, server(json!({"networks": [{"uuid": "{net}", "fixed_ip": "10.1.0.77"}]})), 400, "10.1.0.77", "nova/api/openstack/compute/servers.py, create: FixedIpAlreadyInUse");
    t.row("more networks than one to choose from", Member, create, server(json!({"networks": "auto"})), 409, "network", "nova/api/openstack/compute/servers.py, create: NetworkAmbiguous");
    t.row("an interface by a port in use", Member, nic, wish(json!({"port_id": "{server_port}"})), 409, "{server_port}", NICS);
    t.row("an interface with an address that is taken", Member, nic, wish(json!({"net_id": "{net}", "fixed_ips": [{"ip_address": "10.1.0.77"}]})), 409, "10.1.0.77", NICS);
    t.row("a service with servers", Admin, "DELETE /v2.1/os-services/{service}", (), 409, "instances", SERVICES);
    t.row("name of a flavor", Admin, "POST /v2.1/flavors", flavor(json!({"name": "tiny"})), 409, "tiny", FLAVORS);
    t.row("id of a flavor", Admin, "POST /v2.1/flavors", flavor(json!({"id": "tiny"})), 409, "tiny", FLAVORS);
    t.row("name of a key", Member, "POST /v2.1/os-keypairs", key(json!({"name": "key", "public_key": good})), 409, "key", KEYS);
    t.row("quota below what is used", Admin, "PUT /v2.1/os-quota-sets/{mine}", json!({"quota_set": {"instances": 1}}), 400, "instances", QUOTAS);

    t.about(WrongState);
    t.row("start what runs", Member, &active, json!({"os-start": null}), 409, "vm_state active", STATE);
    t.row("stop what stands", Member, &stopped, json!({"os-stop": null}), 409, "vm_state stopped", STATE);
    t.row("pause what stands", Member, &stopped, json!({"pause": null}), 409, "vm_state stopped", STATE);
    t.row("unpause what runs", Member, &active, json!({"unpause": null}), 409, "vm_state active", STATE);
    t.row("suspend what stands", Member, &stopped, json!({"suspend": null}), 409, "vm_state stopped", STATE);
    t.row("resume what runs", Member, &active, json!({"resume": null}), 409, "vm_state active", STATE);
    t.row("suspend what is locked", Member, &locked, json!({"suspend": null}), 409, "locked", "nova/exception.py, InstanceIsLocked");
    t.row("a console of what stands", Member, "POST /v2.1/servers/{stopped}/remote-consoles", json!({"remote_console": {"protocol": "vnc", "type": "novnc"}}), 409, "vm_state stopped", "nova/exception.py, InstanceNotReady");
    t.row("start what pauses", Member, &paused, json!({"os-start": null}), 409, "vm_state paused", STATE);
    t.row("resize what pauses", Member, &paused, json!({"resize": {"flavorRef": "small"}}), 409, "vm_state paused", STATE);
    t.row("soft reboot of what stands", Member, &stopped, json!({"reboot": {"type": "SOFT"}}), 409, "vm_state stopped", STATE);
    t.row("confirm no resize", Member, &active, json!({"confirmResize": null}), 409, "vm_state active", STATE);
    t.row("revert no resize", Member, &active, json!({"revertResize": null}), 409, "vm_state active", STATE);
    t.row("stop what is locked", Member, &locked, json!({"os-stop": null}), 409, "locked", "nova/exception.py, InstanceIsLocked");
    t.row("reboot what is locked", Member, &locked, json!({"reboot": {"type": "HARD"}}), 409, "locked", "nova/exception.py, InstanceIsLocked");
    t.row("delete what is locked", Member, "DELETE /v2.1/servers/{locked}", (), 409, "locked", "nova/exception.py, InstanceIsLocked");
    t.row("metadata of what is locked", Member, "POST /v2.1/servers/{locked}/metadata", json!({"metadata": {"k": "v"}}), 409, "locked", META);
    t.row("resize to the same", Member, &active, json!({"resize": {"flavorRef": "tiny"}}), 400, "flavor", "nova/exception.py, CannotResizeToSameFlavor");
    t.row("restore what is not deleted", Member, &active, json!({"restore": null}), 409, "vm_state active", STATE);
    t.row("an interface for what is locked", Member, "POST /v2.1/servers/{locked}/os-interface", wish(json!({"net_id": "{net}"})), 409, "locked", NICS);
    t.row("an interface by port and network", Member, nic, wish(json!({"net_id": "{net}", "port_id": "{free_port}"})), 400, "port_id", NICS);
    t.row("an address without its network", Member, nic, wish(json!({"fixed_ips": [{"ip_address": "10.1.0.9"}]})), 400, "net_id", NICS);
    t.row("an image without data", Member, create, server(json!({"imageRef": "{queued_raw}"})), 400, "{queued_raw}", "nova/exception.py, ImageNotActive");
    t.row("an image that is switched off", Member, create, server(json!({"imageRef": "{off}"})), 400, "{off}", "nova/exception.py, ImageNotActive");
    t.row("the network outside", Member, create, server(json!({"networks": [{"uuid": "{public}"}]})), 403, "{public}", "nova/exception.py, ExternalNetworkAttachForbidden");
    t.row("a disk of nothing for a member", Member, create, server(json!({"flavorRef": "zero"})), 403, "zero disk", "nova/exception.py, BootFromVolumeRequiredForZeroDiskFlavor");
    t.row("resize to a disk of nothing", Member, &active, json!({"resize": {"flavorRef": "zero"}}), 400, "zero disk", "nova/compute/api.py, resize: CannotResizeDisk");
    t.row("an update of a metadata item by another key", Member, "PUT /v2.1/servers/{active}/metadata/a", json!({"meta": {"b": "c"}}), 400, "URI", META);
    t.row("access to a public flavor", Admin, "POST /v2.1/flavors/tiny/action", json!({"addTenantAccess": {"tenant": "{theirs}"}}), 409, "public", ACCESS);
    t.row("access that is none", Admin, "POST /v2.1/flavors/secret/action", json!({"removeTenantAccess": {"tenant": "{theirs}"}}), 404, "{theirs}", ACCESS);

    t.about(Others);
    t.row("another's server", Other, "GET /v2.1/servers/{active}", (), 404, "{active}", "api-ref: Show Server Details");
    t.row("stops another's", Other, &active, json!({"os-stop": null}), 404, "{active}", ACTION);
    t.row("deletes another's", Other, "DELETE /v2.1/servers/{active}", (), 404, "{active}", "api-ref: Delete Server");
    t.row("renames another's", Other, "PUT /v2.1/servers/{active}", json!({"server": {"name": "mine"}}), 404, "{active}", "api-ref: Update Server");
    t.row("suspends another's", Other, &active, json!({"suspend": null}), 404, "{active}", ACTION);
    t.row("sees another's screen", Other, "POST /v2.1/servers/{active}/remote-consoles", json!({"remote_console": {"protocol": "vnc", "type": "novnc"}}), 404, "{active}", "api-ref: Create Remote Console");
    t.row("asks what a console's token is for", Member, "GET /v2.1/os-console-auth-tokens/{no}", (), 403, "os-console-auth-tokens", POLICY);
    t.row("reads another's console", Other, &active, json!({"os-getConsoleOutput": {}}), 404, "{active}", ACTION);
    t.row("an image of another", Other, create, server(json!({"imageRef": "{private}"})), 400, "{private}", SERVERS);
    t.row("a network of another", Member, create, server(json!({"networks": [{"uuid": "{their_net}"}]})), 400, "{their_net}", SERVERS);
    t.row("a port of another", Member, create, server(json!({"networks": [{"port": "{their_port}"}]})), 400, "{their_port}", SERVERS);
    t.row("a group of another", Other, create, { let mut b = server(json!({})); b["os:scheduler_hints"] = json!({"group": "{group}"}); b }, 400, "{group}", SERVERS);
    t.row("another's server group", Other, "DELETE /v2.1/os-server-groups/{group}", (), 404, "{group}", GROUPS);
    t.row("another's key", Other, "GET /v2.1/os-keypairs/key", (), 404, "key", KEYS);
    t.row("another's key by his name", Member, "GET /v2.1/os-keypairs/key?user_id={otto}", (), 403, "os-keypairs:show", POLICY);
    t.row("a flavor that is not for him", Other, create, server(json!({"flavorRef": "secret"})), 400, "secret", SERVERS);
    t.row("another's quota", Member, "GET /v2.1/os-quota-sets/{theirs}", (), 403, "os-quota-sets:show", POLICY);
    t.row("a quota of one's own", Member, "PUT /v2.1/os-quota-sets/{mine}", json!({"quota_set": {"instances": 99}}), 403, "os-quota-sets:update", POLICY);
    t.row("all projects' servers", Member, "GET /v2.1/servers?all_tenants=1", (), 403, "get_all_tenants", POLICY);
    t.row("a reader creates", Reader, create, server(json!({})), 403, "servers:create", POLICY);
    t.row("a reader stops", Reader, &active, json!({"os-stop": null}), 403, "servers:stop", POLICY);
    t.row("a member's flavor", Member, "POST /v2.1/flavors", flavor(json!({})), 403, "flavor-manage:create", POLICY);
    t.row("a host of his choice", Member, create, server(json!({"availability_zone": "nova:host"})), 403, "forced_host", POLICY);
    t.row("a member's aggregate", Member, "POST /v2.1/os-aggregates", json!({"aggregate": {"name": "a"}}), 403, "os-aggregates:create", POLICY);
    t.row("events of a member's own", Member, "POST /v2.1/os-server-external-events", json!({"events": [{"name": "network-changed", "server_uuid": "{active}"}]}), 403, "external-events", POLICY);
    t.row("hypervisors", Member, "GET /v2.1/os-hypervisors", (), 403, "os-hypervisors:list", POLICY);
    t.row("resets a state", Member, &active, json!({"os-resetState": {"state": "error"}}), 403, "reset_state", POLICY);
    t.row("a feature that is off", Member, &active, json!({"shelve": null}), 403, "os-shelve:shelve", "nova/policies/shelve.py, switched off");

    t.tokens("GET /v2.1/servers/{active}", "GET /v2.1/servers/{no}");

    t.about(super::Category::Value);
    t.row("no name", Member, create, server(json!({"name": null})), 400, "name", SCHEMA);
    t.row("no networks", Member, create, server(json!({"networks": null})), 400, "networks", "api-ref: Create Server, 2.37");
    t.row("less than one", Member, create, server(json!({"min_count": 0})), 400, "min_count", SCHEMA);
    t.row("at least more than at most", Member, create, server(json!({"min_count": 3, "max_count": 2})), 400, "min_count", SERVERS);
    t.row("a zone of dreams", Member, create, server(json!({"availability_zone": "mars"})), 400, "not available", SERVERS);
    t.row("a volume, where there are none", Member, create, server(json!({"block_device_mapping_v2": [{"source_type": "volume", "uuid": "{no}", "boot_index": 0, "destination_type": "volume"}]})), 400, "volume", SERVERS);
    t.row("a key that is none", Member, "POST /v2.1/os-keypairs", key(json!({"name": "k", "public_key": "ssh-rsa nonsense"})), 400, "Keypair data is invalid", KEYS);
    t.row("memory of nothing", Admin, "POST /v2.1/flavors", flavor(json!({"ram": 0})), 400, "ram", "nova/api/openstack/compute/schemas/flavors.py");
    t.row("an extra spec of dreams", Admin, "POST /v2.1/flavors/tiny/os-extra_specs", json!({"extra_specs": {"hw:cpu_policy": "sometimes"}}), 400, "hw:cpu_policy", "api-ref: Create Extra Specs, 2.86");
    t.row("a policy of dreams", Member, "POST /v2.1/os-server-groups", json!({"server_group": {"name": "g", "policy": "near"}}), 400, "policy", GROUPS);
    t.row("a console that is not served", Member, "POST /v2.1/servers/{active}/remote-consoles", json!({"remote_console": {"protocol": "spice", "type": "spice-html5"}}), 400, "spice-html5", "nova/exception.py, ConsoleTypeUnavailable");
    t.row("a console of dreams", Member, "POST /v2.1/servers/{active}/remote-consoles", json!({"remote_console": {"protocol": "vnc", "type": "telepathy"}}), 400, "type", "nova/api/openstack/compute/schemas/remote_consoles.py");
    t.row("a zone with a colon", Admin, "POST /v2.1/os-aggregates", json!({"aggregate": {"name": "a", "availability_zone": "a:b"}}), 400, "colon", "nova/api/validation/parameter_types.py, availability_zone");
    t.row("an aggregate without a name", Admin, "POST /v2.1/os-aggregates", json!({"aggregate": {"availability_zone": "a"}}), 400, "name", "nova/api/openstack/compute/schemas/aggregates.py");
    t.row("an aggregate by a word", Admin, "GET /v2.1/os-aggregates/fast", (), 400, "fast", "nova/api/openstack/compute/aggregates.py, show");
    t.row("an aggregate's action of dreams", Admin, "POST /v2.1/os-aggregates/1/action", json!({"polish": {}}), 400, "polish", "nova/api/openstack/compute/aggregates.py");
    t.row("a host's status of dreams", Admin, "PUT /v2.1/os-hosts/nowhere", json!({"status": "sleep"}), 400, "status", "nova/api/openstack/compute/schemas/hosts.py").at("compute 2.42");
    t.row("usage before no time", Admin, "GET /v2.1/os-instance_usage_audit_log/soon", (), 400, "soon", "nova/api/openstack/compute/instance_usage_audit_log.py");
    t.row("an event of dreams", Admin, "POST /v2.1/os-server-external-events", json!({"events": [{"name": "rain", "server_uuid": "{active}"}]}), 400, "name", "nova/api/openstack/compute/schemas/server_external_events.py");
    t.row("a reboot of dreams", Member, &active, json!({"reboot": {"type": "gently"}}), 400, "type", ACTION);
    t.row("a state of dreams", Admin, &active, json!({"os-resetState": {"state": "fine"}}), 400, "state", ACTION);
    t.row("limit is a word", Member, "GET /v2.1/servers?limit=x", (), 400, "limit", LIST);
    t.row("marker that is none", Member, "GET /v2.1/servers?marker={no}", (), 400, "{no}", LIST);
    t.row("sorted by dreams", Member, "GET /v2.1/servers?sort_key=colour", (), 400, "sort_key", LIST);
    t.row("since yesterday", Member, "GET /v2.1/servers?changes-since=yesterday", (), 400, "changes-since", LIST);
    t.row("a version of the future", Member, "GET /v2.1/servers", (), 406, "2.999", "api-guide: microversions").at("compute 2.999");
    t.row("a version of dreams", Member, "GET /v2.1/servers", (), 400, "two", "api-guide: microversions").at("compute two");
    t.row("metadata under no key", Member, "PUT /v2.1/servers/{active}/metadata", json!({"metadata": {"": "v"}}), 400, "metadata", META);
    t.row("method not in the table", Member, "DELETE /v2.1/servers", (), 405, "DELETE", "api-guide: faults");
    t.rows
}
