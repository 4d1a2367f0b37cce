//! A task (Glance API reference, "Tasks"): work that Glance does in the background.
//!
//! Nothing here fetches bytes for a client, so every task ends in `failure`, with the way that works in its
//! message. The types are those of current Glance; `export` and `clone` of the first draft have gone there, too.

use haneul_auth::Secured;
use haneul_core::{Error, Kind, Result};
use haneul_http::{Body, FieldKind as K, Ver, f, fields};
use haneul_store::{Resource, V};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Tasks of a project that have not expired.
pub(crate) const MAX_TASKS: i64 = 1000;
/// How long an ended task stays (Glance's `task_time_to_live`), in microseconds.
pub(crate) const TIME_TO_LIVE: i64 = 48 * 3600 * 1_000_000;
/// `input` as JSON, in bytes.
const MAX_INPUT: usize = 65_535;

pub(crate) const TYPES: &[&str] = &["import", "api_image_import", "location_import"];

/// `pending`, `processing`, then one of the other two, and then never another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskStatus {
    Pending,
    Processing,
    Success,
    Failure,
}

impl TaskStatus {
    pub const NAMES: &'static [&'static str] = &["pending", "processing", "success", "failure"];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }

    /// Whether there is still something to do.
    pub fn open(self) -> bool {
        matches!(self, Self::Pending | Self::Processing)
    }
}

fn version() -> u32 {
    1
}

/// A task as stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    #[serde(default = "version")]
    pub v: u32,
    pub id: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub status: TaskStatus,
    pub owner: Option<String>,
    pub user_id: String,
    pub request_id: String,
    pub image_id: Option<String>,
    pub input: Value,
    pub result: Option<Value>,
    pub message: String,
    /// Microseconds since 1970; set when it ends.
    pub expires_at: Option<i64>,
}

impl Task {
    /// Whether it was made by a request to import, which has a job.
    pub fn is_import(&self) -> bool {
        self.input.get("import_req").is_some() && self.kind == "api_image_import"
    }
}

impl Resource for Task {
    const KIND: &'static str = "image_task";
    const TABLE: &'static str = "image_task";
    const COLUMNS: &'static [&'static str] = &["status", "image_id", "expires_at"];

    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> Option<&str> {
        self.owner.as_deref()
    }
    fn name(&self) -> &str {
        &self.kind
    }
    fn columns(&self) -> Vec<V> {
        vec![
            self.status.as_str().into(),
            self.image_id.clone().unwrap_or_default().into(),
            self.expires_at.unwrap_or(i64::MAX).into(),
        ]
    }
    /// Without the input: addresses to fetch from may hold passwords.
    fn logged(&self) -> Value {
        let mut value = serde_json::to_value(self).unwrap_or(Value::Null);
        if let Some(map) = value.as_object_mut() {
            map.remove("input");
        }
        value
    }
}

impl Secured for Task {
    fn not_found(id: &str) -> Error {
        Error::not_found(format!("No task found with ID {id}"))
    }
}

/// A task as asked for. What the cloud sets may stand in the body, as in Glance; it is not looked at.
pub(crate) static TASK: Body = Body {
    open: false,
    fields: &[
        f("type", K::OneOf(TYPES)),
        f("input", K::Check(input)).null(),
        f("id", K::Free),
        f("status", K::OneOf(TaskStatus::NAMES)),
        f("result", K::Free),
        f("owner", K::Free),
        f("message", K::Free),
        f("image_id", K::Free),
        f("request_id", K::Free),
        f("user_id", K::Free),
        f("expires_at", K::Free),
        f("created_at", K::Free),
        f("updated_at", K::Free),
        f("self", K::Free),
        f("schema", K::Free),
    ],
};

fn input(v: &Value) -> Result<(), String> {
    match v.is_object() {
        true => Ok(()),
        false => Err("It must be an object or null.".into()),
    }
}

/// Type and input of a new task. What is wrong with where it would import from is refused at once.
pub(crate) fn parse_task(body: &Value) -> Result<(String, Value)> {
    let Some(object) = body.as_object() else {
        return Err(Error::bad_request(
            "The request body must be an object with type and input.",
        ));
    };
    for name in ["type", "input"] {
        if !object.contains_key(name) {
            return Err(Error::field(name, format!("Task '{name}' is required")));
        }
    }
    fields::check(&TASK, body, Ver(2, 0), "task")?;
    let kind = body.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let input = body.get("input").cloned().unwrap_or_default();
    if super::metadef_fields::holds_nul(&input) {
        return Err(Error::field(
            "task.input",
            "Text must not contain the character U+0000.",
        ));
    }
    let bytes = input.to_string().len();
    if bytes > MAX_INPUT {
        return Err(Error::new(
            Kind::TooLarge,
            format!("The input has {bytes} bytes as JSON, and at most {MAX_INPUT} are allowed."),
        )
        .with_field("task.input"));
    }
    if kind == "import" {
        check_uri(input.get("import_from"))?;
    } else if input.is_null() {
        return Err(Error::field("task.input", format!("Input to {kind} task is empty.")));
    }
    Ok((kind, input))
}

