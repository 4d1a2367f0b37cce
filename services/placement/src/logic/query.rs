//! Query parameters that filter providers (Placement API reference, "Granular Resource Requests",
//! "Filtering by Aggregate Membership" and the parameters of the lists).

use haneul_core::{Error, Result, id};
use haneul_http::{Req, Ver};
use std::collections::{BTreeMap, BTreeSet};

/// Traits: one of each set, and none of the forbidden ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Traits {
    pub required: Vec<BTreeSet<String>>,
    pub forbidden: BTreeSet<String>,
}

impl Traits {
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.required.iter().flatten().chain(&self.forbidden)
    }
    /// Whether a provider with these traits alone is meant.
    pub fn fit(&self, has: impl Fn(&str) -> bool) -> bool {
        self.required.iter().all(|any| any.iter().any(|t| has(t))) && !self.forbidden.iter().any(|t| has(t))
    }
}

/// Aggregates: in one of each set, and in none of the forbidden ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemberOf {
    pub required: Vec<BTreeSet<String>>,
    pub forbidden: BTreeSet<String>,
}

/// What one group of parameters (`resources_X`, `required_X`, ...) asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    pub suffix: String,
    /// In the order of the request.
    pub resources: Vec<(String, i64)>,
    pub traits: Traits,
    pub member_of: MemberOf,
    pub in_tree: Option<String>,
}

impl Group {
    /// A group with a suffix comes from one provider; the one without from a whole tree.
    pub fn same_provider(&self) -> bool {
        !self.suffix.is_empty()
    }
}

/// A request for allocation candidates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    pub groups: Vec<Group>,
    pub limit: Option<usize>,
    pub isolate: bool,
    pub root: Traits,
    pub same_subtree: Vec<BTreeSet<String>>,
}

const BAD_VALUE: &str = "placement.query.bad_value";

fn bad(field: &str, text: impl Into<String>) -> Error {
    Error::field(field, text)
}

/// `VCPU:2,MEMORY_MB:512`
pub fn resources(text: &str) -> Result<Vec<(String, i64)>> {
    let form = |got: &str| {
        bad(
            "resources",
            format!(
                "Badly formed resources parameter. Expected resources query string parameter in form: ?resources=VCPU:2,MEMORY_MB:1024. Got: {got}."
            ),
        )
    };
    if text.trim().is_empty() {
        return Err(form("empty string"));
    }
    let mut out: Vec<(String, i64)> = Vec::new();
    for part in text.split(',') {
        let (class, amount) = part
            .split_once(':')
            .filter(|(c, a)| !c.is_empty() && !a.contains(':'))
            .ok_or_else(|| form(part))?;
        let wanted: i64 = amount.trim().parse().map_err(|_| {
            bad(
                "resources",
                format!("Requested resource {class} expected positive integer amount. Got: {amount}."),
            )
        })?;
        if wanted < 1 {
            return Err(bad(
                "resources",
                format!("Requested resource {class} requires amount >= 1. Got: {wanted}."),
            ));
        }
        if out.iter().any(|(c, _)| c == class) {
            return Err(bad(
                "resources",
                format!("Badly formed resources parameter: {class} stands twice in {text}."),
            ));
        }
        out.push((class.to_owned(), wanted));
    }
    Ok(out)
}

