//! Keys that are made for one test, and tokens that Node.js signs with them.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::dir::{TempDir, give_to_the_server};

const SIGNER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/tokens.mjs");

/// A directory of keys.
pub struct Keys(pub TempDir);

/// The parts of a token: algorithm, key, header and claims.
pub type Draft<'a> = (&'a str, &'a str, &'a str, String);

impl Keys {
    /// New keys that only this user can read.
    pub fn new() -> Self {
        let keys = Self(TempDir::new());
        keys.signer("keys", "");
        for file in fs::read_dir(&keys.0).unwrap().flatten() {
            keys.allow(file.file_name().to_str().unwrap(), 0o600);
        }
        keys
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    pub fn allow(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
    }

    /// Makes the key readable for the web server's user if root starts the server.
    pub fn give_to_the_server(&self, name: &str) {
        give_to_the_server(&self.0.join(name));
    }

    pub fn sign(&self, drafts: &[Draft]) -> Vec<String> {
        let line = |(alg, key, header, claims): &Draft| {
            json!({"alg": alg, "key": key, "header": header, "claims": claims}).to_string()
        };
        let lines: Vec<_> = drafts.iter().map(line).collect();
        let tokens: Vec<_> =
            self.signer("sign", &lines.join("\n")).lines().map(ToOwned::to_owned).collect();
        assert_eq!(tokens.len(), drafts.len());
        tokens
    }

    /// A valid token of HS256 for one minute.
    pub fn token(&self, mercure: &str) -> String {
        self.sign(&[("HS256", "hs", HS256, claims(60, mercure))]).remove(0)
    }

    fn signer(&self, command: &str, stdin: &str) -> String {
        let mut node = Command::new("node");
        node.arg(SIGNER).arg(command).arg(&self.0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = node.spawn().expect("Node.js signs; `make test` installs it");
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    }
}

pub const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// The claims of a token that expires so many seconds from now.
pub fn claims(seconds: i64, mercure: &str) -> String {
    format!(r#"{{"exp":{},"mercure":{mercure}}}"#, now() + seconds)
}

pub fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}
