//! Placement.

use super::Category::*;
use super::Who::*;
use super::{JSON, Row, Table};
use haneul_http::Service;
use serde_json::json;

const UTIL: &str = "placement/util.py";
const RP: &str = "placement/handlers/resource_provider.py";
const RP_SCHEMA: &str = "placement/schemas/resource_provider.py";
const INV: &str = "placement/handlers/inventory.py";
const INV_SCHEMA: &str = "placement/schemas/inventory.py";
const ALLOC: &str = "placement/handlers/allocation.py";
const ALLOC_SCHEMA: &str = "placement/schemas/allocation.py";
const CLASS: &str = "placement/handlers/resource_class.py";
const TRAIT: &str = "placement/handlers/trait.py";
const CAND: &str = "placement/schemas/allocation_candidate.py";
const POLICY: &str = "placement/policies";
const CONCURRENT: &str = "placement.concurrent_update";

// One row a case, and so no line breaks by rustfmt.
#[rustfmt::skip]
pub fn rows() -> Vec<Row> {
    let mut t = Table::new(Service::Placement, Some("placement 1.39"));
    let create = "POST /resource_providers";
    let invs = "POST /resource_providers/{rack}/inventories";
    let all = "PUT /resource_providers/{rack}/inventories";
    let gold = "PUT /resource_providers/{rack}/inventories/CUSTOM_GOLD";
    let alloc = "PUT /allocations/{no}";
    let wants = |rp: &str, resources: serde_json::Value| json!({"allocations": {rp: {"resources": resources}}, "project_id": "p", "user_id": "u", "consumer_generation": null, "consumer_type": "INSTANCE"});
    let long = "X".repeat(201);

    t.about(Malformed);
    t.row("cut off", Admin, create, "{\"name\": ", 400, "JSON", UTIL);
    t.row("no JSON", Admin, alloc, "hello", 400, "JSON", UTIL);
    t.row("a list", Admin, create, "[]", 400, "object", RP_SCHEMA);
    t.row("no body", Admin, create, "", 400, "JSON", UTIL);
    t.row("ten thousand brackets", Admin, create, "[".repeat(10_000).as_str(), 400, "JSON", UTIL);
    t.row("not sent as JSON", Admin, create, ("text/plain", &b"{\"name\": \"x\"}"[..]), 415, "text/plain", "placement/util.py, require_content");

    t.about(WrongType);
    t.row("name is a number", Admin, create, json!({"name": 5}), 400, "name", RP_SCHEMA);
    t.row("total is a word", Admin, invs, json!({"resource_class": "VCPU", "total": "many"}), 400, "total", INV_SCHEMA);
    t.row("total is a number in quotes", Admin, invs, json!({"resource_class": "VCPU", "total": "5"}), 400, "total", INV_SCHEMA);
    t.row("ratio is a list", Admin, invs, json!({"resource_class": "VCPU", "total": 5, "allocation_ratio": []}), 400, "allocation_ratio", INV_SCHEMA);
    t.row("inventories is a list", Admin, all, json!({"resource_provider_generation": 2, "inventories": []}), 400, "inventories", INV_SCHEMA);
    t.row("generation is a number in quotes", Admin, all, json!({"resource_provider_generation": "2", "inventories": {}}), 400, "resource_provider_generation", INV_SCHEMA);
    t.row("traits is a word", Admin, "PUT /resource_providers/{rack}/traits", json!({"traits": "CUSTOM_SHINY", "resource_provider_generation": 2}), 400, "traits", "placement/schemas/trait.py");
    t.row("aggregates is a word", Admin, "PUT /resource_providers/{rack}/aggregates", json!({"aggregates": "x", "resource_provider_generation": 2}), 400, "aggregates", "placement/schemas/aggregate.py");
    t.row("allocations is a list", Admin, alloc, json!({"allocations": [], "project_id": "p", "user_id": "u", "consumer_generation": null, "consumer_type": "INSTANCE"}), 400, "allocations", ALLOC_SCHEMA);
    t.row("allocations of nothing", Admin, alloc, json!({"allocations": {}, "project_id": "p", "user_id": "u"}), 400, "allocations", ALLOC_SCHEMA).at("placement 1.27");
    t.row("an amount in quotes", Admin, alloc, wants("{rack}", json!({"CUSTOM_GOLD": "1"})), 400, "CUSTOM_GOLD", ALLOC_SCHEMA);

    t.row("a generation in quotes", Admin, alloc, json!({"allocations": {}, "project_id": "p", "user_id": "u", "consumer_generation": "1", "consumer_type": "INSTANCE"}), 400, "consumer_generation", ALLOC_SCHEMA);
    t.row("a type in small letters", Admin, alloc, json!({"allocations": {}, "project_id": "p", "user_id": "u", "consumer_generation": null, "consumer_type": "instance"}), 400, "consumer_type", ALLOC_SCHEMA);
    t.row("mappings to a word", Admin, alloc, json!({"allocations": {}, "project_id": "p", "user_id": "u", "consumer_generation": null, "consumer_type": "INSTANCE", "mappings": {"A": "b"}}), 400, "mappings", ALLOC_SCHEMA);

    t.about(UnknownField);
    t.row("a type before 1.38", Admin, alloc, json!({"allocations": {}, "project_id": "p", "user_id": "u", "consumer_generation": null, "consumer_type": "INSTANCE"}), 400, "consumer_type", ALLOC_SCHEMA).at("placement 1.37");
    t.row("a group before 1.25", Admin, "GET /allocation_candidates?resources1=VCPU:1", (), 400, "resources1", CAND).at("placement 1.24");
    t.row("a group with a name before 1.33", Admin, "GET /allocation_candidates?resources_A=VCPU:1", (), 400, "resources_A", CAND).at("placement 1.32");
    t.row("a group with a strange name", Admin, "GET /allocation_candidates?resources@=VCPU:1", (), 400, "resources@", CAND);
    t.row("a tree before 1.31", Admin, "GET /allocation_candidates?resources=VCPU:1&in_tree={rack}", (), 400, "in_tree", CAND).at("placement 1.30");
    t.row("roots before 1.35", Admin, "GET /allocation_candidates?resources=VCPU:1&root_required=HW_CPU_X86_VMX", (), 400, "root_required", CAND).at("placement 1.34");
    t.row("usages by type before 1.38", Admin, "GET /usages?project_id=p&consumer_type=all", (), 400, "consumer_type", "placement/schemas/usage.py").at("placement 1.37");
    t.row("provider with a colour", Admin, create, json!({"name": "x", "colour": 1}), 400, "colour", RP_SCHEMA);
    t.row("another uuid", Admin, "PUT /resource_providers/{rack}", json!({"name": "rack", "uuid": "{no}"}), 400, "uuid", RP_SCHEMA);
    t.row("a parent before 1.14", Admin, create, json!({"name": "x", "parent_provider_uuid": "{rack}"}), 400, "parent_provider_uuid", RP_SCHEMA).at("placement 1.13");
    t.row("inventory with a colour", Admin, invs, json!({"resource_class": "VCPU", "total": 5, "colour": 1}), 400, "colour", INV_SCHEMA);
    t.row("class beside its own key", Admin, all, json!({"resource_provider_generation": 2, "inventories": {"CUSTOM_GOLD": {"total": 5, "resource_class": "VCPU"}}}), 400, "resource_class", INV_SCHEMA);
    t.row("allocation with a colour", Admin, alloc, json!({"allocations": {"{rack}": {"resources": {"CUSTOM_GOLD": 1}, "colour": 1}}, "project_id": "p", "user_id": "u", "consumer_generation": null, "consumer_type": "INSTANCE"}), 400, "colour", ALLOC_SCHEMA);
    t.row("no project", Admin, alloc, json!({"allocations": {"{rack}": {"resources": {"CUSTOM_GOLD": 1}}}, "user_id": "u"}), 400, "project_id", ALLOC_SCHEMA);
    t.row("a query of dreams", Admin, "GET /resource_providers?colour=1", (), 400, "colour", RP_SCHEMA);
    t.row("candidates of dreams", Admin, "GET /allocation_candidates?resources=VCPU:1&colour=1", (), 400, "colour", CAND);
    t.row("traits of dreams", Admin, "GET /traits?colour=1", (), 400, "colour", "placement/schemas/trait.py");
    t.row("usages of dreams", Admin, "GET /usages?project_id=p&colour=1", (), 400, "colour", "placement/schemas/usage.py");

    let lib = "placement/lib.py";
    t.about(Value);
    t.row("resources of nothing", Admin, "GET /allocation_candidates?resources=", (), 400, "resources", UTIL);
    t.row("resources without a number", Admin, "GET /allocation_candidates?resources=VCPU", (), 400, "Got: VCPU", UTIL);
    t.row("less than one", Admin, "GET /allocation_candidates?resources=VCPU:0", (), 400, "VCPU", UTIL);
    t.row("with it and without it", Admin, "GET /allocation_candidates?resources=VCPU:1&required=HW_CPU_X86_VMX,!HW_CPU_X86_VMX", (), 400, "HW_CPU_X86_VMX", lib);
    t.row("one of none", Admin, "GET /allocation_candidates?resources=VCPU:1&required=in:,", (), 400, "required", UTIL);
    t.row("an aggregate that is no UUID", Admin, "GET /allocation_candidates?resources=VCPU:1&member_of=rack", (), 400, "rack", UTIL);
    t.row("a tree that is no UUID", Admin, "GET /allocation_candidates?resources=VCPU:1&in_tree=rack", (), 400, "in_tree", UTIL);
    t.row("two groups and no policy", Admin, "GET /allocation_candidates?resources1=VCPU:1&resources2=VCPU:1", (), 400, "group_policy", "placement/handlers/allocation_candidate.py");
    t.row("a policy of dreams", Admin, "GET /allocation_candidates?resources1=VCPU:1&group_policy=maybe", (), 400, "maybe", CAND);
    t.row("a group that asks for nothing", Admin, "GET /allocation_candidates?resources=VCPU:1&required1=HW_CPU_X86_VMX", (), 400, "same_subtree", lib).kind("placement.query.bad_value");
    t.row("the subtree of nobody", Admin, "GET /allocation_candidates?resources1=VCPU:1&same_subtree=1,2", (), 400, "same_subtree", lib).kind("placement.query.bad_value");
    t.row("roots twice", Admin, "GET /allocation_candidates?resources=VCPU:1&root_required=HW_CPU_X86_VMX&root_required=HW_CPU_X86_SVM", (), 400, "root_required", lib).kind("placement.query.duplicate_key");
    t.row("asks for nothing", Admin, "GET /allocation_candidates", (), 400, "resources", lib).kind("placement.query.missing_value");

    t.about(TooLong);
    t.row("name", Admin, create, json!({"name": long}), 400, "name", RP_SCHEMA);
    t.row("class", Admin, "POST /resource_classes", json!({"name": format!("CUSTOM_{}", "X".repeat(249))}), 400, "name", "placement/schemas/resource_class.py");
    t.row("trait", Admin, &format!("PUT /traits/CUSTOM_{}", "X".repeat(249)), (), 400, "255", TRAIT);
    t.row("project", Admin, alloc, json!({"allocations": {"{rack}": {"resources": {"CUSTOM_GOLD": 1}}}, "project_id": long.repeat(2), "user_id": "u", "consumer_generation": null, "consumer_type": "INSTANCE"}), 400, "project_id", ALLOC_SCHEMA);

    t.about(HugeBody);
    t.row("a provider of blanks", Admin, create, (JSON, &vec![b' '; (1 << 20) + 1][..]), 413, "too large", "RFC 9110, 15.5.14; oslo.middleware sizelimit, as in front of the others");

    t.about(BadId);
    t.row("provider that is not there", Admin, "GET /resource_providers/{no}", (), 404, "{no}", RP);
    t.row("a name for an id", Admin, "GET /resource_providers/rack", (), 404, "rack", RP);
    t.row("inventory of nothing", Admin, "GET /resource_providers/{no}/inventories", (), 404, "{no}", INV);
    t.row("inventory for nothing, whatever it says", Admin, "PUT /resource_providers/{no}/inventories", "{", 404, "{no}", "placement/handlers/inventory.py, set_inventories: the provider comes first");
    t.row("class that he has not", Admin, "GET /resource_providers/{rack}/inventories/VCPU", (), 404, "VCPU", INV);
    t.row("deletes what he has not", Admin, "DELETE /resource_providers/{rack}/inventories/VCPU", (), 404, "VCPU", INV);
    t.row("changes what he has not", Admin, "PUT /resource_providers/{rack}/inventories/VCPU", json!({"resource_provider_generation": 2, "total": 5}), 400, "VCPU", INV);
    t.row("class that is none", Admin, invs, json!({"resource_class": "CUSTOM_LEAD", "total": 5}), 400, "CUSTOM_LEAD", INV);
    t.row("shows a class that is none", Admin, "GET /resource_classes/CUSTOM_LEAD", (), 404, "CUSTOM_LEAD", CLASS);
    t.row("deletes a class that is none", Admin, "DELETE /resource_classes/CUSTOM_LEAD", (), 404, "CUSTOM_LEAD", CLASS);
    t.row("trait that is none", Admin, "GET /traits/CUSTOM_DULL", (), 404, "CUSTOM_DULL", TRAIT);
    t.row("deletes a trait that is none", Admin, "DELETE /traits/CUSTOM_DULL", (), 404, "CUSTOM_DULL", TRAIT);
    t.row("traits that are none", Admin, "PUT /resource_providers/{rack}/traits", json!({"traits": ["CUSTOM_DULL"], "resource_provider_generation": 2}), 400, "CUSTOM_DULL", TRAIT);
    t.row("consumer is no UUID", Admin, "PUT /allocations/me", wants("{rack}", json!({"CUSTOM_GOLD": 1})), 400, "me", ALLOC);
    t.row("consumer is no UUID, of many", Admin, "POST /allocations", json!({"me": wants("{rack}", json!({"CUSTOM_GOLD": 1}))}), 400, "me", ALLOC_SCHEMA);
    t.row("provider is no UUID", Admin, alloc, wants("rack", json!({"CUSTOM_GOLD": 1})), 400, "rack", ALLOC_SCHEMA);
    t.row("allocation of nothing", Admin, alloc, wants("{nohex}", json!({"VCPU": 1})), 400, "{nohex}", "placement/handlers/allocation.py, _resource_providers_by_uuid");
    t.row("allocation of a provider that is not there", Admin, alloc, wants("{no}", json!({"VCPU": 1})), 400, "{no}", "placement/handlers/allocation.py, _resource_providers_by_uuid");
    t.row("allocation of a class that is none", Admin, alloc, wants("{rack}", json!({"CUSTOM_LEAD": 1})), 400, "CUSTOM_LEAD", ALLOC);
    t.row("allocations that nobody holds", Admin, "DELETE /allocations/{no}", (), 404, "{no}", ALLOC);
    t.row("parent that is not there", Admin, create, json!({"name": "x", "parent_provider_uuid": "{no}"}), 400, "{no}", RP);
    t.row("path that is none", Admin, "GET /nothing", (), 404, "", "placement/handler.py");

    t.about(Exhausted);
    t.row("more CPUs than there are", Admin, alloc, wants("{host}", json!({"VCPU": 100_000})), 409, "VCPU", ALLOC);
    t.row("more than at once", Admin, alloc, wants("{rack}", json!({"CUSTOM_GOLD": 3})), 409, "max_unit", ALLOC);
    t.row("of what he has not", Admin, alloc, wants("{rack}", json!({"VCPU": 1})), 409, "VCPU", ALLOC);
    t.row("two who want all", Admin, "POST /allocations", json!({"{no}": wants("{rack}", json!({"CUSTOM_GOLD": 2})), "{net}": wants("{rack}", json!({"CUSTOM_GOLD": 2})), "{port}": wants("{rack}", json!({"CUSTOM_GOLD": 2}))}), 409, "CUSTOM_GOLD", ALLOC);
    t.row("the second of two providers", Admin, alloc, json!({"allocations": {"{rack}": {"resources": {"CUSTOM_GOLD": 1}}, "{shelf}": {"resources": {"CUSTOM_GOLD": 1}}}, "project_id": "p", "user_id": "u", "consumer_generation": null, "consumer_type": "INSTANCE"}), 409, "{shelf}", ALLOC);

    t.about(InUse);
    t.row("a provider that servers use", Admin, "DELETE /resource_providers/{host}", (), 409, "{host}", RP).kind("placement.resource_provider.inuse");
    t.row("a parent", Admin, "DELETE /resource_providers/{rack}", (), 409, "child", RP).kind("placement.resource_provider.cannot_delete_parent");
    t.row("an inventory that servers use", Admin, "DELETE /resource_providers/{host}/inventories/VCPU", (), 409, "VCPU", INV).kind(CONCURRENT);
    t.row("all inventories of it", Admin, "DELETE /resource_providers/{host}/inventories", (), 409, "in use", INV).kind("placement.inventory.inuse");
    t.row("a class that is used", Admin, "DELETE /resource_classes/CUSTOM_GOLD", (), 409, "CUSTOM_GOLD", CLASS);
    t.row("a trait that is used", Admin, "DELETE /traits/CUSTOM_SHINY", (), 409, "CUSTOM_SHINY", TRAIT);
    t.row("a standard class, used or not", Admin, "DELETE /resource_classes/VCPU", (), 400, "VCPU", CLASS);
    t.row("a standard trait", Admin, "DELETE /traits/HW_CPU_X86_VMX", (), 400, "HW_CPU_X86_VMX", TRAIT);
    t.row("name is taken", Admin, create, json!({"name": "rack"}), 409, "rack", RP).kind("placement.duplicate_name");
    t.row("name of another", Admin, "PUT /resource_providers/{shelf}", json!({"name": "rack"}), 409, "rack", RP).kind("placement.duplicate_name");
    t.row("uuid is taken", Admin, create, json!({"name": "x", "uuid": "{rack}"}), 409, "{rack}", RP).kind("placement.duplicate_name");
    t.row("class is taken", Admin, "POST /resource_classes", json!({"name": "CUSTOM_GOLD"}), 409, "CUSTOM_GOLD", CLASS);
    t.row("inventory is there", Admin, invs, json!({"resource_class": "CUSTOM_GOLD", "total": 5}), 409, "CUSTOM_GOLD", INV).kind(CONCURRENT);

    t.about(WrongState);
    t.row("inventories of yesterday", Admin, all, json!({"resource_provider_generation": 0, "inventories": {}}), 409, "generation", INV).kind(CONCURRENT);
    t.row("inventory of yesterday", Admin, gold, json!({"resource_provider_generation": 0, "total": 5}), 409, "generation", INV).kind(CONCURRENT);
    t.row("traits of yesterday", Admin, "PUT /resource_providers/{rack}/traits", json!({"traits": [], "resource_provider_generation": 0}), 409, "generation", TRAIT).kind(CONCURRENT);
    t.row("aggregates of yesterday", Admin, "PUT /resource_providers/{rack}/aggregates", json!({"aggregates": [], "resource_provider_generation": 0}), 409, "generation", "placement/handlers/aggregate.py").kind(CONCURRENT);
    t.row("another parent", Admin, "PUT /resource_providers/{shelf}", json!({"name": "shelf", "parent_provider_uuid": "{host}"}), 400, "parent", "placement/objects/resource_provider.py, before 1.37").at("placement 1.36");
    t.row("its own parent", Admin, "PUT /resource_providers/{rack}", json!({"name": "rack", "parent_provider_uuid": "{rack}"}), 400, "loop", "placement/objects/resource_provider.py");
    t.row("before its microversion", Admin, "GET /allocation_candidates?resources=VCPU:1", (), 404, "", "placement/microversion.py").at("placement 1.9");
    t.row("deletes all before 1.5", Admin, "DELETE /resource_providers/{rack}/inventories", (), 405, "", INV).at("placement 1.4");

    t.row("a consumer that is new", Admin, alloc, json!({"allocations": {}, "project_id": "p", "user_id": "u", "consumer_generation": 5, "consumer_type": "INSTANCE"}), 409, "generation", "placement/handlers/util.py, ensure_consumer").kind(CONCURRENT);
    t.row("below its own child", Admin, "PUT /resource_providers/{rack}", json!({"name": "rack", "parent_provider_uuid": "{shelf}"}), 400, "loop", "placement/objects/resource_provider.py");
    t.row("reshapes, and is no service", Admin, "POST /reshaper", json!({"inventories": {}, "allocations": {}}), 403, "placement:reshaper:reshape", "placement/policies/reshaper.py: services alone");

    t.about(Others);
    t.row("a member looks", Member, "GET /resource_providers", (), 403, "placement:resource_providers:list", POLICY);
    t.row("a member at one", Member, "GET /resource_providers/{rack}", (), 403, "placement:resource_providers:show", POLICY);
    t.row("a member at nothing, the same", Member, "GET /resource_providers/{no}", (), 403, "placement:resource_providers:show", POLICY);
    t.row("a member makes one", Member, create, json!({"name": "x"}), 403, "placement:resource_providers:create", POLICY);
    t.row("a member makes nonsense", Member, create, "{", 403, "placement:resource_providers:create", "placement/handlers/resource_provider.py: context.can comes first");
    t.row("a member changes nonsense", Member, all, "{", 403, "placement:resource_providers:inventories:update", "placement/handlers/inventory.py: context.can comes first");
    t.row("a member takes places", Member, alloc, wants("{rack}", json!({"CUSTOM_GOLD": 1})), 403, "placement:allocations:update", POLICY);
    t.row("a member frees his own server's", Member, "DELETE /allocations/{active}", (), 403, "placement:allocations:delete", POLICY);
    t.row("another's usages", Member, "GET /usages?project_id={theirs}", (), 403, "placement:usages", POLICY);

    t.tokens("GET /resource_providers/{rack}", "GET /resource_providers/{no}");

    t.about(Value);
    t.row("reserves all", Admin, invs, json!({"resource_class": "VCPU", "total": 5, "reserved": 5}), 400, "VCPU", "placement/exception.py, InvalidInventoryCapacity; until 1.25").at("placement 1.25");
    t.row("reserves more than all", Admin, invs, json!({"resource_class": "VCPU", "total": 5, "reserved": 6}), 400, "VCPU", "placement/exception.py, InvalidInventoryCapacityReservedCanBeTotal");
    t.row("a ratio that leaves nothing", Admin, invs, json!({"resource_class": "VCPU", "total": 5, "allocation_ratio": 0.1}), 400, "VCPU", "placement/exception.py, InvalidInventoryCapacity").at("placement 1.25");
    t.row("nothing at all", Admin, invs, json!({"resource_class": "VCPU", "total": 0}), 400, "total", INV_SCHEMA);
    t.row("more than numbers go", Admin, invs, json!({"resource_class": "VCPU", "total": 2_147_483_648_i64}), 400, "total", INV_SCHEMA);
    t.row("no class", Admin, invs, json!({"total": 5}), 400, "resource_class", INV_SCHEMA);
    t.row("no generation", Admin, all, json!({"inventories": {}}), 400, "resource_provider_generation", INV_SCHEMA);
    t.row("amount of nothing", Admin, alloc, wants("{rack}", json!({"CUSTOM_GOLD": 0})), 400, "CUSTOM_GOLD", ALLOC_SCHEMA);
    t.row("amount below nothing", Admin, alloc, wants("{rack}", json!({"CUSTOM_GOLD": -1})), 400, "CUSTOM_GOLD", ALLOC_SCHEMA);
    t.row("class without its prefix", Admin, "POST /resource_classes", json!({"name": "GOLD"}), 400, "CUSTOM_", "placement/schemas/resource_class.py");
    t.row("trait in small letters", Admin, "PUT /traits/CUSTOM_shiny", (), 400, "CUSTOM_", TRAIT);
    t.row("a standard trait of our own", Admin, "PUT /traits/HW_CPU_X86_VMX", (), 400, "CUSTOM_", TRAIT);
    t.row("candidates of nothing", Admin, "GET /allocation_candidates", (), 400, "resources", CAND);
    t.row("candidates by a word", Admin, "GET /allocation_candidates?resources=VCPU:many", (), 400, "VCPU", UTIL);
    t.row("candidates of a class that is none", Admin, "GET /allocation_candidates?resources=CUSTOM_LEAD:1", (), 400, "CUSTOM_LEAD", "placement/handlers/allocation_candidate.py");
    t.row("candidates with a trait that is none", Admin, "GET /allocation_candidates?resources=VCPU:1&required=CUSTOM_DULL", (), 400, "CUSTOM_DULL", "placement/handlers/allocation_candidate.py");
    t.row("none of them", Admin, "GET /allocation_candidates?resources=VCPU:1&limit=0", (), 400, "limit", CAND);
    t.row("uuid of dreams", Admin, "GET /resource_providers?uuid=x", (), 400, "uuid", RP_SCHEMA);
    t.row("tree of dreams", Admin, "GET /resource_providers?in_tree=x", (), 400, "in_tree", RP_SCHEMA);
    t.row("member of dreams", Admin, "GET /resource_providers?member_of=x", (), 400, "member_of", UTIL);
    t.row("usages of nobody", Admin, "GET /usages", (), 400, "project_id", "placement/schemas/usage.py");
    t.row("version of the future", Admin, "GET /resource_providers", (), 406, "1.99", "placement/microversion.py").at("placement 1.99");
    t.row("version of dreams", Admin, "GET /resource_providers", (), 400, "two", "microversion_parse/middleware.py").at("placement two");
    t.row("method not in the table", Admin, "DELETE /resource_providers", (), 405, "DELETE", "placement/handler.py, handle_405");
    t.rows
}
