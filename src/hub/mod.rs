//! Publishing and waiting; knows no wire and no disk.

mod askers;
mod asking;
mod bookmark;
mod census;
mod counting;
mod crowd;
mod elsewhere;
mod facade;
mod following;
mod forwarding;
mod hold;
mod inquiry;
mod joining;
mod look;
mod notice;
mod numbers;
mod rounded;
mod session;
mod sessions;
mod subscription;
mod subscriptions;
mod sweep;
mod update;
mod waiter;
mod waiting_loop;

pub use crate::store::Kept;
pub use census::Subscribers;
pub use facade::{
    About, BATCH_LIMIT, Hub, NewUpdate, Publication, Terms, retry_after_seconds, too_late,
};
pub use following::{Start, Wish};
pub use hold::Holder;
pub use inquiry::{Figures, Listed};
pub use joining::Together;
pub use notice::{Notice, Payload, Presence};
pub use numbers::Waiters;
pub use session::{MAX_PATTERNS, Session, SessionTerms};
pub use sessions::{Attendance, Attended, HeldBack, Sessions};
pub use subscription::Subscription;
pub use update::{Occurrence, Piece, Update};
pub use waiter::{Renderer, Restore, Until, Waiter, Wanted};
pub use waiting_loop::{Ended, Shared};
