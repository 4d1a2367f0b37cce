//! One-time passwords of time (RFC 6238): six digits of HMAC-SHA1, one every thirty seconds.

use super::ec2::{hmac_sha1, same};
use data_encoding::BASE32_NOPAD;

const PERIOD: i64 = 30;
/// Steps before this one that still count (keystone.conf `[totp] included_previous_windows`).
const BEFORE: i64 = 1;

fn code(secret: &[u8], step: i64) -> String {
    let mac = hmac_sha1(secret, &step.to_be_bytes());
    let at = usize::from(mac.last().copied().unwrap_or(0) & 15);
    let four = mac
        .get(at..at + 4)
        .map_or(0, |b| b.iter().fold(0u32, |n, b| (n << 8) | u32::from(*b)));
    format!("{:06}", (four & 0x7fff_ffff) % 1_000_000)
}

/// The secret of a credential of type `totp`. Clients write base32, with and without its padding.
fn secret(blob: &str) -> Option<Vec<u8>> {
    let text = blob.trim().trim_end_matches('=').to_ascii_uppercase();
    BASE32_NOPAD.decode(text.as_bytes()).ok().filter(|s| !s.is_empty())
}

/// The step whose passcode this is, of those that count at `seconds`.
pub(crate) fn step_of(blob: &str, passcode: &str, seconds: i64) -> Option<i64> {
    let secret = secret(blob)?;
    let now = seconds / PERIOD;
    (now - BEFORE..=now)
        .rev()
        .find(|step| same(&code(&secret, *step), passcode))
}

/// When no passcode of this step counts any longer, seconds.
pub(crate) fn end_of(step: i64) -> i64 {
    (step + BEFORE + 1) * PERIOD
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238, appendix B, of the eight digits there the last six.
    #[test]
    fn the_table_of_the_rfc() {
        let blob = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
        for (seconds, passcode) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
        ] {
            let step = seconds / PERIOD;
            assert_eq!(step_of(blob, passcode, seconds), Some(step));
            assert_eq!(step_of(&blob.to_lowercase(), passcode, seconds + PERIOD), Some(step));
            assert_eq!(step_of(blob, passcode, end_of(step) - 1), Some(step));
            assert_eq!(step_of(blob, passcode, end_of(step)), None);
            assert_eq!(step_of(blob, passcode, seconds - PERIOD), None);
        }
        for nonsense in ["", "1", "not base32!", "===="] {
            assert_eq!(step_of(nonsense, "287082", 59), None);
        }
    }
}
