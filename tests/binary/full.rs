//! The disk is full. Acknowledged messages remain unchanged, and the answer is 507. When there
//! is space again, the next publish works.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::support::binary::{Answer, Call, Store};
use crate::support::host::{is_root, not_run};

/// A message that takes most of a page of memory.
const LONG: usize = 3_000;

/// A small tmpfs. It is mounted in its own namespace. A process holds the namespace until its
/// standard input is closed.
pub(super) struct Small {
    holder: Child,
    /// The mount point. Only processes in the namespace see it.
    mount: Store,
}

impl Small {
    /// Mounts a file system of this size.
    pub fn new(bytes: u32) -> Option<Self> {
        Self::with(&format!("size={bytes}"))
    }

    /// Mounts a file system with a limit. `None`, with a line on stderr, if this process may
    /// not mount.
    fn with(limit: &str) -> Option<Self> {
        let mount = Store::new();
        let script = "mount -t tmpfs -o mode=1777,$2 tmpfs \"$1\" && echo ready && exec cat";
        let namespace = if is_root() { "-m" } else { "-rm" };
        let mut command = Command::new("unshare");
        command.args([namespace, "sh", "-c", script, "sh"]).arg(&mount.0).arg(limit);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut holder = command.spawn().unwrap();
        let mut said = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let small = Self { holder, mount };
        if said != "ready\n" {
            not_run("a full store", "the right to mount a file system");
            return None;
        }
        Some(small)
    }

    /// The path to the file system from outside the namespace (proc(5)).
    pub fn path(&self) -> PathBuf {
        let inside = self.mount.0.strip_prefix("/").unwrap();
        PathBuf::from(format!("/proc/{}/root", self.holder.id())).join(inside)
    }

    pub fn call(&self, query: &str) -> Call {
        let url = format!("file://{}", self.mount.0.display());
        let call = Call::new().variable("NOVCOMET_STORE", &url).variable("QUERY_STRING", query);
        // The command runs inside, because Landlock would refuse `path`, which leads through a
        // process.
        let holder = self.holder.id().to_string();
        let users: &[&str] = if is_root() { &[] } else { &["-U", "--preserve-credentials"] };
        let inside = [&["-t", &holder, "-m"], users, &["--"]].concat();
        call.variable("NOVCOMET_KEEP", "100000").by("nsenter", &inside)
    }

    fn publish(&self, topic: &str, message: &str) -> Answer {
        self.call(&format!("publish={topic}"))
            .form(message)
            .variable("CONTENT_TYPE", "text/plain")
            .answer()
    }

    /// Publishes numbered messages of `length` bytes until the disk is full.
    fn fill(&self, length: usize) -> Vec<String> {
        let mut sent = Vec::new();
        loop {
            let message = format!("{:01$}", sent.len(), length);
            let answer = self.publish("a", &message);
            if answer.status() != 200 {
                answer.assert_problem(507);
                return sent;
            }
            sent.push(message);
        }
    }

    /// All messages, as a subscriber reads them.
    fn messages(&self) -> Vec<String> {
        let (mut found, mut since) = (Vec::new(), "earliest".to_owned());
        loop {
            let answer = self.call(&format!("subscribed[a]={since}&wait=0")).answer();
            let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
            let Some(part) = body["m"]["a"].as_array() else { return found };
            found.extend(part.iter().map(|message| message["data"].as_str().unwrap().to_owned()));
            since = answer.cursor("a").1;
        }
    }

    /// A file that takes all the space that is left.
    pub fn stuff(&self) -> PathBuf {
        let path = self.path().join("stuff");
        let mut file = File::create(&path).unwrap();
        while file.write_all(&[b'x'; 4096]).is_ok() {}
        path
    }

    fn names(&self) -> Vec<String> {
        Store::names_in(&self.path())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

#[test]
fn no_inode_left_is_507() {
    let Some(small) = Small::with("nr_inodes=1") else { return };
    small.call("publish=a").answer().assert_problem(507);
}

#[test]
fn full_disk_leaves_the_log_unchanged() {
    for length in [10, LONG, 20_000] {
        let Some(small) = Small::new(65_536) else { return };
        let stuff = small.path().join("stuff");
        fs::write(&stuff, vec![b'x'; 30_000]).unwrap();
        let mut sent = small.fill(length);
        let log = fs::read(small.path().join("a.comet")).unwrap();
        for topic in ["a", "new"] {
            small.publish(topic, &"x".repeat(20_000)).assert_problem(507);
        }
        assert!(fs::read(small.path().join("a.comet")).unwrap() == log, "{length}");
        assert!(small.messages() == sent, "{length}");
        assert_eq!(small.names().len(), 2, "{:?}", small.names());
        fs::remove_file(stuff).unwrap();
        sent.extend(small.fill(length));
        assert!(small.messages() == sent, "{length}");
    }
}

#[test]
fn compaction_without_space_changes_nothing() {
    let Some(small) = Small::new(262_144) else { return };
    let keeping = |data: &str| {
        let call = small.call("publish=a").form(data).variable("CONTENT_TYPE", "text/plain");
        call.variable("NOVCOMET_KEEP_BYTES", "20000").answer()
    };
    let size = || fs::metadata(small.path().join("a.comet")).map_or(0, |found| found.len());
    let mut sent = Vec::new();
    while size() < 38_000 {
        sent.push(format!("{:01$}", sent.len(), LONG));
        assert_eq!(keeping(sent.last().unwrap()).status(), 200);
    }
    let stuff = small.stuff();
    for _ in 0..3 {
        keeping(&"x".repeat(LONG)).assert_problem(507);
        assert!(small.messages() == sent);
        assert_eq!(small.names().len(), 2, "{:?}", small.names());
    }
    fs::remove_file(stuff).unwrap();
    sent.push("y".repeat(LONG));
    assert_eq!(keeping(&sent[sent.len() - 1]).status(), 200);
    assert!(size() < 25_000, "not compacted: {}", size());
    let left = small.messages();
    assert!(left.len() >= 5 && sent.ends_with(&left));
}

/// At its limit for the size of a file (`ulimit -f`), the kernel writes a part of the line
/// only.
#[test]
fn file_size_limit_is_507() {
    let store = Store::new();
    let limited = |data: &str| {
        let limit = ["--fsize=4096", "--"];
        let call = store.query("publish=a").form(data).variable("CONTENT_TYPE", "text/plain");
        call.by("prlimit", &limit).answer()
    };
    limited(&"x".repeat(5_000)).assert_problem(507);
    assert_eq!(store.names(), [""; 0]);
    assert_eq!(limited("one").status(), 200);
    let log = fs::read(store.file("a")).unwrap();
    for _ in 0..2 {
        limited(&"x".repeat(5_000)).assert_problem(507);
        assert_eq!(fs::read(store.file("a")).unwrap(), log);
    }
    assert_eq!(limited("two").status(), 200);
    let read = store.query("subscribed[a]=earliest").answer().body;
    assert!(read.contains(r#""data":"one"}"#) && read.contains(r#""data":"two"}"#), "{read}");
}
