//! Access control: publishers, subscribers, tokens.

pub mod access;
mod authorize;
pub mod claims;
mod credential;
pub mod grant;
mod grip;
mod mercure;
mod object;
pub mod token;

pub use authorize::{Access, allowed_origin, authorize, is_from_here, may_know_store};
pub use claims::Generation;
pub use grip::{Seal, proxy_seal};
