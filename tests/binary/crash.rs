//! A publisher is killed, or the kernel refuses one of its system calls, at each of its system
//! calls in turn. Every subscriber still reads each acknowledged message once and in order. The
//! interrupted message is complete or absent. The next publish works.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Output;
use std::thread;
use std::time::Duration;

use novcomet::config::POLL;
use novcomet::event::{Cursor, Message, Since, Topic};
use novcomet::store::{self, Limits, Reading, Retention};

use crate::support::binary::{Answer, Call, Store, Waiter};
use crate::support::dir::touch;
use crate::support::host::{is_root, not_run};
use crate::support::wait::eventually;

/// A line of a log. All messages of these tests have two bytes.
const LINE: u64 = 37;
/// The number of lines that a topic keeps.
const KEPT: usize = 5;
const KEEP: Retention = Retention {
    messages: 1_000,
    bytes: LINE * KEPT as u64,
    age: std::time::Duration::from_secs(86_400),
    max_file_bytes: 1 << 31,
};
const WHOLE: usize = 1 << 30;
/// The message of the interrupted publish, and the message after it.
const UNLUCKY: &str = "mx";
const NEXT: &str = "my";
/// A publisher that is neither root nor the owner of the files.
const STRANGER: u32 = 33;
const OWNER: u32 = 1;

// The scenes.

/// A publish and the files that exist before it.
struct Scene {
    name: &'static str,
    prepare: fn(&Store),
    query: &'static str,
    topics: &'static [&'static str],
    /// The files belong to another user, and the directory has a sticky bit.
    foreign: bool,
}

const ONE: Scene =
    Scene { name: "", prepare: |_| (), query: "publish=a&data=mx", topics: &["a"], foreign: false };

const SCENES: [Scene; 12] = [
    Scene { name: "the first message of a new topic", ..ONE },
    Scene { name: "a message into an empty file", prepare: empty, ..ONE },
    Scene { name: "a message more", prepare: some, ..ONE },
    Scene { name: "a message more, of a stranger", prepare: some, foreign: true, ..ONE },
    Scene { name: "compaction", prepare: many, ..ONE },
    Scene { name: "compaction that is forbidden", prepare: many, foreign: true, ..ONE },
    Scene { name: "mending a torn line", prepare: torn, ..ONE },
    Scene { name: "mending a torn line in place", prepare: torn, foreign: true, ..ONE },
    Scene { name: "the first event of a new topic", query: "publish=a", ..ONE },
    Scene { name: "an event without a message", prepare: some, query: "publish=a", ..ONE },
    Scene {
        name: "an event of a stranger without a message",
        prepare: some,
        query: "publish=a",
        foreign: true,
        ..ONE
    },
    Scene {
        name: "two topics, one of them new",
        prepare: some,
        query: "publish=a&publish=b&data=mx",
        topics: &["a", "b"],
        ..ONE
    },
];

fn empty(store: &Store) {
    touch(&store.file("a"));
}

fn some(store: &Store) {
    (0..3).for_each(|number| publish(store, number));
}

/// Publishes until one more message makes the log more than twice as large as the part that is
/// kept.
fn many(store: &Store) {
    some(store);
    let size = || fs::metadata(store.file("a")).unwrap().len();
    let mut number = 3;
    while size() + LINE <= 2 * KEEP.bytes {
        publish(store, number);
        number += 1;
    }
}

fn torn(store: &Store) {
    some(store);
    let mut log = File::options().append(true).open(store.file("a")).unwrap();
    log.write_all(br#"{"id":1795415403.163846,"da"#).unwrap();
}

fn publish(store: &Store, number: u32) {
    open(store).publish(&topic("a"), Some(&format!("m{number}"))).unwrap();
}

impl Scene {
    /// `None`, with a line on stderr, if the scene needs root and this process has no root.
    fn set(&self) -> Option<Stage<'_>> {
        if self.foreign && !is_root() {
            not_run(&format!("{:?}", self.name), "root");
            return None;
        }
        let store = Store::new();
        (self.prepare)(&store);
        if self.foreign {
            fs::set_permissions(store.file("a"), PermissionsExt::from_mode(0o666)).unwrap();
            chown(store.file("a"), Some(OWNER), Some(OWNER)).unwrap();
        }
        let before = self.topics.iter().map(|name| lines(&store.file(name))).collect();
        let standing = self.topics.iter().map(|name| stands(&store, name)).collect();
        Some(Stage { scene: self, store, before, standing })
    }

    fn has_message(&self) -> bool {
        self.query.contains("data=")
    }
}

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

