//! Access control: publishers, subscribers, tokens.

pub mod access;
mod authorize;
mod credential;
pub mod grant;
mod mercure;
pub mod token;

pub use mercure::Generation;

pub use authorize::{Access, allowed_origin, authorize, may_know_store};
