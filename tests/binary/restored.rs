//! Event files are files: backups, editors and cleaners change them while subscribers wait. Each
//! subscriber is told the truth (a message, an event or a gap), and receives the next message.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::binary::{Call, Store};
use crate::support::dir::TempDir;
use crate::support::host::{found, is_root, not_run};

/// What others do with the file `a.comet`, in its directory. `$1` has a copy and a tar of it that
/// are one message older. The names are those of the programs, or of what they are known to do.
const WAYS: [(&str, &str); 17] = [
    ("tar", "tar -xf $1/a.tar"),
    ("tar --overwrite", "tar --overwrite -xf $1/a.tar"),
    ("cp", "cp $1/a.comet a.comet"),
    ("cp -p", "cp -p $1/a.comet a.comet"),
    ("cp -p --remove-destination", "cp -p --remove-destination $1/a.comet a.comet"),
    ("mv", "cp -p $1/a.comet .new && mv .new a.comet"),
    ("rsync -a", "rsync -a $1/a.comet a.comet"),
    ("rsync -a --inplace", "rsync -a --inplace $1/a.comet a.comet"),
    ("sed -i", "sed -i s/two/2/ a.comet"),
    ("an editor that renames", "mv a.comet a.comet~ && cat a.comet~ >a.comet"),
    ("an editor that copies", "cp -p a.comet a.comet~ && cat a.comet~ >a.comet"),
    ("logrotate, create", "mv a.comet a.comet.1 && : >a.comet"),
    ("logrotate, copytruncate", "cp -p a.comet a.comet.1 && truncate -s 0 a.comet"),
    ("systemd-tmpfiles, age", "rm a.comet"),
    ("a torn copy", "truncate -s -3 a.comet"),
    ("touch -d", "touch -d @1000000000 a.comet"),
    ("the directory renamed", "mv $PWD $PWD.away && mkdir -m 1777 $PWD && cp -p $PWD.away/* $PWD"),
];

/// Those that change the file itself. One who is away does not learn what is missing
/// (docs/limits.md).
const IN_PLACE: [&str; 6] = [
    "tar --overwrite",
    "cp",
    "cp -p",
    "rsync -a --inplace",
    "logrotate, copytruncate",
    "a torn copy",
];

/// What a subscriber has been told.
#[derive(Debug, Default)]
struct Told {
    messages: Vec<String>,
    gaps: usize,
    answers: Vec<String>,
}

impl Told {
    /// Takes the answer of a poll. Returns the next cursor.
    fn take(&mut self, answer: String) -> String {
        let value: Value = serde_json::from_str(&answer).unwrap();
        let news = value["m"]["a"].as_array().into_iter().flatten();
        self.messages.extend(news.map(|one| one["data"].as_str().unwrap().to_owned()));
        self.gaps += usize::from(value.get("gap").is_some());
        self.answers.push(answer);
        value["k"]["a"].to_string()
    }

    fn has_end(&self) -> bool {
        self.messages.last().is_some_and(|last| last == "end")
    }
}

/// A poll, and no read but every second: a watch may be on a directory that is gone.
fn poll(store: &Store, cursor: &str) -> Call {
    let call = store.query(&format!("subscribed[a]={cursor}"));
    call.variable("NOVCOMET_SLEEP", "1").variable("NOVCOMET_TRIES", "60")
}

fn publish(store: &Store, text: &str) -> String {
    store.query("").form(&format!("publish=a&data={text}")).answer().cursor("a").1
}

/// A topic with three messages, a backup from before the third, and the cursors of the first and
/// the third.
fn world() -> (Store, TempDir, [String; 2]) {
    let (store, backup) = (Store::new(), TempDir::new());
    let first = publish(&store, "one");
    publish(&store, "two");
    let script = "cp -p a.comet $1 && tar -cf $1/a.tar a.comet";
    assert!(in_directory(&store, &backup, script));
    let last = publish(&store, "three");
    (store, backup, [first, last])
}

fn in_directory(store: &Store, backup: &TempDir, script: &str) -> bool {
    let mut shell = Command::new("sh");
    shell.args(["-ec", script, "sh"]).arg(&**backup).current_dir(&*store.0).env("PWD", &*store.0);
    shell.status().unwrap().success()
}

fn is_there(way: &str) -> bool {
    let program = way.split(' ').next().unwrap();
    let is_there = program != "rsync" || found(program).is_some();
    if !is_there {
        not_run("an event file under rsync", "rsync");
    }
    is_there
}

