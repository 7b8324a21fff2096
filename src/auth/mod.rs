//! Access control: publishers, subscribers, tokens.

pub mod access;
mod authorize;
pub mod grant;
pub mod token;

pub use authorize::{Access, allowed_origin, authorize};
