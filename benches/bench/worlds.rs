//! The servers that are compared: ours, bare CGIs under the same, nchan, PHP.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Kind, SOURCE, Server};

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

/// Where the peers were unpacked.
pub fn peer(path: &str) -> PathBuf {
    let peers = std::env::var_os("COMET_PEERS").expect("COMET_PEERS: see benches/peers/fetch");
    Path::new(&peers).join(path)
}

/// A directory that is removed when it is done with.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let path = PathBuf::from(format!("/dev/shm/novcomet-bench-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The C program that prints the same bytes, statically linked.
pub fn bare() -> (Scratch, PathBuf) {
    let scratch = Scratch::new("bare");
    let program = scratch.0.join("bare");
    let source = format!("{SOURCE}/benches/peers/bare.c");
    let built = Command::new("gcc")
        .args(["-O2", "-static", "-no-pie", "-s", "-o"])
        .arg(&program)
        .arg(source)
        .status()
        .unwrap();
    assert!(built.success());
    (scratch, program)
}

/// One of our servers with the bare CGI in the place of ours.
pub fn bare_server(kind: Kind, program: &Path) -> Server {
    let server = Server::start(kind);
    let cgi = server.root().join("usr/lib/cgi-bin/novcomet/comet.cgi");
    fs::copy(program, cgi).unwrap();
    server
}

/// A peer that runs until it is dropped.
pub struct Peer {
    child: Child,
    pub port: u16,
    _root: Scratch,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        let _ = Command::new("sh").args(["-c", &format!("kill -TERM {pid}")]).status();
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.child.try_wait().is_ok_and(|it| it.is_none()) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn await_port(port: u16) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(Instant::now() < deadline, "the peer does not start");
        thread::sleep(Duration::from_millis(10));
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// nginx with nchan.
pub fn nchan() -> Peer {
    // Debian's nginx looks for it, whatever its configuration says.
    let _ = fs::create_dir_all("/var/lib/nginx");
    let (root, port) = (Scratch::new("nchan"), free_port());
    let conf = fs::read_to_string(format!("{SOURCE}/benches/peers/nchan.conf")).unwrap();
    let conf =
        conf.replace("@ROOT@", root.0.to_str().unwrap()).replace("@PORT@", &port.to_string());
    let module = peer("usr/lib/nginx/modules/ngx_nchan_module.so");
    let file = root.0.join("nginx.conf");
    fs::write(&file, format!("load_module {};\n{conf}", module.display())).unwrap();
    let mut nginx = Command::new(peer("usr/sbin/nginx"));
    let child = nginx.arg("-p").arg(&root.0).arg("-c").arg(&file).arg("-e").arg("stderr");
    let child = child.stderr(Stdio::null()).spawn().unwrap();
    await_port(port);
    Peer { child, port, _root: root }
}

/// The PHP of 2011 under Apache's `mod_php`, with room for `workers`.
pub fn mod_php(workers: usize) -> Peer {
    let (root, port) = (Scratch::new("php"), free_port());
    let at = |path: &str| root.0.join(path);
    fs::create_dir(at("www")).unwrap();
    fs::copy(format!("{SOURCE}/benches/peers/comet.php"), at("www/comet.php")).unwrap();
    let modules = "/usr/lib/apache2/modules";
    let conf = format!(
        "LoadModule mpm_prefork_module {modules}/mod_mpm_prefork.so\n\
         LoadModule authz_core_module {modules}/mod_authz_core.so\n\
         LoadModule env_module {modules}/mod_env.so\n\
         LoadModule mime_module {modules}/mod_mime.so\n\
         LoadModule php_module {php}\n\
         ServerRoot {root}\nServerName localhost\nListen 127.0.0.1:{port}\n\
         PidFile {root}/pid\nDefaultRuntimeDir {root}\nErrorLog {root}/error.log\n\
         User www-data\nGroup www-data\nTypesConfig /dev/null\n\
         ServerLimit {workers}\nMaxRequestWorkers {workers}\nStartServers 8\nListenBacklog 2048\n\
         SetEnv COMET_DIRECTORY {root}\nDocumentRoot {root}/www\n\
         <Directory {root}/www>\nRequire all granted\n</Directory>\n\
         <FilesMatch \\.php$>\nSetHandler application/x-httpd-php\n</FilesMatch>\n",
        php = peer("mod_php.so").display(),
        root = root.0.display(),
    );
    fs::write(at("apache.conf"), conf).unwrap();
    let mut apache = Command::new("/usr/sbin/apache2");
    let child = apache.args(["-D", "FOREGROUND", "-f"]).arg(at("apache.conf")).spawn().unwrap();
    await_port(port);
    Peer { child, port, _root: root }
}

/// An HTTP/1.1 connection that sends one request at a time and is read as far
/// as is wanted.
pub struct Talk(pub TcpStream);

impl Talk {
    pub fn send(port: u16, target: &str) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut talk = Self(stream);
        talk.0.write_all(request(target).as_bytes()).unwrap();
        talk
    }

    /// The answer, until its last chunk or the end of the connection, whichever
    /// is first: a browser keeps the connection and waits for no more.
    pub fn reply(mut self) -> String {
        let (mut text, mut bytes) = (String::new(), [0; 16_384]);
        while !text.ends_with("\r\n0\r\n\r\n") {
            match self.0.read(&mut bytes).unwrap() {
                0 => break,
                read => text.push_str(&String::from_utf8_lossy(&bytes[..read])),
            }
        }
        text
    }
}

fn request(target: &str) -> String {
    let (method, target) = target.split_once(' ').unwrap_or(("GET", target));
    let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
    format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{length}\r\n")
}
