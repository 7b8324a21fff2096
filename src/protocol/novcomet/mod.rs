//! The wire of 2011 and after. docs/protocol.md has every byte of it.

mod answer;
mod parse;
mod state;
pub mod stream;

pub use answer::{answer, head, options, refusal};
pub use parse::{Command, MAX_TOPICS, parse};
pub use state::{ANSWER, size};
