//! A run of the tests by tests/run leaves nothing behind, however it ends.

use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

const RUN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/run");

/// Creates files, and processes that are hard to find: in their own sessions, without a parent
/// or an environment, and ignoring every signal. Prints their paths and process ids.
const STRAY: &str = r#"
    touch "$TMPDIR/file" "$TESTS_SHM/file"
    echo "$TMPDIR"; echo "$TESTS_SHM"
    sleep 1000 >&2 & echo $!
    (setsid sleep 1000 >&2 & echo $!)
    deaf='trap "" INT TERM HUP; sleep 1000 & echo $!; echo $$; echo ready; wait'
    env -i setsid sh -c "$deaf" &
"#;

/// Runs a shell script until it prints "ready". Returns the text before.
fn start(script: &str) -> (Child, Vec<String>) {
    // A shell keeps a signal ignored if it was ignored at its start. SIGINT is ignored in
    // commands that another shell has started in the background.
    let mut command = Command::new("env");
    command.args(["--default-signal=INT,TERM,HUP", RUN, "sh", "-c", script]).process_group(0);
    command.stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let said = lines.take_while(|line| line != "ready").collect();
    (child, said)
}

fn assert_nothing_is_left(said: &[String]) {
    assert_eq!(said.len(), 6, "{said:?}");
    let (directories, pids) = said.split_at(2);
    for directory in directories {
        assert!(!Path::new(directory).exists(), "{directory}");
    }
    for pid in pids {
        assert!(!Path::new("/proc").join(pid).exists(), "{pid}");
    }
}

fn signalled(child: &mut Child, signal: &str) -> ExitStatus {
    let script = format!("kill -s {signal} {}", child.id());
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    child.wait().unwrap()
}

#[test]
fn interrupted_run_leaves_nothing() {
    for (signal, number) in [("INT", 2), ("TERM", 15), ("HUP", 1)] {
        let (mut run, said) = start(&format!("{STRAY} wait"));
        let status = signalled(&mut run, signal);
        assert_eq!(status.signal(), Some(number), "{status:?}");
        assert_nothing_is_left(&said);
    }
}

/// The key is pressed repeatedly.
#[test]
fn run_interrupted_twice_leaves_nothing() {
    for pause in [1, 5, 20, 100, 400] {
        let (mut run, said) = start(&format!("{STRAY} wait"));
        let script = format!("kill -s INT {0}; sleep 0.{pause:03}; kill -s INT {0} 2>&-", run.id());
        Command::new("sh").args(["-c", &script]).status().unwrap();
        run.wait().unwrap();
        assert_nothing_is_left(&said);
    }
}

#[test]
fn finished_run_leaves_nothing() {
    for code in [0, 3] {
        let (mut run, said) = start(&format!("{STRAY} read end; exit {code}"));
        drop(run.stdin.take());
        assert_eq!(run.wait().unwrap().code(), Some(code));
        assert_nothing_is_left(&said);
    }
}

/// A process that has to restore a setting, such as the clock, has one second for it.
#[test]
fn process_that_ends_is_not_killed() {
    let kept = std::env::temp_dir().join(format!("novcomet-kept-{}", std::process::id()));
    let back = "echo ready; while kill -0 $1 2>&-; do sleep 0.02; done; sleep 0.3; touch $2";
    let script = format!("setsid sh -c '{back}' sh $$ '{}' & wait", kept.display());
    let (mut run, _) = start(&script);
    signalled(&mut run, "TERM");
    assert!(kept.exists());
    std::fs::remove_file(kept).unwrap();
}

#[test]
fn skipped_tests_are_summed_up() {
    let script = "echo 'NOT RUN: a needs root' >> $TESTS_NOT_RUN
        echo 'NOT RUN: b needs Landlock' >> $TESTS_NOT_RUN
        echo 'NOT RUN: c needs root' >> $TESTS_NOT_RUN; exit 1";
    let output = Command::new(RUN).args(["sh", "-c", script]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let sum = String::from_utf8(output.stdout).unwrap();
    assert_eq!(sum.lines().count(), 1, "{sum}");
    assert!(sum.contains("3 parts of the tests, which need root (2), Landlock (1)"), "{sum}");
    assert!(sum.trim_end().ends_with("make test"), "{sum}");
}
