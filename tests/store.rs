//! What every store promises, whatever it keeps events in.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::thread;

use novcomet::event::{Cursor, Topic};
use novcomet::store::{self, Store};

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = PathBuf::from(format!("/dev/shm/novcomet-store-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn open(&self) -> Box<dyn Store> {
        store::open(&format!("file://{}", self.0.display())).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

#[test]
fn a_topic_stands_at_its_last_event() {
    let scratch = Scratch::new("stands");
    let store = scratch.open();
    assert_eq!(store.read(&topic("a")).unwrap().standing, Cursor::SMALLEST);
    let mut last = Cursor::SMALLEST;
    for _ in 0..100 {
        let cursor = store.publish(&topic("a")).unwrap();
        assert!(cursor > last);
        let reading = store.read(&topic("a")).unwrap();
        assert_eq!((reading.standing, reading.settled), (cursor, true));
        last = cursor;
    }
}

#[test]
fn no_two_of_4_000_concurrent_events_are_the_same_moment() {
    let scratch = Scratch::new("moments");
    let publish = || {
        let store = scratch.open();
        (0..1000).map(|_| store.publish(&topic("a")).unwrap()).collect::<Vec<_>>()
    };
    let cursors: Vec<Cursor> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(publish)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(cursors.len(), 4000);
    assert_eq!(cursors.iter().collect::<HashSet<_>>().len(), 4000);
    assert!(cursors.chunks(1000).all(<[Cursor]>::is_sorted));
}

#[test]
fn topics_do_not_know_each_other() {
    let scratch = Scratch::new("topics");
    let store = scratch.open();
    for name in ["a", "a/b", "a%2Fb", "..", "é", "__proto__", "a][b", " ", "A"] {
        assert_eq!(store.read(&topic(name)).unwrap().standing, Cursor::SMALLEST, "{name}");
        store.publish(&topic(name)).unwrap();
    }
}

#[test]
fn reading_and_watching_write_nothing() {
    let scratch = Scratch::new("reading");
    let store = scratch.open();
    store.read(&topic("a")).unwrap();
    store.watch(&[topic("a")]).unwrap().arm();
    assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 0);
}

#[test]
fn a_url_that_names_no_store_is_refused() {
    for url in
        ["", "/dev/shm", "bogus://x", "file://host/dir", "http://localhost/", "file:///nowhere"]
    {
        assert_eq!(store::open(url).err().map(|error| error.status()), Some(503), "{url}");
    }
}
