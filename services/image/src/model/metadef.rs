//! Metadata definitions (Glance API reference, "Metadata Definitions Service API"): namespaces, and in each
//! objects, properties, tags and associations with resource types.
//!
//! A definition belongs to its namespace's owner and is seen by who sees the namespace; whose the namespace is
//! stands in each definition for the change log, and follows when the namespace changes hands.

use haneul_auth::{Ctx, Secured, Target};
use haneul_core::Error;
use haneul_store::{Resource, V};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Definitions of one kind in one namespace.
pub(crate) const MAX_DEFINITIONS: usize = 1000;
/// Namespaces of one owner.
pub(crate) const MAX_NAMESPACES: i64 = 1000;
/// Resource types of the cloud: associations make them, and nothing removes one.
pub(crate) const MAX_RESOURCE_TYPES: i64 = 1000;
/// One object or property as JSON, in bytes: what Glance's column holds.
pub(crate) const MAX_DOCUMENT: usize = 65_535;

/// Who sees a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Openness {
    Public,
    #[default]
    Private,
}

impl Openness {
    pub const NAMES: &'static [&'static str] = &["public", "private"];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Public, Self::Private].into_iter().find(|v| v.as_str() == text)
    }
}

fn version() -> u32 {
    1
}

/// A namespace. Clients know it by `name`, which is unique in the cloud; `id` stays when it is renamed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Namespace {
    #[serde(default = "version")]
    pub v: u32,
    pub id: String,
    pub name: String,
    /// `None`: the cloud's own, of the catalogue.
    pub owner: Option<String>,
    pub visibility: Openness,
    /// Neither it nor what is in it can be deleted.
    pub protected: bool,
    pub display_name: Option<String>,
    pub description: Option<String>,
}

impl Namespace {
    pub fn new(id: String, name: String, owner: Option<String>) -> Self {
        Self {
            v: version(),
            id,
            name,
            owner,
            visibility: Openness::default(),
            protected: false,
            display_name: None,
            description: None,
        }
    }
}

fn target(owner: Option<&str>, visibility: Openness) -> Target {
    Target {
        project_id: owner.map(str::to_owned),
        ..Target::default()
    }
    .with("visibility", visibility.as_str())
}

fn visible(ctx: &Ctx, owner: Option<&str>, visibility: Openness) -> bool {
    ctx.is_admin() || visibility == Openness::Public || owner.is_none_or(|o| o == ctx.project_id())
}

impl Resource for Namespace {
    const KIND: &'static str = "metadef_namespace";
    const TABLE: &'static str = "metadef_namespace";
    const COLUMNS: &'static [&'static str] = &["visibility"];

    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> Option<&str> {
        self.owner.as_deref()
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn columns(&self) -> Vec<V> {
        vec![self.visibility.as_str().into()]
    }
}

impl Secured for Namespace {
    fn target(&self) -> Target {
        target(self.owner.as_deref(), self.visibility)
    }
    fn visible(&self, ctx: &Ctx) -> bool {
        visible(ctx, self.owner.as_deref(), self.visibility)
    }
    fn not_found(name: &str) -> Error {
        Error::not_found(format!("There is no metadata definition namespace {name}."))
    }
}

/// What sets one kind of definition apart.
pub trait Kind: Serialize + DeserializeOwned + Clone + PartialEq + Send + Sync + 'static {
    const KIND: &'static str;
    const TABLE: &'static str;
    /// As in messages.
    const WORD: &'static str;
}

/// An object: properties that belong together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ObjectBody {
    pub description: Option<String>,
    pub required: Vec<String>,
    pub properties: BTreeMap<String, Map<String, Value>>,
}

/// A property: JSON schema of a key's values, without the key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PropertyBody {
    pub schema: Map<String, Value>,
}

/// A tag is its name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TagBody {}

/// A namespace's properties apply to this type of resource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AssociationBody {
    /// Stands before each property's name there, with its separator (`hw:`).
    pub prefix: Option<String>,
    /// Which of the resource's sets of pairs is meant (a volume has its own and its image's).
    pub properties_target: Option<String>,
}

