//! Numbers that are drawn again from the same seed, and messages that are spoiled with them.

/// SplitMix64: small, and the same for ever.
pub struct Dice(u64);

/// What stands in the place of a value.
const VALUES: [&str; 14] = [
    "null",
    "true",
    "-1",
    "0",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "\"\"",
    "\"\\u0000\"",
    "\"00000000-0000-0000-0000-000000000000\"",
    "[]",
    "{}",
];

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0xD1B5_4A32_D192_ED03))
    }

    /// Dice of one part of something that has a seed.
    pub fn of(seed: u64, part: u64) -> Dice {
        Dice(Dice::new(seed).0 ^ part.wrapping_mul(0x8CB9_2BA7_2F3D_8DD7))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from `from` to `to`, without that.
    pub fn range(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from)
    }

    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.range(0, all.len() as u64) as usize]
    }

    /// One of these, as often as its weight says.
    pub fn weighted<'a, T>(&mut self, all: &'a [(u64, T)]) -> &'a T {
        let mut at = self.range(0, all.iter().map(|(w, _)| w).sum());
        for (weight, what) in all {
            match at.checked_sub(*weight) {
                Some(rest) => at = rest,
                None => return what,
            }
        }
        unreachable!("less than the sum")
    }

    /// A piece of something that has so many bytes, and is not empty.
    fn piece(&mut self, len: usize) -> std::ops::Range<usize> {
        let from = self.range(0, len as u64);
        from as usize..self.range(from + 1, (from + 40).min(len as u64) + 1) as usize
    }

    /// Spoils a message in JSON, in one way or in several; one in eight stays as it is.
    pub fn spoil(&mut self, text: &mut Vec<u8>) {
        for _ in 0..self.range(0, 4) {
            if text.is_empty() {
                return;
            }
            let at = self.range(0, text.len() as u64) as usize;
            match self.range(0, 8) {
                0 => return,
                1 => text[at] ^= 1 << self.range(0, 8),
                2 => text.truncate(at),
                3 => drop(text.drain(self.piece(text.len()))),
                4 => {
                    let piece = text[self.piece(text.len())].to_vec();
                    text.splice(at..at, piece);
                }
                5 => {
                    let deep = b"[{\"a\":".repeat(self.range(1, 300) as usize);
                    text.splice(at..at, deep);
                }
                // A whole value for another: what is parsed and is not meant.
                _ => {
                    let from = text[..at].iter().rposition(|b| b":[,".contains(b)).map_or(0, |n| n + 1);
                    let to = text[at..]
                        .iter()
                        .position(|b| b",]}".contains(b))
                        .map_or(text.len(), |n| n + at);
                    let value = self.pick(&VALUES).bytes();
                    text.splice(from..to, value);
                }
            }
        }
    }
}
