//! A store of its own, in a directory with nothing beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use novcomet::config::POLL;
use novcomet::store::{self, Limits, Retention, Store};

use crate::host::shared_memory;

pub const KEEP_ALL: Retention = Retention {
    messages: usize::MAX,
    bytes: u64::MAX,
    age: Duration::MAX,
    max_file_bytes: u64::MAX,
};

/// Removed with all that is in it on drop.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("novcomet-properties-{}-{number}", std::process::id());
        let scratch = Self(shared_memory().join(name));
        fs::create_dir_all(scratch.store()).unwrap();
        scratch
    }

    /// The directory of the event files.
    pub fn store(&self) -> PathBuf {
        self.0.join("around/store")
    }

    pub fn open(&self, retention: Retention) -> Box<dyn Store> {
        store::open::locate(&format!("file://{}", self.store().display()))
            .and_then(|store| store.open(retention, Limits::NONE, POLL))
            .unwrap()
    }

    /// The names in the store; nothing else was made or changed around it.
    pub fn names(&self) -> Vec<String> {
        assert_eq!(names(&self.0), ["around"]);
        assert_eq!(names(&self.0.join("around")), ["store"]);
        names(&self.store())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}
