//! `redis://[user:password@]host:port/db` and
//! `unix:///path?db=…&user=…&pass=…`, each with `prefix=…`.

use percent_encoding::percent_decode_str;
use url::Url;

use crate::store::address::Address;

const PORT: u16 = 6379;
/// What our keys begin with.
const PREFIX: &str = "novcomet:";

/// A Redis server, and who we are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where it listens.
    pub address: Address,
    /// Empty for the default user.
    pub user: String,
    /// Empty for none.
    pub password: String,
    /// The number of the database.
    pub database: u32,
    /// What our keys begin with.
    pub prefix: String,
}

impl Server {
    /// `None` for a URL that names none.
    pub fn parse(url: &Url) -> Option<Self> {
        let mut server = match url.scheme() {
            "unix" => Self::local(url)?,
            _ => Self::remote(url)?,
        };
        for (name, value) in url.query_pairs() {
            match name.as_ref() {
                "prefix" => server.prefix = value.into(),
                "db" if url.scheme() == "unix" => server.database = value.parse().ok()?,
                "user" if url.scheme() == "unix" => server.user = value.into(),
                "pass" if url.scheme() == "unix" => server.password = value.into(),
                _ => return None,
            }
        }
        url.fragment().is_none().then_some(server)
    }

    fn at(address: Address) -> Self {
        let prefix = PREFIX.to_owned();
        Self { address, user: String::new(), password: String::new(), database: 0, prefix }
    }

    fn local(url: &Url) -> Option<Self> {
        let mut path = url.clone();
        path.set_query(None);
        let path = path.as_str().strip_prefix("unix://").filter(|path| path.len() > 1)?;
        path.starts_with('/').then(|| Self::at(Address::Unix(decoded(path).into())))
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
    fn a_url_names_a_server_a_user_a_database_and_a_prefix() {
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
    }
}