#[test]
fn poll_is_told_the_truth_of_a_changed_file() {
    for (way, script) in WAYS {
        if !is_there(way) {
            continue;
        }
        let (store, backup, [first, cursor]) = world();
        let waiter = poll(&store, &cursor).waiting();
        assert!(in_directory(&store, &backup, script), "{way}");
        publish(&store, "end");
        let mut told = Told::default();
        let mut cursor = told.take(waiter.answer().body);
        while !told.has_end() {
            assert!(told.answers.len() < 9, "{way}: a storm: {told:?}");
            cursor = told.take(poll(&store, &cursor).answer().body);
        }
        assert!(told.gaps > 0 || told.messages == ["end"], "{way}: {told:?}");
        // One who comes back later, and has seen the first message only.
        let mut late = Told::default();
        late.take(poll(&store, &first).answer().body);
        let has_all = late.gaps > 0 || late.messages == ["two", "three", "end"];
        assert!(has_all || IN_PLACE.contains(&way), "{way}: {late:?}");
        // And then it is quiet.
        let quiet = store.query(&format!("subscribed[a]={cursor}&wait=0")).answer();
        assert_eq!(quiet.cursor("a").0, '0', "{way}: {quiet:?}");
        let _ = fs::remove_dir_all(format!("{}.away", store.0.display()));
    }
}

#[test]
fn stream_is_told_the_truth_of_a_changed_file() {
    for (way, script) in WAYS {
        if !is_there(way) {
            continue;
        }
        let (store, backup, [_, cursor]) = world();
        let query = format!("subscribed[a]={cursor}&stream=1&wait=60");
        let call = store.query(&query).variable("NOVCOMET_SLEEP", "1");
        let mut child = call.waiting().take();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert!(in_directory(&store, &backup, script), "{way}");
        publish(&store, "end");
        let told: Vec<_> = lines.take_while(|line| line != "data: end").collect();
        let is_data = |line: &&String| line.starts_with("data: ");
        let has_gap = told.iter().any(|line| line == "event: gap");
        assert!(has_gap || !told.iter().any(|line| is_data(&line)), "{way}: {told:?}");
        let _ = (child.kill(), child.wait());
        let _ = fs::remove_dir_all(format!("{}.away", store.0.display()));
    }
}

/// Another file system appears in the place of the directory, and is there instead of it.
#[test]
fn mount_over_the_directory_is_noticed() {
    const MOUNTS: [(&str, &str); 2] = [
        ("a tmpfs", "mount -t tmpfs -o mode=1777 tmpfs \"$1\""),
        ("a bind mount", "mkdir -m 1777 \"$1.new\" && mount --bind \"$1.new\" \"$1\""),
    ];
    for (kind, mount) in MOUNTS {
        let (store, _backup, [_, cursor]) = world();
        // It subscribes, mounts while the subscriber waits, and publishes.
        let script = format!(
            "export NOVCOMET_SLEEP=1 NOVCOMET_TRIES=60\n\
             mount --bind \"$1\" \"$1\" || exit 77\n\
             QUERY_STRING=\"subscribed[a]={cursor}\" \"$2\" >\"$1.answer\" &\n\
             until grep -qE '^(281|271|441|73|22) ' /proc/$!/syscall; do sleep 0.01; done\n\
             {mount} || exit 77\n\
             QUERY_STRING='publish=a&data=end' \"$2\" >/dev/null\n\
             wait $!"
        );
        let namespace = if is_root() { "-m" } else { "-rm" };
        let mut command = Command::new("unshare");
        command.args([namespace, "sh", "-c", &script, "sh"]).arg(&*store.0);
        command.arg(crate::support::binary::program()).stderr(Stdio::null());
        command.env("NOVCOMET_STORE", format!("file://{}", store.0.display()));
        let status = command.status().unwrap();
        let answer = format!("{}.answer", store.0.display());
        let told = fs::read_to_string(&answer).unwrap_or_default();
        let _ =
            (fs::remove_file(&answer), fs::remove_dir_all(format!("{}.new", store.0.display())));
        if status.code() == Some(77) || !status.success() && told.is_empty() {
            not_run("a mount over the store", "the right to mount a file system");
            return;
        }
        let body = told.split_once("\r\n\r\n").unwrap().1;
        let mut first = Told::default();
        first.take(body.to_owned());
        assert!(first.gaps > 0, "{kind}: {first:?}");
        assert!(first.has_end() || first.messages.is_empty(), "{kind}: {first:?}");
    }
}
