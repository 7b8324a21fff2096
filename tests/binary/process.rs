//! The process itself: inherited state, rights that it drops, and missing resources.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::binary::{Answer, Store, Waiter};
use crate::support::dir::touch;
use crate::support::turn::INOTIFY;
use crate::support::wait::eventually;

const QUIET: &str = r#"{"s":0,"k":{"a":0.100000}}"#;

/// The options of strace(1) for a fault in a system call.
fn injected(fault: &str) -> [&str; 5] {
    // -D makes the traced program our child, instead of strace.
    ["-D", "-qqq", "-o", "/dev/null", fault]
}

// Inherited state.

#[test]
fn blocked_or_ignored_sigterm_ends_wait() {
    for how in ["--ignore-signal=TERM", "--block-signal=TERM"] {
        let store = Store::new();
        let waiter = store.query("subscribed[a]=0").by("env", &[how]).waiting();
        let begin = Instant::now();
        waiter.signal("TERM");
        assert_eq!(waiter.answer().body, QUIET);
        assert!(begin.elapsed() < Duration::from_secs(1), "{how}");
    }
}

/// Without a signalfd, SIGTERM has its default action and ends the process.
#[test]
fn sigterm_ends_wait_without_signalfd() {
    let store = Store::new();
    let blocked = ["env", "--ignore-signal=TERM", "--block-signal=TERM"];
    let words = [&injected("--inject=signalfd4:error=EMFILE")[..], &blocked].concat();
    let waiter = store.query("subscribed[a]=0").by("strace", &words).waiting();
    waiter.signal("TERM");
    assert_eq!(waiter.take().wait().unwrap().signal(), Some(15));
}

#[test]
fn nohup_is_respected() {
    let store = Store::new();
    let call = store.query("subscribed[a]=0").by("env", &["--ignore-signal=HUP"]);
    let mut waiter = call.waiting();
    waiter.signal("HUP");
    thread::sleep(Duration::from_millis(100));
    assert!(waiter.0.try_wait().unwrap().is_none(), "it ended at SIGHUP");
    waiter.signal("TERM");
    assert_eq!(waiter.answer().body, QUIET);
}

/// For each set of closed standard streams, no output goes into another file. The worst case is
/// an event file with descriptor 1.
#[test]
fn closed_standard_streams_corrupt_no_file() {
    for closed in 0..8 {
        let store = Store::new();
        let close = [" 0>&-", " 1>&-", " 2>&-"];
        let closing: String =
            (0..3).filter(|fd| closed >> fd & 1 == 1).map(|fd| close[fd]).collect();
        let script = format!("exec \"$0\"{closing}");
        let run = |query: &str| {
            let call = store.query(query).method("GET");
            let output = call.by("sh", &["-c", &script]).output();
            assert!(output.status.success(), "{closing}: {output:?}");
            assert!(output.stderr.is_empty(), "{closing}: {output:?}");
            let answered = output.stdout.starts_with(b"Status: 200 OK\r\n");
            assert_eq!(answered, closed & 2 == 0, "{closing}: {output:?}");
        };
        for query in ["publish=a&data=x", "publish=a&data=y", "subscribed[a]=0&wait=0.05"] {
            run(query);
        }
        assert_eq!(store.names(), ["a.comet"], "{closing}");
        let log = fs::read_to_string(store.file("a")).unwrap();
        let is_json = |line| serde_json::from_str::<serde_json::Value>(line).is_ok();
        assert!(log.lines().count() == 3 && log.lines().all(is_json), "{closing}: {log}");
    }
}

// Rights that the process drops.

/// The words after `name` in a file of /proc.
fn words(waiter: &Waiter, file: &str, name: &str) -> Vec<String> {
    let text = waiter.read_proc(file);
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let words = line.unwrap_or_else(|| panic!("no {name} in {text}"));
    words.split_whitespace().take(2).map(ToOwned::to_owned).collect()
}