macro_rules! kinds {
    ($($body:ty, $kind:literal, $word:literal;)*) => {$(
        impl Kind for $body {
            const KIND: &'static str = $kind;
            const TABLE: &'static str = $kind;
            const WORD: &'static str = $word;
        }
    )*};
}
kinds! {
    ObjectBody, "metadef_object", "object";
    PropertyBody, "metadef_property", "property";
    TagBody, "metadef_tag", "tag";
    AssociationBody, "metadef_association", "resource type association";
}

/// One definition in a namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Definition<B> {
    #[serde(default = "version")]
    pub v: u32,
    pub id: String,
    pub namespace_id: String,
    /// The namespace's.
    pub owner: Option<String>,
    /// Unique among its kind in the namespace.
    pub name: String,
    pub body: B,
    /// The namespace's; found at look-up, never stored.
    #[serde(skip)]
    pub visibility: Openness,
}

pub type Object = Definition<ObjectBody>;
pub type Property = Definition<PropertyBody>;
pub type Tag = Definition<TagBody>;
pub type Association = Definition<AssociationBody>;

impl<B> Definition<B> {
    pub fn new(id: String, namespace: &Namespace, name: String, body: B) -> Self {
        Self {
            v: version(),
            id,
            namespace_id: namespace.id.clone(),
            owner: namespace.owner.clone(),
            name,
            body,
            visibility: namespace.visibility,
        }
    }
}

/// "Not found" for a definition, in the words of its kind.
pub(crate) fn no_definition<B: Kind>(namespace: &str, name: &str) -> Error {
    Error::not_found(format!(
        "There is no metadata definition {} {name} in namespace {namespace}.",
        B::WORD
    ))
}

impl<B: Kind> Resource for Definition<B> {
    const KIND: &'static str = B::KIND;
    const TABLE: &'static str = B::TABLE;
    const COLUMNS: &'static [&'static str] = &["namespace_id"];

    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> Option<&str> {
        self.owner.as_deref()
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn columns(&self) -> Vec<V> {
        vec![self.namespace_id.as_str().into()]
    }
}

impl<B: Kind> Secured for Definition<B> {
    fn target(&self) -> Target {
        target(self.owner.as_deref(), self.visibility)
    }
    fn visible(&self, ctx: &Ctx) -> bool {
        visible(ctx, self.owner.as_deref(), self.visibility)
    }
    fn not_found(name: &str) -> Error {
        Error::not_found(format!("There is no metadata definition {} {name}.", B::WORD))
    }
}

/// A type of resource that properties can apply to. Its name is its id; nobody owns it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResourceType {
    #[serde(default = "version")]
    pub v: u32,
    pub name: String,
}

impl ResourceType {
    pub fn new(name: &str) -> Self {
        Self {
            v: version(),
            name: name.to_owned(),
        }
    }
}

impl Resource for ResourceType {
    const KIND: &'static str = "metadef_resource_type";
    const TABLE: &'static str = "metadef_resource_type";

    fn id(&self) -> &str {
        &self.name
    }
    fn project_id(&self) -> Option<&str> {
        None
    }
    fn name(&self) -> &str {
        &self.name
    }
}

impl Secured for ResourceType {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_of_the_first_release_still_parse() {
        let doc = r#"{"v":1,"id":"i","name":"n","owner":null,"visibility":"public","protected":true,
            "display_name":null,"description":"d"}"#;
        let n: Namespace = serde_json::from_str(doc).unwrap();
        assert_eq!(n.visibility, Openness::Public);
        let doc = r#"{"v":1,"id":"i","namespace_id":"n","owner":"p","name":"cpu","body":{"schema":{"type":"string"}}}"#;
        let p: Property = serde_json::from_str(doc).unwrap();
        assert_eq!(p.body.schema.len(), 1);
        let doc = r#"{"v":1,"id":"i","namespace_id":"n","owner":"p","name":"t","body":{}}"#;
        let t: Tag = serde_json::from_str(doc).unwrap();
        assert_eq!(
            (t.columns().len(), t.visibility),
            (Tag::COLUMNS.len(), Openness::Private)
        );
    }
}
