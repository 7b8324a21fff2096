//! The TCP connections of this machine that their clients have closed (`/proc/net/tcp` in
//! proc(5)). No server tells a CGI of these while it is silent, if its process has ended.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The states of a connection that is open at both ends, and of one whose other end has
/// sent its FIN (`TCP_ESTABLISHED`, `TCP_CLOSE_WAIT` in `include/net/tcp_states.h`).
const ESTABLISHED: &str = "01";
const CLOSE_WAIT: &str = "08";

/// The addresses of clients that have closed a connection, which our end has not. A client
/// may have connections to several servers from one address and port; if one of them is
/// open, nothing says which has ended.
#[must_use]
pub fn closed_by_clients() -> BTreeSet<SocketAddr> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    let (mut closed, mut open) = (BTreeSet::new(), BTreeSet::new());
    for line in tables.iter().flatten().flat_map(|table| table.lines()) {
        match connection(line) {
            Some((client, CLOSE_WAIT)) => closed.insert(client),
            Some((client, ESTABLISHED)) => open.insert(client),
            _ => false,
        };
    }
    closed.retain(|client| !open.contains(client));
    closed
}

/// The other end and the state.
fn connection(line: &str) -> Option<(SocketAddr, &str)> {
    let mut fields = line.split_ascii_whitespace().skip(2);
    let (remote, state) = (fields.next()?, fields.next()?);
    match state {
        ESTABLISHED | CLOSE_WAIT => Some((address(remote)?, state)),
        _ => None,
    }
}

/// The kernel prints each 32 bits of an address as a number, whatever the order of its bytes.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| {
        let word = u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let ip = match address.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(words).ok()?))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip.to_canonical(), u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::OwnedFd;

    use rustix::net::sockopt::set_socket_reuseaddr;
    use rustix::net::{AddressFamily, SocketType, bind, connect, getsockname, socket};

    /// Connects to each of these from one address and port.
    fn connect_to_both(servers: [&TcpListener; 2]) -> [OwnedFd; 2] {
        let mut from = SocketAddr::from(([127, 0, 0, 1], 0));
        servers.map(|server| {
            let client = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
            set_socket_reuseaddr(&client, true).unwrap();
            bind(&client, &from).unwrap();
            from = getsockname(&client).unwrap().try_into().unwrap();
            connect(&client, &server.local_addr().unwrap()).unwrap();
            client
        })
    }

    #[test]
    fn connection_to_another_server_ends_none_of_ours() {
        let servers = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [ours, other] = connect_to_both([&servers[0], &servers[1]]);
        let [(_ours, client), (_other, same)] =
            [0, 1].map(|at: usize| servers[at].accept().unwrap());
        assert_eq!(client, same);
        drop(other);
        assert!(!closed_by_clients().contains(&client));
        drop(ours);
        assert!(closed_by_clients().contains(&client));
    }

    #[test]
    fn connection_is_found_once_its_client_has_closed_it() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let from = client.local_addr().unwrap();
            let (_server, _) = listener.accept().unwrap();
            assert!(!closed_by_clients().contains(&from), "{from} is open");
            drop(client);
            assert!(closed_by_clients().contains(&from), "{from} is closed");
        }
    }
}
