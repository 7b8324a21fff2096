//! Publishing and waiting; knows no wire and no disk.

mod facade;
mod subscription;
mod subscriptions;
mod update;
mod wait;
mod waiter;

pub use facade::{Hub, Terms};
pub use subscription::Subscription;
pub use update::{Piece, Update};
pub use wait::Shared;
pub use waiter::{Renderer, Until, Waiter, Wanted};
