//! The code that the tests share.

// Each test binary uses its own part.
#![allow(dead_code, unused_imports, unused_macros)]

pub mod authority;
pub mod binary;
pub mod control;
pub mod dir;
pub mod exposition;
pub mod host;
pub mod process;
pub mod pushpin;
pub mod server;
pub mod store;
pub mod tokens;
pub mod turn;
pub mod wait;

/// The project's directory.
pub const SOURCE: &str = env!("CARGO_MANIFEST_DIR");
