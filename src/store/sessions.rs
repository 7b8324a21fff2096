//! The contract of a store that keeps sessions: one log for each, which only grows.

use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::error::Error;
use crate::event::Cursor;
use crate::event::session::SessionId;

/// How many sessions a store keeps, and how long without a new entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// In all.
    pub sessions: usize,
    /// Of one address.
    pub of_address: usize,
    /// A session without a new entry is kept for this time.
    pub kept: Duration,
}

/// The logs of sessions. Several processes may append to one at the same time.
pub trait Sessions {
    /// Begins a log. Returns `false` if there are as many as there may be.
    ///
    /// # Errors
    /// 503 if the store cannot be used, 507 if it is full.
    fn begin(&self, id: &SessionId, entry: &str, most: &Allowance) -> Result<bool, Error>;

    /// Reads the entries of a log, one a line; `None` if there is none. A line that a writer could
    /// not finish is among them.
    ///
    /// # Errors
    /// 503 if the store cannot be used.
    fn read(&self, id: &SessionId) -> Result<Option<String>, Error>;

    /// Appends an entry and wakes those that watch the session's topic. Returns the place
    /// after it in that topic; `None` if there is no such log.
    ///
    /// # Errors
    /// 413 for a log that is too long, 503 if the store cannot be used, 507 if it is full.
    fn append(&self, id: &SessionId, entry: &str, kept: Duration) -> Result<Option<Cursor>, Error>;

    /// Replaces a log by a shorter one. One that is not as it was read stays: its length alone
    /// would not tell, for others may have shortened it and appended as much.
    ///
    /// # Errors
    /// 503 if the store cannot be used, 507 if it is full.
    fn shorten(
        &self,
        id: &SessionId,
        read: &str,
        entries: &str,
        kept: Duration,
    ) -> Result<(), Error>;

    /// Ends a session.
    ///
    /// # Errors
    /// 503 if the store cannot be used.
    fn end(&self, id: &SessionId) -> Result<(), Error>;

    /// What a process that may not write needs to [`note`](Self::note) an entry, if anything.
    ///
    /// # Errors
    /// 503 if the store cannot be used.
    fn open(&self, id: &SessionId) -> Result<Option<OwnedFd>, Error> {
        let _ = id;
        Ok(None)
    }

    /// Appends an entry without a wake-up.
    ///
    /// # Errors
    /// 503 if the store cannot be used, 507 if it is full.
    fn note(
        &self,
        id: &SessionId,
        opened: Option<&OwnedFd>,
        entry: &str,
        kept: Duration,
    ) -> Result<(), Error>;
}
