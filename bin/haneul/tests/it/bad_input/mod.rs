//! The table of bad input, one file a service: what is wrong with a request, who sends it, and what the real
//! service answers, with the place that documents it. `fake_bad_input.rs` runs it.

pub mod compute;
pub mod hostile;
pub mod identity;
pub mod image;
pub mod network;
pub mod placement;
pub mod scenery;

use haneul_http::Service;
use serde_json::Value;
use std::collections::BTreeMap;

/// Who sends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Admin,
    /// Of the project `mine`, as nearly everything of the scenery is.
    Member,
    /// Of the project `mine`, who may look and not touch.
    Reader,
    /// Member of the project `theirs`, whose quotas are used up.
    Other,
    Nobody,
    /// A token that no key of ours sealed.
    Forged,
    /// The member's token with one character changed.
    Tampered,
    /// An administrator's token after its end.
    Expired,
    /// A token of the member that was revoked.
    Revoked,
}

/// The categories that the table has to cover, for each service to which they apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Category {
    Malformed,
    WrongType,
    UnknownField,
    TooLong,
    HugeBody,
    BadId,
    BadCidr,
    Overlap,
    /// Pools and quotas.
    Exhausted,
    InUse,
    WrongState,
    /// Another project's ids, and who may not.
    Others,
    Token,
    HostileImage,
    /// Values and queries that are wrong in another way.
    Value,
}

pub const JSON: &str = "application/json";
pub const BYTES: &str = "application/octet-stream";

/// What is sent.
#[derive(Clone, Debug)]
pub enum Payload {
    Nothing,
    Json(Value),
    /// Content type and bytes.
    Raw(&'static str, Vec<u8>),
}

impl From<Value> for Payload {
    fn from(v: Value) -> Self {
        Payload::Json(v)
    }
}
impl From<()> for Payload {
    fn from((): ()) -> Self {
        Payload::Nothing
    }
}
/// Text that is sent as JSON, and is none.
impl From<&str> for Payload {
    fn from(text: &str) -> Self {
        Payload::Raw(JSON, text.as_bytes().to_vec())
    }
}
/// The bytes of an image.
impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Payload::Raw(BYTES, bytes)
    }
}
impl From<(&'static str, &[u8])> for Payload {
    fn from((kind, bytes): (&'static str, &[u8])) -> Self {
        Payload::Raw(kind, bytes.to_vec())
    }
}

/// A case. `{name}` in path, headers, body and message stands for an id of the scenery.
#[derive(Clone, Debug)]
pub struct Row {
    pub service: Service,
    pub category: Category,
    pub name: String,
    pub who: Who,
    pub method: http::Method,
    /// With the service's prefix.
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Payload,
    pub status: u16,
    /// Neutron's `type`, Placement's `code`; empty: not looked at.
    pub kind: &'static str,
    /// A word of the message: the field, where one is wrong.
    pub says: &'static str,
    pub doc: &'static str,
    /// Rows that the change log gets. A refused upload shows in it, for the image is `saving` for a while and
    /// `queued` again, as in Glance; nothing else may write.
    pub changes: i64,
}

impl Row {
    pub fn header(&mut self, name: &'static str, value: &str) -> &mut Row {
        self.headers.push((name, value.to_owned()));
        self
    }
    /// At this microversion instead of the table's.
    pub fn at(&mut self, version: &str) -> &mut Row {
        self.headers.retain(|(n, _)| *n != "openstack-api-version");
        self.header("openstack-api-version", version)
    }
    pub fn kind(&mut self, kind: &'static str) -> &mut Row {
        self.kind = kind;
        self
    }
    pub fn changes(&mut self, n: i64) -> &mut Row {
        self.changes = n;
        self
    }
}

/// The rows of one service.
pub struct Table {
    service: Service,
    category: Category,
    /// What every request asks for, where the service has microversions.
    version: Option<&'static str>,
    pub rows: Vec<Row>,
}

impl Table {
    pub fn new(service: Service, version: Option<&'static str>) -> Table {
        Table {
            service,
            category: Category::Malformed,
            version,
            rows: Vec::new(),
        }
    }

    /// What the rows that follow are about.
    pub fn about(&mut self, category: Category) {
        self.category = category;
    }

    /// One row. `call` is method and path below the service's prefix.
    #[allow(clippy::too_many_arguments)]
    pub fn row(
        &mut self,
        name: &str,
        who: Who,
        call: &str,
        body: impl Into<Payload>,
        status: u16,
        says: &'static str,
        doc: &'static str,
    ) -> &mut Row {
        let (method, path) = call.split_once(' ').expect("METHOD /path");
        let version = self.version.map(|v| ("openstack-api-version", v.to_owned()));
        self.rows.push(Row {
            service: self.service,
            category: self.category,
            name: name.to_owned(),
            who,
            method: method.parse().expect("a method"),
            path: format!("{}{path}", self.service.prefix()),
            headers: version.into_iter().collect(),
            body: body.into(),
            status,
            kind: "",
            says,
            doc,
            changes: 0,
        });
        self.rows.last_mut().expect("the row")
    }

    /// The same 401 for every token that is not good, whether what it asks for is there (`call`) or not.
    pub fn tokens(&mut self, call: &str, missing: &str) {
        const DOC: &str = "keystonemiddleware auth_token/__init__.py, process_request";
        self.about(Category::Token);
        for who in [Who::Nobody, Who::Forged, Who::Tampered, Who::Expired, Who::Revoked] {
            for (what, call) in [("what is there", call), ("what is not there", missing)] {
                let name = format!("{who:?} asks for {what}");
                self.row(&name, who, call, (), 401, "requires authentication", DOC);
            }
        }
    }
}

/// Puts the scenery's ids in.
pub fn fill(text: &str, ids: &BTreeMap<&'static str, String>) -> String {
    let mut out = text.to_owned();
    for (name, id) in ids {
        let placeholder = format!("{{{name}}}");
        if out.contains(&placeholder) {
            out = out.replace(&placeholder, id);
        }
    }
    out
}
