//! The clock. All times in stores and messages are integer microseconds since 1970, UTC.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Microseconds since 1970-01-01T00:00:00Z.
pub type Micros = i64;

/// Added to the real time; set only in a lab, see [`follow`].
static OFFSET: AtomicI64 = AtomicI64::new(0);
/// By what the steady time of others is ahead of what ours would be.
static AHEAD: AtomicI64 = AtomicI64::new(0);

/// Now.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Micros {
    let real = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX));
    real + OFFSET.load(Ordering::Relaxed)
}

/// Time that deadlines are told in: as [`now`] was when this process first asked, and from then on as time has gone by
/// (CLOCK_BOOTTIME), whatever is done to the clock.
pub fn steady() -> Micros {
    static START: OnceLock<Micros> = OnceLock::new();
    let gone = gone_by();
    START.get_or_init(|| now() - gone) + gone + AHEAD.load(Ordering::Relaxed)
}

/// All processes that serve one database tell deadlines by the same clock, that of the database: `theirs`, at this moment.
pub fn steady_as(theirs: Micros) {
    AHEAD.fetch_add(theirs - steady(), Ordering::Relaxed);
}

/// Since this machine was started, with the time that it slept.
fn gone_by() -> Micros {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    t.tv_sec * SECOND + t.tv_nsec / 1000
}

/// In a lab: this process' clock is off by the microseconds that a file says, from when it says so.
pub fn follow(file: PathBuf) {
    let look = move || {
        let off = std::fs::read_to_string(&file).ok().and_then(|t| t.trim().parse().ok());
        if let Some(off) = off {
            OFFSET.store(off, Ordering::Relaxed);
        }
    };
    look();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_millis(20));
            look();
        }
    });
}

/// A length of time for people.
pub fn span(t: Micros) -> String {
    let s = t / SECOND;
    match s {
        0..120 => format!("{s} s"),
        120..7200 => format!("{} min", s / 60),
        7200..172_800 => format!("{} h", s / 3600),
        _ => format!("{} days", s / 86_400),
    }
}

/// One second.
pub const SECOND: Micros = 1_000_000;

/// `2026-11-21T10:00:00Z` (Nova, Glance, Neutron).
pub fn iso(t: Micros) -> String {
    let (y, mo, d, h, mi, s, _) = parts(t);
    format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}Z")
}

/// `2026-11-21T10:00:00.000000Z` (Keystone).
pub fn iso_micros(t: Micros) -> String {
    let (y, mo, d, h, mi, s, us) = parts(t);
    format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}.{us:06}Z")
}

/// `2026-11-21T10:00:00.000000`, without a zone (Nova's `launched_at`, instance actions).
pub fn naive_micros(t: Micros) -> String {
    let mut s = iso_micros(t);
    s.pop();
    s
}

/// `Sat, 21 Nov 2026 10:00:00 GMT` (RFC 9110, 5.6.7: `Last-Modified` and the like).
pub fn http(t: Micros) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (y, mo, d, h, mi, s, _) = parts(t);
    let name = |list: &[&'static str], i: i64| usize::try_from(i).ok().and_then(|i| list.get(i).copied()).unwrap_or("");
    let day = name(&DAYS, t.div_euclid(86_400 * SECOND).rem_euclid(7));
    let month = name(&MONTHS, mo - 1);
    format!("{day}, {d:02} {month} {y:04} {h:02}:{mi:02}:{s:02} GMT")
}

/// Reads ISO 8601: date, optional time with optional fraction, and `Z`, `+hh:mm` or nothing (UTC).
pub fn parse(text: &str) -> Option<Micros> {
    let text = text.trim();
    let (date, rest) = match text.find(['T', ' ']) {
        Some(i) => (text.get(..i)?, text.get(i + 1..)?),
        None => (text, ""),
    };
    let mut d = date.split('-');
    let (y, mo, day): (i64, i64, i64) = (
        d.next()?.parse().ok()?,
        d.next()?.parse().ok()?,
        d.next()?.parse().ok()?,
    );
    if d.next().is_some() || !(1..=12).contains(&mo) || !(1..=31).contains(&day) {
        return None;
    }
    let (time, zone) = match rest.find(['Z', '+', '-']) {
        Some(i) => (rest.get(..i)?, rest.get(i..)?),
        None => (rest, ""),
    };
    let mut us = days(y, mo, day) * 86_400 * SECOND;
    if !time.is_empty() {
        let mut t = time.split(':');
        let (h, mi): (i64, i64) = (t.next()?.parse().ok()?, t.next()?.parse().ok()?);
        let (s, frac) = t.next().unwrap_or("0").split_once('.').map_or_else(
            || {
                (
                    time.rsplit(':')
                        .next()
                        .filter(|_| time.matches(':').count() == 2)
                        .unwrap_or("0"),
                    "",
                )
            },
            |(s, f)| (s, f),
        );
        let s: i64 = s.parse().ok()?;
        if h > 23 || mi > 59 || s > 60 || h < 0 || mi < 0 || s < 0 {
            return None;
        }
        let frac: String = frac.chars().chain("000000".chars()).take(6).collect();
        us += ((h * 60 + mi) * 60 + s) * SECOND + frac.parse::<i64>().ok()?;
    }
    if let Some(sign) = zone.chars().next().filter(|c| *c != 'Z') {
        let z = zone.get(1..)?.replace(':', "");
        if z.len() != 4 {
            return None;
        }
        let off = z.get(..2)?.parse::<i64>().ok()? * 60 + z.get(2..)?.parse::<i64>().ok()?;
        us += if sign == '+' { -off } else { off } * 60 * SECOND;
    }
    Some(us)
}

/// Days since 1970-01-01 of a proleptic Gregorian date.
fn days(y: i64, m: i64, d: i64) -> i64 {
    let y = if m <= 2 { y - 1 } else { y };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let doy = (153 * (if m > 2 { m - 3 } else { m + 9 }) + 2) / 5 + d - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

fn parts(t: Micros) -> (i64, i64, i64, i64, i64, i64, i64) {
    let secs = t.div_euclid(SECOND);
    let z = secs.div_euclid(86_400) + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let m = if mp < 10 { mp + 3 } else { mp - 9 };
    let sod = secs.rem_euclid(86_400);
    (
        yoe + era * 400 + i64::from(m <= 2),
        m,
        doy - (153 * mp + 2) / 5 + 1,
        sod / 3600,
        sod / 60 % 60,
        sod % 60,
        t.rem_euclid(SECOND),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for text in [
            "1970-01-01T00:00:00.000000Z",
            "2024-02-29T23:59:59.000001Z",
            "2026-11-21T09:54:11.500000Z",
        ] {
            assert_eq!(parse(text).map(iso_micros).as_deref(), Some(text));
        }
        assert_eq!(
            parse("2026-11-21T09:54:11+09:00").map(iso).as_deref(),
            Some("2026-11-21T00:54:11Z")
        );
        assert_eq!(
            parse("2026-11-21T09:54:11Z").map(http).as_deref(),
            Some("Sat, 21 Nov 2026 09:54:11 GMT")
        );
        assert_eq!(parse("2026-11-21").map(iso).as_deref(), Some("2026-11-21T00:00:00Z"));
        assert_eq!(
            parse("2026-11-21 09:54").map(iso).as_deref(),
            Some("2026-11-21T09:54:00Z")
        );
        assert_eq!(parse("nonsense"), None);
        assert_eq!(parse("2026-13-01"), None);
    }
}
