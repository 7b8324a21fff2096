//! Pseudo-random numbers, so that processes do not act in step, and secrets.

use std::process;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::rand::{GetRandomFlags, getrandom};

use crate::error::Error;

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
        u32::try_from(mix(self.0) % u64::from(count)).unwrap_or(0)
    }
}

/// An identifier that nobody else makes (RFC 9562 §5.8): of the time, the process, and a
/// pseudo-random number.
#[must_use]
pub fn uuid() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanoseconds = now.as_secs().wrapping_mul(1_000_000_000) + u64::from(now.subsec_nanos());
    let number = u64::from(process::id()) << 32 | u64::from(Random::new().below(u32::MAX));
    let (high, low) = (mix(nanoseconds), mix(number ^ nanoseconds.rotate_left(32)));
    let version = 0x8000 | high & 0xfff;
    let variant = 0x8000 | low >> 48 & 0x3fff;
    format!(
        "{:08x}-{:04x}-{version:04x}-{variant:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        low & 0xffff_ffff_ffff
    )
}

/// Spreads a number over all bits; different numbers stay different (`SplitMix64`).
fn mix(number: u64) -> u64 {
    let mixed = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// Random bytes that nobody can guess (getrandom(2)).
///
/// # Errors
/// 503 if the kernel gives none.
pub fn secret<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    // The kernel gives up to 256 bytes at once.
    match getrandom(&mut bytes, GetRandomFlags::empty()) {
        Ok(count) if count == N => Ok(bytes),
        _ => Err(Error::unavailable(
            "no secret can be made",
            "the kernel gives no random bytes",
            "allow the server getrandom(2)",
        )),
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
    fn identifiers_differ() {
        let mut all: Vec<_> = (0..1_000).map(|_| uuid()).collect();
        let is_whole = |id: &String| id.len() == 36 && id[14..].starts_with('8');
        assert!(all.iter().all(is_whole), "{}", all[0]);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 1_000);
    }

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