fn has_descriptor(waiter: &Waiter, number: u32) -> bool {
    fs::symlink_metadata(format!("/proc/{}/fd/{number}", waiter.0.id())).is_ok()
}

#[test]
fn waiter_cannot_start_programs_or_leak() {
    let store = Store::new();
    let leaking = ["-c", "exec \"$0\" 8</dev/null"];
    let waiting = |sandbox| {
        let call = store.query("subscribed[a]=0").variable("NOVCOMET_SANDBOX", sandbox);
        call.by("sh", &leaking).waiting()
    };
    let confined = waiting("on");
    for (limit, value) in
        [("Max processes", "0"), ("Max core file size", "0"), ("Max open files", "16")]
    {
        assert_eq!(words(&confined, "limits", limit), [value, value], "{limit}");
    }
    assert_eq!(words(&confined, "status", "NoNewPrivs:"), ["1"]);
    assert!(!has_descriptor(&confined, 8));
    let free = waiting("off");
    assert_ne!(words(&free, "limits", "Max processes"), ["0", "0"]);
    assert_eq!(words(&free, "status", "NoNewPrivs:"), ["0"]);
    assert!(has_descriptor(&free, 8));
}

/// The limit is soft, because a hard limit would also apply to the error log.
#[test]
fn publisher_file_size_is_limited() {
    let store = Store::new();
    let most = (4 * 262_144 + 6 * 65_536 + 4_096).to_string();
    let slowly = injected("--inject=renameat2:delay_enter=300000");
    let call = store.query("publish=a&data=x").by("strace", &slowly);
    let publisher = call.start();
    let limits = || publisher.read_proc("limits");
    eventually("the size of files is limited", || {
        limits().lines().any(|line| line.contains("file size") && line.contains(&most))
    });
    assert_eq!(words(&publisher, "limits", "Max file size"), [&most, "unlimited"]);
    assert_eq!(publisher.answer().body, "true");
}

/// A parent has left 100 descriptors open. A limit of 16 in all would leave no descriptor.
#[test]
fn inherited_descriptors_are_not_counted() {
    let _turn = INOTIFY.shared();
    let store = Store::new();
    let open = "for fd in {3..103}; do eval \"exec $fd</dev/null\"; done; exec \"$0\" \"$@\"";
    let leaking = ["-c", open];
    let unclosed =
        [&leaking[..], &["strace"], &injected("--inject=close_range:error=ENOSYS")].concat();
    for words in [&leaking[..], &unclosed] {
        assert_eq!(store.query("publish=a").by("bash", words).answer().body, "true");
        let waiter = store.query("subscribed[a]=0").by("bash", words).waiting();
        assert!(waiter.has_inotify());
        touch(&store.file("a"));
        assert_eq!(waiter.answer().cursor("a").0, '1');
    }
}

/// Without a restriction the process continues, unless the configuration requires it.
#[test]
fn missing_sandbox_is_503_only_if_required() {
    for fault in [
        "close_range:error=ENOSYS",
        "close_range:error=EPERM",
        "prlimit64:error=EPERM:when=3+",
        "prctl:error=EINVAL",
        "landlock_create_ruleset:error=ENOSYS",
        "landlock_create_ruleset:error=EOPNOTSUPP",
        "landlock_create_ruleset:error=ENOMEM:when=2",
        "landlock_add_rule:error=ENOMEM",
        "landlock_restrict_self:error=EPERM",
        "landlock_restrict_self:error=E2BIG",
    ] {
        let store = Store::new();
        let fault = format!("--inject={fault}");
        let publish = |sandbox| {
            let call = store.query("publish=a&data=x").variable("NOVCOMET_SANDBOX", sandbox);
            call.by("strace", &injected(&fault)).answer()
        };
        let refused = publish("require");
        refused.assert_problem(503);
        assert!(refused.log.starts_with("novcomet: cannot "), "{fault}: {refused:?}");
        assert!(refused.log.contains("NOVCOMET_SANDBOX=on"), "{fault}: {refused:?}");
        assert_eq!(store.names(), [""; 0], "{fault}");
        let served = publish("on");
        assert!(served.body == "true" && served.log.is_empty(), "{fault}: {served:?}");
        assert_eq!(publish("off").body, "true", "{fault}");
    }
}

