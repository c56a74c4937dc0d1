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

/// The first of the seeds that are the same in every run.
const FIRST_SEED: u64 = 1_000;

/// As many seeds, the same in every run, so that a run judges the code and not its luck. `LIMESTONE_TEST_SEED` names a
/// single one, or says `clock` to look for more.
pub fn seeds(count: u64) -> Vec<u64> {
    let first = match std::env::var("LIMESTONE_TEST_SEED").as_deref() {
        Err(_) => FIRST_SEED,
        Ok("clock") => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(FIRST_SEED, |since| since.as_micros() as u64)
        }
        Ok(seed) => return vec![seed.parse().expect("LIMESTONE_TEST_SEED is a number or \"clock\"")],
    };
    (0..count).map(|n| first + n).collect()
}
