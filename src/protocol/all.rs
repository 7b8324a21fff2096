//! Every protocol.

use super::{Protocol, bayeux, grip, mercure, novcomet};
use crate::cgi::Request;
use crate::hub::Renderer;

/// The last one speaks everything that the others do not.
static ALL: [&(dyn Protocol + Sync); 4] =
    [&grip::Grip, &bayeux::Bayeux, &mercure::Mercure, &novcomet::NovComet];

/// The protocol of `request`.
#[must_use]
pub fn of(request: &Request) -> &'static (dyn Protocol + Sync) {
    let [first @ .., last] = &ALL;
    *first.iter().find(|protocol| protocol.speaks(request)).unwrap_or(last)
}

/// The names of those that clients speak. The first one is for proxies.
#[must_use]
pub fn names() -> Vec<&'static str> {
    ALL[1..].iter().map(|protocol| protocol.name()).collect()
}

/// The renderer that another process has saved.
#[must_use]
pub fn restore(saved: &str) -> Option<Box<dyn Renderer>> {
    ALL.iter().find_map(|protocol| protocol.restore(saved))
}
