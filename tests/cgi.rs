//! The real binary, called with nothing but an environment.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use filetime::FileTime;
use rustix::fs::inotify;

const COMET: &str = env!("CARGO_BIN_EXE_comet");
const PROTOCOL: &str = include_str!("../docs/protocol.md");
/// The second of the examples in docs/protocol.md.
const SECOND: i64 = 1_795_415_403;

/// A directory of events, and calls of the binary on it.
struct Store(PathBuf);

impl Store {
    fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = format!("/dev/shm/novcomet-cgi-{}-{number}", std::process::id());
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o1777)).unwrap();
        Self(path.into())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.comet"))
    }

    /// An event file with this time.
    fn with(self, name: &str, seconds: i64, nanoseconds: u32) -> Self {
        File::create(self.file(name)).unwrap();
        set_time(&self.file(name), seconds, nanoseconds);
        self
    }

    /// A call that has an hour to wait and no safety look before its end: only
    /// a wake-up can end it sooner.
    fn query(&self, query: &str) -> Call {
        let url = format!("file://{}", self.0.display());
        let call = Call::new().variable("NOVCOMET_STORE", &url).variable("NOVCOMET_TRIES", "1");
        call.variable("NOVCOMET_SLEEP", "3600").variable("QUERY_STRING", query)
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(&self.0).unwrap().flatten();
        names.map(|entry| entry.file_name().into_string().unwrap()).collect()
    }

    fn time(&self, name: &str) -> (i64, i64) {
        let found = fs::metadata(self.file(name)).unwrap();
        (found.mtime(), found.mtime_nsec())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn set_time(path: &Path, seconds: i64, nanoseconds: u32) {
    let time = FileTime::from_unix_time(seconds, nanoseconds);
    filetime::set_file_times(path, time, time).unwrap();
}

/// One call of the binary.
struct Call {
    command: Command,
    stdin: Vec<u8>,
}

impl Call {
    fn new() -> Self {
        let mut command = Command::new(COMET);
        command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { command, stdin: Vec::new() }
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    fn method(self, name: &str) -> Self {
        self.variable("REQUEST_METHOD", name)
    }

    fn form(mut self, form: &str) -> Self {
        self.stdin = form.into();
        let length = form.len().to_string();
        self.method("POST").variable("CONTENT_LENGTH", &length)
    }

    fn argument(mut self, argument: &str) -> Self {
        self.command.arg(argument);
        self
    }

    fn start(mut self) -> Waiter {
        let mut child = self.command.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(&self.stdin);
        Waiter(child)
    }

    /// Starts it and waits until it waits.
    fn waiting(self) -> Waiter {
        let waiter = self.start();
        waiter.await_sleep();
        waiter
    }

    fn answer(self) -> Answer {
        self.start().answer()
    }

    fn output(self) -> Output {
        self.start().take().wait_with_output().unwrap()
    }
}

/// A process that is killed if a test forgets it.
struct Waiter(Child);

impl Waiter {
    fn take(mut self) -> Child {
        let spent = Command::new("true").spawn().unwrap();
        std::mem::replace(&mut self.0, spent)
    }

    fn answer(self) -> Answer {
        Answer::parse(&self.take().wait_with_output().unwrap())
    }

    /// Until the process is in ppoll(2), the only place where it waits.
    fn await_sleep(&self) {
        eventually(|| self.read_proc("syscall").split(' ').next() == Some(PPOLL));
    }

    fn read_proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.0.id())).unwrap_or_default()
    }

    fn has_inotify(&self) -> bool {
        let fds = fs::read_dir(format!("/proc/{}/fd", self.0.id())).unwrap().flatten();
        let mut links = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
        links.any(|link| link.ends_with("anon_inode:inotify"))
    }

    fn signal(&self, name: &str) {
        let script = format!("kill -s {name} {}", self.0.id());
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    }
}

#[cfg(target_arch = "x86_64")]
const PPOLL: &str = "271";
#[cfg(not(target_arch = "x86_64"))]
const PPOLL: &str = "73";

impl Drop for Waiter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn eventually(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "it never came to be");
        thread::sleep(Duration::from_millis(1));
    }
}

#[derive(Debug)]
struct Answer {
    head: String,
    body: String,
    log: String,
    success: bool,
}

