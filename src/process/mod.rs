//! The process: its streams, its clock, its limits.

pub mod clock;
pub mod connections;
pub mod figures;
pub mod identity;
pub mod input;
pub mod output;
pub mod peer;
pub mod private_file;
pub mod random;
pub mod sandbox;
pub mod slots;
pub mod streams;
pub mod sys;
