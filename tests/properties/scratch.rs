//! A store in a directory without other files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use novcomet::config::POLL;
use novcomet::store::{self, Limits, Retention, Store};

use crate::support::dir::TempDir;

pub const KEEP_ALL: Retention = Retention {
    messages: usize::MAX,
    bytes: u64::MAX,
    age: Duration::MAX,
    max_file_bytes: u64::MAX,
};

pub struct Scratch(TempDir);

impl Scratch {
    pub fn new() -> Self {
        let scratch = Self(TempDir::in_memory());
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

    /// The names in the store. No other file was created or changed around it.
    pub fn names(&self) -> Vec<String> {
        assert_eq!(names(&self.0), ["around"]);
        assert_eq!(names(&self.0.join("around")), ["store"]);
        names(&self.store())
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}
