//! Who may publish and subscribe.

pub mod access;
pub mod rights;
pub mod token;
