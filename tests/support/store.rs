//! Every store, for tests. Each has its own server if it needs one, on a socket or a free port
//! of loopback. The server ends with its owner.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use novcomet::store::{self, Limits, Retention, Store};

use super::authority::{Authority, LATER};
use super::dir::TempDir;
use super::host::{free_port, program};
use super::wait::comes_true;

pub const KEEP_ALL: Retention = Retention {
    messages: 10_000,
    bytes: 1 << 30,
    age: Duration::from_secs(86_400),
    max_file_bytes: 1 << 31,
};
/// The interval at which a store without wake-ups is polled.
pub const POLL: Duration = Duration::from_millis(20);

/// The kind of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    Redis,
    /// Redis over TLS.
    RedisTls,
    Memcached,
}

/// Runs every test of a list with every store.
macro_rules! over_every_store {
    ($($test:ident)*) => {
        mod file { $(#[test] fn $test() { super::$test($crate::support::store::Kind::File); })* }
        mod redis { $(#[test] fn $test() { super::$test($crate::support::store::Kind::Redis); })* }
        #[cfg(feature = "tls")]
        mod redis_tls { $(#[test] fn $test() { super::$test($crate::support::store::Kind::RedisTls); })* }
        mod memcached { $(#[test] fn $test() { super::$test($crate::support::store::Kind::Memcached); })* }
    };
}
pub(crate) use over_every_store;

/// A store and its server.
pub struct Backend {
    pub kind: Kind,
    directory: TempDir,
    port: Option<u16>,
    options: Vec<String>,
    authority: Option<Arc<Authority>>,
    server: Option<Child>,
}

impl Backend {
    /// Uses a socket in a private directory, or a port if the store uses TLS.
    pub fn start(kind: Kind) -> Self {
        if kind == Kind::RedisTls {
            return Self::start_on_port(kind, &[]);
        }
        let mut backend = Self::new(kind, None, &[], None);
        backend.restart();
        backend
    }

    /// On a free port of loopback, started with `options`.
    pub fn start_on_port(kind: Kind, options: &[&str]) -> Self {
        let authority = (kind == Kind::RedisTls).then(|| {
            let authority = Authority::new();
            authority.certify("server", "IP:127.0.0.1", LATER);
            authority.certify("client", "DNS:client", LATER);
            Arc::new(authority)
        });
        Self::start_under(authority.as_ref(), kind, options)
    }

    /// Another server with the same authority.
    pub fn start_beside(other: &Self, options: &[&str]) -> Self {
        Self::start_under(other.authority.as_ref(), other.kind, options)
    }

    fn start_under(authority: Option<&Arc<Authority>>, kind: Kind, options: &[&str]) -> Self {
        for _ in 0..5 {
            let mut backend = Self::new(kind, Some(free_port()), options, authority.cloned());
            // Another process may take the port before the server does.
            if backend.try_restart() {
                return backend;
            }
        }
        panic!("{kind:?} does not start");
    }

    fn new(
        kind: Kind,
        port: Option<u16>,
        options: &[&str],
        authority: Option<Arc<Authority>>,
    ) -> Self {
        let directory = TempDir::in_memory();
        let options = options.iter().map(ToString::to_string).collect();
        Self { kind, directory, port, options, authority, server: None }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn port(&self) -> u16 {
        self.port.expect("a store on a port")
    }

    /// The authority of a server with TLS and of its clients.
    pub fn authority(&self) -> &Authority {
        self.authority.as_ref().expect("a store that encrypts")
    }

    /// The value of `NOVCOMET_STORE`.
    pub fn url(&self) -> String {
        let socket = self.socket();
        match (self.kind, self.port) {
            (Kind::File, _) => format!("file://{}", self.directory.display()),
            (Kind::Redis, None) => format!("unix://{}", socket.display()),
            (Kind::Memcached, None) => format!("memcached://{}", socket.display()),
            (Kind::Redis, Some(port)) => format!("redis://127.0.0.1:{port}/0"),
            (Kind::RedisTls, _) => {
                let [ca, cert, key] =
                    ["ca.pem", "client.pem", "client.key"].map(|file| self.authority().file(file));
                format!("rediss://127.0.0.1:{}/0?ca={ca}&cert={cert}&key={key}", self.port())
            }
            (Kind::Memcached, Some(port)) => format!("memcached://127.0.0.1:{port}"),
        }
    }

    pub fn open(&self) -> Box<dyn Store> {
        self.keeping(KEEP_ALL)
    }

    pub fn keeping(&self, retention: Retention) -> Box<dyn Store> {
        store::open::locate(&self.url())
            .and_then(|place| place.open(retention, Limits::NONE, POLL))
            .unwrap()
    }

    /// Starts the server, if there is one, with no data, and waits until it answers.
    pub fn restart(&mut self) {
        assert!(self.try_restart(), "{:?} does not start; `make test` installs it", self.kind);
    }

    fn try_restart(&mut self) -> bool {
        self.stop();
        let Some(mut command) = self.command() else { return true };
        let mut child = command.spawn().expect("`make test` installs it");
        let mut greets = false;
        comes_true(|| {
            greets = self.greets();
            greets || child.try_wait().unwrap().is_some()
        });
        if !greets {
            let _ = child.kill();
            let _ = child.wait();
            return false;
        }
        self.server = Some(child);
        true
    }

    /// Whether our server answers: it reports our directory or process id.
    fn greets(&self) -> bool {
        match self.kind {
            Kind::File => true,
            Kind::Redis | Kind::RedisTls => {
                self.redis(&["CONFIG", "GET", "dir"]).contains(self.directory.to_str().unwrap())
            }
            Kind::Memcached => self.try_ask("version\r\nquit\r\n").is_some(),
        }
    }

    fn command(&self) -> Option<Command> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        let port = self.port.unwrap_or(0).to_string();
        let socket = self.socket().into_os_string();
        match (self.kind, self.port) {
            (Kind::File, _) => return None,
            (Kind::Redis, at) => {
                command.arg(program("redis-server"));
                command.args(["--bind", "127.0.0.1", "--port", &port]);
                command.args(["--save", "", "--dir"]).arg(&self.directory);
                if at.is_none() {
                    command.arg("--unixsocket").arg(socket);
                }
            }
            (Kind::RedisTls, _) => {
                let [ca, cert, key] =
                    ["ca.pem", "server.pem", "server.key"].map(|file| self.authority().file(file));
                command.arg(program("redis-server"));
                command.args(["--bind", "127.0.0.1", "--port", "0"]);
                command.args(["--tls-port", &port, "--tls-ca-cert-file", &ca]);
                command.args(["--tls-cert-file", &cert, "--tls-key-file", &key]);
                command.args(["--save", "", "--dir"]).arg(&self.directory);
                command.arg("--unixsocket").arg(socket);
            }
            (Kind::Memcached, at) => {
                command.arg(program("memcached")).args(["-u", "root", "-t", "1"]);
                match at {
                    None => command.arg("-s").arg(socket),
                    Some(_) => command.args(["-l", "127.0.0.1", "-p", &port]),
                };
            }
        }
        command.args(&self.options).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::null());
        Some(command)
    }

    /// Kills the server. The data in its memory is lost.
    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
        let _ = fs::remove_file(self.socket());
    }

    /// Sends the server a signal by its name.
    pub fn signal(&self, name: &str) {
        let pid = self.server.as_ref().expect("a server").id();
        let status = Command::new("sh").args(["-c", &format!("kill -s {name} {pid}")]).status();
        assert!(status.unwrap().success());
    }

    /// Removes all topics.
    pub fn lose_everything(&self) {
        match self.kind {
            Kind::File => self.files().iter().for_each(|file| fs::remove_file(file).unwrap()),
            Kind::Redis | Kind::RedisTls => assert_eq!(self.redis(&["FLUSHALL"]), "OK\n"),
            Kind::Memcached => assert_eq!(self.ask("flush_all\r\nquit\r\n"), "OK\r\n"),
        }
    }

    /// Whether no process has ever written to the store.
    pub fn is_untouched(&self) -> bool {
        match self.kind {
            Kind::File => self.files().is_empty(),
            Kind::Redis | Kind::RedisTls => self.redis(&["DBSIZE"]) == "0\n",
            Kind::Memcached => self.ask("stats\r\nquit\r\n").contains("STAT total_items 0\r\n"),
        }
    }

    pub fn files(&self) -> Vec<PathBuf> {
        fs::read_dir(&self.directory).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    /// The answer of redis-cli, an independent client, to this command.
    pub fn redis(&self, command: &[&str]) -> String {
        let mut client = Command::new("redis-cli");
        match self.port.filter(|_| self.kind != Kind::RedisTls) {
            None => client.arg("-s").arg(self.socket()),
            Some(port) => client.args(["-p", &port.to_string()]),
        };
        let output = client.args(command).output().expect("redis-cli");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The answer of memcached to these lines.
    pub fn ask(&self, lines: &str) -> String {
        self.try_ask(lines).expect("memcached answers")
    }

    fn try_ask(&self, lines: &str) -> Option<String> {
        let mut reply = String::new();
        if let Some(port) = self.port {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
            stream.write_all(lines.as_bytes()).ok()?;
            stream.read_to_string(&mut reply).ok()?;
        } else {
            let mut stream = UnixStream::connect(self.socket()).ok()?;
            stream.write_all(lines.as_bytes()).ok()?;
            stream.read_to_string(&mut reply).ok()?;
        }
        Some(reply)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop();
    }
}
