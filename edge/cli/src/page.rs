//! The page that a person sees who opens the cloud's address in a browser.

/// A line of the table of services.
#[derive(Clone, Copy, Debug)]
pub struct Service<'a> {
    /// `Compute`
    pub name: &'a str,
    /// Which OpenStack API it speaks: `Nova 2.1`.
    pub speaks: &'a str,
    /// Path below the base URL: `/compute/v2.1`.
    pub path: &'a str,
}

/// The page. Nothing in it is loaded from elsewhere, and it shows nothing that a stranger may not know.
pub fn index(release: &str, services: &[Service<'_>], base_url: &str, sign_up: bool) -> String {
    let rows: String = services
        .iter()
        .map(|s| {
            format!(
                "<tr><th scope=\"row\">{}</th><td>{}</td><td><a href=\"{}\">{}</a></td></tr>\n",
                escape(s.name),
                escape(s.speaks),
                escape(s.path),
                escape(s.path)
            )
        })
        .collect();
    include_str!("index.html")
        .replace("{{release}}", &escape(release))
        .replace("{{base}}", &escape(base_url))
        .replace("{{services}}", rows.trim_end())
        .replace("{{sign-up}}", if sign_up { SIGN_UP } else { "" })
}

const SIGN_UP: &str = "\n<p><a href=\"/sign-up\">Sign up</a> for an account of your own.</p>";

/// The form of the public sign-up, which posts to /identity/v3/accounts.
pub fn sign_up(base_url: &str, region: &str) -> String {
    include_str!("sign-up.html")
        .replace("{{base}}", &escape(base_url))
        .replace("{{region}}", &escape(region))
}

fn escape(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '&' => "&amp;".to_owned(),
            '<' => "&lt;".to_owned(),
            '>' => "&gt;".to_owned(),
            '"' => "&quot;".to_owned(),
            '\'' => "&#39;".to_owned(),
            c => c.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_is_whole_and_self_contained() {
        let services = [Service {
            name: "Compute",
            speaks: "Nova <2.1>",
            path: "/compute/v2.1",
        }];
        let html = index("0.1.0", &services, "http://127.0.0.1:8774", false);
        assert!(html.contains("<a href=\"/compute/v2.1\">"), "{html}");
        assert!(html.contains("Nova &lt;2.1&gt;"));
        assert!(!html.contains("{{"), "every place is filled");
        assert!(
            !html.contains("src=") && !html.contains("<link") && !html.contains("@import"),
            "nothing is loaded"
        );
        assert!(html.contains("width=device-width") && !html.contains("/sign-up"));
        assert!(index("0.1.0", &services, "http://127.0.0.1:8774", true).contains("href=\"/sign-up\""));
    }
}
