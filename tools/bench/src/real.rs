use crate::Options;
use crate::figures::Table;
use anyhow::Result;
pub async fn run(_: &Options, _: &mut Table) -> Result<()> { Ok(()) }