/// One value of `required`: `HW_A,!HW_B`, or from 1.39 on `in:HW_A,HW_B`.
fn one_traits(text: &str, version: Ver, out: &mut Traits) -> Result<()> {
    const START: &str = "Invalid query string parameters:";
    let field = "required";
    if let Some(any) = text.strip_prefix("in:") {
        const FORM: &str = "in:HW_CPU_X86_VMX,CUSTOM_MAGIC";
        if version < Ver(1, 39) {
            let why = format!("{START} The format '{FORM}' only supported since microversion 1.39. Got: {text}");
            return Err(bad(field, why));
        }
        let names: BTreeSet<String> = any.split(',').map(|s| s.trim().to_owned()).collect();
        if names.contains("") {
            let why = format!(
                "{START} Expected 'required' parameter value of the form: {FORM}. Got an empty trait in: {text}"
            );
            return Err(bad(field, why));
        }
        if names.iter().any(|n| n.starts_with('!')) {
            let why = format!("{START} The format '{FORM}' does not support forbidden traits. Got: {text}");
            return Err(bad(field, why));
        }
        out.required.push(names);
        return Ok(());
    }
    let (form, may_forbid) = if version < Ver(1, 22) {
        ("HW_CPU_X86_VMX,CUSTOM_MAGIC", false)
    } else {
        ("HW_CPU_X86_VMX,!CUSTOM_MAGIC", true)
    };
    let expected = format!("{START} Expected 'required' parameter value of the form: {form}.");
    for name in text.split(',').map(str::trim) {
        let bare = name.trim_start_matches('!');
        if bare.is_empty() {
            return Err(bad(field, format!("{expected} Got an empty trait in: {text}")));
        }
        if bare == name {
            out.required.push(BTreeSet::from([name.to_owned()]));
        } else if may_forbid {
            out.forbidden.insert(bare.to_owned());
        } else {
            return Err(bad(field, format!("{expected} Got: {text}")));
        }
    }
    Ok(())
}

/// `required` of a group: before 1.39 the last one counts, from then on all do.
pub fn traits(req: &Req, suffix: &str) -> Result<Traits> {
    let name = format!("required{suffix}");
    let mut values: Vec<&str> = req.qs(&name).collect();
    if req.version < Ver(1, 39) {
        values = values.split_off(values.len().saturating_sub(1));
    }
    let mut out = Traits::default();
    for v in values {
        one_traits(v, req.version, &mut out)?;
    }
    Ok(out)
}

/// `member_of` of a group.
pub fn member_of(req: &Req, suffix: &str) -> Result<MemberOf> {
    let name = format!("member_of{suffix}");
    let values: Vec<&str> = req.qs(&name).collect();
    if req.version < Ver(1, 24) && values.len() > 1 {
        return Err(bad(&name, format!("Multiple {name} parameters are not supported")));
    }
    let mut out = MemberOf::default();
    for text in values {
        let (forbid, rest) = match text.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let list = rest.strip_prefix("in:");
        if list.is_none() && text.contains(',') {
            let why = format!(
                "Multiple values for 'member_of' must be prefixed with the 'in:' or '!in:' keyword using the valid microversion. Got: {text}"
            );
            return Err(bad(&name, why));
        }
        let uuids: BTreeSet<String> = list.unwrap_or(rest).split(',').map(str::to_owned).collect();
        if let Some(wrong) = uuids.iter().find(|u| !id::is_uuid(u)) {
            let why = format!(
                "Invalid query string parameters: Expected 'member_of' parameter to contain valid UUID(s). Got: {wrong}"
            );
            return Err(bad(&name, why));
        }
        if !forbid {
            out.required.push(uuids);
        } else if req.version < Ver(1, 32) {
            let why = format!("Forbidden {name} parameters are not supported in the specified microversion");
            return Err(bad(&name, why));
        } else {
            out.forbidden.extend(uuids);
        }
    }
    Ok(out)
}

/// Parameters that stand in groups, and their first microversions.
const GROUPED: [(&str, Ver); 4] = [
    ("resources", Ver(1, 10)),
    ("required", Ver(1, 17)),
    ("member_of", Ver(1, 21)),
    ("in_tree", Ver(1, 31)),
];
/// Those of the request as a whole.
const WHOLE: [(&str, Ver); 4] = [
    ("limit", Ver(1, 16)),
    ("group_policy", Ver(1, 25)),
    ("root_required", Ver(1, 35)),
    ("same_subtree", Ver(1, 36)),
];

/// The suffixes that there are at a microversion, as a regular expression.
fn pattern(version: Ver) -> &'static str {
    if version < Ver(1, 33) {
        "[1-9][0-9]*"
    } else {
        "[a-zA-Z0-9_-]{1,64}"
    }
}

fn is_suffix(text: &str, version: Ver) -> bool {
    if text.is_empty() {
        return true;
    }
    let bytes = text.as_bytes();
    if version < Ver(1, 25) {
        false
    } else if version < Ver(1, 33) {
        bytes.iter().all(u8::is_ascii_digit) && !text.starts_with('0')
    } else {
        bytes.len() <= 64 && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(b))
    }
}

