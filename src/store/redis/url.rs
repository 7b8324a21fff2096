//! `redis://[user:password@]host:port/db`, the same with `rediss://` for TLS
//! (`ca=/…`, `cert=/…&key=/…`), and `unix:///path?db=…&user=…&pass=…`, each with
//! `prefix=…`.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use url::Url;

use crate::net::TlsFiles;
use crate::net::address::Address;
use crate::store::is_prefix;

const PORT: u16 = 6379;
/// The default prefix of keys.
const PREFIX: &str = "novcomet:";
/// The trusted authorities of Debian.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A Redis server, with the login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The address of the server.
    pub address: Address,
    /// Empty for the default user.
    pub user: String,
    /// Empty for none.
    pub password: String,
    /// The number of the database.
    pub database: u32,
    /// The prefix of keys.
    pub prefix: String,
    /// The files for TLS, if the URL asks for TLS.
    pub files: Option<TlsFiles>,
}

impl TlsFiles {
    /// A certificate needs a key.
    fn parse(url: &Url) -> Option<Self> {
        let one = |wanted: &str| {
            let found = url.query_pairs().find(|(name, _)| name == wanted);
            found.map(|(_, path)| PathBuf::from(path.into_owned()))
        };
        let own = match (one("cert"), one("key")) {
            (None, None) => None,
            (cert, key) => Some((cert?, key?)),
        };
        Some(Self { ca: one("ca").unwrap_or_else(|| AUTHORITIES.into()), own })
    }
}

impl Server {
    /// Reads a URL; `None` if it is invalid.
    pub fn parse(url: &Url) -> Option<Self> {
        let mut server = match url.scheme() {
            "unix" => Self::local(url)?,
            "rediss" => Self { files: Some(TlsFiles::parse(url)?), ..Self::remote(url)? },
            _ => Self::remote(url)?,
        };
        for (name, value) in url.query_pairs() {
            match name.as_ref() {
                "prefix" if is_prefix(&value) => server.prefix = value.into(),
                "ca" | "cert" | "key" if server.files.is_some() && value.starts_with('/') => {}
                "db" if url.scheme() == "unix" => server.database = value.parse().ok()?,
                "user" if url.scheme() == "unix" => server.user = value.into(),
                "pass" if url.scheme() == "unix" => server.password = value.into(),
                _ => return None,
            }
        }
        url.fragment().is_none().then_some(server)
    }

    fn at(address: Address) -> Self {
        let (user, password, prefix) = (String::new(), String::new(), PREFIX.to_owned());
        Self { address, user, password, database: 0, prefix, files: None }
    }

    fn local(url: &Url) -> Option<Self> {
        let mut path = url.clone();
        path.set_query(None);
        let path = path.as_str().strip_prefix("unix://").filter(|path| path.len() > 1)?;
        // A query without `?` must not become a path, because the log shows paths.
        (path.starts_with('/') && !path.contains(['&', '=']))
            .then(|| Self::at(Address::Unix(decoded(path).into())))
    }

    fn remote(url: &Url) -> Option<Self> {
        let host = url.host_str().filter(|host| !host.is_empty())?;
        let port = url.port().unwrap_or(PORT);
        let mut server = Self::at(Address::parse(&format!("{host}:{port}"), PORT)?);
        server.user = decoded(url.username());
        server.password = decoded(url.password().unwrap_or_default());
        server.database = match url.path().trim_start_matches('/') {
            "" => 0,
            number => number.parse().ok()?,
        };
        Some(server)
    }
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Option<Server> {
        Server::parse(&Url::parse(url).ok()?)
    }

    #[test]
    fn url_has_address_login_database_prefix() {
        let server = parse("redis://u%40x:p%3A%2F@[::1]:7/3?prefix=site%3A").unwrap();
        assert_eq!(server.address, Address::tcp("::1", 7));
        assert_eq!((server.user.as_str(), server.password.as_str()), ("u@x", "p:/"));
        assert_eq!((server.database, server.prefix.as_str()), (3, "site:"));
        let server = parse("redis://:secret@redis.example").unwrap();
        assert_eq!(server.address, Address::tcp("redis.example", 6379));
        assert_eq!((server.user.as_str(), server.password.as_str()), ("", "secret"));
        let server = parse("unix:///run/a%20b.sock?db=2&user=u&pass=p").unwrap();
        assert_eq!(server.address, Address::Unix("/run/a b.sock".into()));
        assert_eq!((server.user.as_str(), server.password.as_str()), ("u", "p"));
        assert_eq!((server.database, server.prefix.as_str()), (2, "novcomet:"));
        assert_eq!(server.files, None);
        assert_eq!(parse("unix:///run/a.sock&pass=p"), None);
    }

    #[test]
    fn prefix_needs_one_colon_at_end() {
        for prefix in ["", "site", ":", "site:a:", "site::", "a:b"] {
            assert_eq!(parse(&format!("redis://h/0?prefix={prefix}")), None, "{prefix}");
        }
    }

    #[test]
    fn only_tls_urls_have_files() {
        let files = |rest: &str| parse(&format!("rediss://u:p@h:7/3?{rest}")).map(|it| it.files);
        let system = TlsFiles { ca: AUTHORITIES.into(), own: None };
        assert_eq!(files("prefix=x:"), Some(Some(system)));
        let own = Some(("/b c.pem".into(), "/d.pem".into()));
        let all = TlsFiles { ca: "/a.pem".into(), own };
        assert_eq!(files("ca=/a.pem&cert=/b%20c.pem&key=/d.pem"), Some(Some(all)));
        for rest in ["ca=a.pem", "ca=", "cert=/b", "key=/d", "cert=b&key=/d", "verify=no"] {
            assert_eq!(files(rest), None, "{rest}");
        }
        for url in ["redis://h/0", "unix:///h"] {
            for rest in ["ca=/a", "cert=/b&key=/d"] {
                assert_eq!(parse(&format!("{url}?{rest}")), None, "{url} {rest}");
            }
        }
    }
}
