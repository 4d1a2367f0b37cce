//! The catalogue of definitions that a new cloud has: the types of resources and the namespaces that tools expect.
//! Each part is made once; what an operator has changed or removed stays so. The names are OpenStack's, the words ours.

use super::namespaces::create_own;
use crate::Images;
use crate::model::ResourceType;
use crate::model::metadef_fields::{NamespaceRequest, parse_namespace};
use crate::store::{Catalogued, catalogued};
use haneul_core::{Error, Result};
use haneul_store::{Actor, System};
use serde_json::Value;

const CATALOGUE: &str = include_str!("catalogue.json");

struct Catalogue {
    resource_types: Vec<String>,
    namespaces: Vec<NamespaceRequest>,
}

fn catalogue() -> Result<Catalogue> {
    let value: Value = serde_json::from_str(CATALOGUE).map_err(|e| Error::internal(format!("catalogue.json: {e}")))?;
    let list = |name: &str| value.get(name).and_then(Value::as_array).into_iter().flatten();
    Ok(Catalogue {
        resource_types: list("resource_types")
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        namespaces: list("namespaces").map(parse_namespace).collect::<Result<_>>()?,
    })
}

impl Images {
    /// Makes what of the catalogue has never been made. Call it at each start, before requests are served.
    ///
    /// # Errors
    /// When the database fails; nothing is made then.
    pub async fn bootstrap(&self) -> Result<()> {
        let all = catalogue()?;
        self.db
            .write(&Actor::system("image-catalogue"), async move |tx| {
                for name in &all.resource_types {
                    if catalogued(tx, &format!("resource_type/{name}")).await? == Catalogued::Now {
                        // One that is there already is as good.
                        tx.insert(&System::create(), &ResourceType::new(name)).await?;
                    }
                }
                for request in &all.namespaces {
                    if catalogued(tx, &format!("namespace/{}", request.name)).await? == Catalogued::Now {
                        create_own(tx, request).await?;
                    }
                }
                Ok(())
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_parses_and_every_association_is_of_a_known_type() {
        let all = catalogue().unwrap();
        assert!(all.namespaces.len() >= 7);
        for n in &all.namespaces {
            assert!(n.protected && !n.associations.is_empty(), "{}", n.name);
            for (name, _) in &n.associations {
                assert!(all.resource_types.contains(name), "{name}");
            }
        }
    }
}
