//! Real web servers for tests. Each runs in the foreground on a free port of loopback, with the
//! shipped configuration files, its own files and its own event store. All of them end when the
//! [`Server`] is dropped.

mod http;
mod kind;
mod stream;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use http::{Exchange, Incoming, Reply};
pub use kind::Kind;
pub use stream::Stream;

use novcomet::process::slots::prefix;

use super::dir::{TempDir, copy_program, make_dir, make_file};
use super::host::{free_port, shared_memory};
use super::wait::comes_true;
use super::{SOURCE, process};

/// Runs every test of a list with every server.
macro_rules! stories {
    ($($story:ident)*) => {
        mod apache_event { $(#[test] fn $story() { super::$story($crate::support::server::Kind::ApacheEvent); })* }
        mod apache_prefork { $(#[test] fn $story() { super::$story($crate::support::server::Kind::ApachePrefork); })* }
        mod lighttpd { $(#[test] fn $story() { super::$story($crate::support::server::Kind::Lighttpd); })* }
    };
}
pub(crate) use stories;

/// The settings of a server before its start.
pub struct Setup {
    kind: Kind,
    options: String,
    options_first: bool,
    without: Vec<&'static str>,
    store: Option<Arc<TempDir>>,
    url: Option<String>,
}

impl Setup {
    /// Uses the store of another server.
    pub fn beside(mut self, other: &Server) -> Self {
        self.store = Some(other.store.clone());
        self
    }

    /// Puts a variable into the CGI's environment.
    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.options += &self.kind.option(name, value);
        self
    }

    /// Adds lines of the server's own language to its configuration.
    pub fn lines(mut self, lines: &str) -> Self {
        self.options += lines;
        self.options.push('\n');
        self
    }

    /// Puts all options before the shipped configuration, not after it.
    pub fn options_first(mut self) -> Self {
        self.options_first = true;
        self
    }

    /// Leaves out the lines with this word from the configuration around the shipped one.
    pub fn without(mut self, word: &'static str) -> Self {
        self.without.push(word);
        self
    }

    /// Keeps the events in this store instead of a private directory.
    pub fn store(mut self, url: &str) -> Self {
        self.url = Some(url.to_owned());
        self
    }

    fn configuration(&self) -> String {
        let text = self.kind.configuration();
        let is_wanted = |line: &&str| !self.without.iter().any(|word| line.contains(word));
        let mut lines: Vec<_> = text.lines().filter(is_wanted).collect();
        if self.options_first {
            let place = |file| lines.iter().position(|line| line.contains(file)).unwrap();
            let (shipped, options) = (place("-conf/novcomet.conf"), place("/options.conf"));
            lines.swap(shipped, options);
        }
        lines.join("\n") + "\n"
    }

    /// Starts it and waits until it answers.
    pub fn start(self) -> Server {
        let program = self.kind.program();
        // The modes of /dev/shm: every user can write, and only the owner can delete a file.
        let own = || Arc::new(TempDir::within(shared_memory(), 0o1777));
        let store = self.store.clone().unwrap_or_else(own);
        let directory = format!("file://{}", store.display());
        let url = self.url.clone().unwrap_or(directory);
        // These lines come first, because a block of lighttpd's inherits only the preceding
        // values of `+=`.
        let options = self.kind.option("NOVCOMET_STORE", &url) + &self.options;
        let root = lay_out(&options);
        make_file(&root.join("server.conf"), self.configuration(), 0o644);
        // Another process may take the port before the server does.
        let started = (0..5).find_map(|_| Running::try_start(self.kind, &root));
        let log = || fs::read_to_string(root.join("error.log")).unwrap_or_default();
        let running =
            started.unwrap_or_else(|| panic!("{} does not start: {}", program.display(), log()));
        Server { running, kind: self.kind, store, url, root }
    }
}

/// Puts the files that `make install DESTDIR=root` installs under `root`, with the other files
/// that a server needs.
fn lay_out(options: &str) -> TempDir {
    let root = TempDir::new();
    let at = |path: &str| root.join(path);
    for path in ["www", "usr", "usr/lib", "usr/lib/novcomet", "usr/lib/cgi-bin"] {
        make_dir(&at(path), 0o755);
    }
    for path in ["usr/share", "usr/share/novcomet"] {
        make_dir(&at(path), 0o755);
    }
    make_dir(&at("uploads"), 0o1777);
    make_file(&at("error.log"), "", 0o666);
    make_file(&at("options.conf"), options, 0o644);
    // A reload of lighttpd reads these files as a user who may not enter our home directory.
    for file in ["apache-conf/novcomet.conf", "lighttpd-conf/novcomet.conf"] {
        let to = at(file);
        make_dir(to.parent().unwrap(), 0o755);
        make_file(&to, fs::read(Path::new(SOURCE).join(file)).unwrap(), 0o644);
    }
    make_file(&at("www/whose"), root.display().to_string(), 0o644);
    copy_program(Path::new(env!("CARGO_BIN_EXE_comet")), &at(PROGRAM));
    for file in fs::read_dir(format!("{SOURCE}/htdocs")).unwrap().flatten() {
        let content = fs::read(file.path()).unwrap();
        make_file(&at("usr/share/novcomet").join(file.file_name()), content, 0o644);
    }
    root
}

const PROGRAM: &str = "usr/lib/novcomet/comet.cgi";

/// The server's process and where it listens.
struct Running {
    child: Child,
    port: u16,
    root: PathBuf,
}

impl Running {
    /// `None` if the server ended instead of answering.
    fn try_start(kind: Kind, root: &Path) -> Option<Self> {
        let port = free_port();
        let log = File::options().append(true).open(root.join("error.log")).unwrap();
        let mut command = kind.command(root, port);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().unwrap();
        let mut running = Self { child, port, root: root.to_owned() };
        let mut answers = false;
        comes_true(|| {
            answers = running.child.try_wait().unwrap().is_none()
                && kind.runs_cgi(root)
                && running.answers();
            answers || running.child.try_wait().unwrap().is_some()
        });
        answers.then_some(running)
    }

    /// Whether this server, and no other, answers on the port. Another one may still
    /// have it, end, and reset the connection.
    fn answers(&self) -> bool {
        Exchange::attempt(self.port, "GET /whose")
            .is_some_and(|reply| reply.body == self.root.display().to_string())
    }

    /// Whether the server ends within a minute.
    fn ended(&mut self) -> bool {
        comes_true(|| self.child.try_wait().unwrap().is_some())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            process::signal("TERM", &[self.child.id()]);
            if !self.ended() {
                let _ = self.child.kill();
            }
        }
        process::kill_all_of(&self.root);
    }
}

/// A running web server. Its fields are dropped from the top: first the
/// processes, then their files.
pub struct Server {
    running: Running,
    kind: Kind,
    store: Arc<TempDir>,
    url: String,
    root: TempDir,
}

impl Server {
    /// A server without settings except its own store.
    pub fn start(kind: Kind) -> Self {
        Self::setup(kind).start()
    }

    /// The settings of a server that starts later.
    pub fn setup(kind: Kind) -> Setup {
        Setup {
            kind,
            options: String::new(),
            options_first: false,
            without: Vec::new(),
            store: None,
            url: None,
        }
    }

    /// The kind of this server.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The server's main process.
    pub fn pid(&self) -> u32 {
        self.running.child.id()
    }

    /// The port of 127.0.0.1 that it listens on.
    pub fn port(&self) -> u16 {
        self.running.port
    }

    /// The answer to `GET target`.
    pub fn get(&self, target: &str) -> Reply {
        self.send(&format!("GET {target}")).reply()
    }

    /// The answer to a POST of a form.
    pub fn post(&self, target: &str, form: &str) -> Reply {
        let headers = ["Content-Type: application/x-www-form-urlencoded"];
        let request = format!("POST {target}");
        Exchange::send(self.port(), &request, &headers, form.as_bytes()).reply()
    }

    /// Sends `METHOD target` and leaves it in flight.
    pub fn send(&self, request: &str) -> Exchange {
        self.send_with(request, &[])
    }

    /// The same with headers.
    pub fn send_with(&self, request: &str, headers: &[&str]) -> Exchange {
        Exchange::send(self.port(), request, headers, b"")
    }

    /// Sends the request repeatedly until the server answers. A restarting server refuses
    /// connections, or its CGI daemon is not yet running (503).
    pub fn until_answered(&self, request: &str) -> Reply {
        let mut reply = None;
        self.eventually("the server answers", || {
            reply = Exchange::attempt(self.port(), request).filter(|reply| reply.status == 200);
            reply.is_some()
        });
        reply.unwrap()
    }

    /// Publishes a message.
    pub fn publish(&self, topic: &str, data: &str) {
        let (request, text) =
            (format!("POST /comet.cgi?publish={topic}"), "Content-Type: text/plain");
        let reply = Exchange::send(self.port(), &request, &[text], data.as_bytes()).reply();
        assert!(reply.body.starts_with(r#"{"s":1,"k":{"#), "{reply:?}");
    }

    /// Opens an event stream and waits for its head.
    pub fn stream(&self, query: &str, headers: &[&str]) -> Stream {
        Stream::of(self.send_with(&format!("GET /comet.cgi?{query}"), headers))
    }

    /// Sends a subscription and waits until its process waits for events.
    pub fn subscriber(&self, query: &str) -> Exchange {
        let mut before = usize::MAX;
        self.eventually("nothing moves", || {
            before = self.waiters();
            before < usize::MAX
        });
        let exchange = self.send(&format!("GET /comet.cgi?{query}"));
        self.await_waiters(before + 1);
        exchange
    }

    /// The number of subscribers that wait for events: of their slots, once no process
    /// works any more.
    pub fn waiters(&self) -> usize {
        let program = self.program();
        let is_calm = || process::asleep(&program) == process::running(&program).len();
        let waiters = process::bound_names(&prefix(&self.url));
        if is_calm() && process::bound_names(&prefix(&self.url)) == waiters {
            waiters
        } else {
            usize::MAX
        }
    }

    /// Waits until no CGI process is left, asleep or not.
    pub fn await_nobody(&self) {
        self.await_processes(0);
    }

    /// Waits until exactly this number of CGI processes is left, asleep or not.
    pub fn await_processes(&self, expected: usize) {
        let what = format!("{expected} processes run");
        self.eventually(&what, || process::running(&self.program()).len() == expected);
    }

    /// Waits until exactly this number of subscribers waits.
    pub fn await_waiters(&self, expected: usize) {
        let mut last = 0;
        let is_reached = comes_true(|| {
            let waiters = self.waiters();
            last = if waiters == usize::MAX { last } else { waiters };
            waiters == expected
        });
        assert!(is_reached, "{last} subscribers wait, not {expected}: {:?}", self.complaints());
    }

    /// Waits until `condition` is true; reports the server's error log if it never is.
    fn eventually(&self, what: &str, condition: impl FnMut() -> bool) {
        assert!(comes_true(condition), "still not true: {what}: {:?}", self.complaints());
    }

    /// Sends SIGTERM to every subscriber's process, as a server does.
    pub fn terminate_waiters(&self) {
        process::signal("TERM", &process::running(&self.program()));
    }

    /// The directory of the event files.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// The file of a topic whose name needs no encoding.
    pub fn event_file(&self, topic: &str) -> PathBuf {
        self.store().join(format!("{topic}.comet"))
    }

    /// The directory of all the other files of this server.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of the program.
    pub fn program(&self) -> PathBuf {
        self.root().join(PROGRAM)
    }

    /// Makes a directory under `root` that holds the program and cgi-bin/.htaccess.
    pub fn drop_in(&self, directory: &str) {
        let directory = self.root().join(directory);
        make_dir(&directory, 0o755);
        copy_program(&self.program(), &directory.join("comet.cgi"));
        let htaccess = fs::read(format!("{SOURCE}/cgi-bin/.htaccess")).unwrap();
        make_file(&directory.join(".htaccess"), htaccess, 0o644);
    }

    /// The lines of the error log except those about start and stop.
    pub fn complaints(&self) -> Vec<String> {
        let log = fs::read_to_string(self.root().join("error.log")).unwrap();
        log.lines().filter(|line| !Kind::is_chatter(line)).map(ToOwned::to_owned).collect()
    }

    /// Sends the server's main process a signal by its name.
    pub fn signal(&self, name: &str) {
        process::signal(name, &[self.running.child.id()]);
    }

    /// Waits until the server answers after a restart.
    pub fn await_answer(&self) {
        self.eventually("the server answers", || self.running.answers());
    }

    /// Asks the server to stop as an administrator does. Returns the time that it took.
    pub fn stop(&mut self) -> Duration {
        let begin = Instant::now();
        self.signal("TERM");
        assert!(self.running.ended(), "{:?} does not stop", self.kind);
        begin.elapsed()
    }
}
