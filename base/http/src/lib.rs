//! HTTP for all services: the route table type, requests and replies, error bodies in each service's own
//! shape, microversions, request fields as const data, links.
//!
//! A handler is `async fn(Arc<Service>, Req) -> Result<Reply>`. The table of a service is one line per
//! method and path ([`Routes`]); it carries the policy rule, so that docs/routes.txt and the sweep test come
//! from it. Authentication happens before the handler; a route is public only by [`Routes::public`].
//!
//! Knows nothing of any resource.

pub mod client;
pub mod error;
pub mod fields;
pub mod metrics;
pub mod page;
pub mod reply;
pub mod request;
pub mod routes;
pub mod version;

pub use error::Service;
pub use fields::{Body, Field, Kind as FieldKind, f};
pub use page::Page;
pub use reply::Reply;
pub use request::Req;
pub use routes::{RouteInfo, Routes, Server};
pub use version::Ver;
