//! Glance.

use super::Category::*;
use super::Who::*;
use super::hostile as h;
use super::{BYTES, JSON, Row, Table};
use haneul_http::Service;
use serde_json::json;

const PATCH: &str = "application/openstack-images-v2.1-json-patch";
const API: &str = "glance/api/v2/images.py";
const IMPORT: &str = "glance/api/v2/images.py, _validate_import_body";
const SCHEMA: &str = "glance/api/v2/images.py, get_base_properties";
const DATA: &str = "glance/api/v2/image_data.py";
const MEMBERS: &str = "glance/api/v2/image_members.py";
const TAGS: &str = "glance/api/v2/image_tags.py";
const WSGI: &str = "glance/common/wsgi.py, JSONRequestDeserializer";
const STATE: &str = "glance/domain/__init__.py, Image.status";
/// 415 for bytes that are refused: InvalidImageData in glance/api/v2/image_data.py, upload.
const FORMAT: &str = "glance/location.py, set_data: require_image_format_match";
const SAFETY: &str = "glance/location.py, set_data: safety_check of oslo.utils format_inspector";
const OURS: &str = "ours, stricter than glance/location.py, set_data; with the status of its InvalidImageData";

// One row a case, and so no line breaks by rustfmt.
#[rustfmt::skip]
pub fn rows() -> Vec<Row> {
    let mut t = Table::new(Service::Image, None);
    let create = "POST /v2/images";
    let patch = |v: serde_json::Value| super::Payload::Raw(PATCH, v.to_string().into_bytes());
    let private = "PATCH /v2/images/{private}";
    let long = "x".repeat(256);

    t.about(Malformed);
    t.row("cut off", Member, create, "{", 400, "Malformed JSON", WSGI);
    t.row("no body", Member, create, "", 400, "Body expected", API);
    t.row("a number", Member, create, "5", 400, "body type", "glance/api/v2/images.py, _get_request_body");
    t.row("ten thousand brackets", Member, create, "[".repeat(10_000).as_str(), 400, "Malformed JSON", WSGI);
    t.row("a patch that is an object", Member, private, patch(json!({})), 400, "array", API);
    t.row("a patch of another type", Member, private, json!([]), 415, "Content-Type", API);
    t.row("data as JSON", Member, "PUT /v2/images/{queued_raw}/file", (JSON, &b"x"[..]), 415, "octet-stream", DATA);

    t.about(WrongType);
    t.row("name is a number", Member, create, json!({"name": 5}), 400, "name", SCHEMA);
    t.row("min_ram is half a byte", Member, create, json!({"min_ram": 1.5}), 400, "min_ram", SCHEMA);
    t.row("min_disk is a word in a patch", Member, private, patch(json!([{"op": "replace", "path": "/min_disk", "value": "5"}])), 400, "min_disk", SCHEMA);
    t.row("protected is a word", Member, create, json!({"protected": "yes"}), 400, "protected", SCHEMA);
    t.row("tags is a word", Member, create, json!({"tags": "x"}), 400, "tags", SCHEMA);
    t.row("a property with a depth", Member, create, json!({"property": {"deep": 1}}), 400, "property", SCHEMA);
    t.row("member is a number", Member, "POST /v2/images/{queued_raw}/members", json!({"member": 5}), 400, "project", MEMBERS);

    t.about(UnknownField);
    t.row("status is ours", Member, create, json!({"status": "active"}), 403, "status", API);
    t.row("direct_url of the host", Member, create, json!({"direct_url": "file:///etc/passwd"}), 403, "direct_url", API);
    t.row("locations of the host", Member, create, json!({"locations": [{"url": "file:///etc/passwd", "metadata": {}}]}), 403, "locations", API);
    t.row("locations by a patch", Member, private, patch(json!([{"op": "add", "path": "/locations/-", "value": {"url": "file:///etc/shadow", "metadata": {}}}])), 403, "locations", "glance-api.conf show_multiple_locations = false");
    t.row("what Glance keeps to itself", Member, create, json!({"os_glance_foo": "bar"}), 403, "os_glance", API);
    t.row("replaces what is not there", Member, private, patch(json!([{"op": "replace", "path": "/nothing", "value": "x"}])), 409, "nothing", API);
    t.row("the second of two operations", Member, private, patch(json!([{"op": "replace", "path": "/name", "value": "new"}, {"op": "remove", "path": "/nothing"}])), 409, "nothing", API);
    t.row("an operation of dreams", Member, private, patch(json!([{"op": "copy", "path": "/a"}])), 400, "copy", API);

    t.about(TooLong);
    t.row("name", Member, create, json!({"name": long}), 400, "name", SCHEMA);
    t.row("tag", Member, create, json!({"tags": [long]}), 400, "tags", SCHEMA);
    t.row("property's name", Member, create, json!({long.as_str(): "x"}), 400, "255", SCHEMA);

    t.about(HugeBody);
    t.row("an image of blanks", Member, create, (JSON, &vec![b' '; (1 << 20) + 1][..]), 413, "too large", "RFC 9110, 15.5.14; oslo.middleware sizelimit, as in front of the others");
    t.row("announces all bytes there are", Member, "PUT /v2/images/{queued_raw}/file", vec![1], 413, "too large", "glance/api/v2/image_data.py, upload: ImageSizeLimitExceeded").header("x-openstack-image-size", "9223372036854775807").changes(2);

    t.about(BadId);
    t.row("image that is not there", Member, "GET /v2/images/{no}", (), 404, "{no}", API);
    t.row("a name for an id", Member, "GET /v2/images/cirros", (), 404, "cirros", API);
    t.row("out of the directory", Member, "GET /v2/images/..%2f..%2fetc%2fpasswd/file", (), 404, "etc/passwd", API);
    t.row("id is no UUID", Member, create, json!({"id": "not-a-uuid"}), 400, "id", SCHEMA);
    t.row("data for nothing", Member, "PUT /v2/images/{no}/file", vec![1], 404, "{no}", DATA);
    t.row("marker that is none", Member, "GET /v2/images?marker=x", (), 400, "marker", API);
    t.row("member that is none", Member, "PUT /v2/images/{queued_raw}/members/{theirs}", json!({"status": "accepted"}), 404, "{theirs}", MEMBERS);
    t.row("tag that is none", Member, "DELETE /v2/images/{queued_raw}/tags/none", (), 404, "none", TAGS);
    t.row("path that is none", Member, "GET /v2/nothing", (), 404, "", "glance/api/v2/router.py");

    t.about(Exhausted);
    t.row("the 129th tag", Member, "PUT /v2/images/{private}/tags/more", (), 413, "128", "glance-api.conf image_tag_quota");
    t.row("129 tags at once", Member, create, json!({"tags": (0..129).map(|i| i.to_string()).collect::<Vec<_>>()}), 413, "128", "glance-api.conf image_tag_quota");

    t.about(InUse);
    t.row("a protected image", Member, "DELETE /v2/images/{protected}", (), 403, "protected", "glance/common/exception.py, ProtectedImageDelete");
    t.row("id is taken", Member, create, json!({"id": "{private}"}), 409, "{private}", API);

    t.about(WrongState);
    t.row("data for what has some", Member, "PUT /v2/images/{private}/file", h::qcow2(), 409, "active to saving", STATE);
    t.row("data before the formats", Member, "PUT /v2/images/{queued_blank}/file", vec![1], 400, "disk_format", STATE);
    t.row("fetches what is switched off", Member, "GET /v2/images/{off}/file", (), 403, "deactivated", "glance/api/v2/image_data.py, download");
    t.row("switches off what has no data", Admin, "POST /v2/images/{queued_raw}/actions/deactivate", (), 403, "queued", "glance/domain/__init__.py, Image.deactivate");
    t.row("another format for what has data", Member, private, patch(json!([{"op": "replace", "path": "/disk_format", "value": "raw"}])), 403, "disk_format", "glance/domain/__init__.py, Image.disk_format");
    t.row("members of a private image", Member, "POST /v2/images/{private}/members", json!({"member": "{theirs}"}), 403, "shared", MEMBERS);
    t.row("an import that is not on", Member, "POST /v2/images/{queued_raw}/import", json!({"method": {"name": "web-download", "uri": "http://127.0.0.1"}}), 400, "web-download", API);
    t.row("an import before the formats", Member, "POST /v2/images/{queued_blank}/import", json!({"method": {"name": "glance-direct"}}), 409, "queued", API);
    t.row("an import of what was not staged", Member, "POST /v2/images/{queued_raw}/import", json!({"method": {"name": "glance-direct"}}), 409, "staged", API);
    t.row("an import of what has data", Member, "POST /v2/images/{private}/import", json!({"method": {"name": "glance-direct"}}), 409, "active", API);
    t.row("staging for what has data", Member, "PUT /v2/images/{private}/stage", vec![1], 409, "active to uploading", STATE);
    t.row("copies what has no data", Admin, "POST /v2/images/{queued_raw}/import", json!({"method": {"name": "copy-image"}}), 409, "active", API);
    t.row("copies to where it is", Admin, "POST /v2/images/{private}/import", json!({"method": {"name": "copy-image"}, "stores": ["file"]}), 400, "already present", API);
    t.row("copies to a store that is none", Admin, "POST /v2/images/{private}/import", json!({"method": {"name": "copy-image"}, "stores": ["none"]}), 409, "none", API);
    t.row("out of the only store", Admin, "DELETE /v2/stores/file/{private}", (), 403, "only store", API);
    t.row("out of a store that is none", Admin, "DELETE /v2/stores/none/{private}", (), 409, "none", API);
    t.row("a location for what has data", Member, "POST /v2/images/{private}/locations", json!({"url": "http://127.0.0.1/"}), 409, "active", API);
    t.row("a cache that is off", Admin, "GET /v2/cache", (), 404, "cache_bytes", "glance/api/v2/router.py: CONF.image_cache_dir");
    t.row("caches into what is off", Admin, "PUT /v2/cache/{private}", (), 404, "cache_bytes", "glance/api/v2/router.py: CONF.image_cache_dir");

    t.about(Value);
    let import = "POST /v2/images/{queued_raw}/import";
    t.row("an import of nothing", Member, import, json!({}), 400, "method", IMPORT);
    t.row("an import by a word", Member, import, json!({"method": "glance-direct"}), 400, "name", IMPORT);
    t.row("an import by fax", Member, import, json!({"method": {"name": "fax"}}), 400, "fax", IMPORT);
    t.row("all_stores is a word", Member, import, json!({"method": {"name": "glance-direct"}, "all_stores": "yes"}), 400, "boolean", IMPORT);
    t.row("all_stores_must_succeed is a number", Member, import, json!({"method": {"name": "glance-direct"}, "all_stores_must_succeed": 1}), 400, "boolean", IMPORT);
    t.row("stores is a word", Member, import, json!({"method": {"name": "glance-direct"}, "stores": "file"}), 400, "stores", IMPORT);
    t.row("all stores and some", Member, import, json!({"method": {"name": "glance-direct"}, "stores": ["file"], "all_stores": true}), 400, "All_stores", "glance/common/utils.py, get_stores_from_request");
    t.row("from a region without an image", Member, import, json!({"method": {"name": "glance-download", "glance_region": "RegionOne"}}), 400, "glance_image_id", API);
    t.row("from a region an image of dreams", Member, import, json!({"method": {"name": "glance-download", "glance_region": "RegionOne", "glance_image_id": "foo"}}), 400, "image id does not look like a UUID", API);
    t.row("staging as JSON", Member, "PUT /v2/images/{queued_raw}/stage", (JSON, &b"x"[..]), 415, "octet-stream", DATA);
    t.row("data for a store that is none", Member, "PUT /v2/images/{queued_raw}/file", vec![1], 400, "none", DATA).header("x-image-meta-store", "none");
    t.row("a location without a url", Member, "POST /v2/images/{queued_raw}/locations", json!({}), 400, "url", API);
    t.row("a location with half a hash", Member, "POST /v2/images/{queued_raw}/locations", json!({"url": "http://127.0.0.1/", "validation_data": {"os_hash_algo": "sha512", "os_hash_value": "ab"}}), 400, "64", API);

    t.about(Others);
    t.row("another's image", Other, "GET /v2/images/{private}", (), 404, "{private}", API);
    t.row("another's bytes", Other, "GET /v2/images/{private}/file", (), 404, "{private}", DATA);
    t.row("deletes another's", Other, "DELETE /v2/images/{private}", (), 404, "{private}", API);
    t.row("data for another's", Other, "PUT /v2/images/{queued_raw}/file", vec![1], 404, "{queued_raw}", DATA);
    t.row("changes a public one", Member, "PATCH /v2/images/{image}", patch(json!([{"op": "replace", "path": "/name", "value": "mine"}])), 403, "modify_image", API);
    t.row("deletes a public one", Member, "DELETE /v2/images/{image}", (), 403, "delete_image", API);
    t.row("owned by another", Member, create, json!({"owner": "{theirs}"}), 403, "{theirs}", "glance/policies/image.py, add_image");
    t.row("public by a member", Member, create, json!({"visibility": "public"}), 403, "publicize_image", "glance/policies/image.py");
    t.row("an image of a reader", Reader, create, json!({"name": "x"}), 403, "add_image", "glance/policies/image.py");
    t.row("stages for another's", Other, "PUT /v2/images/{queued_raw}/stage", vec![1], 404, "{queued_raw}", DATA);
    t.row("imports another's", Other, "POST /v2/images/{queued_raw}/import", json!({"method": {"name": "glance-direct"}}), 404, "{queued_raw}", API);
    t.row("copies as a member", Member, "POST /v2/images/{private}/import", json!({"method": {"name": "copy-image"}}), 403, "copy_image", "glance/policies/image.py");
    t.row("out of a store as a member", Member, "DELETE /v2/stores/file/{private}", (), 403, "delete_image_location", "glance/policies/image.py");
    t.row("another's out of a store", Other, "DELETE /v2/stores/file/{private}", (), 404, "{private}", API);
    t.row("stores in detail as a member", Member, "GET /v2/info/stores/detail", (), 403, "stores_info_detail", "glance/policies/discovery.py");
    t.row("the cache as a member", Member, "GET /v2/cache", (), 403, "cache_list", "glance/policies/cache.py");
    t.row("clears the cache as a member", Member, "DELETE /v2/cache", (), 403, "cache_delete", "glance/policies/cache.py");
    t.row("where the bytes are as a member", Member, "GET /v2/images/{private}/locations", (), 403, "fetch_image_location", "glance/policies/image.py");
    t.row("where another's bytes are", Other, "GET /v2/images/{private}/locations", (), 404, "{private}", API);
    t.row("a location of the host as a member", Member, "POST /v2/images/{queued_raw}/locations", json!({"url": "file:///etc/shadow"}), 403, "http store", API);
    t.row("accepts in another's name", Member, "PUT /v2/images/{image}/members/{theirs}", json!({"status": "accepted"}), 403, "public", MEMBERS);

    t.tokens("GET /v2/images/{private}", "GET /v2/images/{no}");

    t.about(HostileImage);
    let put = |name: &str| format!("PUT /v2/images/{{{name}}}/file");
    let (raw, qcow2) = (put("queued_raw"), put("queued_qcow2"));
    let mut image = |name: &str, call: &str, bytes: Vec<u8>, says: &'static str, doc: &'static str, changes: i64| {
        t.row(name, Member, call, bytes, 415, says, doc).changes(changes);
    };
    image("qcow2 with a backing file", &qcow2, h::backing_file(), "/etc/shadow", SAFETY, 2);
    image("qcow2 with a data file", &qcow2, h::data_file(), "external data file", SAFETY, 2);
    image("qcow2 with a data file in an extension only", &qcow2, h::data_file_by_extension(), "external data file", OURS, 2);
    image("qcow2 as large as numbers go", &qcow2, h::giant(), "virtual disk size", OURS, 2);
    image("qcow2 that is cut off", &qcow2, h::cut_off(), "has only 131072 bytes", OURS, 2);
    image("half a qcow2 header", &qcow2, h::half_a_header(), "qcow2 header", FORMAT, 2);
    image("encrypted qcow2", &qcow2, h::encrypted(), "encrypted", OURS, 2);
    image("qcow2 with a feature of the future", &qcow2, h::unknown_feature(), "bit 40", SAFETY, 2);
    image("raw declared as qcow2", &qcow2, vec![0; 4096], "no qcow2 signature", FORMAT, 2);
    image("nothing declared as qcow2", &qcow2, vec![], "qcow2", FORMAT, 2);
    image("qcow2 declared as raw", &raw, h::qcow2(), "its contents are qcow2", OURS, 2);
    image("qcow2 with a backing file declared as raw", &raw, h::backing_file(), "its contents are qcow2", SAFETY, 2);
    image("vmdk with an extent of the host declared as raw", &raw, h::vmdk_extent(), "its contents are vmdk", SAFETY, 2);
    image("vmdk with an extent of the host", &put("queued_vmdk"), h::vmdk_extent(), "vmdk", SAFETY, 2);
    image("QED declared as raw", &raw, h::qed(), "qed", SAFETY, 2);
    image("LUKS declared as raw", &raw, h::luks(), "luks", OURS, 2);
    image("vhd without a footer", &put("queued_vhd"), vec![0; 512], "vhd", OURS, 2);
    t.row("announces more than it brings", Member, &raw, (BYTES, &[0; 512][..]), 400, "512", "api-ref: Upload binary image data, x-openstack-image-size").header("x-openstack-image-size", "4096").changes(2);
    t.row("announces a word", Member, &raw, vec![0], 400, "x-openstack-image-size", "glance/api/v2/image_data.py, _get_image_size").header("x-openstack-image-size", "lots");

    t.about(Value);
    t.row("visibility of dreams", Member, create, json!({"visibility": "secret"}), 400, "visibility", SCHEMA);
    t.row("format of dreams", Member, create, json!({"disk_format": "wrong"}), 400, "disk_format", SCHEMA);
    t.row("min_disk below nothing", Member, create, json!({"min_disk": -1}), 400, "min_disk", SCHEMA);
    t.row("a name with NUL", Member, create, json!({"name": "a\u{0}b"}), 400, "U+0000", "glance/api/v2/images.py: 4-byte and control characters, 400");
    t.row("limit is a word", Member, "GET /v2/images?limit=x", (), 400, "limit", API);
    t.row("sorted by dreams", Member, "GET /v2/images?sort_key=x", (), 400, "sort", API);
    t.row("method not in the table", Member, "DELETE /v2/images", (), 405, "DELETE", "glance/api/v2/router.py, reject_method_resource");
    t.row("status of dreams for a member", Member, "PUT /v2/images/{queued_raw}/members/{theirs}", json!({"status": "maybe"}), 400, "pending", MEMBERS);

    // webob answers HTML, and JSON to who asks for it: every other row asks.
    for row in t.rows.iter_mut().skip(1).step_by(2) {
        row.header("accept", JSON);
    }
    t.rows
}