/// Splits `required_X` into the parameter and the group's suffix.
fn grouped(name: &str, version: Ver) -> Option<(&'static str, &str)> {
    let mut known = GROUPED.iter().filter(|(_, since)| version >= *since);
    known.find_map(|(prefix, _)| {
        let suffix = name.strip_prefix(prefix)?;
        is_suffix(suffix, version).then_some((*prefix, suffix))
    })
}

fn unknown(name: &str, version: Ver) -> Error {
    if version < Ver(1, 25) {
        return bad(
            name,
            format!("Invalid query string parameters: Additional properties are not allowed ('{name}' was unexpected)"),
        );
    }
    let regexes: Vec<String> = GROUPED
        .iter()
        .filter(|(_, since)| version >= *since)
        .map(|(p, _)| format!("'^{p}({})?$'", pattern(version)))
        .collect();
    bad(
        name,
        format!(
            "Invalid query string parameters: '{name}' does not match any of the regexes: {}",
            regexes.join(", ")
        ),
    )
}

/// The whole request for candidates.
pub fn candidates(req: &Req) -> Result<Wanted> {
    let version = req.version;
    let whole = |name: &str| WHOLE.iter().any(|(n, since)| *n == name && version >= *since);
    for (name, _) in &req.query {
        if !whole(name) && grouped(name, version).is_none() {
            return Err(unknown(name, version));
        }
    }
    let mut wanted = Wanted::default();
    if version < Ver(1, 25) && req.q("resources").is_none() {
        let why = "Invalid query string parameters: 'resources' is a required property";
        return Err(bad("resources", why));
    }
    if let Some(l) = req.q("limit") {
        let n = l.parse::<usize>().ok().filter(|n| *n > 0 && !l.starts_with(['0', '+']));
        let why = || {
            format!(
                "Invalid query string parameters: limit: '{l}' does not match '^[1-9][0-9]*$', an integer of at least 1. Failed validating 'pattern'"
            )
        };
        wanted.limit = Some(n.ok_or_else(|| bad("limit", why()))?);
    }
    match req.q("group_policy") {
        None | Some("none") => {}
        Some("isolate") => wanted.isolate = true,
        Some(other) => {
            let why = format!("Invalid query string parameters: '{other}' is not one of ['none', 'isolate']");
            return Err(bad("group_policy", why));
        }
    }
    root(req, &mut wanted)?;
    for value in req.qs("same_subtree") {
        let suffixes: BTreeSet<String> = value.split(',').map(|s| s.trim().to_owned()).collect();
        if suffixes.contains("") {
            let why = "Empty string (unsuffixed group) can not be specified in `same_subtree`";
            return Err(bad("same_subtree", why).with_code(BAD_VALUE));
        }
        wanted.same_subtree.push(suffixes);
    }
    let mut groups: BTreeMap<&str, Group> = BTreeMap::new();
    let mut order: Vec<&str> = Vec::new();
    for (name, value) in &req.query {
        let Some((prefix, suffix)) = grouped(name, version) else {
            continue;
        };
        if !groups.contains_key(suffix) {
            order.push(suffix);
        }
        let group = groups.entry(suffix).or_default();
        suffix.clone_into(&mut group.suffix);
        match prefix {
            "resources" => group.resources = resources(value)?,
            "required" => group.traits = traits(req, suffix)?,
            "member_of" => group.member_of = member_of(req, suffix)?,
            _ => {
                let uuid = value.trim();
                if !id::is_uuid(uuid) {
                    let why = format!(
                        "Invalid query string parameters: Expected 'in_tree' parameter to be a format of uuid. Got: {value}"
                    );
                    return Err(bad(name, why));
                }
                group.in_tree = Some(uuid.to_owned());
            }
        }
    }
    wanted.groups = order.into_iter().filter_map(|s| groups.remove(s)).collect();
    whole_groups(&wanted, version)?;
    if req.q("group_policy").is_none() && wanted.groups.iter().filter(|g| g.same_provider()).count() > 1 {
        let why =
            "The \"group_policy\" parameter is required when specifying more than one \"resources{N}\" parameter.";
        return Err(bad("group_policy", why));
    }
    Ok(wanted)
}

