//! Access control: publishers, subscribers, tokens.

pub mod access;
mod authorize;
mod credential;
pub mod grant;
pub mod token;

pub use authorize::{Access, allowed_origin, authorize, may_know_store};
