//! Where the client of a session stands, noted by the process in which its request waits.

use std::os::fd::OwnedFd;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::following::Told;
use super::session::Entry;
use crate::error::Error;
use crate::event::Cursor;
use crate::event::position::Position;
use crate::event::session::SessionId;
use crate::store::Store;

/// Notes in the log of a session what its client was told. A process that may not write to the
/// store can do that too.
pub struct Bookmark {
    mark: Mark,
    /// What the store needs for it, if anything.
    opened: Option<OwnedFd>,
}

/// A bookmark on its way to another process, without its descriptor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Mark {
    id: SessionId,
    /// Which request of the session this is.
    tag: u32,
    /// How long the session lasts after the answer.
    lasts: Duration,
    /// How long the store keeps it.
    kept: Duration,
    /// Whether a descriptor belongs to it.
    pub has_descriptor: bool,
}

impl Bookmark {
    /// The bookmark of the request with this tag, in a session that the store keeps for `kept`.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn open(
        store: &dyn Store,
        id: SessionId,
        tag: u32,
        kept: Duration,
    ) -> Result<Self, Error> {
        let opened = store.sessions()?.open(&id)?;
        let has_descriptor = opened.is_some();
        let mark = Mark { id, tag, lasts: Duration::ZERO, kept, has_descriptor };
        Ok(Self { mark, opened })
    }

    /// Itself, in a session that lasts for `lasts` after the answer.
    pub(super) fn lasting(mut self, lasts: Duration) -> Self {
        self.mark.lasts = lasts;
        self
    }

    /// The same in another process.
    pub(super) fn new(mark: Mark, opened: Option<OwnedFd>) -> Self {
        Self { mark, opened }
    }

    pub(super) fn mark(&self) -> &Mark {
        &self.mark
    }

    pub(super) fn descriptor(&self) -> Option<&OwnedFd> {
        self.opened.as_ref()
    }

    /// Notes that the client is told everything up to a position, and what of it may be found
    /// again.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn note(&self, store: &dyn Store, to: Position, again: Told) -> Result<(), Error> {
        let Mark { id, tag, lasts, kept, .. } = &self.mark;
        let entry = Entry::Told { tag: *tag, to, again, until: Cursor::now().after(*lasts) };
        store.sessions()?.note(id, self.opened.as_ref(), &entry.text(), *kept)
    }
}
