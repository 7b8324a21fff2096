//! From start to exit: the cost of every request.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::figures::{Samples, head, line, ratio};
use crate::peers::peer;
use crate::support::SOURCE;
use crate::worlds::{COMET, Scratch, in_c};

const ROUNDS: usize = 3_000;
/// php-cgi takes some 20 ms.
const SLOW_ROUNDS: usize = 100;

pub fn row() {
    let store = Scratch::new();
    let (_built, bare) = in_c("bare");
    head(&["start to exit", "ours", "C, static, the same bytes", "ratio"]);
    for (name, query) in [
        ("publish", "publish=a"),
        ("publish a message of 1 KB", &*format!("publish=b&data={}", "x".repeat(1024))),
        ("subscribe, answered at once", "subscribed[a]=1.5"),
        ("error", "subscribed[a]=x"),
    ] {
        let mut ours = ours(&store.0, query);
        let [ours, theirs] = in_turn(ROUNDS, &mut ours, &mut Command::new(&bare));
        line(&[&name, &ours, &theirs, &format!("{:.2}", ratio(&ours, &theirs))]);
    }
    println!();
    head(&["publish, start to exit", "ours", "theirs", "ratio"]);
    let mut php = Command::new(peer("php-cgi"));
    php.arg(format!("{SOURCE}/benches/peers/comet.php")).env("COMET_DIRECTORY", &store.0);
    php.env("QUERY_STRING", "publish=a").env("REDIRECT_STATUS", "1");
    let mut perl = Command::new("perl");
    perl.args(["-e", "utime(undef, undef, \"$ENV{COMET_DIRECTORY}/a.comet\"); print 'true'"]);
    perl.env("COMET_DIRECTORY", &store.0);
    for (name, theirs) in [("php-cgi", &mut php), ("perl, one line", &mut perl)] {
        let mut ours = ours(&store.0, "publish=a");
        let [ours, theirs] = in_turn(SLOW_ROUNDS, &mut ours, theirs);
        line(&[&name, &ours, &theirs, &format!("{:.2}", ratio(&ours, &theirs))]);
    }
}

pub fn ours(store: &Path, query: &str) -> Command {
    let mut command = Command::new(COMET);
    command.env_clear().env("NOVCOMET_STORE", format!("file://{}", store.display()));
    command.env("GATEWAY_INTERFACE", "CGI/1.1").env("QUERY_STRING", query);
    command
}

/// Starts the two in turn. The first rounds do not count.
fn in_turn(rounds: usize, one: &mut Command, other: &mut Command) -> [Samples; 2] {
    let mut samples = [Vec::new(), Vec::new()];
    for round in 0..rounds + rounds / 20 {
        let took = [once(one), once(other)];
        if round >= rounds / 20 {
            samples[0].push(took[0]);
            samples[1].push(took[1]);
        }
    }
    samples.map(Samples::new)
}

fn once(command: &mut Command) -> Duration {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begin = Instant::now();
    let _ = command.spawn().unwrap().wait();
    begin.elapsed()
}
