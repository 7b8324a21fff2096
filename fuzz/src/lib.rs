//! The properties of ../tests/properties, for libFuzzer.

#[path = "../../tests/properties/mod.rs"]
pub mod properties;

/// What the properties need of the tests' support.
#[path = "../../tests/support"]
mod support {
    #![allow(dead_code)]

    pub mod dir;
    pub mod host;
}

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzzer_mutate;

/// Hands a property of this name to libFuzzer.
#[macro_export]
macro_rules! target {
    ($noun:ident) => {
        use libfuzzer_sys::{fuzz_mutator, fuzz_target};
        use novcomet_fuzz::{mutated, properties::$noun};

        fuzz_target!(|input: &[u8]| $noun::holds(input));
        fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
            mutated($noun::case, data, size, max_size, seed)
        });
    };
}

/// Mostly what libFuzzer makes of it; now and then a case with a structure,
/// made of the same bytes.
pub fn mutated(
    case: fn(&mut Unstructured) -> Result<Vec<u8>>,
    data: &mut [u8],
    size: usize,
    max_size: usize,
    seed: u32,
) -> usize {
    let size = fuzzer_mutate(data, size, max_size);
    if seed % 8 != 0 {
        return size;
    }
    match case(&mut Unstructured::new(&data[..size])) {
        Ok(made) if (1..=max_size).contains(&made.len()) => {
            data[..made.len()].copy_from_slice(&made);
            made.len()
        }
        _ => size,
    }
}
