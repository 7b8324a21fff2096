//! Turns of tests that one process runs in parallel: a test that takes all of a
//! resource, or changes it, excludes the tests that depend on it.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The processors, and the limits and the umask of the test process.
pub static MACHINE: Turn = Turn(RwLock::new(()));
/// The inotify instances that a user may have (inotify(7): `max_user_instances`).
pub static INOTIFY: Turn = Turn(RwLock::new(()));

/// A resource. A test that panics gives it back.
pub struct Turn(RwLock<()>);

impl Turn {
    /// Excludes all other tests of the resource.
    pub fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Excludes a test that wants the resource alone.
    pub fn shared(&self) -> RwLockReadGuard<'_, ()> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}
