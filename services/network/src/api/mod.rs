//! The route table: one line per method and path.
use crate::Network;
use haneul_http::{Routes, Service};
use std::sync::Arc;
pub(crate) fn routes(app: &Arc<Network>) -> Routes<Network> {
    Routes::new(Service::Network, app.clone())
}
