//! Microversions (Nova API guide, "Microversions"; Placement likewise).

use haneul_core::{Error, Kind, Result};
use http::HeaderMap;
use serde_json::json;
use std::fmt;

/// `2.79`, ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ver(pub u16, pub u16);

impl fmt::Display for Ver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// Its texts are of another library (microversion_parse) than Nova's.
const PLACEMENT: &str = "placement";

/// Which versions a service has, and how clients ask for one.
#[derive(Clone, Copy, Debug)]
pub struct Versions {
    /// Name in `OpenStack-API-Version: NAME 2.79`.
    pub name: &'static str,
    pub min: Ver,
    pub max: Ver,
    /// The header of old clients (`X-OpenStack-Nova-API-Version`).
    pub legacy_header: Option<&'static str>,
}

impl Versions {
    /// The negotiating header as `Vary` names it: Placement's library writes it small.
    pub fn vary(&self) -> &'static str {
        if self.name == PLACEMENT {
            "openstack-api-version"
        } else {
            "OpenStack-API-Version"
        }
    }
    /// The version that the request asks for; the minimum without a header.
    pub fn negotiate(&self, headers: &HeaderMap) -> Result<Ver> {
        let mut asked = None;
        for value in headers.get_all("openstack-api-version") {
            let text = value.to_str().unwrap_or_default();
            for part in text.split(',') {
                let mut words = part.split_whitespace();
                if words.next().is_some_and(|n| n.eq_ignore_ascii_case(self.name)) {
                    asked = Some(words.next().unwrap_or_default().to_owned());
                }
            }
        }
        if asked.is_none()
            && let Some(h) = self.legacy_header
            && let Some(v) = headers.get(h)
        {
            asked = Some(v.to_str().unwrap_or_default().to_owned());
        }
        let Some(text) = asked else { return Ok(self.min) };
        if text == "latest" {
            return Ok(self.max);
        }
        let parsed = text
            .split_once('.')
            .filter(|(a, b)| {
                !b.is_empty()
                    && (b.len() == 1 || !b.starts_with('0'))
                    && !a.starts_with('+')
                    && (self.name == PLACEMENT || !a.starts_with('0'))
                    && !b.starts_with('+')
            })
            .and_then(|(a, b)| Some(Ver(a.parse().ok()?, b.parse().ok()?)));
        let Some(v) = parsed else {
            let said = if self.name == PLACEMENT {
                format!("invalid version string: {text}")
            } else {
                format!("API Version String {text} is of invalid format")
            };
            return Err(Error::bad_request(format!(
                "{said}. Must be of format MajorNum.MinorNum."
            )));
        };
        if v < self.min || v > self.max {
            return Err(Error::new(
                Kind::NotAcceptable,
                if self.name == PLACEMENT {
                    format!(
                        "Unacceptable version header: {v}. Minimum is {} and maximum is {}.",
                        self.min, self.max
                    )
                } else {
                    format!(
                        "Version {v} is not supported by the API. Minimum is {} and maximum is {}.",
                        self.min, self.max
                    )
                },
            )
            .with_details(json!({"min_version": self.min.to_string(), "max_version": self.max.to_string()})));
        }
        Ok(v)
    }
}
