//! The processes of a server, as /proc shows them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The processes that run `program` and sleep. A CGI process with a GET sleeps only to wait for
/// an event.
pub fn asleep(program: &Path) -> usize {
    pids().filter(|&pid| runs(pid, program) && state(pid) == Some('S')).count()
}

/// The processes that run `program`.
pub fn running(program: &Path) -> Vec<u32> {
    pids().filter(|&pid| runs(pid, program)).collect()
}

/// The names in the abstract namespace (unix(7)) with this prefix and no other part.
pub fn bound_names(prefix: &str) -> usize {
    let names = fs::read_to_string("/proc/net/unix").expect("/proc is mounted");
    let names = names.lines().filter_map(|line| line.split_once('@')?.1.strip_prefix(prefix));
    names.filter(|rest| !rest.contains('/')).count()
}

/// Kills all processes that run a program below `root` or have it as an argument.
pub fn kill_all_of(root: &Path) {
    let victims: Vec<_> = pids().filter(|&pid| belongs(pid, root)).collect();
    if !victims.is_empty() {
        signal("KILL", &victims);
    }
}

/// Sends a signal by its name.
pub fn signal(name: &str, pids: &[u32]) {
    // The shell's own kill: there is no /bin/kill on a minimal Debian.
    let script = format!("kill -s {name} \"$@\" 2>&-");
    let pids = pids.iter().map(ToString::to_string);
    // A process that has just ended is no error.
    let _ = Command::new("sh").args(["-c", &script, "sh"]).args(pids).status();
}

/// Kills one of the processes that run one of `programs` and have `word` in their query.
/// `choose` gets their number and returns the index.
pub fn kill_one(programs: &[PathBuf], word: &str, choose: impl FnOnce(usize) -> usize) -> bool {
    // A pidfd stays with its process, so no process with a reused id gets the signal.
    let hold = |pid: u32| {
        let held = pidfd_open(Pid::from_raw(pid.try_into().ok()?)?, PidfdFlags::empty()).ok()?;
        let is_ours = programs.iter().any(|program| runs(pid, program)) && asks(pid, word);
        is_ours.then_some(held)
    };
    let found: Vec<_> = pids().filter_map(hold).collect();
    !found.is_empty() && pidfd_send_signal(&found[choose(found.len())], Signal::KILL).is_ok()
}

fn asks(pid: u32, word: &str) -> bool {
    let variables = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mut variables = variables.split(|&byte| byte == 0);
    let query = variables.find_map(|variable| variable.strip_prefix(b"QUERY_STRING="));
    query.is_some_and(|query| String::from_utf8_lossy(query).contains(word))
}

/// A process and all its descendants.
pub fn process_tree(root: u32) -> Vec<u32> {
    let parents: Vec<_> = pids().filter_map(|pid| Some((pid, parent_of(pid)?))).collect();
    let mut tree = vec![root];
    let mut next = 0;
    while next < tree.len() {
        let of_it = parents.iter().filter(|(_, parent)| *parent == tree[next]);
        let children: Vec<_> = of_it.map(|(pid, _)| *pid).collect();
        tree.extend(children);
        next += 1;
    }
    tree
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn runs(pid: u32, program: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program)
}

fn belongs(pid: u32, root: &Path) -> bool {
    if fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.starts_with(root)) {
        return true;
    }
    let root = format!("Define ROOT {}", root.display());
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    arguments.split(|&byte| byte == 0).any(|argument| argument == root.as_bytes())
}

/// The letter after the program's name, which may hold spaces and brackets (proc(5)).
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}
