//! What this crate asks of the other services, in one place.

pub use haneul_image::{Images as Image, NewImage, SeenImage};
pub use haneul_network::{
    Holder, NamedNetwork, Network, NewRule, NicRequest, PooledIp, SecurityGroup, SecurityGroupRule, ServerPort,
};

use haneul_auth::Ctx;
use haneul_core::Result;
use haneul_store::Tx;
use std::collections::BTreeMap;

/// An image that a server can be made from.
#[derive(Clone, Debug)]
pub struct BootImage {
    pub id: String,
    pub name: String,
    pub format: String,
    pub size: u64,
    pub virtual_size: u64,
    pub sha512: String,
    pub min_disk_gib: i64,
    pub min_ram_mib: i64,
    pub properties: BTreeMap<String, String>,
}

/// Finds an image that the caller may start a server from.
pub async fn for_boot(image: &Image, tx: &mut Tx, ctx: &Ctx, id: &str) -> Result<BootImage> {
    let i = image.find_for_server(tx, ctx, id).await?;
    Ok(BootImage {
        id: i.id,
        name: i.name,
        format: i.format.name().to_owned(),
        size: i.size,
        virtual_size: i.virtual_size,
        sha512: i.sha512,
        min_disk_gib: i.min_disk_gib as i64,
        min_ram_mib: i.min_ram_mib as i64,
        properties: i.properties,
    })
}
