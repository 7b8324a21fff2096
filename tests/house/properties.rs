//! Checks the properties of tests/properties/* on the seeds of fuzz/seeds and on thousands of
//! generated cases. The generator uses the same numbers each time.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use arbitrary::{Result, Unstructured};

use crate::properties::{bayeux, config, cursor, log, mercure, query, stream, token, topic};

#[test]
fn query_holds() {
    try_all("query", 100_000, query::holds, query::case);
}

#[test]
fn cursor_holds() {
    try_all("cursor", 50_000, cursor::holds, cursor::case);
}

#[test]
fn topic_holds() {
    try_all("topic", 5_000, topic::holds, topic::case);
}

#[test]
fn log_holds() {
    try_all("log", 1_500, log::holds, log::case);
}

#[test]
fn stream_holds() {
    try_all("stream", 10_000, stream::holds, stream::case);
}

#[test]
fn mercure_holds() {
    try_all("mercure", 50_000, mercure::holds, mercure::case);
}

#[test]
fn bayeux_holds() {
    try_all("bayeux", 3_000, bayeux::holds, bayeux::case);
}

#[test]
fn token_holds() {
    try_all("token", 5_000, token::holds, token::case);
}

#[test]
fn config_holds() {
    try_all("config", 50_000, config::holds, config::case);
}

/// Every seed, `cases` generated inputs, and as many changed seeds.
fn try_all(
    noun: &str,
    cases: u32,
    holds: fn(&[u8]),
    case: fn(&mut Unstructured) -> Result<Vec<u8>>,
) {
    let seeds = seeds(noun);
    for seed in &seeds {
        hold(noun, seed, holds);
    }
    let mut chance = Chance(noun.len() as u64);
    for _ in 0..cases {
        let bytes = chance.bytes(2_048);
        if let Ok(made) = case(&mut Unstructured::new(&bytes)) {
            hold(noun, &made, holds);
        }
        hold(noun, &chance.changed(&seeds), holds);
    }
}

/// Reports the input on which a property failed, so that it can be kept as a seed.
fn hold(noun: &str, input: &[u8], holds: fn(&[u8])) {
    let held = catch_unwind(|| holds(input)).is_ok();
    assert!(held, "{noun} does not hold for b\"{}\"", input.escape_ascii());
}

fn seeds(noun: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(noun);
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().flatten().collect();
    files.sort_by_key(fs::DirEntry::path);
    let seeds: Vec<_> = files.iter().map(|file| fs::read(file.path()).unwrap()).collect();
    assert!(!seeds.is_empty());
    seeds
}

/// `SplitMix64` (Steele, Lea, Flood 2014): the same numbers on every machine.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect()
    }

    /// A seed with a few parts removed, doubled, or inserted from another seed.
    fn changed(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut changed = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(4) {
            let from = self.part(changed.len());
            let other = &seeds[self.below(seeds.len())];
            let put = match self.below(4) {
                0 => Vec::new(),
                1 => changed[from.clone()].repeat(2),
                2 => self.bytes(1 + from.len() % 8),
                _ => other[self.part(other.len())].to_vec(),
            };
            changed.splice(from, put);
        }
        changed
    }

    /// Mostly a short part of so many bytes.
    fn part(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        let most = if self.below(4) == 0 { length } else { 8 };
        start..(start + self.below(most + 1)).min(length)
    }
}
