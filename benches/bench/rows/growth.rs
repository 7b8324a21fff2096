//! The growth of time with the numbers of waiters and topics and the size of the log.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::start::ours;
use crate::figures::{Samples, head, line, point};
use crate::worlds::Scratch;

const ROUNDS: usize = 500;

pub fn row() {
    head(&["topics in the directory", "publish", "publish to a new topic", "look"]);
    for topics in [1, 10, 100, 1_000, 9_000] {
        let store = Scratch::new();
        for number in 0..topics {
            File::create(store.0.join(format!("t{number}.comet"))).unwrap();
        }
        let publish = repeat(|_| ours(&store.0, "publish=t0"));
        let new = repeat(|round| ours(&store.0, &format!("publish=new{round}")));
        let look = repeat(|_| ours(&store.0, "subscribed[t0]=0&wait=0"));
        line(&[&topics, &publish, &new, &look]);
        point("topics", topics, &[publish.median(), new.median(), look.median()]);
    }
    println!();
    head(&["messages of 100 bytes in the log", "publish one more", "read the last", "replay all"]);
    for messages in [0, 10, 100, 1_000] {
        let store = Scratch::new();
        let message = format!("publish=a&data={}", "x".repeat(100));
        for _ in 0..messages {
            run(&mut ours(&store.0, &message));
        }
        run(&mut ours(&store.0, "publish=a"));
        let last = repeat(|_| ours(&store.0, "subscribed[a]=0&wait=0"));
        let replay = repeat(|_| ours(&store.0, "subscribed[a]=earliest&wait=0"));
        let publish = repeat(|_| ours(&store.0, &message));
        line(&[&messages, &publish, &last, &replay]);
        point("log", messages, &[publish.median(), last.median(), replay.median()]);
    }
}

fn repeat(command: impl Fn(usize) -> Command) -> Samples {
    let once = |round| {
        let mut command = command(round);
        let begin = Instant::now();
        run(&mut command);
        begin.elapsed()
    };
    Samples::new((0..ROUNDS).map(once).collect())
}

fn run(command: &mut Command) {
    assert!(command.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap().success());
}