/// Each kind of server fault, with the only texts that a client can read.
#[test]
fn each_503_has_a_known_body() {
    let misconfigured = "the server is misconfigured; its error log says how";
    let unusable = "the store cannot be used; the server's error log says why";
    let store = Store::new();
    fs::create_dir(store.file("directory")).unwrap();
    let ask = |query: &str| store.query(query).method("GET");
    let set = |name: &str, value: &str| ask("publish=a").variable(name, value);
    let key = set("NOVCOMET_TOKEN_KEY", "/etc/passwd").variable("NOVCOMET_PUBLISH", "token");
    let key = key.variable("HTTP_AUTHORIZATION", "Bearer x");
    let visitor = ask("subscribed[a]=0").variable("REMOTE_ADDR", "192.0.2.1");
    let no_socket = injected("--inject=socket:error=EACCES");
    let sandbox = set("NOVCOMET_SANDBOX", "require");
    for (kind, call, detail) in [
        ("a setting", set("NOVCOMET_TRIES", "many"), misconfigured),
        ("no key", set("NOVCOMET_PUBLISH", "token"), misconfigured),
        ("a key", key, misconfigured),
        (
            "a sandbox",
            sandbox.by("strace", &injected("--inject=landlock_create_ruleset:error=ENOSYS")),
            misconfigured,
        ),
        ("a directory", set("NOVCOMET_STORE", "file:///nowhere/at/all"), unusable),
        ("a topic that is no file", ask("publish=directory"), unusable),
        ("a server", set("NOVCOMET_STORE", "redis://127.0.0.1:1/0"), unusable),
        (
            "a slot",
            visitor.by("strace", &no_socket),
            "nobody can wait; the server's error log says why",
        ),
    ] {
        let answer = call.answer();
        let body = format!(r#"{{"detail":"{detail}","status":503,"title":"Service Unavailable"}}"#);
        assert_eq!((answer.status(), answer.body.as_str()), (503, body.as_str()), "{kind}");
        assert!(answer.log.starts_with("novcomet: "), "{kind}: {answer:?}");
    }
}

#[test]
fn required_sandbox_refuses_subscribers_too() {
    let store = Store::new();
    for query in ["subscribed[a]=0&wait=0", "subscribed[a]=0&wait=0&stream=1"] {
        let call = |sandbox| {
            let call = store.query(query).variable("NOVCOMET_SANDBOX", sandbox);
            call.by("strace", &injected("--inject=landlock_restrict_self:error=EPERM")).answer()
        };
        call("require").assert_problem(503);
        assert_eq!(call("on").status(), 200);
    }
}

// Missing resources.

/// With few descriptors, the client gets an answer or an error. There is no hang and no
/// incomplete log.
#[test]
fn few_descriptors_give_answer_or_error() {
    for few in 4..12 {
        let store = Store::new();
        assert_eq!(store.query("publish=a&data=x").answer().body, "true");
        let limit = format!("--nofile={few}:{few}");
        let call = |query: &str| {
            let answer = store.query(query).by("prlimit", &[&limit]).answer();
            if answer.status() != 200 {
                answer.assert_problem(503);
                assert!(few < 8, "{few}: {answer:?}");
            }
            answer
        };
        for query in ["publish=a&data=y", "publish=b", "subscribed[a]=earliest"] {
            call(query);
        }
        let quiet = call("subscribed[c]=0&wait=0.2");
        assert!(quiet.status() == 503 || quiet.body == r#"{"s":0,"k":{"c":0.100000}}"#);
        assert!(store.query("subscribed[a]=earliest").answer().body.contains(r#""data":"x""#));
    }
}

/// The process has neither inotify nor signals, and then no periodic read. The next best
/// mechanism wakes it, and finally the read every `NOVCOMET_SLEEP`.
#[test]
fn waiter_without_inotify_reads_periodically() {
    for (faults, sleep) in [
        (&["inotify_init1:error=EMFILE"][..], "3600"),
        (&["inotify_init1:error=ENOSYS"], "3600"),
        (&["inotify_add_watch:error=ENOSPC"], "3600"),
        (&["inotify_add_watch:error=ENOSPC:when=2"], "3600"),
        (&["inotify_init1:error=EMFILE", "signalfd4:error=EMFILE"], "0.1"),
    ] {
        for there in [false, true] {
            let store = Store::new();
            if there {
                touch(&store.file("a"));
                thread::sleep(Duration::from_millis(20));
            }
            let faults: Vec<_> = faults.iter().map(|fault| format!("--inject={fault}")).collect();
            let mut words = injected("--seccomp-bpf").to_vec();
            words.push("-f");
            words.extend(faults.iter().map(String::as_str));
            let call = store.query("subscribed[a]=0").variable("NOVCOMET_SLEEP", sleep);
            let call = call.variable("NOVCOMET_TRIES", "100").by("strace", &words);
            let waiter = call.waiting();
            assert!(!waiter.has_inotify() || faults[0].contains("add_watch"), "{faults:?}");
            touch(&store.file("a"));
            assert_eq!(waiter.answer().cursor("a").0, '1', "{faults:?}");
        }
    }
}

/// `kill -STOP` or a debugger stops the publisher while it holds the lock.
#[test]
fn stopped_publisher_delays_others_2_seconds() {
    let store = Store::new();
    store.query("publish=a&data=one").answer();
    let stopped = injected("--inject=pwrite64:signal=STOP");
    let frozen = store.query("publish=a&data=two").by("strace", &stopped).start();
    // strace stops it for a moment at each system call, too.
    eventually("the publisher is stopped", || {
        fs::read_to_string(store.file("a")).unwrap().contains("two")
            && words(&frozen, "status", "State:")[0].eq_ignore_ascii_case("T")
    });
    let begin = Instant::now();
    let waiter = store.query("subscribed[b]=0").waiting();
    assert_eq!(store.query("publish=b&data=other").answer().body, "true");
    assert!(waiter.answer().body.contains("other"));
    assert!(store.query("subscribed[a]=earliest").answer().body.contains("one"));
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    let begin = Instant::now();
    let refused = store.query("publish=a&data=three").answer();
    refused.assert_problem(503);
    assert!(refused.log.contains("is locked by another process"), "{refused:?}");
    let took = begin.elapsed();
    assert!((2.0..3.0).contains(&took.as_secs_f64()), "{took:?}");
    frozen.signal("CONT");
    assert_eq!(frozen.answer().body, "true");
    let all = store.query("subscribed[a]=earliest").answer().body;
    assert!(all.contains("two") && !all.contains("three"), "{all}");
}

/// The system calls, each by its name and its number among the calls of this name, from the
/// first call that concerns the store. Calls for memory are left out, because no answer is
/// possible without memory.
fn each_call(trace: &str, store: &Store) -> Vec<(String, usize)> {
    let mut counts = BTreeMap::new();
    let names = trace.lines().filter_map(|line| Some((line.split_once('(')?.0, line)));
    let mut calls: Vec<_> = names
        .map(|(name, line)| {
            let number = counts.entry(name).or_insert(0);
            *number += 1;
            (name.to_owned(), *number, line.contains(store.0.to_str().unwrap()))
        })
        .collect();
    let first = calls.iter().position(|(_, _, is_ours)| *is_ours).unwrap();
    let is_of_memory =
        |name: &str| ["mmap", "munmap", "mremap", "brk", "exit_group"].contains(&name);
    calls.drain(..first);
    calls.retain(|(name, ..)| !is_of_memory(name));
    calls.into_iter().map(|(name, number, _)| (name, number)).collect()
}

/// The client gets a complete answer or an error. Only an answer that cannot be written may be
/// missing.
#[test]
fn refused_call_gives_answer_or_error() {
    let (mut answered, mut refused) = (0, 0);
    for query in [
        "subscribed[a]=earliest",
        "subscribed[b]=0&subscribed[c]=0&wait=0.02",
        "subscribed[a]=earliest&stream=1&wait=0.02",
    ] {
        let (store, beside) = (Store::new(), Store::new());
        let trace = beside.0.join("trace");
        store.query("publish=a&data=one").answer();
        touch(&store.file("b"));
        let by = |options: &[&str]| {
            let words = [&["-o", trace.to_str().unwrap()], options].concat();
            store.query(query).method("GET").by("strace", &words).output()
        };
        assert!(by(&[]).status.success());
        for (name, number) in each_call(&fs::read_to_string(&trace).unwrap(), &store) {
            for error in ["EACCES", "EIO", "EINTR", "ENOMEM", "EMFILE"] {
                let fault = format!("inject={name}:error={error}:when={number}");
                let output = by(&["-e", &format!("trace={name}"), "-e", &fault]);
                let log = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{query}, {fault}: {output:?}");
                assert!(!log.contains("panicked") && log.lines().count() <= 1, "{fault}: {log}");
                if output.stdout.is_empty() {
                    assert!(["write", "ppoll"].contains(&name.as_str()), "{fault}: no answer");
                    continue;
                }
                let answer = Answer::parse(&output);
                if answer.is_postponed() {
                    refused += 1;
                    continue;
                }
                match answer.status() {
                    200 if query.starts_with("subscribed[b]") => assert!(
                        answer.body.starts_with(r#"{"s":0,"k":{"b":"#),
                        "{fault}: {answer:?}"
                    ),
                    200 => {
                        let is_cut = name == "write" || name == "ppoll" || !log.is_empty();
                        assert!(is_cut || answer.body.contains("one"), "{fault}: {answer:?}");
                    }
                    _ => answer.assert_problem(503),
                }
                match answer.status() {
                    200 => answered += 1,
                    _ => refused += 1,
                }
            }
        }
        assert_eq!(store.names().len(), 2, "{:?}", store.names());
    }
    assert!(answered > 50 && refused > 50, "{answered} answered, {refused} refused");
}

/// lighttpd and `mod_cgid` pass the file of their error log as standard error.
#[test]
fn topic_limit_spares_logs_and_answers() {
    let store = Store::new();
    fs::create_dir(store.file("planted")).unwrap();
    let (length, path) = (1 << 30, store.0.join("log"));
    File::create(&path).unwrap().write_all_at(b"\n", length - 1).unwrap();
    let append = || Stdio::from(File::options().append(true).open(&path).unwrap());
    let added = |query: &str| {
        let mut call = store.query(query);
        let before = fs::metadata(&path).unwrap().len();
        call.command.stdout(append()).stderr(append()).stdin(Stdio::null());
        call.command.status().unwrap();
        let mut added =
            vec![0; usize::try_from(fs::metadata(&path).unwrap().len() - before).unwrap()];
        File::open(&path).unwrap().read_exact_at(&mut added, before).unwrap();
        String::from_utf8(added).unwrap()
    };
    assert!(added("publish=a&data=x").ends_with("\r\n\r\ntrue"));
    let refused = added("publish=planted");
    assert!(refused.starts_with("novcomet: ") && refused.contains("\nStatus: 503 "), "{refused}");
}

/// A client that disconnects before its answer causes no error.
#[test]
fn unread_answer_is_no_error() {
    let store = Store::new();
    let mut child = store.query("publish=a").method("GET").command;
    child.stdout(File::open("/dev/null").unwrap()).stdin(Stdio::null());
    let output = child.output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert_eq!(store.names(), ["a.comet"]);
}
