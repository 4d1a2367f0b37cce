//! Addresses: which one is next (pure), and taking it (guarded by the table's primary key).
//!
//! A subnet has a cursor: a number that goes up with every address given out, so that an address that was
//! freed is not given to the next port at once. In the usual case that is one statement for the cursor and
//! one for the address, however many ports there are. Only where the next place is taken are neighbours
//! read, a window at a time.

use crate::model::{Pool, Subnet};
use haneul_core::{Error, Kind, Result};
use haneul_store::Tx;
use ipnet::IpNet;
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses read at a time when looking for a gap.
const WINDOW: usize = 512;

/// An address as a number.
pub(crate) fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(a) => u32::from(a).into(),
        IpAddr::V6(a) => a.into(),
    }
}

/// The number as an address of the same family as `like`.
pub(crate) fn address(n: u128, v6: bool) -> IpAddr {
    if v6 {
        IpAddr::V6(Ipv6Addr::from(n))
    } else {
        IpAddr::V4(Ipv4Addr::from(u32::try_from(n).unwrap_or(u32::MAX)))
    }
}

/// Key of the allocation table.
pub(crate) fn key(ip: IpAddr) -> String {
    format!("{:032x}", number(ip))
}

/// The address that a guest gives itself: prefix and the EUI-64 form of its MAC (RFC 4291, appendix A).
pub(crate) fn eui64(cidr: &IpNet, mac: &str) -> Option<IpAddr> {
    let IpNet::V6(net) = cidr else { return None };
    let bytes: Vec<u8> = mac.split(':').filter_map(|p| u8::from_str_radix(p, 16).ok()).collect();
    let [a, b, c, d, e, f] = <[u8; 6]>::try_from(bytes).ok()?;
    let low = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    let high = u128::from(net.trunc().addr()) & !u128::from(u64::MAX);
    Some(IpAddr::V6(Ipv6Addr::from(high | u128::from(low))))
}

/// How many addresses the pools hold.
pub(crate) fn size(pools: &[Pool]) -> u128 {
    pools
        .iter()
        .map(|p| number(p.end).saturating_sub(number(p.start)).saturating_add(1))
        .fold(0, u128::saturating_add)
}

/// The `position`th address of the pools, counted around.
pub(crate) fn at(pools: &[Pool], position: u128) -> Option<u128> {
    let total = size(pools);
    if total == 0 {
        return None;
    }
    let mut left = position % total;
    for p in pools {
        let (start, end) = (number(p.start), number(p.end));
        let n = end - start + 1;
        if left < n {
            return Some(start + left);
        }
        left -= n;
    }
    None
}

/// What a window of taken addresses says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Gap {
    Free(u128),
    /// Nothing is free up to here; look again from this address.
    From(u128),
    Full,
}

/// The first free address from `first` to `last`. `taken` are the lowest taken ones of that range in order,
/// at most `limit` of them.
pub(crate) fn first_gap(first: u128, last: u128, taken: &[u128], limit: usize) -> Gap {
    let mut next = first;
    for t in taken {
        if *t > next {
            return Gap::Free(next);
        }
        match t.checked_add(1) {
            Some(n) if n <= last => next = n,
            _ => return Gap::Full,
        }
    }
    if taken.len() < limit {
        Gap::Free(next)
    } else {
        Gap::From(next)
    }
}

/// The ranges to search from `start` on, once around.
pub(crate) fn ranges(pools: &[Pool], start: u128) -> Vec<(u128, u128)> {
    let mut before = Vec::new();
    let mut after = Vec::new();
    let mut seen = false;
    for p in pools {
        let (a, b) = (number(p.start), number(p.end));
        if !seen && (a..=b).contains(&start) {
            seen = true;
            after.push((start, b));
            if start > a {
                before.push((a, start - 1));
            }
        } else if seen {
            after.push((a, b));
        } else {
            before.push((a, b));
        }
    }
    after.extend(before);
    after
}

/// Takes one address for a port. False: somebody has it.
pub(crate) async fn claim(tx: &mut Tx, subnet: &Subnet, ip: IpAddr, port_id: &str) -> Result<bool> {
    Ok(tx
        .row(
            "INSERT INTO ip_allocation(subnet_id, num, ip, network_id, port_id) VALUES($1,$2,$3,$4,$5)
             ON CONFLICT DO NOTHING RETURNING num",
            &[
                (&subnet.id).into(),
                key(ip).into(),
                ip.to_string().into(),
                (&subnet.network_id).into(),
                port_id.into(),
            ],
        )
        .await?
        .is_some())
}

