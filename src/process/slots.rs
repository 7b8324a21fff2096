//! Slots: the limits for waiting requests, in total and from one address.
//!
//! A slot is a name in the abstract namespace of Unix sockets (unix(7)). Only one
//! socket can have a name, so the limit is exact. The name is free when its process
//! exits, for any reason. It needs no file, because a subscriber must not create one;
//! a lock on a byte of a file would need a writable file.
//!
//! Any user of the machine can take these names, but that only prevents waiting: a
//! client without a slot polls at intervals and receives every message.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};

use crate::error::Error;
use crate::process::random::Random;

/// The limits for requests that wait for one store.
#[derive(Debug, Clone, Copy)]
pub struct Slots<'a> {
    /// The URL of the store.
    pub store: &'a str,
    /// The limit in total; 0 for any number.
    pub most: u32,
    /// The limit for one address; 0 for any number.
    pub most_per_address: u32,
}

/// The permission to wait. The slot is free again when this is dropped.
#[derive(Debug)]
pub struct Slot {
    names: Vec<OwnedFd>,
}

impl Slot {
    /// The sockets whose names are the slot. A process that holds them has the slot.
    #[must_use]
    pub fn names(&self) -> &[OwnedFd] {
        &self.names
    }

    /// Both.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.names.extend(other.names);
        self
    }
}

impl From<Vec<OwnedFd>> for Slot {
    fn from(names: Vec<OwnedFd>) -> Self {
        Self { names }
    }
}

impl Slots<'_> {
    /// How many are taken; `None` if the kernel does not say (`/proc/net/unix`).
    #[must_use]
    pub fn used(&self) -> Option<u64> {
        let prefix = format!("@{}", prefix(self.store));
        let names = fs::read_to_string("/proc/net/unix").ok()?;
        let is_slot = |line: &&str| {
            let name = line.rsplit(' ').next().and_then(|name| name.strip_prefix(&prefix));
            name.and_then(|number| number.parse().ok())
                .is_some_and(|number: u32| number < self.most)
        };
        Some(names.lines().filter(is_slot).count() as u64)
    }

    /// Whether a request from any address would get none.
    #[must_use]
    pub fn are_taken(&self) -> bool {
        self.most > 0 && self.used().is_some_and(|used| used >= self.most.into())
    }

    /// Takes a slot for a request from `address`; `None` if all are taken. The limit
    /// of the address comes first, because it has fewer names to try.
    ///
    /// # Errors
    /// 503 when the kernel gives no sockets.
    pub fn take(&self, address: &str) -> Result<Option<Slot>, Error> {
        let store = hash(&[self.store]);
        let most_here = if address.is_empty() { 0 } else { self.most_per_address };
        let here = format!("{store}/{}", hash(&[self.store, &address_group(address)]));
        let mut names = Vec::new();
        for (of, count) in [(here, most_here), (store, self.most)] {
            if count > 0 {
                let Some(name) = take_one(&of, count)? else { return Ok(None) };
                names.push(name);
            }
        }
        Ok(Some(Slot { names }))
    }
}

/// The hash of an address, the same for all addresses that count as one client.
#[must_use]
pub fn address_hash(address: &str) -> u32 {
    let hash = u64::from_str_radix(&hash(&[&address_group(address)]), 16).unwrap_or(0);
    u32::try_from(hash & u64::from(u32::MAX)).unwrap_or(0)
}

/// The beginning of the names of a store's slots. Then comes the number of a slot, or the
/// hash of an address first.
#[must_use]
pub fn prefix(store: &str) -> String {
    format!("novcomet/{}/", hash(&[store]))
}

