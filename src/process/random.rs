//! Pseudo-random numbers, so that processes do not act in step.

use std::process;
use std::time::{SystemTime, UNIX_EPOCH};

/// A pseudo-random generator with a seed for each process, not for secrets. It avoids
/// getrandom(2), which a sandbox may deny.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Takes the time and the process id as the seed.
    #[must_use]
    pub fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::from(now.subsec_nanos()) ^ now.as_secs() ^ u64::from(process::id()) << 32)
    }

    /// A number below `count`, which must not be 0 (`SplitMix64`).
    pub fn below(&mut self, count: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((mixed ^ mixed >> 31) % u64::from(count)).unwrap_or(0)
    }
}

impl Default for Random {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_evenly_distributed() {
        let mut random = Random::new();
        let mut drawn = [0; 10];
        for _ in 0..10_000 {
            drawn[usize::try_from(random.below(10)).unwrap()] += 1;
        }
        assert!(drawn.iter().all(|times| (700..1300).contains(times)), "{drawn:?}");
    }
}
