//! What an attacker, or a crowd, can take: each limit, by the real binary.

mod comet;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use comet::{COMET, SECOND, Store, Waiter, eventually, is_root, set_time};

// Of a request.

#[test]
fn a_request_names_64_topics_and_no_more() {
    let store = Store::new();
    let many =
        |count: usize, one: fn(usize) -> String| (0..count).map(one).collect::<Vec<_>>().join("&");
    let subscribe = |count| many(count, |number| format!("subscribed[{number}]=0")) + "&wait=0";
    let publish = |count| many(count, |number| format!("publish={number}"));
    store.query(&subscribe(65)).answer().assert_problem(400);
    store.query(&publish(65)).answer().assert_problem(400);
    store.query("publish=x").form(&publish(64)).answer().assert_problem(400);
    assert_eq!(store.names(), [""; 0]);
    assert!(store.query(&subscribe(64)).answer().body.starts_with(r#"{"s":0,"#));
    let twice = format!("{}&{}", publish(64), publish(64));
    assert_eq!(store.query("").form(&twice).answer().status(), 200);
    assert_eq!(store.names().len(), 64);
}

/// By a pipe, as from `mod_cgi`, and by a socket, as from `mod_cgid`. All the
/// while the sender has not gone; the test lasts as long as the deadline.
#[test]
fn a_body_that_does_not_come_ends_at_its_deadline() {
    let store = Store::new();
    let post = || store.query("publish=a").method("POST").variable("CONTENT_LENGTH", "20");
    let mut by_pipe = post().command.spawn().unwrap();
    let mut pipe = by_pipe.stdin.take().unwrap();
    let (mut socket, stdin) = UnixStream::pair().unwrap();
    let by_socket = post().command.stdin(OwnedFd::from(stdin)).spawn().unwrap();
    let mut refused =
        post().variable("CONTENT_TYPE", "multipart/form-data").command.spawn().unwrap();
    let _kept = refused.stdin.take();
    pipe.write_all(b"data=x").unwrap();
    socket.write_all(b"data=x").unwrap();
    for (child, status) in [(by_pipe, 408), (by_socket, 408), (refused, 415)] {
        Waiter(child).answer().assert_problem(status);
    }
    assert_eq!(store.names(), [""; 0]);
}

// Of the store.

#[test]
fn at_the_limit_there_is_no_new_topic_and_the_others_go_on() {
    let store = Store::new();
    let publish = |query: &str| store.query(query).variable("NOVCOMET_MAX_TOPICS", "3").answer();
    // What is not an event file does not count.
    File::create(store.0.join("other")).unwrap();
    for query in ["publish=a", "publish=b&data=x", "publish=c"] {
        assert_eq!(publish(query).body, "true");
    }
    publish("publish=d").assert_problem(507);
    publish("publish=d&data=x").assert_problem(507);
    assert_eq!(store.names().len(), 4, "nothing is left behind");
    assert_eq!(publish("publish=a&data=x").body, "true");
    assert!(store.query("subscribed[d]=0&wait=0").answer().body.starts_with(r#"{"s":0,"#));
    fs::remove_file(store.file("b")).unwrap();
    assert_eq!(publish("publish=d").body, "true");
}

#[test]
fn a_share_of_the_file_system_is_left_to_others() {
    let store = Store::new().with("a", SECOND, 0);
    // So that not everything is free.
    fs::write(store.0.join("other"), "x").unwrap();
    let publish =
        |query: &str, free: &str| store.query(query).variable("NOVCOMET_KEEP_FREE", free).answer();
    let log = publish("publish=a&data=x", "100");
    log.assert_problem(507);
    assert!(log.log.contains("NOVCOMET_KEEP_FREE"), "{log:?}");
    assert_eq!(fs::metadata(store.file("a")).unwrap().len(), 0, "nothing is written");
    publish("publish=b&data=x", "100").assert_problem(507);
    assert_eq!(publish("publish=a", "100").body, "true", "an event takes no space");
    assert_eq!(publish("publish=a&data=x", "1").body, "true");
    assert_eq!(publish("publish=b", "0").body, "true");
}

/// On a file system of 20 files and a megabyte: the directory is one of them.
#[test]
fn the_share_counts_files_and_what_a_message_will_take() {
    if !is_root() {
        eprintln!("NOT RUN: the_share_counts_files needs root to mount a file system");
        return;
    }
    let script = r#"
        mount -t tmpfs -o size=1m,nr_inodes=20 tmpfs "$1" || exit
        for number in $(seq 20); do QUERY_STRING="publish=$number" "$2"; done | grep -c '^true'
        export QUERY_STRING='publish=1' REQUEST_METHOD=POST CONTENT_TYPE=text/plain
        for CONTENT_LENGTH in 600000 400000; do
            export CONTENT_LENGTH
            head -c "$CONTENT_LENGTH" /dev/zero | tr '\0' x | "$2" | grep ^Status
        done"#;
    let store = Store::new();
    let call = store.query("").variable("NOVCOMET_KEEP_FREE", "50");
    let call = call.variable("NOVCOMET_MAX_DATA", "1000000");
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).arg(&store.0).arg(COMET);
    command.envs(call.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.replace('\r', ""), "9\nStatus: 507 Insufficient Storage\nStatus: 200 OK\n");
}

/// The age of a file cannot be set back, so what is old here is a millisecond old.
#[test]
fn a_new_topic_sweeps_some_that_are_stale() {
    let store = Store::new();
    for number in 0..200 {
        File::create(store.file(&number.to_string())).unwrap();
        set_time(&store.file(&number.to_string()), SECOND - 1_000_000_000, 0);
    }
    let publish = |query: &str, age: &str| {
        assert_eq!(store.query(query).variable("NOVCOMET_STALE", age).answer().body, "true");
        store.names().len()
    };
    // Their time says 1995, but somebody made them just now.
    assert_eq!(publish("publish=a", "86400"), 201);
    assert_eq!(publish("publish=b", "0"), 202, "0 is never");
    assert_eq!(publish("publish=a", "0.000001"), 202, "only who makes a file sweeps");
    assert_eq!(publish("publish=c", "0.000001"), 202 - 64 + 1, "a part at a time");
    // Whatever is there is stale before long.
    let mut names = 1_000..;
    eventually(|| publish(&format!("publish={}", names.next().unwrap()), "0.000001") < 3);
}

#[test]
fn what_is_in_use_or_not_ours_is_not_swept() {
    let store = Store::new().with("locked", SECOND, 0).with("future", 4_000_000_000, 0);
    let kept = ["locked.comet", "future.comet", "dir.comet", "link.comet", "target", "x.comet.bak"];
    fs::create_dir(store.file("dir")).unwrap();
    symlink(store.0.join("target"), store.file("link")).unwrap();
    fs::write(store.0.join("target"), "").unwrap();
    fs::write(store.0.join("x.comet.bak"), "").unwrap();
    let file = File::options().write(true).open(store.file("locked")).unwrap();
    let exclusive = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    rustix::fs::fcntl_lock(&file, exclusive).unwrap();
    for number in 0..20 {
        let publish = store.query(&format!("publish={number}"));
        assert_eq!(publish.variable("NOVCOMET_STALE", "0.000001").answer().body, "true");
    }
    let names: BTreeSet<_> = store.names().into_iter().collect();
    assert!(kept.iter().all(|name| names.contains(*name)), "{names:?}");
    assert!(names.len() < 10, "the others are swept: {names:?}");
}

#[test]
fn a_subscriber_of_a_topic_that_was_swept_keeps_its_cursor_and_hears_of_the_next_life() {
    let store = Store::new().with("a", SECOND, 163_846_000);
    let waiter = store.query("subscribed[a]=1795415403.163846").waiting();
    let sweep = || store.query("publish=b").variable("NOVCOMET_STALE", "0.000001").answer();
    eventually(|| {
        let _ = fs::remove_file(store.file("b"));
        sweep();
        !store.file("a").exists()
    });
    let quiet = store.query("subscribed[a]=1795415403.163846&wait=0").answer();
    assert_eq!(quiet.cursor("a"), ('0', "1795415403.163846".into()));
    store.query("publish=a").answer();
    let answer = waiter.answer();
    assert_eq!(answer.cursor("a").0, '1');
    assert!(answer.body.contains(r#""gap":["a"]"#), "{answer:?}");
}
