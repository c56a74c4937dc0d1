// SPDX-License-Identifier: Apache-2.0
//! Seeds and repeatable random numbers.

/// Repeatable pseudo-random numbers (xorshift64*).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % bound
    }
}

/// As many seeds, from the clock, unless `LIMESTONE_TEST_SEED` names one.
pub fn seeds(count: u64) -> Vec<u64> {
    if let Some(seed) = std::env::var("LIMESTONE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return vec![seed];
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_micros());
    (0..count).map(|n| now as u64 + n).collect()
}