/// Takes one of `count` names until the socket is closed.
fn take_one(of: &str, count: u32) -> Result<Option<OwnedFd>, Error> {
    // Before listen(2) no other process can connect or send to this type of socket.
    let kind = SocketType::STREAM;
    let failed = |errno: Errno| no_sockets(&errno.into());
    let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None);
    let socket = socket.map_err(failed)?;
    for slot in random_order(count) {
        let name = format!("novcomet/{of}/{slot}");
        let name = SocketAddrUnix::new_abstract_name(name.as_bytes()).map_err(failed)?;
        match bind(&socket, &name) {
            Ok(()) => return Ok(Some(socket)),
            Err(Errno::ADDRINUSE) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    Ok(None)
}

fn no_sockets(cause: &io::Error) -> Error {
    Error::unavailable(
        "nobody can wait; the server's error log says why",
        &format!("cannot count waiting subscribers: {cause}"),
        "allow the server Unix sockets, or set NOVCOMET_MAX_WAITERS and NOVCOMET_MAX_WAITERS_PER_ADDRESS to 0",
    )
}

/// The numbers below `count`, each once. If a tenth of the slots is free, it takes ten
/// tries on average to find one. Only a refused request tries all.
fn random_order(count: u32) -> impl Iterator<Item = u64> {
    let mut random = Random::new();
    let (start, mut step) = (u64::from(random.below(count)), u64::from(random.below(count)));
    let count = u64::from(count);
    while greatest_common_divisor(step, count) > 1 {
        step += 1;
    }
    (0..count).map(move |tried| (start + tried * step) % count)
}

fn greatest_common_divisor(one: u64, other: u64) -> u64 {
    if one == 0 { other } else { greatest_common_divisor(other % one, one) }
}

/// The group of addresses that counts as one client: an IPv4 address, or the /64 of
/// an IPv6 address, because one machine can use all addresses of a /64. A server
/// behind a socket may send any text.
fn address_group(address: &str) -> String {
    let bare = address.split('%').next().unwrap_or_default();
    match bare.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(address)) => address.to_string(),
        Ok(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::from([a, b, c, d, 0, 0, 0, 0]).to_string()
        }
        Err(_) => address.to_owned(),
    }
}

/// A name has at most 107 bytes, and a URL may be longer. The hash may differ between
/// builds, because one executable serves a whole site.
///
/// Every user of the machine can read the names (/proc/net/unix), so they contain only
/// a hash of an address. There is no secret that all processes of a site share and that
/// other users cannot read. So a user who hashes every address can find an address.
fn hash(texts: &[&str]) -> String {
    let mut hasher = DefaultHasher::new();
    texts.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::hash::{BuildHasher, RandomState};

    fn slots(most: u32, most_per_address: u32) -> Slots<'static> {
        let store = format!("test:{}", RandomState::new().hash_one(0)).leak();
        Slots { store, most, most_per_address }
    }

    fn take_all(slots: Slots, addresses: &[&str]) -> Vec<Slot> {
        addresses.iter().map_while(|address| slots.take(address).unwrap()).collect()
    }

    #[test]
    fn exactly_the_limit_can_wait() {
        for most in [1, 2, 7, 64, 100] {
            let slots = slots(most, 0);
            let mut held = take_all(slots, &["192.0.2.1"; 200]);
            assert_eq!(held.len(), usize::try_from(most).unwrap());
            held.pop();
            assert_eq!(take_all(slots, &["192.0.2.1"; 200]).len(), 1, "a free slot is found");
        }
    }

    #[test]
    fn refused_address_leaves_no_slot_taken() {
        let slots = slots(5, 3);
        let first = take_all(slots, &["192.0.2.1"; 9]);
        let second = take_all(slots, &["192.0.2.2"; 9]);
        assert_eq!((first.len(), second.len()), (3, 2));
        drop(first);
        assert_eq!(take_all(slots, &["192.0.2.2"; 9]).len(), 1);
    }

    #[test]
    fn no_limit_admits_any_number() {
        assert_eq!(take_all(slots(0, 0), &["192.0.2.1"; 200]).len(), 200);
        assert_eq!(take_all(slots(7, 3), &[""; 200]).len(), 7);
    }

    #[test]
    fn stores_have_separate_slots() {
        let held = take_all(slots(3, 3), &["192.0.2.1"; 3]);
        assert_eq!(take_all(slots(3, 3), &["192.0.2.1"; 3]).len(), held.len());
    }

    #[test]
    fn address_group_is_ipv4_or_slash_64() {
        for (one, other, same) in [
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("2001:db8::1", "2001:db8::ffff:1:2", true),
            ("2001:db8:0:1::1", "2001:db8::1", false),
            ("fe80::1%eth0", "fe80::1", true),
            ("@", "unix", false),
        ] {
            assert_eq!(address_group(one) == address_group(other), same, "{one} {other}");
        }
        assert_eq!(take_all(slots(1, 1), &[&"x".repeat(4096)]).len(), 1, "too long for a name");
    }

    #[test]
    fn random_order_tries_every_slot_once() {
        for count in [1, 2, 12, 97, 2176] {
            let tried: Vec<_> = random_order(count).collect();
            let all: BTreeSet<_> = (0..u64::from(count)).collect();
            assert_eq!(tried.iter().copied().collect::<BTreeSet<_>>(), all);
            assert_eq!(tried.len(), all.len());
        }
    }
}
