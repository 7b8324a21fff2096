//! Proxies that hold requests and are told of events, by GRIP (Generic Realtime Intermediary
//! Protocol): Pushpin, and services that work like it.

mod channel;
mod proxies;

pub use channel::{Channel, last_ids};
pub use proxies::{LIMIT, Proxies};
