//! The limits of the machine.

use std::fs;

use rustix::fs::inotify;

use super::finding::Findings;
use crate::config::Config;
use crate::process::{identity, sys};

/// How many descriptors a process has for other things than those who wait in it.
const OTHER_DESCRIPTORS: u64 = 100;

/// The descriptors that the process in which all wait has for each of them.
const DESCRIPTORS_EACH: u64 = 3;

/// The memory that each of them takes, in KiB, with the server's part.
const KIBIBYTES_EACH: u64 = 32;

/// The beginning of the finding with the number of requests that may wait.
pub const MAX_WAITERS: &str = "NOVCOMET_MAX_WAITERS is ";

/// Looks at what this machine gives to `config`'s number of waiting requests.
pub fn examine(config: &Config, findings: &mut Findings) {
    let waiters = u64::from(config.max_waiters);
    findings.ok(&format!("{MAX_WAITERS}{waiters}"));
    inotify_instances(findings);
    process_numbers(findings);
    queue(waiters, findings);
    descriptors(waiters, findings);
    memory(waiters, findings);
}

fn inotify_instances(findings: &mut Findings) {
    let name = "fs.inotify.max_user_instances";
    let most = number("/proc/sys/fs/inotify/max_user_instances").unwrap_or_default();
    match inotify::init(inotify::CreateFlags::CLOEXEC) {
        Ok(_) => findings.ok(&format!("events wake subscribers: inotify ({name} is {most})")),
        Err(errno) => findings.fault(
            &format!("too few inotify instances ({name} is {most}): {errno}"),
            &format!("sysctl -w {name}={}", most.max(512) * 2),
        ),
    }
}

fn process_numbers(findings: &mut Findings) {
    let Some(most) = number("/proc/sys/kernel/pid_max") else { return };
    match most < u64::from(identity::MANY) {
        true => findings.note(&format!(
            "kernel.pid_max is {most}: under mod_cgid a process stays for each waiting request; \
             sysctl -w kernel.pid_max=4194304"
        )),
        false => findings.ok(&format!("kernel.pid_max is {most}")),
    }
}

fn queue(waiters: u64, findings: &mut Findings) {
    let Some(most) = number("/proc/sys/net/core/somaxconn") else { return };
    match most < waiters {
        true => findings.note(&format!(
            "net.core.somaxconn is {most}: {waiters} subscribers come back together after an \
             event; sysctl -w net.core.somaxconn={}",
            waiters.max(4096)
        )),
        false => findings.ok(&format!("net.core.somaxconn is {most}")),
    }
}

/// The limit of a shell is not that of the server, but mostly as high.
fn descriptors(waiters: u64, findings: &mut Findings) {
    let Ok(limit) = sys::limit(libc::RLIMIT_NOFILE, None) else { return };
    let (most, needs) = (limit.rlim_max, waiters * DESCRIPTORS_EACH + OTHER_DESCRIPTORS);
    match most < needs {
        true => findings.note(&format!(
            "a process has at most {most} descriptors (ulimit -Hn), and {waiters} requests that \
             wait in one take {needs}; LimitNOFILE=524288 in the unit of the web server"
        )),
        false => findings.ok(&format!("a process has at most {most} descriptors (ulimit -Hn)")),
    }
}

fn memory(waiters: u64, findings: &mut Findings) {
    let Some(free) = available_memory() else { return };
    let (free, needs) = (free / 1024, waiters * KIBIBYTES_EACH / 1024);
    match free < needs {
        true => findings.note(&format!(
            "{free} MiB of memory are available, and {waiters} waiting requests may take {needs}; \
             lower NOVCOMET_MAX_WAITERS"
        )),
        false => findings.ok(&format!("{free} MiB of memory are available")),
    }
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// In KiB.
fn available_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    rest.split_whitespace().next()?.parse().ok()
}
