//! The real binary and its directory of events.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

use url::form_urlencoded;

use super::dir::{TempDir, copy_program, set_time};
use super::host::{is_root, shared_memory};
use super::wait::eventually;

pub const COMET: &str = env!("CARGO_BIN_EXE_comet");
/// The second of the examples in docs/protocol.md.
pub const SECOND: i64 = 1_795_415_403;

/// [`COMET`], or a copy that other users can run. Debian closes root's home, which may contain
/// `target`, to other users.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let is_open = |directory: &Path| fs::metadata(directory).unwrap().mode() & 0o001 != 0;
        if !is_root() || Path::new(COMET).ancestors().skip(1).all(is_open) {
            return COMET.into();
        }
        let copy = std::env::temp_dir().join(format!("novcomet-program-{}", std::process::id()));
        copy_program(Path::new(COMET), &copy);
        copy
    })
}

/// A directory of events, and calls of the binary on it.
pub struct Store(pub TempDir);

impl Store {
    pub fn new() -> Self {
        Self(TempDir::within(shared_memory(), 0o1777))
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.comet"))
    }

    /// An event file with this time.
    pub fn with(self, name: &str, seconds: i64, nanoseconds: u32) -> Self {
        File::create(self.file(name)).unwrap();
        set_time(&self.file(name), seconds, nanoseconds);
        self
    }

    /// A call with a wait of an hour and no periodic read before its end, so only a wake-up can
    /// end it sooner.
    pub fn query(&self, query: &str) -> Call {
        let url = format!("file://{}", self.0.display());
        let call = Call::new().variable("NOVCOMET_STORE", &url).variable("NOVCOMET_TRIES", "1");
        call.variable("NOVCOMET_SLEEP", "3600").variable("QUERY_STRING", query)
    }

    pub fn names(&self) -> Vec<String> {
        Self::names_in(&self.0)
    }

    pub fn names_in(directory: &Path) -> Vec<String> {
        let names = fs::read_dir(directory).unwrap().flatten();
        names.map(|entry| entry.file_name().into_string().unwrap()).collect()
    }

    pub fn time(&self, name: &str) -> (i64, i64) {
        let found = fs::metadata(self.file(name)).unwrap();
        (found.mtime(), found.mtime_nsec())
    }
}

/// The form with a batch.
pub fn batch(entries: &str) -> String {
    format!("batch={}", form_urlencoded::byte_serialize(entries.as_bytes()).collect::<String>())
}

/// One call of the binary.
pub struct Call {
    pub command: Command,
    pub stdin: Vec<u8>,
}

impl Call {
    pub fn new() -> Self {
        Self::of(program())
    }

    /// A call of another program.
    pub fn of(program: &Path) -> Self {
        let mut command = Command::new(program);
        command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { command, stdin: Vec::new() }
    }

    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn method(self, name: &str) -> Self {
        self.variable("REQUEST_METHOD", name)
    }

    pub fn form(mut self, form: &str) -> Self {
        self.stdin = form.into();
        let length = form.len().to_string();
        self.method("POST").variable("CONTENT_LENGTH", &length)
    }

    pub fn argument(mut self, argument: &str) -> Self {
        self.command.arg(argument);
        self
    }

    /// Starts the binary through another program, as strace(1) does: `arguments`, then the
    /// binary.
    pub fn by(mut self, program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).arg(self::program()).args(self.command.get_args()).env_clear();
        let variables = self.command.get_envs().filter_map(|(name, value)| Some((name, value?)));
        command.envs(variables).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.command = command;
        self
    }

    /// Runs as this user, which requires root.
    pub fn user(mut self, id: u32) -> Self {
        self.command.uid(id).gid(id);
        self
    }

    pub fn start(mut self) -> Waiter {
        let mut child = self.command.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(&self.stdin);
        Waiter(child)
    }

    /// Starts the process and returns when it waits.
    pub fn waiting(self) -> Waiter {
        let waiter = self.start();
        waiter.await_sleep();
        waiter
    }

    pub fn answer(self) -> Answer {
        self.start().answer()
    }

    pub fn output(self) -> Output {
        self.start().take().wait_with_output().unwrap()
    }
}

