//! Publishing and waiting; knows no wire and no disk.

mod facade;
mod subscription;
mod subscriptions;
mod update;
mod waiting_loop;
mod waiter;

pub use facade::{Hub, Terms};
pub use subscription::Subscription;
pub use update::{Piece, Update};
pub use waiting_loop::Shared;
pub use waiter::{Renderer, Until, Waiter, Wanted};
