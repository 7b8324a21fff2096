//! The promises of the file store only. Other programs may change its log.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use novcomet::config::POLL;
use novcomet::event::{Cursor, Message, Since};
use novcomet::store::{self, Limits, Reading, Retention, Store};

use super::store::{WHOLE, publish, read, topic};
use crate::support::dir::TempDir;

const KEEP_ALL: Retention = Retention {
    messages: 10_000,
    bytes: 1 << 30,
    age: Duration::from_secs(86_400),
    max_file_bytes: 1 << 31,
};
struct Scratch(TempDir);

impl Scratch {
    fn new() -> Self {
        Self(TempDir::in_memory())
    }

    fn open(&self) -> Box<dyn Store> {
        self.keeping(KEEP_ALL)
    }

    fn keeping(&self, retention: Retention) -> Box<dyn Store> {
        store::open::locate(&format!("file://{}", self.0.display()))
            .and_then(|store| store.open(retention, Limits::NONE, POLL))
            .unwrap()
    }

    /// The file of a topic.
    fn file(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.comet"))
    }
}

fn texts(reading: &Reading) -> Vec<&str> {
    reading.messages.iter().map(|message| message.data.as_str()).collect()
}

#[test]
fn cursor_of_a_deleted_topic_is_gap() {
    let again = [
        |path: &PathBuf| fs::remove_file(path).unwrap(),
        |path: &PathBuf| {
            let aside = path.with_extension("new");
            File::create(&aside).unwrap();
            fs::rename(aside, path).unwrap();
        },
    ];
    for make_anew in again {
        let scratch = Scratch::new();
        let store = scratch.open();
        let ids = [publish(store.as_ref(), "one"), publish(store.as_ref(), "two")];
        // The kernel takes the creation time of a file from its last tick.
        thread::sleep(Duration::from_millis(11));
        make_anew(&scratch.file("a"));
        publish(store.as_ref(), "three");
        for id in ids {
            let reading = read(store.as_ref(), Since::Cursor(id));
            assert_eq!((texts(&reading), reading.gap), (vec!["three"], true));
        }
        let reading = read(store.as_ref(), Since::Cursor(Cursor::SMALLEST));
        assert_eq!((texts(&reading), reading.gap), (vec!["three"], false));
    }
}

#[test]
fn restored_topic_is_a_gap() {
    for anew in [false, true] {
        let scratch = Scratch::new();
        let store = scratch.open();
        let one = publish(store.as_ref(), "one");
        let backup = scratch.0.join("backup");
        let copy = |from: &PathBuf, to: &PathBuf| {
            let copied = std::process::Command::new("cp").args(["-p"]).args([from, to]).status();
            assert!(copied.unwrap().success());
        };
        copy(&scratch.file("a"), &backup);
        let two = publish(store.as_ref(), "two");
        fs::remove_file(scratch.file("a")).unwrap();
        copy(&backup, &scratch.file("a"));
        let all = if anew { vec!["one", "three"] } else { vec!["one"] };
        if anew {
            publish(store.as_ref(), "three");
        }
        let reading = read(store.as_ref(), Since::Cursor(two));
        assert_eq!((texts(&reading), reading.gap), (all, true));
        assert!(read(store.as_ref(), Since::Cursor(one)).gap == anew, "{anew}");
    }
}

/// The answer with the gap has all stored messages, and the gap is over. If a subscriber were
/// told of the same gap again and again, it would never wait.
#[test]
fn gap_is_reported_once() {
    for limit in [0, 100, WHOLE] {
        let scratch = Scratch::new();
        let store = scratch.open();
        let ids = ["one", "two", "three"].map(|data| publish(store.as_ref(), data));
        // The file is like a copy without its times: another inode, created now.
        let log = fs::read(scratch.file("a")).unwrap();
        fs::remove_file(scratch.file("a")).unwrap();
        fs::write(scratch.file("a"), log).unwrap();
        let mut reading = store.read(&topic("a"), Since::Cursor(ids[0]), limit).unwrap();
        let mut found = Vec::new();
        assert!(reading.gap);
        while !reading.messages.is_empty() {
            found.extend(reading.messages.into_iter().map(|message| message.data));
            reading = store.read(&topic("a"), Since::Cursor(reading.standing), limit).unwrap();
            assert!(!reading.gap, "again");
        }
        assert_eq!(found, ["one", "two", "three"], "{limit}");
    }
}

/// The bytes that this thread has read.
fn bytes_read() -> u64 {
    let io = fs::read_to_string("/proc/thread-self/io").unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.unwrap().parse().unwrap()
}

#[test]
fn latest_reads_only_the_end_of_the_log() {
    let scratch = Scratch::new();
    let store = scratch.open();
    for number in 0..1_000 {
        publish(store.as_ref(), &format!("{number:0200}"));
    }
    let cost = |since, messages| {
        let before = bytes_read();
        assert_eq!(read(store.as_ref(), since).messages.len(), messages);
        bytes_read() - before
    };
    assert!(cost(Since::Earliest, 1_000) > 200_000);
    let cost = cost(Since::Latest, 1);
    assert!(cost < 10_000, "{cost} bytes");
}

/// Lines out of order, by a shell or by two merged logs, hide no other line.
#[test]
fn line_out_of_order_is_skipped() {
    let scratch = Scratch::new();
    let store = scratch.keeping(Retention { age: Duration::MAX, ..KEEP_ALL });
    let line = |id: &str| format!("{{\"id\":{id},\"data\":\"{id}\"}}\n");
    let lines = ["1.5", "9999999999.5", "2.5", "2.5", "3.5"].map(line).concat();
    fs::write(scratch.file("a"), lines).unwrap();
    let id = publish(store.as_ref(), "now");
    let reading = read(store.as_ref(), Since::Earliest);
    assert_eq!((texts(&reading), reading.standing), (vec!["1.5", "2.5", "3.5", "now"], id));
}

