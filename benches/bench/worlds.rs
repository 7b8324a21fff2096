//! The parts of a measurement: directories, the C programs, connections, and our servers.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::SOURCE;
use crate::support::dir::TempDir;
use crate::support::host::shared_memory;
use crate::support::server::{Kind, Server, Setup};

pub const COMET: &str = env!("CARGO_BIN_EXE_comet");

/// The kernel and the processors.
pub fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpus = thread::available_parallelism().map_or(0, Into::into);
    let model = read("/proc/cpuinfo");
    let model = model.lines().find_map(|line| line.strip_prefix("model name\t: "));
    format!(
        "Linux {}, {cpus} × {}",
        read("/proc/sys/kernel/osrelease").trim(),
        model.unwrap_or("processor")
    )
}

/// A directory that all users can write to.
pub struct Scratch(pub TempDir);

impl Scratch {
    pub fn new() -> Self {
        Self(TempDir::within(shared_memory(), 0o777))
    }
}

/// A C program of ours, `bare` or `wait`, statically linked.
pub fn in_c(name: &str) -> (Scratch, PathBuf) {
    let scratch = Scratch::new();
    let program = scratch.0.join(name);
    let source = format!("{SOURCE}/benches/peers/{name}.c");
    let built = Command::new("gcc")
        .args(["-O2", "-static", "-no-pie", "-s", "-o"])
        .arg(&program)
        .arg(source)
        .status()
        .unwrap();
    assert!(built.success());
    (scratch, program)
}

/// Raises the limit of descriptors for this process and its children to the size of a crowd.
pub fn more_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

/// A server of ours for a crowd with one address.
pub fn roomy(kind: Kind) -> Setup {
    let sizes = match kind {
        Kind::Lighttpd => String::new(),
        _ => format!("Include {SOURCE}/apache-conf/novcomet-mpm.conf"),
    };
    Server::setup(kind).option("NOVCOMET_MAX_WAITERS_PER_ADDRESS", "0").lines(&sizes)
}

/// One of our servers with that CGI in place of ours.
pub fn bare_server(setup: Setup, program: &Path) -> Server {
    let server = setup.start();
    fs::copy(program, server.program()).unwrap();
    server
}

/// An HTTP/1.1 connection with one request at a time. It is read only as far as needed.
pub struct Talk(pub TcpStream);

impl Talk {
    pub fn send(port: u16, target: &str) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut talk = Self(stream);
        talk.0.write_all(request(target).as_bytes()).unwrap();
        talk
    }

    /// Whether data arrives soon.
    pub fn has_answer_within(&self, span: Duration) -> bool {
        self.0.set_read_timeout(Some(span)).unwrap();
        self.0.peek(&mut [0]).is_ok()
    }

    /// The answer until its last byte or the end of the connection, whichever is first. A
    /// browser keeps the connection and does not wait for its end.
    pub fn reply(mut self) -> String {
        let (mut text, mut bytes) = (String::new(), [0; 16_384]);
        while !is_whole(&text) {
            match self.0.read(&mut bytes).unwrap() {
                0 => break,
                read => text.push_str(&String::from_utf8_lossy(&bytes[..read])),
            }
        }
        text
    }
}

fn is_whole(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    match length.and_then(|length| length.parse::<usize>().ok()) {
        Some(length) => body.len() >= length,
        None => body.ends_with("0\r\n\r\n"),
    }
}

/// Of `/target`, or `POST /target body`.
fn request(target: &str) -> String {
    let head = |method: &str, target: &str| {
        format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n")
    };
    match target.strip_prefix("POST ") {
        // nchan answers with a stream only if this header requests one.
        None if target.contains("stream") => {
            head("GET", target) + "Accept: text/event-stream\r\n\r\n"
        }
        None => head("GET", target) + "\r\n",
        Some(rest) => {
            let (target, body) = rest.split_once(' ').unwrap_or((rest, ""));
            format!("{}Content-Length: {}\r\n\r\n{body}", head("POST", target), body.len())
        }
    }
}
