//! Landlock alone stops a program with a planted bug: it uses topics as file names without
//! encoding them.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::thread;

use novcomet::process::sandbox;

use crate::support::binary::{Answer, SECOND, Store};
use crate::support::host::not_run;

/// Builds the program with the bug once, beside the others.
fn planted() -> &'static str {
    static BUILT: OnceLock<String> = OnceLock::new();
    BUILT.get_or_init(|| {
        let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("planted-traversal");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--locked", "--bin", "comet", "--target-dir"]).arg(&target);
        cargo.env("RUSTFLAGS", "--cfg planted_traversal").env_remove("CARGO_ENCODED_RUSTFLAGS");
        cargo.env("CARGO_PROFILE_DEV_DEBUG", "false").current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(cargo.status().unwrap().success());
        target.join("debug/comet").to_str().unwrap().to_owned()
    })
}

/// A directory outside the store, and the topic by which the bug reaches a file of this name in
/// it.
fn outside(store: &Store, name: &str) -> (Store, String) {
    let outside = Store::new().with("victim", SECOND, 5_000);
    assert_eq!(outside.0.parent(), store.0.parent());
    let topic = format!("../{}/{name}", outside.0.file_name().unwrap().to_str().unwrap());
    (outside, topic)
}

/// Publishes with the planted bug.
fn publish(store: &Store, topic: &str, sandbox: &str) -> Answer {
    let call =
        store.query(&format!("publish={topic}&data=x")).variable("NOVCOMET_SANDBOX", sandbox);
    // `env` starts the planted program. The shipped program is its argument, which it ignores.
    call.method("GET").by("env", &[planted()]).answer()
}

fn has_landlock() -> bool {
    let store = Store::new();
    let answer = store.query("publish=a").variable("NOVCOMET_SANDBOX", "require").answer();
    if answer.status() != 200 {
        assert!(answer.log.contains("confine itself by Landlock"), "{answer:?}");
        not_run("the sandbox", "a kernel with Landlock");
    }
    answer.status() == 200
}

/// The topic's file exists in one case and not in the other. Without Landlock the bug writes to
/// it.
#[test]
fn landlock_stops_a_planted_traversal() {
    if !has_landlock() {
        return;
    }
    for name in ["victim", "new"] {
        for sandbox in ["on", "require"] {
            let store = Store::new();
            let (outside, topic) = outside(&store, name);
            let answer = publish(&store, &topic, sandbox);
            answer.assert_problem(503);
            assert!(answer.log.contains("Permission denied"), "{answer:?}");
            assert_eq!(outside.names(), ["victim.comet"]);
            assert_eq!(outside.time("victim"), (SECOND, 5_000));
            assert_eq!(fs::metadata(outside.file("victim")).unwrap().len(), 0);
            assert_eq!(publish(&store, "inside", sandbox).status(), 200);
        }
    }
}

#[test]
fn planted_traversal_works_without_landlock() {
    for name in ["victim", "new"] {
        let store = Store::new();
        let (outside, topic) = outside(&store, name);
        assert_eq!(publish(&store, &topic, "off").status(), 200);
        assert!(fs::read_to_string(outside.file(name)).unwrap().contains(r#""data":"x""#));
    }
}

// The access that Landlock permits. It applies to one thread and its children.

fn confined<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(act).join().unwrap())
}

fn is_refused<T: Debug>(result: io::Result<T>) {
    let kind = result.unwrap_err().kind();
    assert!(
        matches!(kind, io::ErrorKind::PermissionDenied | io::ErrorKind::CrossesDevices),
        "{kind}"
    );
}

/// All ways to write, in the directory and outside it.
#[test]
fn publisher_can_write_only_event_files() {
    if !has_landlock() {
        return;
    }
    let (store, outside) = (Store::new().with("a", SECOND, 0), Store::new().with("a", SECOND, 0));
    let directory = File::open(&store.0).unwrap();
    confined(|| {
        sandbox::write_only_below(Some(directory.as_fd())).unwrap();
        let (inside, other) = (store.file("a"), outside.file("a"));
        fs::write(&inside, "x").unwrap();
        fs::write(store.file("b"), "x").unwrap();
        fs::rename(store.file("b"), &inside).unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"");
        is_refused(fs::write(&other, "x"));
        is_refused(File::options().append(true).open(&other));
        is_refused(fs::write(outside.file("b"), "x"));
        is_refused(fs::remove_file(&other));
        is_refused(fs::rename(&inside, outside.file("b")));
        is_refused(fs::rename(&other, &inside));
        is_refused(fs::hard_link(&other, store.file("b")));
        is_refused(symlink(&other, store.file("b")));
        is_refused(fs::create_dir(store.file("b")));
        is_refused(Command::new("true").spawn());
    });
    assert_eq!((outside.names(), outside.time("a")), (vec!["a.comet".into()], (SECOND, 0)));
}

#[test]
fn subscriber_can_read_but_not_write() {
    if !has_landlock() {
        return;
    }
    let store = Store::new().with("a", SECOND, 0);
    confined(|| {
        sandbox::write_only_below(None).unwrap();
        assert_eq!(fs::read(store.file("a")).unwrap(), b"");
        is_refused(fs::write(store.file("a"), "x"));
        is_refused(fs::write(store.file("b"), "x"));
        is_refused(fs::remove_file(store.file("a")));
    });
    assert_eq!((store.names(), store.time("a")), (vec!["a.comet".into()], (SECOND, 0)));
}

/// The shipped build does not have the planted bug.
#[test]
fn shipped_program_has_no_planted_bug() {
    let store = Store::new();
    let (outside, topic) = outside(&store, "victim");
    let call = store.query(&format!("publish={topic}&data=x")).variable("NOVCOMET_SANDBOX", "off");
    assert_eq!(call.answer().status(), 200);
    assert_eq!(outside.time("victim"), (SECOND, 5_000));
    assert_eq!(store.names(), [format!("{}.comet", topic.replace('/', "%2F"))]);
}