/// Glance's check of an address to import from: HTTP, on the ports 80 and 443.
fn check_uri(from: Option<&Value>) -> Result<()> {
    let bad = |why: String| Err(Error::field("task.input.import_from", why));
    let Some(uri) = from.and_then(Value::as_str).filter(|u| !u.is_empty()) else {
        return bad("Invalid location: input must hold import_from, an http or https address.".into());
    };
    if uri.starts_with("file:///") || uri.starts_with("filesystem:///") {
        return bad("File based imports are not allowed. Use a non-local source of image data.".into());
    }
    let Some(rest) = uri.strip_prefix("http://").or_else(|| uri.strip_prefix("https://")) else {
        return bad("The given uri is not valid. It must begin with http:// or https://.".into());
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    // An IPv6 address stands in brackets; its colons begin no port.
    let after = host.rfind(']').map_or(0, |i| i + 1);
    let (name, port) = match host.get(after..).and_then(|h| h.rfind(':')) {
        Some(i) => (host.get(..after + i).unwrap_or_default(), host.get(after + i + 1..)),
        None => (host, None),
    };
    match (name.is_empty(), port) {
        (false, None | Some("" | "80" | "443")) => Ok(()),
        _ => bad("URI for legacy import task does not pass filtering: it needs a host, and port 80 or 443.".into()),
    }
}

/// Why a task cannot be carried out, and what works instead.
pub(crate) fn refusal(task: &Task) -> String {
    let needed: &[&str] = match task.kind.as_str() {
        "api_image_import" => &["image_id"],
        "location_import" => &["image_id", "loc_url", "validation_data"],
        _ => &["import_from", "import_from_format", "image_properties"],
    };
    if let Some(key) = needed.iter().find(|k| task.input.get(**k).is_none()) {
        return format!("Input does not contain '{key}' field");
    }
    let why = match task.kind.as_str() {
        "api_image_import" => "No import method is enabled at this site (GET /v2/info/import lists none).",
        "location_import" => "Images of this site have no locations: all bytes are in its own store.",
        _ => "This site does not fetch images from other servers; nothing was read from import_from.",
    };
    let id = task.image_id.as_deref().unwrap_or("{image_id}");
    format!("{why} Register the image with POST /v2/images and send its bytes with PUT /v2/images/{id}/file.")
}

fn properties() -> Map<String, Value> {
    let string = |what: &str| json!({"type": "string", "description": what});
    let json = |what: &str| json!({"type": ["null", "object"], "description": what});
    let all = json!({
        "id": {"type": "string", "description": "The task's id",
            "pattern": "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$"},
        "type": {"type": "string", "enum": TYPES, "description": "What kind of work it is"},
        "status": {"type": "string", "enum": TaskStatus::NAMES, "description": "Where the task is in its life"},
        "input": json("What the task was told"),
        "result": json("What came of it"),
        "owner": string("The owning project"),
        "message": string("Why it failed, and what would work"),
        "image_id": string("The image that it is about"),
        "request_id": string("The request that made it"),
        "user_id": string("The user who made it"),
        "expires_at": {"type": ["null", "string"], "description": "When the task is forgotten"},
        "created_at": string("When the task was made"),
        "updated_at": string("When the task was last changed"),
        "self": {"type": "string", "readOnly": true},
        "schema": {"type": "string", "readOnly": true},
    });
    all.as_object().cloned().unwrap_or_default()
}

/// `/v2/schemas/task`.
pub(crate) fn task_schema() -> Value {
    json!({"name": "task", "properties": properties(), "additionalProperties": false})
}

/// `/v2/schemas/tasks`: a list shows a task without what went in and came out.
pub(crate) fn tasks_schema() -> Value {
    let mut short = properties();
    for name in ["input", "result", "message"] {
        short.remove(name);
    }
    json!({
        "name": "tasks",
        "properties": {
            "tasks": {"type": "array", "items": {"name": "task", "properties": short, "additionalProperties": false}},
            "first": {"type": "string"},
            "next": {"type": "string"},
            "schema": {"type": "string"},
        },
        "links": [
            {"rel": "first", "href": "{first}"},
            {"rel": "next", "href": "{next}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_an_import_may_come_from() {
        for (uri, good) in [
            ("http://example.org/a.qcow2", true),
            ("https://example.org:443/a", true),
            ("http://[2001:db8::1]/a", true),
            ("http://[2001:db8::1]:80/a", true),
            ("http://user:word@example.org/a", true),
            ("http://example.org:22/", false),
            ("http:///a", false),
            ("http://:80/", false),
            ("file:///etc/passwd", false),
            ("ftp://example.org", false),
            ("", false),
        ] {
            let body = json!({"type": "import", "input": {"import_from": uri}});
            assert_eq!(parse_task(&body).is_ok(), good, "{uri}");
        }
    }

    #[test]
    fn the_schema_has_every_field_of_the_table() {
        let properties = properties();
        assert!(TASK.fields.iter().all(|f| properties.contains_key(f.name)));
    }

    #[test]
    fn the_document_of_the_first_release_still_parses() {
        let doc = r#"{"v":1,"id":"i","type":"import","status":"failure","owner":"p","user_id":"u","request_id":"r",
            "image_id":null,"input":{},"result":null,"message":"m","expires_at":5}"#;
        let task: Task = serde_json::from_str(doc).unwrap();
        assert_eq!(task.columns().len(), Task::COLUMNS.len());
    }
}