/// Gives an address back.
pub(crate) async fn release(tx: &mut Tx, subnet_id: &str, ip: IpAddr) -> Result<()> {
    tx.exec(
        "DELETE FROM ip_allocation WHERE subnet_id = $1 AND num = $2",
        &[subnet_id.into(), key(ip).into()],
    )
    .await?;
    Ok(())
}

/// Gives back all addresses of a port.
pub(crate) async fn release_all(tx: &mut Tx, port_id: &str) -> Result<()> {
    tx.exec("DELETE FROM ip_allocation WHERE port_id = $1", &[port_id.into()])
        .await?;
    Ok(())
}

/// Takes the next free address of the pools; `None` when they are used up.
pub(crate) async fn next(tx: &mut Tx, subnet: &Subnet, port_id: &str) -> Result<Option<IpAddr>> {
    let pools = &subnet.allocation_pools;
    let v6 = subnet.is_v6();
    let position = tx
        .row(
            "INSERT INTO ip_cursor(subnet_id, position) VALUES($1, 1)
             ON CONFLICT(subnet_id) DO UPDATE SET position = ip_cursor.position + 1 RETURNING position",
            &[(&subnet.id).into()],
        )
        .await?
        .ok_or_else(|| Error::internal("the cursor gave no row"))?
        .i64(0)?;
    let Some(start) = at(pools, u128::try_from(position - 1).unwrap_or(0)) else {
        return Ok(None);
    };
    let ip = address(start, v6);
    if claim(tx, subnet, ip, port_id).await? {
        return Ok(Some(ip));
    }
    if used(tx, subnet).await? >= size(pools) {
        return Ok(None);
    }
    for (mut first, last) in ranges(pools, start) {
        loop {
            let taken = taken(tx, subnet, first, last).await?;
            match first_gap(first, last, &taken, WINDOW) {
                Gap::Free(n) => {
                    let ip = address(n, v6);
                    if !claim(tx, subnet, ip, port_id).await? {
                        return Err(
                            Error::unavailable("The address was taken at the same time. Repeat the request.")
                                .retryable(),
                        );
                    }
                    seek(tx, subnet, n).await?;
                    return Ok(Some(ip));
                }
                Gap::From(n) => first = n,
                Gap::Full => break,
            }
        }
    }
    Ok(None)
}

/// Puts the cursor behind an address that was found by looking.
async fn seek(tx: &mut Tx, subnet: &Subnet, n: u128) -> Result<()> {
    let mut before = 0u128;
    for p in &subnet.allocation_pools {
        let (a, b) = (number(p.start), number(p.end));
        if (a..=b).contains(&n) {
            let position = i64::try_from(before + (n - a) + 1).unwrap_or(i64::MAX / 2);
            tx.exec(
                "UPDATE ip_cursor SET position = $2 WHERE subnet_id = $1",
                &[(&subnet.id).into(), position.into()],
            )
            .await?;
            return Ok(());
        }
        before += b - a + 1;
    }
    Ok(())
}

async fn taken(tx: &mut Tx, subnet: &Subnet, first: u128, last: u128) -> Result<Vec<u128>> {
    tx.rows(
        &format!(
            "SELECT num FROM ip_allocation WHERE subnet_id = $1 AND num >= $2 AND num <= $3 ORDER BY num LIMIT {WINDOW}"
        ),
        &[
            (&subnet.id).into(),
            format!("{first:032x}").into(),
            format!("{last:032x}").into(),
        ],
    )
    .await?
    .iter()
    .map(|r| u128::from_str_radix(&r.str(0)?, 16).map_err(Error::internal))
    .collect()
}

/// How many addresses of the pools are taken.
pub(crate) async fn used(tx: &mut Tx, subnet: &Subnet) -> Result<u128> {
    let mut n = 0u128;
    for p in &subnet.allocation_pools {
        let row = tx
            .row(
                "SELECT COUNT(*) FROM ip_allocation WHERE subnet_id = $1 AND num >= $2 AND num <= $3",
                &[(&subnet.id).into(), key(p.start).into(), key(p.end).into()],
            )
            .await?
            .ok_or_else(|| Error::internal("count gave no row"))?;
        n += u128::try_from(row.i64(0)?).unwrap_or(0);
    }
    Ok(n)
}

