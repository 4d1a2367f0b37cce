//! Pure types: what is stored of each resource, who may see it, and what it is called.

mod floating_ip;
mod group;
mod net;
mod port;
mod router;
mod subnet;

pub use floating_ip::FloatingIp;
pub use group::{Group, Rule};
pub use net::Net;
pub use port::{AddressPair, DhcpOption, FixedIp, Port, owner};
pub use router::{Gateway, Route, Router};
pub use subnet::{Pool, Subnet};

/// `impl Resource` for a document with `id`, `project_id` and `name`.
macro_rules! resource {
    ($t:ident, $kind:literal, $table:literal, {$($column:literal => $value:expr),* $(,)?}) => {
        impl haneul_store::Resource for $t {
            const KIND: &'static str = $kind;
            const TABLE: &'static str = $table;
            const COLUMNS: &'static [&'static str] = &[$($column),*];
            fn id(&self) -> &str { &self.id }
            fn project_id(&self) -> Option<&str> { Some(&self.project_id) }
            fn name(&self) -> &str { &self.name }
            fn columns(&self) -> Vec<haneul_store::V> {
                vec![$({ let f: fn(&Self) -> haneul_store::V = $value; f(self) }),*]
            }
        }
        impl Described for $t {
            fn description(&self) -> &str { &self.description }
            fn tags(&self) -> &[String] { &self.tags }
            fn set_tags(&mut self, tags: Vec<String>) { self.tags = tags; }
        }
    };
}
pub(crate) use resource;

/// What all resources share beside id, project and name.
pub trait Described {
    fn description(&self) -> &str;
    fn tags(&self) -> &[String];
    fn set_tags(&mut self, tags: Vec<String>);
}
