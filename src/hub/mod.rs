//! Publishing and waiting; knows no wire and no disk.

mod publish;
mod subscription;
mod update;
mod view;
mod wait;

pub use publish::publish;
pub use subscription::{Patience, Subscription, Terms};
pub use update::{News, Outcome, Part};
pub use wait::{Alarm, stream, wait};