/// JavaScript cannot distinguish such ids, or no cursor is later than them.
#[test]
fn line_at_largest_cursor_stops_nothing() {
    for id in ["18446744073709.551615", "253402300799.500001", "8589934592.000000"] {
        let scratch = Scratch::new();
        let store = scratch.open();
        fs::write(scratch.file("a"), format!("{{\"id\":{id},\"data\":\"\"}}\n")).unwrap();
        let event = store.publish(&topic("a"), None).unwrap();
        let id = publish(store.as_ref(), "x");
        assert!(event < id && id <= Cursor::now());
        let reading = read(store.as_ref(), Since::Earliest);
        assert_eq!((texts(&reading), reading.standing), (vec!["x"], id));
    }
}

/// No cursor is later than the largest one, so the topic starts again.
#[test]
fn topic_at_largest_cursor_restarts() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let line = format!("{{\"id\":{},\"data\":\"last\"}}\n", Cursor::LARGEST);
    fs::write(scratch.file("a"), line).unwrap();
    let ids = ["one", "two"].map(|data| publish(store.as_ref(), data));
    assert!(ids[0] < ids[1] && ids[1] <= Cursor::now());
    let reading = read(store.as_ref(), Since::Cursor(Cursor::LARGEST));
    assert_eq!((texts(&reading), reading.gap), (vec!["one", "two"], true));
    let reading = read(store.as_ref(), Since::Cursor(ids[0]));
    assert_eq!((texts(&reading), reading.gap), (vec!["two"], false));
}

/// JavaScript cannot distinguish such a time from the next one.
#[test]
fn file_time_beyond_range_is_unknown() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let one = publish(store.as_ref(), "one");
    let far = filetime::FileTime::from_unix_time(253_402_300_799, 1_000);
    filetime::set_file_times(scratch.file("a"), far, far).unwrap();
    assert_eq!(read(store.as_ref(), Since::Cursor(one)), Reading::quiet(one));
    let two = publish(store.as_ref(), "two");
    assert!(two > one && two <= Cursor::now());
    let reading = read(store.as_ref(), Since::Cursor(one));
    assert_eq!((texts(&reading), reading.gap), (vec!["two"], false));
}

#[test]
fn deleted_file_keeps_the_subscribers_cursor() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let id = publish(store.as_ref(), "one");
    fs::remove_file(scratch.file("a")).unwrap();
    assert_eq!(read(store.as_ref(), Since::Cursor(id)), Reading::quiet(id));
}

#[test]
fn compaction_and_repair_cause_no_gap() {
    let scratch = Scratch::new();
    let few = Retention { bytes: 300, ..KEEP_ALL };
    let store = scratch.keeping(few);
    let mut last = publish(store.as_ref(), "first");
    for number in 0..100 {
        let inode =
            || std::os::unix::fs::MetadataExt::ino(&fs::metadata(scratch.file("a")).unwrap());
        let before = inode();
        let id = publish(store.as_ref(), &"x".repeat(number));
        let reading = read(store.as_ref(), Since::Cursor(last));
        assert_eq!((reading.messages.len(), reading.gap), (1, false), "{}", inode() == before);
        last = id;
    }
    let mut log = File::options().append(true).open(scratch.file("a")).unwrap();
    log.write_all(br#"{"id":1795415403.163846,"da"#).unwrap();
    publish(store.as_ref(), "after");
    let reading = read(store.as_ref(), Since::Cursor(last));
    assert_eq!((texts(&reading), reading.gap), (vec!["after"], false));
    let text = fs::read_to_string(scratch.file("a")).unwrap();
    assert!(text.lines().skip(1).all(|line| serde_json::from_str::<Message>(line).is_ok()));
}

/// Changes that a shell may make to a log, such as a line by `echo`.
#[test]
fn invalid_lines_are_skipped() {
    let scratch = Scratch::new();
    let store = scratch.open();
    fs::write(scratch.file("a"), "hello\n{\"id\":1.5}\n{\"id\":2.5,\"data\":7}\n\n\0\n").unwrap();
    let id = publish(store.as_ref(), "one");
    let reading = read(store.as_ref(), Since::Earliest);
    assert_eq!((texts(&reading), reading.standing), (vec!["one"], id));
}

#[test]
fn log_cut_anywhere_keeps_its_whole_lines() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let sent = ["one", "two \"quoted\"", "", "three\n"];
    let ids: Vec<_> = sent.iter().map(|data| publish(store.as_ref(), data)).collect();
    let whole = fs::read(scratch.file("a")).unwrap();
    for length in 0..=whole.len() {
        fs::write(scratch.file("a"), &whole[..length]).unwrap();
        let feeds = whole[..length].split(|&byte| byte == b'\n').count() - 1;
        let left = &sent[..feeds.saturating_sub(1)];
        assert_eq!(texts(&read(store.as_ref(), Since::Earliest)), left, "{length}");
        let id = publish(store.as_ref(), "next");
        assert!(id > ids[3], "{length}");
        let expected = [left, &["next"]].concat();
        assert_eq!(texts(&read(store.as_ref(), Since::Earliest)), expected, "{length}");
        let text = fs::read_to_string(scratch.file("a")).unwrap();
        let is_json = |line| serde_json::from_str::<serde_json::Value>(line).is_ok();
        assert!(text.ends_with('\n') && text.lines().all(is_json), "{length}: {text}");
    }
}
