//! A real Pushpin in front of a web server, on free ports of loopback. It ends when it is dropped.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::dir::{TempDir, give_to_the_server};
use super::host::{found, free_port, program};
use super::process::signal;
use super::server::Exchange;
use super::wait::{comes_true, eventually};

/// The topic of the request that tries whether it holds one.
const TRIAL: &str = "trial-of-the-proxy";

/// Where the part that sends requests listens.
const ZURL: &str = "zurl_out_specs=ipc://{rundir}/{ipc_prefix}zurl-in
zurl_out_stream_specs=ipc://{rundir}/{ipc_prefix}zurl-in-stream
zurl_in_specs=ipc://{rundir}/{ipc_prefix}zurl-out";

/// A proxy that signs with a secret of its own.
pub struct Pushpin {
    root: TempDir,
    secret: String,
    pub port: u16,
    control: u16,
    /// The proxy, and the part that sends its requests if that is a program of its own.
    running: Vec<Child>,
    /// How much of its log has been read, and how many requests it holds according to that.
    counted: Cell<(u64, usize)>,
}

impl Pushpin {
    /// Whether it can start. Debian 13 has no Pushpin.
    pub fn is_there() -> bool {
        found("pushpin").is_some()
    }

    /// Chooses ports and a secret. It is not running.
    pub fn new() -> Self {
        let root = TempDir::new();
        let random = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
        let secret = random.trim().to_owned();
        fs::write(root.join("key"), &secret).unwrap();
        give_to_the_server(&root.join("key"));
        let (port, control) = (free_port(), free_port());
        Self { root, secret, port, control, running: Vec::new(), counted: Cell::default() }
    }

    /// The control URL.
    pub fn control(&self) -> String {
        format!("http://127.0.0.1:{}", self.control)
    }

    /// The file of the secret.
    pub fn key(&self) -> String {
        self.root.join("key").display().to_string()
    }

    /// Starts in front of the server at this port, and waits until it answers.
    pub fn start(&mut self, server: u16) {
        fs::write(self.root.join("routes"), format!("* 127.0.0.1:{server}\n")).unwrap();
        self.configure("pushpin.conf", include_str!("pushpin.conf"));
        self.configure("zurl.conf", include_str!("zurl.conf"));
        let config = |file: &str| format!("--config={}", self.root.join(file).display());
        let mut pushpin = Command::new(program("pushpin"));
        let path = std::env::var("PATH").unwrap_or_default();
        let own = prefix().join("bin");
        pushpin.arg(config("pushpin.conf")).env("PATH", format!("{}:{path}", own.display()));
        let start = |command: &mut Command| {
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        };
        self.running = vec![start(&mut pushpin)];
        if !is_of_one_package() {
            let mut zurl = Command::new(program("zurl"));
            self.running.push(start(zurl.arg(config("zurl.conf"))));
        }
        eventually("Pushpin holds a request", || self.holds());
    }

    /// Until all its parts have started, it refuses requests or leaves them without an answer.
    fn holds(&self) -> bool {
        let request = format!("GET /comet.cgi?subscribed[{TRIAL}]=&stream=1");
        let sent = Exchange::try_send(self.port, &request, &[], b"").ok();
        let incoming = sent.and_then(|sent| sent.within(Duration::from_secs(1)).incoming());
        incoming.is_some_and(|incoming| incoming.status == 200)
    }

    fn configure(&self, file: &str, text: &str) {
        let (services, zurl) = match is_of_one_package() {
            true => ("connmgr,proxy,handler", ""),
            false => ("condure,pushpin-proxy,pushpin-handler", ZURL),
        };
        let text = text
            .replace("@SERVICES@", services)
            .replace("@ZURL@", zurl)
            .replace("@ROOT@", self.root.to_str().unwrap())
            .replace("@PREFIX@", prefix().to_str().unwrap())
            .replace("@PORT@", &self.port.to_string())
            .replace("@CONTROL@", &self.control.to_string())
            .replace("@KEY@", &self.secret);
        fs::write(self.root.join(file), text).unwrap();
    }

    /// Ends it. The connections that it holds are cut.
    pub fn stop(&mut self) {
        let ids: Vec<_> = self.running.iter().map(Child::id).collect();
        signal("TERM", &ids);
        for mut child in self.running.drain(..) {
            if !comes_true(|| child.try_wait().unwrap().is_some()) {
                let _ = child.kill();
            }
            let _ = child.wait();
        }
    }

    /// How many requests of one channel it has begun to hold. It asks for the first ones again as
    /// soon as it has subscribed to the channel. The log of thousands is long, so it is read once.
    pub fn held(&self) -> usize {
        let (offset, count) = self.counted.get();
        let mut log = Vec::new();
        if let Ok(mut file) = File::open(self.root.join("pushpin-handler.log")) {
            file.seek(SeekFrom::Start(offset)).unwrap();
            file.read_to_end(&mut log).unwrap();
        }
        let end = log.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let log = String::from_utf8_lossy(&log[..end]);
        let is_first = |line: &&str| {
            let is_hold = line.contains(" subscribe http://") && !line.ends_with(" retry");
            is_hold && !line.contains(TRIAL)
        };
        let count = count + log.lines().filter(is_first).count();
        self.counted.set((offset + end as u64, count));
        count
    }
}

impl Drop for Pushpin {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Its files are beside it, wherever it was unpacked.
fn prefix() -> PathBuf {
    program("pushpin").ancestors().nth(2).unwrap().to_owned()
}

/// Pushpin 1.40 and later have all their parts. Those before, as in Debian 12, connect by
/// condure and zurl.
fn is_of_one_package() -> bool {
    found("pushpin-connmgr").is_some()
}