fn root(req: &Req, wanted: &mut Wanted) -> Result<()> {
    let values: Vec<&str> = req.qs("root_required").collect();
    let name = "root_required";
    match values.as_slice() {
        [] => return Ok(()),
        // The form with `in:` is not for it.
        [one] => one_traits(one, req.version.min(Ver(1, 38)), &mut wanted.root)?,
        _ => {
            return Err(bad(name, "Query parameter 'root_required' may be specified only once.")
                .with_code("placement.query.duplicate_key"));
        }
    }
    let both: Vec<&str> = wanted
        .root
        .required
        .iter()
        .flatten()
        .filter(|t| wanted.root.forbidden.contains(*t))
        .map(String::as_str)
        .collect();
    if both.is_empty() {
        return Ok(());
    }
    let why = format!(
        "Conflicting required and forbidden traits found in root_required: {}",
        both.join(", ")
    );
    Err(bad(name, why).with_code(BAD_VALUE))
}

/// Groups that ask for nothing, or for what cannot be.
fn whole_groups(wanted: &Wanted, version: Ver) -> Result<()> {
    let groups = &wanted.groups;
    let names = |prefix: &str, which: &dyn Fn(&Group) -> bool| -> String {
        let all: Vec<String> = groups
            .iter()
            .filter(|g| which(g))
            .map(|g| format!("{prefix}{}", g.suffix))
            .collect();
        all.join(", ")
    };
    let empty = |g: &Group| g.resources.is_empty();
    if version >= Ver(1, 36) {
        if groups.iter().all(empty) {
            let why = "There must be at least one resources or resources[$S] parameter.";
            return Err(bad("resources", why).with_code("placement.query.missing_value"));
        }
        let told: BTreeSet<&String> = wanted.same_subtree.iter().flatten().collect();
        let lonely = names("", &|g| empty(g) && !told.contains(&g.suffix));
        if groups.iter().any(|g| empty(g) && !told.contains(&g.suffix)) {
            let why = format!(
                "Resourceless suffixed group request should be specified in `same_subtree` query param: bad group(s) - {lonely}."
            );
            return Err(bad("same_subtree", why).with_code(BAD_VALUE));
        }
        let missing: Vec<&str> = told
            .iter()
            .filter(|s| !groups.iter().any(|g| &g.suffix == **s))
            .map(|s| s.as_str())
            .collect();
        if !missing.is_empty() {
            let why = format!(
                "Real suffixes should be specified in `same_subtree`: {} not found in {}.",
                missing.join(", "),
                names("", &|_| true)
            );
            return Err(bad("same_subtree", why).with_code(BAD_VALUE));
        }
    } else {
        let orphans = names("required", &|g| empty(g) && !g.traits.required.is_empty());
        if !orphans.is_empty() {
            let why = format!(
                "All traits parameters must be associated with resources.  Found the following orphaned traits keys: {orphans}"
            );
            return Err(bad("required", why));
        }
        let orphans = names("member_of", &|g| empty(g) && g.member_of != MemberOf::default());
        if !orphans.is_empty() {
            let why = format!(
                "All member_of parameters must be associated with resources. Found the following orphaned member_of keys: {orphans}"
            );
            return Err(bad("member_of", why));
        }
        if groups.is_empty() {
            let why = "At least one request group (`resources` or `resources{$S}`) is required.";
            return Err(bad("resources", why));
        }
        if groups.iter().any(empty) {
            return Err(bad("resources", "All request groups must specify resources."));
        }
    }
    let mut both = Vec::new();
    for g in groups {
        for any in &g.traits.required {
            if any.iter().all(|t| g.traits.forbidden.contains(t)) {
                let list: Vec<&str> = any.iter().map(String::as_str).collect();
                both.push(format!("required{}: ({})", g.suffix, list.join(", ")));
            }
        }
    }
    if both.is_empty() {
        return Ok(());
    }
    let why = format!(
        "Conflicting required and forbidden traits found in the following traits keys: {}",
        both.join(", ")
    );
    Err(bad("required", why))
}