/// The name of the log of a session: its group, and a hash of its id.
pub fn session_file(id: &str) -> String {
    let hash = Sha256::digest(id);
    let hash = u128::from_be_bytes(hash[..16].try_into().unwrap());
    format!("{}{hash:032x}.session", &id[..8])
}

/// A process that is killed when a test drops it.
pub struct Waiter(pub Child);

impl Waiter {
    pub fn take(mut self) -> Child {
        let spent = Command::new("true").spawn().unwrap();
        std::mem::replace(&mut self.0, spent)
    }

    pub fn answer(self) -> Answer {
        Answer::parse(&self.take().wait_with_output().unwrap())
    }

    /// Returns when the process is in `epoll_pwait(2)`, the only place where it waits for an
    /// event, or in ppoll(2), where it waits for a reader.
    pub fn await_sleep(&self) {
        eventually("the process sleeps", || self.sleeps());
    }

    pub fn sleeps(&self) -> bool {
        sleeps(self.0.id())
    }

    pub fn read_proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.0.id())).unwrap_or_default()
    }

    /// The number of times that the process has gone to sleep.
    pub fn times_asleep(&self) -> u64 {
        let status = self.read_proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse().unwrap()
    }

    pub fn has_inotify(&self) -> bool {
        has_inotify(self.0.id())
    }

    pub fn signal(&self, name: &str) {
        let script = format!("kill -s {name} {}", self.0.id());
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    }
}

/// Whether a process watches the store itself.
pub fn has_inotify(pid: u32) -> bool {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let mut links = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
    links.any(|link| link.ends_with("anon_inode:inotify"))
}

/// Whether a process waits, as [`Waiter::await_sleep`] says.
pub fn sleeps(pid: u32) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    call.split(' ').next().is_some_and(|number| SLEEPS.contains(&number))
}

#[cfg(target_arch = "x86_64")]
const SLEEPS: [&str; 3] = ["271", "281", "441"];
#[cfg(not(target_arch = "x86_64"))]
const SLEEPS: [&str; 3] = ["73", "22", "441"];

impl Drop for Waiter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[derive(Debug)]
pub struct Answer {
    pub head: String,
    pub body: String,
    pub log: String,
    pub success: bool,
}

impl Answer {
    pub fn parse(output: &Output) -> Self {
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{output:?}"));
        Self {
            head: head.to_owned(),
            body: body.to_owned(),
            log: String::from_utf8(output.stderr.clone()).unwrap(),
            success: output.status.success(),
        }
    }

    pub fn status(&self) -> u16 {
        let line = self.head.lines().next().unwrap();
        line.strip_prefix("Status: ").unwrap()[..3].parse().unwrap()
    }

    /// Whether it is the stream that tells an `EventSource` to come back later.
    pub fn is_postponed(&self) -> bool {
        self.status() == 200 && self.body.starts_with(": the store cannot be used")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut pairs = self.head.lines().filter_map(|line| line.split_once(": "));
        pairs.find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// `s`, and the cursor of `topic` as the text that was sent.
    pub fn cursor(&self, topic: &str) -> (char, String) {
        let s = self.body.chars().nth(5).unwrap();
        let name = format!("\"{topic}\":");
        let rest = self.body.split_once(&name).unwrap_or_else(|| panic!("{self:?}")).1;
        (s, rest.chars().take_while(|&c| c != ',' && c != '}').collect())
    }

    pub fn assert_problem(&self, status: u16) {
        assert_eq!(self.status(), status, "{self:?}");
        assert!(self.head.contains("Content-Type: application/problem+json\r\n"), "{self:?}");
        let problem: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(problem["status"], status);
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        // What a store or a setting does not have is no fault.
        let is_fault = status >= 500 && status != 501;
        assert_eq!(self.log.lines().count(), usize::from(is_fault), "{self:?}");
    }
}
