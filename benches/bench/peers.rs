//! The peers of the comparison: nchan, Pushpin, PHP.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::SOURCE;
use crate::support::host::{free_port, program};
use crate::support::process::process_tree;
use crate::worlds::{Scratch, Talk};

/// The path of a file of the unpacked peers.
pub fn peer(path: &str) -> PathBuf {
    let peers = std::env::var_os("COMET_PEERS").expect("COMET_PEERS: see benches/peers/fetch");
    Path::new(&peers).join(path)
}

/// A peer that runs until it is dropped.
pub struct Peer {
    child: Child,
    pub port: u16,
    /// The URL to publish to.
    pub control: u16,
    _root: Scratch,
}

impl Peer {
    /// All of its processes.
    pub fn pids(&self) -> Vec<u32> {
        process_tree(self.child.id())
    }
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

/// nginx with nchan.
pub fn nchan() -> Peer {
    // Debian's nginx opens this file whatever its configuration contains.
    let _ = fs::create_dir_all("/var/lib/nginx");
    let (root, port) = (Scratch::new(), free_port());
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
    Peer { child, port, control: port, _root: root }
}

/// Waits until this number of subscribers waits for an event of the channel `a`.
pub fn await_nchan(peer: &Peer, waiters: usize) {
    let expected = format!("active subscribers: {waiters}\r\n");
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let reply = Talk::send(peer.port, "/pub?id=a").reply();
        if reply.contains(&expected) {
            return;
        }
        assert!(Instant::now() < deadline, "not {waiters} wait: {reply}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Pushpin with its own test handler in place of an application. It holds each request for
/// `/response` or `/stream` and subscribes it to the channel `test`.
pub fn pushpin() -> Peer {
    let (root, port, control) = (Scratch::new(), free_port(), free_port());
    let conf = fs::read_to_string(format!("{SOURCE}/benches/peers/pushpin.conf")).unwrap();
    let conf = conf
        .replace("@ROOT@", root.0.to_str().unwrap())
        .replace("@PEERS@", peer("").to_str().unwrap())
        .replace("@PORT@", &port.to_string())
        .replace("@CONTROL@", &control.to_string());
    fs::write(root.0.join("pushpin.conf"), conf).unwrap();
    fs::write(root.0.join("routes"), "* test\n").unwrap();
    let mut pushpin = Command::new(peer("usr/bin/pushpin"));
    pushpin.arg(format!("--config={}", root.0.join("pushpin.conf").display()));
    let path = std::env::var("PATH").unwrap_or_default();
    pushpin.env("PATH", format!("{}:{path}", peer("usr/bin").display()));
    let child = pushpin.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    await_port(port);
    await_port(control);
    // Pushpin refuses requests until its handler is running.
    while Talk::send(port, "/response").has_answer_within(Duration::from_millis(300)) {}
    Peer { child, port, control, _root: root }
}

/// The PHP of 2011 under Apache's `mod_php`, with room for `workers`.
pub fn mod_php(workers: usize) -> Peer {
    let (root, port) = (Scratch::new(), free_port());
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
    let mut apache = Command::new(program("apache2"));
    // At its end it sends a signal to its process group, so it needs its own.
    apache.args(["-D", "FOREGROUND", "-f"]).arg(at("apache.conf")).process_group(0);
    let child = apache.spawn().unwrap();
    await_port(port);
    Peer { child, port, control: port, _root: root }
}