fn open(store: &Store) -> Box<dyn store::Store> {
    store::open::locate(&format!("file://{}", store.0.display()))
        .and_then(|store| store.open(KEEP, Limits::NONE, POLL))
        .unwrap()
}

/// The cursor of a subscriber that has received everything. A process that another test has
/// just forked may hold our lock until its exec.
fn stands(store: &Store, name: &str) -> Cursor {
    let read = || open(store).read(&topic(name), Since::Now, WHOLE).unwrap();
    eventually("nothing is pending", || read().pending.is_none());
    read().standing
}

/// The messages in a log, also those that are no longer kept. A missing file has no messages.
fn lines(path: &Path) -> Vec<Message> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect()
}

// The faults.

/// A system call of a publish: its name, and its number among the calls of this name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SystemCall {
    name: String,
    number: usize,
}

impl SystemCall {
    /// The action that strace(1) injects at this call.
    fn with(&self, fault: &str) -> String {
        format!("inject={}:{fault}:when={}", self.name, self.number)
    }
}

/// A scene whose files exist. It is used once.
struct Stage<'a> {
    scene: &'a Scene,
    store: Store,
    /// The acknowledged messages of each topic, kept or not.
    before: Vec<Vec<Message>>,
    /// The cursor of each topic at that time.
    standing: Vec<Cursor>,
}

impl Stage<'_> {
    fn call(&self, query: &str) -> Call {
        self.store.query(query).variable("NOVCOMET_KEEP_BYTES", &KEEP.bytes.to_string())
    }

    /// Runs the scene's publish, and returns its answer and the output of strace(1).
    fn play(&self, options: &[&str]) -> (Output, String) {
        // The output is outside the store, in a directory that every user can write to.
        let beside = Store::new();
        let trace = beside.0.join("trace");
        let arguments = [&["-o", trace.to_str().unwrap()], options].concat();
        let call = self.call(self.scene.query).method("GET").by("strace", &arguments);
        let output = self.as_publisher(call).output();
        (output, fs::read_to_string(trace).expect("strace traces; `make test` installs it"))
    }

    fn as_publisher(&self, call: Call) -> Call {
        if self.scene.foreign { call.user(STRANGER) } else { call }
    }

    /// All system calls from the first to the last that concern the store.
    fn system_calls(&self) -> Vec<SystemCall> {
        let (output, trace) = self.play(&[]);
        assert!(output.status.success(), "{output:?}");
        let store = self.store.0.to_str().unwrap();
        let mut counts = BTreeMap::new();
        let (mut calls, mut begun) = (Vec::new(), false);
        for (name, line) in trace.lines().filter_map(|line| Some((line.split_once('(')?.0, line))) {
            let number = counts.entry(name).or_insert(0);
            *number += 1;
            begun |= line.contains(store);
            if begun {
                calls.push(SystemCall { name: name.to_owned(), number: *number });
            }
        }
        calls
    }

    /// A subscriber that has received all acknowledged messages of a topic and waits.
    fn subscriber(&self, number: usize) -> Waiter {
        let name = self.scene.topics[number];
        self.call(&format!("subscribed[{name}]={}", self.standing[number])).waiting()
    }
}

// The promises.

/// The result of the interrupted publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Acknowledged,
    /// The client does not know whether the message was stored.
    Killed,
    Refused,
}

