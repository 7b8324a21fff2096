//! The process: its streams, its clock, its limits.

pub mod clock;
pub mod input;
pub mod output;
pub mod random;
pub mod sandbox;
pub mod slots;
pub mod streams;
pub mod sys;
