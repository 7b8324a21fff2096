//! What is spoken: one folder a protocol.

pub mod novcomet;
