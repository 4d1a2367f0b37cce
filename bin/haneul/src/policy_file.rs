//! `api.policy_file`: the rules that an operator sets in the place of the built-in ones.

use haneul_core::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// Longer than any file that a person writes.
const MAX_BYTES: u64 = 1 << 20;

/// The rules of a file in oslo.policy's form (oslo.policy's documentation, "Policy file"), YAML or JSON, which is
/// YAML too. An empty file has none.
pub fn read(file: &Path) -> Result<Vec<(String, String)>> {
    let wrong = |why: String| Error::field("api.policy_file", format!("api.policy_file {}: {why}", file.display()));
    let size = std::fs::metadata(file).map_err(|e| wrong(e.to_string()))?.len();
    if size > MAX_BYTES {
        return Err(wrong(format!("{size} bytes; at most {MAX_BYTES} are read")));
    }
    let text = std::fs::read_to_string(file).map_err(|e| wrong(e.to_string()))?;
    let rules: Option<BTreeMap<String, String>> =
        serde_saphyr::from_str(&text).map_err(|e| wrong(format!("not lines of \"name\": \"check\": {e}")))?;
    Ok(rules.unwrap_or_default().into_iter().collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Result<Vec<(String, String)>> {
        let file = std::env::temp_dir().join(format!("haneul-policy-{}.yaml", haneul_core::id::hex()));
        std::fs::write(&file, text).unwrap();
        let out = read(&file);
        std::fs::remove_file(&file).unwrap();
        out
    }

    #[test]
    fn yaml_json_and_nothing() {
        let want = vec![("a:b".to_owned(), "role:x or rule:y".to_owned())];
        assert_eq!(rules("# c\n\"a:b\": \"role:x or rule:y\"\n").unwrap(), want);
        assert_eq!(rules("\"a:b\": >-\n  role:x\n  or rule:y\n").unwrap(), want);
        assert_eq!(rules("{\"a:b\": \"role:x or rule:y\"}").unwrap(), want);
        assert_eq!(rules("# \"a:b\": \"role:x\"\n").unwrap(), []);
        for bad in ["- a\n", "\"a\": [1]\n", "\"a\": \"@\"\n\"a\": \"!\"\n", "a: \"\n"] {
            let said = rules(bad).unwrap_err().to_string();
            assert!(said.contains("api.policy_file"), "{bad}: {said}");
        }
    }
}
