//! Publishing and waiting; knows no wire and no disk.

mod facade;
mod subscription;
mod subscriptions;
mod update;
mod waiter;
mod waiting_loop;

pub use facade::{Hub, Terms};
pub use subscription::Subscription;
pub use update::{Piece, Update};
pub use waiter::{Renderer, Until, Waiter, Wanted};
pub use waiting_loop::Shared;
