//! Properties that hold for every input. Each is a function of bytes that panics if the
//! property is violated, with cases that resemble real inputs. tests/house/properties.rs runs
//! thousands of them, and fuzz/ passes them to libFuzzer.

pub mod bayeux;
pub mod config;
pub mod cursor;
pub mod log;
pub mod mercure;
pub mod object;
pub mod query;
pub mod scratch;
pub mod stream;
pub mod token;
pub mod topic;

use arbitrary::{Result, Unstructured};

/// Some of `pieces`, at most `most`, one after the other.
fn joined(u: &mut Unstructured, pieces: &[&str], most: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for _ in 0..u.int_in_range(0..=most)? {
        bytes.extend_from_slice(u.choose(pieces)?.as_bytes());
    }
    Ok(bytes)
}
