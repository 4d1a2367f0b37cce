//! Whether a host may be used at all. Each filter is a function of a host and the request, by the name that it has in
//! Nova; [`FILTERS`] is the one list that decisions, refusals and docs/scheduling.md go by.

use super::{Request, Seat, specs};
use std::borrow::Cow;
use std::collections::BTreeMap;

type Why = Cow<'static, str>;

/// See the module.
pub(super) struct Filter {
    pub name: &'static str,
    /// What a refusal by it means, for those who may not know the hosts.
    pub meaning: &'static str,
    /// Its answer changes with the servers of the same request that were placed before.
    pub shifts: bool,
    /// Why not, for those who know the hosts.
    pub refuses: fn(&Seat, &Request) -> Option<Why>,
}

const fn filter(name: &'static str, meaning: &'static str, refuses: fn(&Seat, &Request) -> Option<Why>) -> Filter {
    Filter {
        name,
        meaning,
        shifts: false,
        refuses,
    }
}

/// In the order in which hosts are refused: what a tenant can change comes after what only an operator can.
pub(super) const FILTERS: &[Filter] = &[
    filter("ComputeFilter", "not up, or disabled", compute),
    filter("AvailabilityZoneFilter", "in another availability zone", zone),
    filter("HostNameFilter", "not the host that was asked for", named),
    filter("SameHostFilter", "not one of the hosts to stay on", same_host),
    filter(
        "DifferentHostFilter",
        "one of the hosts to keep away from",
        different_host,
    ),
    filter("SimpleCIDRAffinityFilter", "not near the host that was asked for", near),
    filter("AggregateMultiTenancyIsolation", "reserved for other projects", tenants),
    filter(
        "AggregateImagePropertiesIsolation",
        "for images with other properties",
        image_isolation,
    ),
    filter(
        "AggregateInstanceExtraSpecsFilter",
        "in no aggregate that has the extra specs of the flavor",
        aggregate_specs,
    ),
    filter(
        "ComputeCapabilitiesFilter",
        "without the capabilities that the flavor asks for",
        capabilities,
    ),
    filter(
        "ImagePropertiesFilter",
        "unable to run the image, by its properties",
        image_properties,
    ),
    filter(
        "TraitsFilter",
        "against the traits that flavor or image ask for",
        traits,
    ),
    filter(
        "AggregateTraitsIsolation",
        "reserved for flavors and images that ask for its traits",
        isolated,
    ),
    filter("CompatibilityFilter", "unable to run the server as it is", compatible),
    Filter {
        shifts: true,
        ..filter(
            "ServerGroupAntiAffinityFilter",
            "against the policy of the server group",
            apart,
        )
    },
    Filter {
        shifts: true,
        ..filter(
            "ServerGroupAffinityFilter",
            "against the policy of the server group",
            together,
        )
    },
];

/// The first filter that refuses the host, with its place in the list. `shifts`: of those whose answer changes.
pub(super) fn refuses(seat: &Seat, r: &Request, shifts: bool) -> Option<(usize, &'static Filter, Why)> {
    FILTERS
        .iter()
        .enumerate()
        .filter(|(_, f)| f.shifts == shifts)
        .find_map(|(i, f)| (f.refuses)(seat, r).map(|why| (i, f, why)))
}

fn compute(s: &Seat, _: &Request) -> Option<Why> {
    if !s.host.up {
        return Some("it is not up: its agent is not connected, or an administrator has forced it down".into());
    }
    let off = !s.host.enabled || s.host.facts.traits.contains("COMPUTE_STATUS_DISABLED");
    off.then(|| match s.host.facts.disabled_reason.as_str() {
        "" => "it is disabled".into(),
        why => format!("it is disabled: {why}").into(),
    })
}

fn zone(s: &Seat, r: &Request) -> Option<Why> {
    let z = r.zone.as_ref().filter(|z| **z != s.host.zone)?;
    Some(format!("it is in zone {}, and {z} was asked for", s.host.zone).into())
}

fn named(s: &Seat, r: &Request) -> Option<Why> {
    let asked = r.host.as_ref()?;
    (*asked != s.host.name && *asked != s.host.id).then(|| format!("{asked} was asked for").into())
}

fn same_host(s: &Seat, r: &Request) -> Option<Why> {
    let only = r.only.as_ref()?;
    (!only.contains(&s.host.id)).then_some("none of the servers to be with is here".into())
}

fn different_host(s: &Seat, r: &Request) -> Option<Why> {
    r.avoid
        .contains(&s.host.id)
        .then_some("it is one of the hosts to keep away from".into())
}

fn near(s: &Seat, r: &Request) -> Option<Why> {
    let (near, length) = r.near?;
    let Some(address) = s.host.facts.address else {
        return Some("it has told no address".into());
    };
    let same = match (near, address) {
        (std::net::IpAddr::V4(a), std::net::IpAddr::V4(b)) => {
            prefix(a.to_bits().into(), b.to_bits().into(), 32, length)
        }
        (std::net::IpAddr::V6(a), std::net::IpAddr::V6(b)) => prefix(a.to_bits(), b.to_bits(), 128, length),
        _ => false,
    };
    (!same).then(|| format!("its address {address} is not in {near}/{length}").into())
}