impl Stage<'_> {
    /// Injects a fault and checks every promise. Returns whether the message is in all topics.
    fn suffer(&self, fault: &str, judge: impl FnOnce(&Output, &str) -> Fate) -> bool {
        let subscribers: Vec<_> =
            (0..self.scene.topics.len()).map(|number| self.subscriber(number)).collect();
        let trace = fault.split([':', '=']).nth(1).unwrap();
        let (output, trace) = self.play(&["-e", &format!("trace={trace}"), "-e", fault]);
        let fate = judge(&output, &trace);
        let mut is_there = true;
        for (number, subscriber) in subscribers.into_iter().enumerate() {
            // If there are several topics, the first ones may have the message without the
            // others.
            is_there &= self.look(number, fate, is_there, subscriber);
        }
        is_there
    }

    /// Whether topic `number` has the message.
    fn look(&self, number: usize, fate: Fate, may_be: bool, subscriber: Waiter) -> bool {
        let store = open(&self.store);
        let name = self.scene.topics[number];
        let read = |since| store.read(&topic(name), since, WHOLE).unwrap();
        let is_there = texts(&read(Since::Earliest)).last() == Some(&UNLUCKY);
        self.assert_fate(
            fate,
            is_there,
            read(Since::Cursor(self.standing[number])).standing,
            number,
        );
        assert!(may_be || !is_there, "a later topic has it, an earlier one not");
        let mut all = self.before[number].clone();
        if is_there {
            all.push(read(Since::Earliest).messages.pop().unwrap());
        }
        assert_readings(&all, read);
        let meanwhile = read(Since::Cursor(self.standing[number])).standing;

        let next = self.as_publisher(self.call(&format!("publish={name}&data={NEXT}"))).answer();
        assert_eq!(next.body, "true", "{next:?}");
        all.push(read(Since::Earliest).messages.pop().unwrap());
        assert_readings(&all, read);
        assert_eq!(texts(&read(Since::Cursor(meanwhile))), [NEXT], "a cursor from in between");
        self.assert_heard(&subscriber.answer(), number, &all, read);
        assert_log(&self.store.file(name), &all);
        is_there
    }

    fn assert_fate(&self, fate: Fate, is_there: bool, standing: Cursor, number: usize) {
        let is_first = number == 0;
        match fate {
            Fate::Acknowledged if self.scene.has_message() => assert!(is_there),
            Fate::Acknowledged => assert!(!is_there && standing > self.standing[number]),
            Fate::Refused if is_first && self.scene.topics.len() > 1 => {}
            Fate::Refused => assert!(!is_there, "refused, and yet published"),
            Fate::Killed => {}
        }
    }

    /// A subscriber that waited before the fault receives every message once.
    fn assert_heard(
        &self,
        answer: &Answer,
        number: usize,
        all: &[Message],
        read: impl Fn(Since) -> Reading,
    ) {
        let name = self.scene.topics[number];
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert!(body.get("gap").is_none() && answer.log.is_empty(), "{answer:?}");
        let Since::Cursor(at) = Since::parse(&answer.cursor(name).1).unwrap() else {
            panic!("{answer:?}");
        };
        let said = body["m"][name].as_array().cloned().unwrap_or_default();
        let mut heard: Vec<Message> = said
            .iter()
            .map(|message| serde_json::from_str(&message.to_string()).unwrap())
            .collect();
        heard.extend(read(Since::Cursor(at)).messages);
        assert_eq!(heard, all[self.before[number].len()..], "{answer:?}");
    }

    /// The other files of the directory. A new file that was not yet renamed may remain.
    fn litter(&self) -> Vec<String> {
        let is_topic = |name: &String| name.strip_suffix(".comet").is_some();
        self.store.names().into_iter().filter(|name| !is_topic(name)).collect()
    }
}

fn texts(reading: &Reading) -> Vec<&str> {
    reading.messages.iter().map(|message| message.data.as_str()).collect()
}

