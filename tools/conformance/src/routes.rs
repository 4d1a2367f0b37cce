//! What we serve, from docs/routes.txt, so that it can be compared with OpenStack's files.

use std::collections::BTreeSet;

/// Method, in capitals, and path, with all parameters named alike.
pub type Operation = (String, String);

/// The same path however its parameters are called.
pub fn normal(path: &str) -> String {
    let parts = path.trim_end_matches('/').split('/');
    let parts: Vec<&str> = parts.map(|p| if p.starts_with('{') { "{}" } else { p }).collect();
    parts.join("/")
}

/// The operations below `prefix`, without it. What answers GET answers HEAD.
pub fn served(routes: &str, prefix: &str) -> BTreeSet<Operation> {
    let mut out = BTreeSet::new();
    for line in routes.lines().filter(|l| !l.starts_with('#')) {
        let mut words = line.split(' ');
        if let (Some(path), Some(method)) = (words.next(), words.next())
            && let Some(path) = path.strip_prefix(prefix)
        {
            if method == "GET" {
                out.insert(("HEAD".to_owned(), normal(path)));
            }
            out.insert((method.to_owned(), normal(path)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_compared_without_their_parameters_names() {
        let ours = served("# c\n/image/v2/images/{id} GET handler rule - file\n", "");
        for method in ["GET", "HEAD"] {
            assert!(ours.contains(&(method.to_owned(), normal("/image/v2/images/{image_id}/"))));
        }
        assert!(!ours.contains(&("PUT".to_owned(), normal("/image/v2/images/{id}"))));
    }
}