fn prefix(a: u128, b: u128, bits: u32, length: u8) -> bool {
    let rest = bits.saturating_sub(length.into());
    rest >= 128 || a >> rest == b >> rest
}

/// Words of a list with commas.
fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim)
}

fn tenants(s: &Seat, r: &Request) -> Option<Why> {
    for a in &s.host.facts.aggregates {
        let mut named = a.iter().filter(|(k, _)| k.starts_with("filter_tenant_id")).peekable();
        if named.peek().is_some() && !named.any(|(_, v)| words(v).any(|p| p == r.project)) {
            return Some("an aggregate keeps it for other projects (filter_tenant_id)".into());
        }
    }
    None
}

fn image_isolation(s: &Seat, r: &Request) -> Option<Why> {
    for a in &s.host.facts.aggregates {
        for (key, values) in a {
            if let Some(have) = r.image.get(key).filter(|have| !words(values).any(|v| v == **have)) {
                return Some(
                    format!("an aggregate keeps it for images with {key} of {values}, and it is {have}").into(),
                );
            }
        }
    }
    None
}

const AGGREGATE: &str = "aggregate_instance_extra_specs:";
/// Without a scope it is nothing that a host could have: it says what a guest sees.
const OF_GUESTS: &str = "hide_hypervisor_id";

/// A host's own attribute that an extra spec speaks of, by Nova's names.
fn capability(s: &Seat, key: &str) -> Option<String> {
    let f = &s.host.facts;
    let class = |i: usize| s.host.stock.get(i).copied().unwrap_or_default();
    Some(match key {
        "hypervisor_type" => f.hypervisor.clone(),
        "hypervisor_version" => f.version.to_string(),
        "hypervisor_hostname" | "host" => s.host.name.clone(),
        "cpu_info:arch" => f.arch.clone(),
        "cpu_info:features" => f.cpu_features.join(","),
        "vcpus_total" => class(0).total.to_string(),
        "vcpus_used" => class(0).used.to_string(),
        "total_usable_ram_mb" => class(1).total.to_string(),
        "free_ram_mb" => class(1).free().to_string(),
        "total_usable_disk_gb" => class(2).total.to_string(),
        "free_disk_mb" => (class(2).free() * 1024).to_string(),
        "num_io_ops" => s.host.busy.to_string(),
        _ => return None,
    })
}

/// Extra specs without a scope are about aggregates, unless a host has something of the name.
fn aggregate_specs(s: &Seat, r: &Request) -> Option<Why> {
    for (key, spec) in &r.extra_specs {
        let name = match key.strip_prefix(AGGREGATE) {
            Some(name) => name,
            None if key.contains(':') || key == OF_GUESTS || capability(s, key).is_some() => continue,
            None => key,
        };
        let values: Vec<&str> = s
            .host
            .facts
            .aggregates
            .iter()
            .filter_map(|a| a.get(name))
            .flat_map(|v| words(v))
            .collect();
        if !values.iter().any(|v| specs::met(spec, v)) {
            let has = match values.as_slice() {
                [] => "none of its aggregates has it".to_owned(),
                some => format!("its aggregates have {}", some.join(", ")),
            };
            return Some(format!("the flavor asks for {name} {spec}, and {has}").into());
        }
    }
    None
}

fn capabilities(s: &Seat, r: &Request) -> Option<Why> {
    for (key, spec) in &r.extra_specs {
        let scoped = key.strip_prefix("capabilities:");
        let name = scoped.unwrap_or(key);
        if scoped.is_none() && name.contains(':') {
            continue;
        }
        match capability(s, name) {
            Some(have) if specs::met(spec, &have) => {}
            Some(have) => return Some(format!("the flavor asks for {name} {spec}, and it has {have}").into()),
            None if scoped.is_some() => {
                return Some(format!("the flavor asks for {name} {spec}, and hosts have nothing of that name").into());
            }
            None => {}
        }
    }
    None
}

/// A property by its name of today, or that of long ago.
fn property<'a>(image: &'a BTreeMap<String, String>, names: [&str; 2]) -> Option<&'a str> {
    names.iter().find_map(|n| image.get(*n)).map(|v| v.trim())
}

/// A name of an architecture as hosts have it.
fn architecture(name: &str) -> String {
    match name.to_ascii_lowercase().as_str() {
        "amd64" | "x64" => "x86_64".into(),
        "i386" | "i486" | "i586" | "x86" => "i686".into(),
        "arm64" => "aarch64".into(),
        other => other.into(),
    }
}

