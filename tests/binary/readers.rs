//! A client reads slowly or not at all. The real binary answers by poll and by stream, through
//! a pipe (Apache's `mod_cgi`, lighttpd) and a unix socket (`mod_cgid`).

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::binary::{Call, Store, Waiter};
use crate::support::wait::eventually;

/// One event that is larger than the buffer of a pipe or a socket.
const LARGE: usize = 1_000_000;

/// Starts a call, and returns our end of its output too.
type Way = fn(Call) -> (Box<dyn Read + Send>, Waiter);

const WAYS: [Way; 2] = [by_pipe, by_socket];

fn by_pipe(call: Call) -> (Box<dyn Read + Send>, Waiter) {
    let mut waiter = call.start();
    (Box::new(waiter.0.stdout.take().unwrap()), waiter)
}

fn by_socket(mut call: Call) -> (Box<dyn Read + Send>, Waiter) {
    let (ours, its) = UnixStream::pair().unwrap();
    call.command.stdout(Stdio::from(OwnedFd::from(its)));
    (Box::new(ours), call.start())
}

/// The query for the message, and the end of the answer.
const ASKED: [(&str, &str); 2] = [("wait=0", "x\"}]}}"), ("stream=1&wait=30", "x\n\n")];

/// Runs a test with a reader and a process that has filled the buffer between them. The process
/// is in the middle of an answer whose end is given.
fn by_each_way(tell: impl Fn(Box<dyn Read + Send>, Waiter, &str) + Sync) {
    asked_by_each_way(ASKED, tell);
}

fn asked_by_each_way(
    asked: [(&str, &str); 2],
    tell: impl Fn(Box<dyn Read + Send>, Waiter, &str) + Sync,
) {
    let store = store();
    thread::scope(|scope| {
        for ((query, end), way) in asked.into_iter().flat_map(|asked| WAYS.map(|way| (asked, way)))
        {
            let call = store.query(&format!("subscribed[a]=earliest&{query}"));
            let tell = &tell;
            scope.spawn(move || {
                let (reader, waiter) = way(call);
                await_stall(&waiter);
                tell(reader, waiter, end);
            });
        }
    });
}

/// The store has one message that is larger than every buffer.
fn store() -> Store {
    let store = Store::new();
    let size = LARGE.to_string();
    let call = store.query("publish=a").method("POST").variable("NOVCOMET_MAX_DATA", &size);
    let mut call = call.variable("CONTENT_TYPE", "text/plain").variable("CONTENT_LENGTH", &size);
    call.stdin = vec![b'x'; LARGE];
    assert!(call.answer().body.starts_with(r#"{"s":1"#));
    store
}

/// Waits until the process sleeps in write(2), because the buffer is full.
fn await_stall(waiter: &Waiter) {
    let written = || {
        let io = waiter.read_proc("io");
        io.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse::<usize>().ok())
    };
    eventually("the output is full", || written().is_some_and(|written| written > 40_000));
    waiter.await_sleep();
}

/// The log stays empty, because a disconnected reader is no failure.
fn assert_good_end(waiter: Waiter) {
    let output = waiter.take().wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn stalled_reader_is_cut_off() {
    by_each_way(|_reader, waiter, _| assert_good_end(waiter));
}

/// A stream ends 10 s after its time, a poll 30 s after its start. At this rate the whole
/// answer would take four minutes.
#[test]
fn too_slow_reader_is_cut_off() {
    asked_by_each_way([("wait=0", ""), ("stream=1&wait=3", "")], |mut reader, waiter, _| {
        let mut seen = 0;
        loop {
            match reader.read(&mut [0; 4_096]).unwrap() {
                0 => break,
                read => seen += read,
            }
            if seen < LARGE / 4 {
                thread::sleep(Duration::from_secs(1));
            }
        }
        assert!(seen < LARGE, "it was not cut off");
        assert_good_end(waiter);
    });
}

/// The client reads one page per second, which counts as progress.
#[test]
fn slow_reader_gets_the_whole_answer() {
    by_each_way(|mut reader, waiter, _| {
        let mut seen = 0;
        for _ in 0..13 {
            thread::sleep(Duration::from_secs(1));
            seen += reader.read(&mut [0; 4_096]).unwrap();
        }
        let mut buffer = vec![0; 65_536];
        while seen < LARGE {
            let read = reader.read(&mut buffer).unwrap();
            assert!(read > 0, "cut off after {seen} bytes");
            seen += read;
        }
        drop(reader);
        assert_good_end(waiter);
    });
}

/// The process ends long before its limit of 10 s, because lighttpd and Apache stop only when
/// their last CGI has ended.
#[test]
fn sigterm_does_not_wait_for_stalled_reader() {
    by_each_way(|_reader, waiter, _| {
        let begin = Instant::now();
        waiter.signal("TERM");
        assert_good_end(waiter);
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    });
}

#[test]
fn sigterm_finishes_the_event_being_read() {
    by_each_way(|mut reader, waiter, end| {
        let reading = thread::spawn(move || {
            let mut seen = String::new();
            reader.read_to_string(&mut seen).map(|_| seen).unwrap()
        });
        waiter.signal("TERM");
        assert_good_end(waiter);
        let seen = reading.join().unwrap();
        assert!(seen.len() > LARGE && seen.ends_with(end), "a part of an event");
    });
}

#[test]
fn disconnect_during_write_ends_the_process() {
    by_each_way(|reader, waiter, _| {
        drop(reader);
        assert_good_end(waiter);
    });
}