/// The refusal when no pool has an address left, with the numbers.
pub(crate) async fn exhausted(tx: &mut Tx, network_id: &str, subnets: &[&Subnet]) -> Result<Error> {
    let mut parts = Vec::new();
    let mut numbers = Vec::new();
    for s in subnets {
        let (size, used) = (size(&s.allocation_pools), used(tx, s).await?);
        parts.push(format!(
            "subnet {} ({}) has {size} addresses in its pools and {used} are used",
            s.id, s.cidr
        ));
        numbers.push(
            json!({"subnet_id": s.id, "cidr": s.cidr.to_string(), "size": size.to_string(), "used": used.to_string()}),
        );
    }
    Ok(Error::new(
        Kind::Conflict,
        format!(
            "No more IP addresses available on network {network_id}: {}. Delete a port that is not needed, enlarge allocation_pools, or add a subnet.",
            parts.join("; ")
        ),
    )
    .with_code("IpAddressGenerationFailure")
    .with_field("fixed_ips")
    .with_details(json!({"subnets": numbers})))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn pool(a: u32, b: u32) -> Pool {
        Pool {
            start: IpAddr::V4(a.into()),
            end: IpAddr::V4(b.into()),
        }
    }

    /// What [`next`] does, without a database.
    fn give(pools: &[Pool], cursor: &mut u128, taken: &mut BTreeSet<u128>, window: usize) -> Option<u128> {
        *cursor += 1;
        let start = at(pools, *cursor - 1)?;
        if taken.insert(start) {
            return Some(start);
        }
        for (mut first, last) in ranges(pools, start) {
            loop {
                let seen: Vec<u128> = taken.range(first..=last).take(window).copied().collect();
                match first_gap(first, last, &seen, window) {
                    Gap::Free(n) => {
                        assert!(taken.insert(n), "given twice");
                        return Some(n);
                    }
                    Gap::From(n) => first = n,
                    Gap::Full => break,
                }
            }
        }
        None
    }

    proptest! {
        /// Never twice, every address is reached, nothing outside the pools, and freed ones come back.
        #[test]
        fn every_address_once(sizes in prop::collection::vec((1u32..40, 1u32..10), 1..4), window in 1usize..8, free in prop::collection::vec(any::<u16>(), 0..60)) {
            let mut pools = Vec::new();
            let mut base = 1000;
            for (len, gap) in sizes {
                pools.push(pool(base, base + len - 1));
                base += len + gap;
            }
            let all: BTreeSet<u128> = pools.iter().flat_map(|p| number(p.start)..=number(p.end)).collect();
            let (mut cursor, mut taken) = (0, BTreeSet::new());
            for f in free {
                let n = give(&pools, &mut cursor, &mut taken, window);
                prop_assert!(n.is_none_or(|n| all.contains(&n)));
                if f % 3 == 0 {
                    let victim = taken.iter().nth(usize::from(f) % taken.len().max(1)).copied();
                    if let Some(v) = victim { taken.remove(&v); }
                }
            }
            while taken.len() < all.len() {
                let n = give(&pools, &mut cursor, &mut taken, window);
                prop_assert!(n.is_some(), "{} of {} given, and then none", taken.len(), all.len());
            }
            prop_assert_eq!(&taken, &all);
            prop_assert_eq!(give(&pools, &mut cursor, &mut taken, window), None);
        }
    }

    #[test]
    fn eui() {
        let cidr: IpNet = "2001:db8::/64".parse().unwrap();
        assert_eq!(
            eui64(&cidr, "fa:16:3e:00:00:01").unwrap().to_string(),
            "2001:db8::f816:3eff:fe00:1"
        );
    }

    #[test]
    fn freed_addresses_wait() {
        let pools = [pool(10, 19)];
        let (mut cursor, mut taken) = (0, BTreeSet::new());
        assert_eq!(give(&pools, &mut cursor, &mut taken, 4), Some(10));
        taken.remove(&10);
        assert_eq!(give(&pools, &mut cursor, &mut taken, 4), Some(11));
    }
}