impl Answer {
    fn parse(output: &Output) -> Self {
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{output:?}"));
        Self {
            head: head.to_owned(),
            body: body.to_owned(),
            log: String::from_utf8(output.stderr.clone()).unwrap(),
            success: output.status.success(),
        }
    }

    fn status(&self) -> u16 {
        let line = self.head.lines().next().unwrap();
        line.strip_prefix("Status: ").unwrap()[..3].parse().unwrap()
    }

    /// `s`, and the cursor of `topic` as the text that was sent.
    fn cursor(&self, topic: &str) -> (char, String) {
        let s = self.body.chars().nth(5).unwrap();
        let name = format!("\"{topic}\":");
        let rest = self.body.split_once(&name).unwrap_or_else(|| panic!("{self:?}")).1;
        (s, rest.chars().take_while(|&c| c != ',' && c != '}').collect())
    }

    fn assert_problem(&self, status: u16) {
        assert_eq!(self.status(), status, "{self:?}");
        assert!(self.head.contains("Content-Type: application/problem+json\r\n"), "{self:?}");
        let problem: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(problem["status"], status);
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        assert_eq!(self.log.lines().count(), usize::from(status >= 500), "{self:?}");
    }
}

/// Whether the page of the protocol has this example.
fn quote(example: &str) -> &str {
    assert!(PROTOCOL.contains(&format!("    {example}\n")), "not in docs/protocol.md: {example}");
    example
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

// The wire.

#[test]
fn a_publish_touches_the_event_file_and_answers_true() {
    let store = Store::new();
    let answer = store.query("publish=a").answer();
    assert_eq!(answer.body, quote("true"));
    assert_eq!(store.names(), ["a.comet"]);
    assert_eq!(fs::metadata(store.file("a")).unwrap().len(), 0);
}

#[test]
fn every_answer_has_the_pinned_head() {
    let store = Store::new().with("a", SECOND, 163_846_000);
    for query in ["publish=b", "subscribed[a]=1.5", "subscribed[a]=0&wait=0"] {
        let answer = store.query(query).answer();
        for line in answer.head.lines() {
            quote(line);
        }
        assert_eq!(answer.head.lines().count(), 6);
    }
}

#[test]
fn news_and_quiet_byte_for_byte() {
    let store = Store::new().with("a", SECOND, 163_846_000);
    let news = store.query("subscribed[a]=1.5&subscribed[b]=0&1300000000").answer();
    assert_eq!(news.body, quote(r#"{"s":1,"k":{"a":1795415403.163846}}"#));
    let quiet = store.query("subscribed[a]=1795415403.163846&subscribed[b]=&wait=0").answer();
    assert_eq!(quiet.body, quote(r#"{"s":0,"k":{"a":1795415403.163846,"b":0.100000}}"#));
    assert_eq!(store.names(), ["a.comet"], "subscribing creates nothing");
}

#[test]
fn every_topic_that_has_news_is_listed_in_order() {
    let store = Store::new().with("b", SECOND, 0).with("a", SECOND, 5_000).with("old", 9, 0);
    let answer = store.query("subscribed[a]=1.5&subscribed[old]=99.5&subscribed[b]=1.5").answer();
    assert_eq!(answer.body, r#"{"s":1,"k":{"a":1795415403.000005,"b":1795415403.000001}}"#);
}

#[test]
fn cursors_are_judged_by_their_kind() {
    let store = Store::new().with("a", SECOND - 1_000_000_000, 500_000_000);
    for (cursor, s) in [
        ("795415403.499999", '1'),
        ("795415403.5", '0'),
        ("795415403.500001", '0'),
        ("795415402", '1'),
        ("795415403", '0'),
        ("0", '0'),
        ("", '0'),
        ("9999999999", '0'),
        ("9999999999.5", '0'),
        ("0.1", '1'),
    ] {
        let answer = store.query(&format!("subscribed[a]={cursor}&wait=0")).answer();
        let stands = (s, "795415403.500000".to_owned());
        assert_eq!(answer.cursor("a"), stands, "{cursor:?}");
    }
}

#[test]
fn what_is_wrong_is_refused_at_once() {
    let store = Store::new();
    for query in [
        "",
        "x",
        "&123",
        "publish=",
        "subscribed",
        "subscribed=1",
        "subscribed[]=0",
        "subscribed[a",
        "subscribed[a][b]=0",
        "subscribed[a][]=0",
        "subscribed%5Ba%5D%5Bb%5D=0",
        "subscribed]a[=0",
        "subscribed[a]=x",
        "subscribed[a]=-1",
        "subscribed[a]=1e9",
        "subscribed[a]=1.2.3",
        "subscribed[a]=99999999999999999999",
        "subscribed[a]=0&wait=x",
        "subscribed[a]=0&wait=-1",
        "subscribed[a]=0&wait=",
        "subscribed[a]=0&wait=inf",
        "publish=%FF",
        "subscribed[%C3%28]=0",
        "publish=%0A",
        "publish=a%00b",
        "--help",
        "-h+x",
        "%FF",
    ] {
        store.query(query).method("GET").answer().assert_problem(400);
    }
    store.query(&format!("publish={}", "x".repeat(201))).answer().assert_problem(400);
    store.query(&format!("publish={}", "/".repeat(100))).answer().assert_problem(400);
    store.query(&"x".repeat(8193)).answer().assert_problem(414);
    assert_eq!(store.names(), [""; 0]);
    let text = store.query("").answer().body;
    assert_eq!(
        text,
        quote(
            r#"{"detail":"say what: publish=ID or subscribed[ID]=CURSOR","status":400,"title":"Bad Request"}"#
        )
    );
}

#[test]
fn publish_wins_and_may_name_several() {
    let store = Store::new();
    let answer = store.query("subscribed[c]=0&publish=a&publish=b&publish=a").answer();
    assert_eq!((answer.body.as_str(), store.names().len()), ("true", 2));
}

#[test]
fn unusual_ids_have_a_file_of_their_own() {
    for (query, id, name) in [
        ("a%2Fb", "a%2Fb", "a%2Fb.comet"),
        ("..%2F..%2Fetc", "..%2F..%2Fetc", "..%2F..%2Fetc.comet"),
        ("100%25", "100%25", "100%25.comet"),
        ("a%252Fb", "a%252Fb", "a%252Fb.comet"),
        ("..", "..", "...comet"),
        ("%C3%A9", "%C3%A9", "é.comet"),
        ("a+b", "a%20b", "a b.comet"),
        ("a%5D%5Bb", "a%5D%5Bb", "a][b.comet"),
        ("%EF%BF%BD", "%EF%BF%BD", "\u{fffd}.comet"),
    ] {
        let store = Store::new();
        assert_eq!(store.query(&format!("publish={query}")).answer().body, "true");
        assert_eq!(store.names(), [name], "{query}");
        let answer = store.query(&format!("subscribed[{id}]=1.5")).answer();
        assert!(answer.body.starts_with(r#"{"s":1,"#), "{answer:?}");
    }
}

#[test]
fn encoded_brackets_are_brackets() {
    let store = Store::new().with("a", SECOND, 5_000);
    assert_eq!(store.query("subscribed%5Ba%5D=1.5").answer().cursor("a").0, '1');
}

#[test]
fn methods() {
    let store = Store::new().with("a", SECOND, 5_000);
    let head = store.query("publish=b").method("HEAD").answer();
    assert_eq!((head.status(), head.body.as_str()), (200, ""));
    let head = store.query("subscribed[a]=0").method("HEAD").answer();
    assert_eq!((head.status(), head.body.as_str()), (200, ""));
    let options = store.query("").method("OPTIONS").answer();
    assert_eq!((options.status(), options.body.as_str()), (204, ""));
    assert!(options.head.contains("\r\nAllow: GET, HEAD, POST, OPTIONS"));
    let put = store.query("publish=b").method("PUT").answer();
    put.assert_problem(405);
    assert!(put.head.contains("\r\nAllow: GET, HEAD, POST, OPTIONS"));
    assert_eq!(store.names(), ["a.comet"]);
}

#[test]
fn a_form_is_a_query() {
    let store = Store::new();
    assert_eq!(store.query("").form("publish=b").answer().body, "true");
    assert_eq!(store.query("publish=c").form("x=y").answer().body, "true");
    assert_eq!(store.query("").form("subscribed[b]=1.5").answer().cursor("b").0, '1');
    store.query("").form(&format!("x={}", "y".repeat(65_536))).answer().assert_problem(413);
    let json = store.query("publish=d").form("{}").variable("CONTENT_TYPE", "application/json");
    json.answer().assert_problem(415);
    let short = store.query("").form("publish=d").variable("CONTENT_LENGTH", "10");
    short.answer().assert_problem(400);
    assert_eq!(store.names().len(), 2);
}

#[test]
fn a_server_makes_arguments_mean_nothing() {
    let store = Store::new();
    for argument in ["--help", "--version", "-h", "x"] {
        let call = store.query("publish=a").argument(argument);
        assert_eq!(call.answer().body, "true");
        let call = Call::new().variable("GATEWAY_INTERFACE", "CGI/1.1").argument(argument);
        call.answer().assert_problem(400);
    }
}

#[test]
fn a_person_at_a_shell_is_told_how() {
    let say = |arguments: &[&str]| {
        let call = arguments.iter().fold(Call::new(), |call, argument| call.argument(argument));
        let output = call.output();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        (output.status.code().unwrap(), text)
    };
    let (code, [usage, _]) = say(&["--help"]);
    assert!(code == 0 && usage.starts_with("usage: "));
    assert_eq!(say(&[]), (0, [usage.clone(), String::new()]));
    let version = concat!("comet.cgi ", env!("CARGO_PKG_VERSION"), "\n").to_owned();
    assert_eq!(say(&["--version"]), (0, [version, String::new()]));
    let (code, [stdout, stderr]) = say(&["--nonsense"]);
    assert!(code == 2 && stdout.is_empty() && stderr.contains(&usage));
}

#[test]
fn the_exit_status_is_for_the_shell() {
    let store = Store::new();
    assert!(!store.query("subscribed[a]=x").answer().success);
    assert!(store.query("subscribed[a]=x").method("GET").answer().success);
}

// The store.

#[test]
fn a_store_that_cannot_be_used_is_503_and_one_line() {
    let store = Store::new();
    for (name, value) in [
        ("NOVCOMET_STORE", "file:///nowhere/at/all"),
        ("NOVCOMET_STORE", "file:///etc/passwd"),
        ("NOVCOMET_STORE", "bogus://x"),
        ("NOVCOMET_TRIES", "many"),
        ("NOVCOMET_SLEEP", "-1"),
    ] {
        for query in ["publish=a", "subscribed[a]=0"] {
            let answer = store.query(query).variable(name, value).answer();
            answer.assert_problem(503);
            assert!(answer.log.starts_with("novcomet: "), "{answer:?}");
            assert!(!answer.body.contains("nowhere"), "the client reads no path of ours");
        }
    }
}

#[test]
fn what_is_no_regular_file_is_left_alone() {
    let store = Store::new();
    fs::create_dir(store.file("dir")).unwrap();
    symlink(store.0.join("target"), store.file("link")).unwrap();
    let fifo = Command::new("mkfifo").arg(store.file("fifo")).status().unwrap();
    assert!(fifo.success());
    for id in ["dir", "link", "fifo"] {
        for query in [format!("publish={id}"), format!("subscribed[{id}]=0")] {
            store.query(&query).answer().assert_problem(503);
        }
    }
    assert!(!store.0.join("target").exists());
}

#[test]
fn a_full_store_is_507() {
    let script = "mount -t tmpfs -o nr_inodes=1 tmpfs \"$1\" && exec \"$2\"";
    let store = Store::new();
    let mut call = store.query("publish=a");
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).arg(&store.0).arg(COMET);
    command.envs(call.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    call.command = command;
    if is_root() {
        call.answer().assert_problem(507);
    } else {
        eprintln!("NOT RUN: a_full_store_is_507 needs root to mount a file system");
    }
}

#[test]
fn a_publish_is_later_than_the_last_event_whatever_the_clock_says() {
    let store = Store::new().with("a", 4_000_000_000, 999_999_000);
    assert_eq!(store.query("publish=a").answer().body, "true");
    assert_eq!(store.time("a"), (4_000_000_001, 1_000));
}

#[test]
fn a_file_of_another_user_who_lets_us_write_is_published_to() {
    if !is_root() {
        eprintln!("NOT RUN: a_file_of_another_user needs root to make one");
        return;
    }
    let store = Store::new().with("a", SECOND - 1_000_000_000, 0);
    fs::set_permissions(store.file("a"), PermissionsExt::from_mode(0o666)).unwrap();
    chown(store.file("a"), Some(1), Some(1)).unwrap();
    let as_www_data = |query: &str| {
        let mut call = store.query(query);
        call.command.uid(33).gid(33);
        call.answer()
    };
    let mut last = store.time("a");
    for _ in 0..50 {
        assert_eq!(as_www_data("publish=a").body, "true");
        assert!(store.time("a") > last);
        last = store.time("a");
    }
    fs::set_permissions(store.file("a"), PermissionsExt::from_mode(0o644)).unwrap();
    as_www_data("publish=a").assert_problem(503);
    set_time(&store.file("a"), 4_000_000_000, 0);
    fs::set_permissions(store.file("a"), PermissionsExt::from_mode(0o666)).unwrap();
    as_www_data("publish=a").assert_problem(503);
}

// Waiting.

#[test]
fn a_waiter_is_woken_by_every_way_to_publish() {
    let ways: [fn(&Store); 6] = [
        |store| assert_eq!(store.query("publish=a").answer().body, "true"),
        |store| touch(&store.file("a")),
        |store| {
            let now = FileTime::now();
            filetime::set_file_mtime(store.file("a"), now).unwrap();
        },
        |store| fs::write(store.file("a"), "x").unwrap(),
        |store| {
            touch(&store.file("new"));
            fs::rename(store.file("new"), store.file("a")).unwrap();
        },
        |store| {
            fs::remove_file(store.file("a")).unwrap();
            touch(&store.file("a"));
        },
    ];
    for (number, way) in ways.iter().enumerate() {
        let store = Store::new().with("a", SECOND - 1_000_000_000, 0).with("b", SECOND, 0);
        let waiter = store.query("subscribed[b]=0&subscribed[a]=0").waiting();
        way(&store);
        assert_eq!(waiter.answer().cursor("a").0, '1', "way {number}");
    }
}

#[test]
fn a_topic_that_does_not_exist_wakes_its_waiters_when_it_appears() {
    for publish in [true, false] {
        let store = Store::new();
        let waiter = store.query("subscribed[a]=0").waiting();
        match publish {
            true => assert_eq!(store.query("publish=a").answer().body, "true"),
            false => touch(&store.file("a")),
        }
        assert_eq!(waiter.answer().cursor("a").0, '1');
    }
}

#[test]
fn an_older_file_put_in_place_is_noticed() {
    let store = Store::new().with("a", SECOND, 5_000).with("backup", SECOND - 9, 5_000);
    let waiter = store.query("subscribed[a]=1795415403.000005").waiting();
    fs::rename(store.file("backup"), store.file("a")).unwrap();
    assert_eq!(waiter.answer().cursor("a"), ('1', "1795415403.000005".to_owned()));
}

/// Other tests give instances back meanwhile, so a waiter may find one: those
/// rounds do not count.
#[test]
fn without_an_inotify_instance_dnotify_wakes() {
    let mut held = Vec::new();
    let mut by_dnotify = 0;
    while by_dnotify < 10 {
        while let Ok(instance) = inotify::init(inotify::CreateFlags::CLOEXEC) {
            held.push(instance);
            assert!(held.len() < 100_000, "no limit on inotify instances");
        }
        let store = Store::new().with("a", SECOND - 1_000_000_000, 0);
        for id in ["a", "b"] {
            let waiter = store.query(&format!("subscribed[{id}]=0")).waiting();
            by_dnotify += u32::from(!waiter.has_inotify());
            touch(&store.file(id));
            assert_eq!(waiter.answer().cursor(id).0, '1');
        }
    }
}

#[test]
fn a_directory_that_vanishes_and_comes_back_is_watched_again() {
    let store = Store::new();
    let call = store.query("subscribed[a]=0").variable("NOVCOMET_SLEEP", "0.1");
    let waiter = call.variable("NOVCOMET_TRIES", "600").waiting();
    fs::remove_dir(&store.0).unwrap();
    thread::sleep(Duration::from_millis(250));
    fs::create_dir(&store.0).unwrap();
    touch(&store.file("a"));
    assert_eq!(waiter.answer().cursor("a").0, '1');
}

#[test]
fn terminated_it_answers_where_the_topics_stand() {
    let store = Store::new().with("a", SECOND, 5_000);
    let waiter = store.query("subscribed[a]=0&subscribed[b]=0").waiting();
    waiter.signal("TERM");
    let answer = waiter.answer();
    assert!(answer.success && answer.log.is_empty());
    assert_eq!(answer.body, r#"{"s":0,"k":{"a":1795415403.000005,"b":0.100000}}"#);
}

#[test]
fn when_nobody_listens_it_leaves_silently() {
    let store = Store::new();
    let mut child = store.query("subscribed[a]=0").waiting().take();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert_eq!(log, "");
}

#[test]
fn an_idle_waiter_makes_no_system_call() {
    let store = Store::new().with("busy", SECOND, 0);
    let waiter = store.query("subscribed[a]=0").waiting();
    let switches = || {
        let status = waiter.read_proc("status");
        status.lines().find(|line| line.starts_with("voluntary")).map(ToOwned::to_owned)
    };
    let before = switches();
    thread::sleep(Duration::from_millis(300));
    assert!(before.is_some() && switches() == before);
}

#[test]
fn a_wait_is_as_long_as_was_asked_and_no_longer_than_configured() {
    let store = Store::new();
    let lasting = |query: &str, sleep: &str| {
        let begin = Instant::now();
        let answer = store.query(query).variable("NOVCOMET_SLEEP", sleep).answer();
        assert_eq!(answer.body, r#"{"s":0,"k":{"a":0.100000}}"#);
        begin.elapsed()
    };
    assert!(lasting("subscribed[a]=0&wait=0.2", "3600") >= Duration::from_millis(200));
    assert!(lasting("subscribed[a]=0&wait=9999", "0.2") >= Duration::from_millis(200));
    lasting("subscribed[a]=0&wait=0", "3600");
}

// Nothing is lost.

/// Two publishers, one by the binary and one by touch, fire thousands of times
/// at random gaps; a subscriber polls again and again. A wake-up that is missed
/// would last an hour, an event that is missed shows at the end.
#[test]
fn of_thousands_of_events_the_last_is_always_seen() {
    const ROUNDS: u32 = 2_000;
    let store = Store::new();
    thread::scope(|scope| {
        let by_call = scope.spawn(|| {
            fire(ROUNDS, || assert_eq!(store.query("publish=a").answer().body, "true"));
        });
        let by_touch = scope.spawn(|| fire(ROUNDS, || touch(&store.file("a"))));
        let subscriber = scope.spawn(|| poll_until_the_end(&store));
        by_call.join().unwrap();
        by_touch.join().unwrap();
        assert_eq!(store.query("publish=end").answer().body, "true");
        let (seen, polls) = subscriber.join().unwrap();
        assert_eq!(seen, store.query("subscribed[a]=0&wait=0").answer().cursor("a").1);
        assert!(polls > 100, "only {polls} polls: nothing was proven");
    });
}

/// The cursor that the subscriber has at the end, and how often it asked.
fn poll_until_the_end(store: &Store) -> (String, u32) {
    let mut cursor = "0.1".to_owned();
    let mut polls = 0;
    loop {
        let answer = store.query(&format!("subscribed[end]=0.1&subscribed[a]={cursor}")).answer();
        assert!(answer.body.starts_with(r#"{"s":1,"#), "{answer:?}");
        polls += 1;
        if answer.body.contains("\"a\":") {
            cursor = answer.cursor("a").1;
        }
        if answer.body.contains("\"end\":") {
            return (cursor, polls);
        }
    }
}

/// Does it `rounds` times, at gaps from none to 2 ms that look random.
fn fire(rounds: u32, publish: impl Fn()) {
    let mut state = 12_345_u64;
    for _ in 0..rounds {
        publish();
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        thread::sleep(Duration::from_micros((state >> 33) % 2_000));
    }
}

/// As touch(1) does: makes the file, or sets both times to the kernel's now.
fn touch(path: &Path) {
    use rustix::fs::{Timespec, Timestamps, UTIME_NOW, futimens};
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let file = File::options().write(true).create(true).truncate(false).open(path).unwrap();
    futimens(&file, &Timestamps { last_access: now, last_modification: now }).unwrap();
}
