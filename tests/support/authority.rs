//! A certificate authority, made by openssl(1). Programs trust it only if they are configured
//! to. Its files are removed with its owner.

use std::fs;
use std::process::Command;

use super::dir::TempDir;

/// Valid from 2020 on, also while a test sets the clock.
const CONFIGURATION: &str = "
[ca]
default_ca = authority
[authority]
database = index
new_certs_dir = .
rand_serial = yes
unique_subject = no
default_md = sha256
default_startdate = 20200101000000Z
policy = named
copy_extensions = copy
[named]
commonName = supplied
";

/// A year in the future.
pub const LATER: u16 = 2099;
/// A year in the past.
pub const BEFORE: u16 = 2021;

pub struct Authority(TempDir);

impl Authority {
    pub fn new() -> Self {
        let authority = Self(TempDir::in_memory());
        fs::write(authority.file("ca.conf"), CONFIGURATION).unwrap();
        fs::write(authority.file("index"), "").unwrap();
        authority.request("ca", "basicConstraints=critical,CA:TRUE");
        authority.sign("ca", LATER, &["-selfsign"]);
        authority
    }

    /// A file of the authority: its certificate, a certificate that it signed, or a file of a
    /// test.
    pub fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// Creates `NAME.pem` and `NAME.key`, valid until that year and for these names, such as
    /// `IP:127.0.0.1` or `DNS:localhost`.
    pub fn certify(&self, name: &str, names: &str, until: u16) {
        self.request(name, &format!("subjectAltName={names}"));
        self.sign(name, until, &["-cert", "ca.pem"]);
    }

    fn request(&self, name: &str, extension: &str) {
        let (subject, key) = (format!("/CN={name}"), format!("{name}.key"));
        let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let what = ["-subj", &subject, "-addext", extension, "-keyout", &key];
        self.openssl("req", &[&["-new", "-out", "request"][..], &curve, &what].concat());
    }

    fn sign(&self, name: &str, until: u16, by: &[&str]) {
        let (cert, end) = (format!("{name}.pem"), format!("{until}0101000000Z"));
        let common = ["-batch", "-notext", "-config", "ca.conf", "-keyfile", "ca.key"];
        let what = ["-in", "request", "-out", &cert, "-enddate", &end];
        self.openssl("ca", &[&common[..], &what, by].concat());
    }

    fn openssl(&self, command: &str, arguments: &[&str]) {
        let mut openssl = Command::new("openssl");
        let output = openssl.arg(command).args(arguments).current_dir(&self.0).output();
        let output = output.expect("`make test` installs openssl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
