//! The TCP connections of this machine that their clients have closed (`/proc/net/tcp` in
//! proc(5)). No server tells a CGI of these while it is silent, if its process has ended.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The state of a connection whose other end has sent its FIN (`TCP_CLOSE_WAIT` in
/// `include/net/tcp_states.h`).
const CLOSE_WAIT: &str = "08";

/// The addresses of clients that have closed a connection, which our end has not.
#[must_use]
pub fn closed_by_clients() -> BTreeSet<SocketAddr> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    tables.iter().flatten().flat_map(|table| table.lines()).filter_map(closed).collect()
}

fn closed(line: &str) -> Option<SocketAddr> {
    let mut fields = line.split_ascii_whitespace().skip(2);
    let (remote, state) = (fields.next()?, fields.next()?);
    if state == CLOSE_WAIT { address(remote) } else { None }
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