/// From every cursor that was given out, a subscriber reads all later messages that are kept,
/// once and in order.
fn assert_readings(all: &[Message], read: impl Fn(Since) -> Reading) {
    let kept = all.len().saturating_sub(KEPT);
    assert_eq!(read(Since::Earliest).messages, all[kept..]);
    for (number, Message { id, .. }) in all.iter().enumerate() {
        let reading = read(Since::Cursor(*id));
        assert_eq!(reading.messages, all[kept.max(number + 1)..]);
        assert_eq!(reading.gap, number + 1 < kept);
        let after = read(Since::Cursor(reading.standing));
        assert!(after.messages.is_empty() && !after.gap);
    }
}

/// Each line of the file is complete and valid.
fn assert_log(path: &Path, all: &[Message]) {
    let text = fs::read_to_string(path).unwrap();
    let header: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert!(text.ends_with('\n') && header["born"].is_number(), "{text}");
    assert!(all.ends_with(&lines(path)), "{text}");
}

/// Runs every system call of every scene. Each run has its own files.
fn at_each_call(mut act: impl FnMut(&Stage, &SystemCall)) {
    for scene in &SCENES {
        let Some(stage) = scene.set() else { continue };
        for call in stage.system_calls() {
            // The test harness shows this line only if the test fails.
            eprintln!("{}: {call:?}", scene.name);
            act(&scene.set().unwrap(), &call);
        }
    }
}

#[test]
fn kill_at_any_call_loses_nothing() {
    let (mut kills, mut survived, mut litters) = (0, 0, BTreeMap::new());
    at_each_call(|stage, call| {
        let is_there = stage.suffer(&call.with("signal=KILL"), |output, _| {
            assert_eq!(output.status.signal(), Some(9), "{output:?}");
            let answered = String::from_utf8_lossy(&output.stdout).ends_with("\r\n\r\ntrue");
            if answered { Fate::Acknowledged } else { Fate::Killed }
        });
        let litter = stage.litter();
        assert!(litter.len() <= 1, "{litter:?}");
        for name in litter {
            assert!(name.starts_with(".novcomet-"), "{name}");
            let length = fs::metadata(stage.store.0.join(name)).unwrap().len();
            *litters.entry(if length == 0 { "empty" } else { "whole" }).or_insert(0) += 1;
        }
        kills += 1;
        survived += u32::from(is_there);
    });
    assert!(survived > 0 && survived < kills);
    report(&format!("{kills} kills; the message is there after {survived}, {litters:?} litter\n"));
}

/// The kernel refuses the call with each of `errors`.
fn refused(errors: &[&str]) {
    at_each_call(|stage, call| {
        // If the answer cannot be written, the answer cannot report it.
        for error in errors.iter().filter(|error| call.name != "write" || **error == "EINTR") {
            let stage = stage.scene.set().unwrap();
            stage.suffer(&call.with(&format!("error={error}")), |output, trace| {
                assert!(trace.contains("(INJECTED)"), "{trace}");
                judge(output, error)
            });
            let may_litter = call.name.starts_with("unlink");
            assert!(may_litter || stage.litter().is_empty(), "{:?}", stage.litter());
        }
    });
}

/// The publish was acknowledged, or refused with the documented answer.
fn judge(output: &Output, error: &str) -> Fate {
    let answer = Answer::parse(output);
    if answer.status() == 200 {
        assert_eq!((answer.body.as_str(), answer.log.as_str()), ("true", ""));
        return Fate::Acknowledged;
    }
    answer.assert_problem(if error == "ENOSPC" { 507 } else { 503 });
    Fate::Refused
}

#[test]
fn full_disk_or_interrupt_loses_nothing() {
    refused(&["ENOSPC", "EINTR"]);
}

#[test]
fn refused_call_or_disk_error_loses_nothing() {
    refused(&["EACCES", "EIO"]);
}

// Logs with an incomplete line.

/// Replaces the content. With `O_CREAT`, as in `fs::write`, the kernel refuses a file of
/// another user in a sticky directory (`fs.protected_regular`), even to root.
fn overwrite(path: &Path, content: &[u8]) {
    let mut file = File::options().write(true).truncate(true).open(path).unwrap();
    file.write_all(content).unwrap();
}

