//! Subscribers that wait at other servers with the same store, as these have told it.

use super::askers::Present;
use super::crowd::Crowd;
use super::joining::Together;
use super::notice::Remote;
use crate::error::Error;
use crate::event::Topic;
use crate::process::identity;
use crate::store::Store;

/// How much one server tells of its subscribers, in bytes. Those beyond that are left out.
const MAX_TEXT: usize = 1 << 20;

/// The crowd of a server, and what it has told.
type Told = (String, String);

/// Tells the other servers who waits here.
///
/// # Errors
/// The store's.
pub(super) fn share(store: &dyn Store, together: &Together, crowd: &Crowd) -> Result<(), Error> {
    let mut text = String::from("[");
    for (_, waiter) in crowd.after(0) {
        let remote = serde_json::to_string(&waiter.remote()).unwrap_or_default();
        if text.len() + remote.len() > MAX_TEXT {
            break;
        }
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&remote);
    }
    text.push(']');
    store.share(&identity::place(&together.name), &text)
}

/// Those who wait for some of these topics at servers that have told it, but for those whose
/// leaders have been `asked` themselves.
pub(super) fn present(told: &[Told], asked: &[String], topics: &[Topic]) -> Vec<Present> {
    let asked: Vec<_> = asked.iter().map(|name| identity::place(name)).collect();
    let others = told.iter().filter(|(crowd, _)| !asked.contains(crowd));
    // What another version of the program tells may have another form.
    let remotes =
        others.flat_map(|(_, text)| serde_json::from_str::<Vec<Remote>>(text).unwrap_or_default());
    let present = |remote: Remote| {
        let wanted = topics.iter().enumerate().filter(|(_, topic)| remote.waits_for(topic));
        let topics: Vec<_> = wanted.map(|(number, _)| number).collect();
        (!topics.is_empty()).then_some(Present { topics, name: remote.name })
    };
    remotes.filter_map(present).collect()
}

/// Whether the leader of this name has told who waits there.
pub(super) fn has_told(told: &[Told], name: &str) -> bool {
    let place = identity::place(name);
    told.iter().any(|(crowd, _)| *crowd == place)
}