fn image_properties(s: &Seat, r: &Request) -> Option<Why> {
    let f = &s.host.facts;
    if let Some(arch) = property(&r.image, ["hw_architecture", "architecture"]) {
        let wanted = architecture(arch);
        // A processor of 64 bits runs what is for 32.
        if wanted != f.arch && !(wanted == "i686" && f.arch == "x86_64") {
            return Some(format!("the image is for {arch}, and it is {}", f.arch).into());
        }
    }
    if let Some(kind) = property(&r.image, ["img_hv_type", "hypervisor_type"]) {
        let kind = kind.to_ascii_lowercase();
        let has = kind == f.hypervisor.to_ascii_lowercase() || kind == f.accelerator;
        if !has {
            return Some(
                format!(
                    "the image is for {kind}, and it has {} by {}",
                    f.hypervisor, f.accelerator
                )
                .into(),
            );
        }
    }
    if let Some(mode) = property(&r.image, ["hw_vm_mode", "vm_mode"])
        && !matches!(mode, "hvm" | "hv")
    {
        return Some(format!("the image is for the mode {mode}, and it has hvm").into());
    }
    let wanted = property(&r.image, ["img_hv_requested_version", "hypervisor_version_requires"])?;
    let all = words(wanted).all(|one| version(one, f.version));
    (!all).then(|| {
        format!(
            "the image asks for a hypervisor of version {wanted}, and it has {}",
            f.version
        )
        .into()
    })
}

/// `>=8.2` of a version as a number (8002000).
fn version(wanted: &str, have: u64) -> bool {
    let at = wanted.find(|c: char| c.is_ascii_digit()).unwrap_or(wanted.len());
    let (operator, version) = wanted.split_at(at);
    let parts: Vec<u64> = version.trim().split('.').map_while(|p| p.parse().ok()).collect();
    if parts.is_empty() {
        return false;
    }
    let of = |i: usize| parts.get(i).copied().unwrap_or(0);
    let wanted = of(0) * 1_000_000 + of(1) * 1000 + of(2);
    match operator.trim() {
        "" | "=" | "==" => have == wanted,
        "!=" => have != wanted,
        ">=" => have >= wanted,
        ">" => have > wanted,
        "<=" => have <= wanted,
        "<" => have < wanted,
        _ => false,
    }
}

/// `trait:NAME`, also in numbered groups (`trait1:NAME`): all of a host is one provider.
fn trait_of(key: &str) -> Option<&str> {
    let (scope, name) = key.split_once(':')?;
    let number = scope.strip_prefix("trait")?;
    number.chars().all(|c| c.is_ascii_digit() || c == '_').then_some(name)
}

/// Traits that flavor and image speak of, with what they say.
fn asked(r: &Request) -> impl Iterator<Item = (&str, &str)> {
    r.extra_specs
        .iter()
        .chain(&r.image)
        .filter_map(|(k, v)| Some((trait_of(k)?, v.as_str())))
}

fn traits(s: &Seat, r: &Request) -> Option<Why> {
    let has = &s.host.facts.traits;
    asked(r).find_map(|(name, says)| match says {
        "required" if !has.contains(name) => Some(format!("it lacks the trait {name}, which is required").into()),
        "forbidden" if has.contains(name) => Some(format!("it has the trait {name}, which is forbidden").into()),
        _ => None,
    })
}

fn isolated(s: &Seat, r: &Request) -> Option<Why> {
    s.host
        .facts
        .aggregates
        .iter()
        .flatten()
        .filter(|(_, v)| *v == "required")
        .filter_map(|(k, _)| trait_of(k))
        .find(|name| !asked(r).any(|(asked, says)| asked == *name && says == "required"))
        .map(|name| format!("an aggregate keeps it for servers that require the trait {name}").into())
}

fn compatible(s: &Seat, r: &Request) -> Option<Why> {
    r.unfit.get(&s.host.id).map(|why| why.clone().into())
}

fn apart(s: &Seat, r: &Request) -> Option<Why> {
    let g = r.group.as_ref().filter(|g| g.policy == "anti-affinity")?;
    let (here, all) = s.members(g);
    (!g.allows(here, all)).then(|| {
        format!(
            "it has {here} members of the group, and may have {}",
            g.max_per_host.max(1)
        )
        .into()
    })
}

fn together(s: &Seat, r: &Request) -> Option<Why> {
    let g = r.group.as_ref().filter(|g| g.policy == "affinity")?;
    let (here, all) = s.members(g);
    (!g.allows(here, all)).then_some("the members of the group are on another host".into())
}

#[cfg(test)]
mod tests {
    use super::{prefix, trait_of, version};

    #[test]
    fn small_parts() {
        assert!(version(">=8.2", 8_002_001) && !version(">8.2.1", 8_002_001) && version("8.2.1", 8_002_001));
        assert!(version("<9", 8_002_001) && !version("~8", 8_002_001) && !version(">=", 1));
        assert_eq!(trait_of("trait:CUSTOM_A"), Some("CUSTOM_A"));
        assert_eq!(trait_of("trait2:CUSTOM_A"), Some("CUSTOM_A"));
        assert_eq!((trait_of("traits"), trait_of("traitor:A")), (None, None));
        assert!(prefix(0xC0A8_0101, 0xC0A8_01FE, 32, 24) && !prefix(0xC0A8_0101, 0xC0A8_02FE, 32, 24));
        assert!(prefix(1, 2, 128, 0) && prefix(7, 7, 128, 128) && !prefix(7, 6, 32, 32));
    }
}