/// A log with this history, and the user who publishes after the cut.
struct Log {
    store: Store,
    publisher: Option<u32>,
    whole: Vec<u8>,
    lines: Vec<Message>,
}

impl Log {
    /// A compacted log, whose header has the number of dropped messages. Its messages have
    /// characters of two to four bytes.
    fn new(publisher: Option<u32>) -> Self {
        let store = Store::new();
        many(&store);
        let open = open(&store);
        for data in ["é", "\u{2028}", "\u{1f600}\n\"", ""] {
            open.publish(&topic("a"), Some(data)).unwrap();
        }
        let (path, whole) = (store.file("a"), fs::read(store.file("a")).unwrap());
        assert!(whole.windows(11).any(|part| part == b",\"dropped\":"));
        if publisher.is_some() {
            fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
            chown(&path, Some(OWNER), Some(OWNER)).unwrap();
        }
        let lines = lines(&path);
        Self { store, publisher, whole, lines }
    }

    fn publish(&self) {
        let call = self.store.query("publish=a&data=my");
        let call = match self.publisher {
            Some(user) => call.user(user),
            None => call,
        };
        let answer = call.answer();
        assert_eq!(answer.body, "true", "{answer:?}");
    }

    /// The header shows that the file is a copy. A cursor within the first 10 ms of a copy may
    /// belong to the original, so the test waits until these 10 ms are over.
    fn put(&self, content: &[u8]) {
        loop {
            overwrite(&self.store.file("a"), content);
            let found = fs::metadata(self.store.file("a")).unwrap();
            let age = found.modified().unwrap().duration_since(found.created().unwrap());
            if age.is_ok_and(|age| age > Duration::from_millis(11)) {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Cuts the log after `length` bytes, reads the rest, and publishes the next message.
    fn cut(&self, length: usize) {
        self.put(&self.whole[..length]);
        let feeds = self.whole[..length].split(|&byte| byte == b'\n').count() - 1;
        let left = &self.lines[..feeds.saturating_sub(1)];
        let read = |since| open_all(&self.store).read(&topic("a"), since, WHOLE).unwrap();
        let reading = read(Since::Earliest);
        assert_eq!(reading.messages, left, "{length}");
        self.publish();
        let next = read(Since::Cursor(reading.standing));
        assert_eq!((texts(&next), next.gap), (vec![NEXT], false), "{length}");
        let all = [left, &next.messages].concat();
        assert_eq!(read(Since::Earliest).messages, all, "{length}");
        assert!(next.messages[0].id > self.lines[self.lines.len() - 1].id);
        assert_log(&self.store.file("a"), &all);
        if feeds > 0 {
            let before = Cursor::from_micros(self.lines[0].id.micros() - 1_000_000);
            assert!(read(Since::Cursor(before)).gap, "{length}: the header is forgotten");
        }
    }
}

fn open_all(store: &Store) -> Box<dyn store::Store> {
    let url = format!("file://{}", store.0.display());
    store::open::locate(&url)
        .and_then(|store| store.open(Retention { bytes: 1 << 30, ..KEEP }, Limits::NONE, POLL))
        .unwrap()
}

#[test]
fn log_cut_anywhere_keeps_its_whole_lines() {
    let log = Log::new(None);
    (0..=log.whole.len()).for_each(|length| log.cut(length));
}

#[test]
fn cut_log_is_repaired_by_other_user() {
    if !is_root() {
        not_run("a log that a stranger mends in place", "root");
        return;
    }
    let log = Log::new(Some(STRANGER));
    let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(log.store.file("a")).unwrap());
    let before = inode();
    (0..=log.whole.len()).for_each(|length| log.cut(length));
    assert_eq!(inode(), before, "in place");
}

fn report(text: &str) {
    // Writes to stderr directly, because the test harness captures printed text.
    io::stderr().write_all(text.as_bytes()).unwrap();
}
