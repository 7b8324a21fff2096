//! A request that a proxy holds (GRIP). The program looks once, tells the proxy what to hold the
//! request for, and ends. The proxy asks again when there may be news.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::following::Following;
use super::subscription::Subscription;
use crate::auth::Seal;
use crate::auth::grant::Grant;
use crate::cgi::FieldValue;
use crate::error::Error;
use crate::event::position::Position;
use crate::event::{Cursor, Since, Topic};
use crate::grip::{Channel, last_ids};

/// The shortest hold of a poll. Pushpin makes it of a shorter one.
const SHORTEST: Duration = Duration::from_secs(5);

/// How often a stream without news is asked for all the same: `touch` and other programs tell no
/// proxy of their events.
const REFRESH: Duration = Duration::from_secs(120);

/// A link counts for one to two times as many seconds. Logs keep it. Clients at one place have the
/// same link for so long.
const VALID: u64 = 300;

/// How often a proxy sends a heartbeat, in seconds.
const HEARTBEAT: u32 = 15;

/// The seconds after which a poll comes back that a proxy was to hold and does not.
pub(super) const LET_GO: u32 = 5;

/// The most channels of one request. Pushpin ignores those above 20.
const MAX_CHANNELS: usize = 20;

/// The most bytes of the channels, and of the state of a stream before it is encoded. Apache
/// takes no request line above 8190 bytes.
const MAX_BYTES: usize = 5_000;

/// The most bytes of an answer that a proxy holds. Pushpin refuses more than 100,000. A stream
/// that begins with more ends, and its client comes back for the rest.
const MAX_BODY: usize = 90_000;

/// What the state of a stream has for each topic besides its name, in bytes.
const OVERHEAD: usize = 160;

/// A proxy that would hold the request.
pub struct Holder {
    /// The mark of what it is given to return.
    pub seal: Seal,
    /// Its `Grip-Last`.
    pub last: String,
    /// The last segment of the path of its request, as it is written.
    pub segment: String,
}

/// How a proxy is to hold a request, if there is no news.
pub(super) enum Hold {
    /// Until then, at most. Then it answers what the program has answered.
    Poll(Duration),
    /// It adds the next answer to the stream. The link is below this segment of the path.
    Stream(Seal, String),
    /// The same. The stream has begun.
    NextLink(Seal),
}

/// A header for the proxy.
pub(super) type Instruction = (&'static str, FieldValue);

/// What a stream needs to go on. It is the same for all clients that stand at the same place, so
/// that a proxy can ask for all of them at once.
#[derive(Serialize, Deserialize)]
pub(super) struct Continuation {
    pub subscriptions: Vec<Subscription>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub following: Option<Following>,
    pub grant: Grant,
    pub renderer: String,
    /// The last second in which the link counts.
    until: u64,
}

/// What a subscriber wants, as far as a proxy can know it.
#[derive(Clone, Copy)]
pub(super) struct Interest<'a> {
    pub topics: &'a [Topic],
    pub following: Option<&'a Following>,
}

impl Hold {
    /// How a poll is held for so long; `None` for one that the program must wait for itself.
    pub fn plan_poll(wanted: Interest, timeout: Duration) -> Option<Self> {
        let is_short = wanted.size().is_some_and(|bytes| bytes <= MAX_BYTES);
        (is_short && timeout >= SHORTEST).then_some(Self::Poll(timeout))
    }

    /// The same for a stream.
    pub fn plan_stream(holder: &Holder, wanted: Interest, grant: &Grant) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte);
        let segment = &holder.segment;
        let has_path = !segment.is_empty() && segment.bytes().all(is_plain);
        let state = serde_json::to_string(&(grant, wanted.following)).ok()?.len();
        let is_short = wanted.size().is_some_and(|bytes| state + 2 * bytes <= MAX_BYTES);
        let hold = || Self::Stream(holder.seal.clone(), segment.clone());
        (is_short && has_path).then(hold)
    }

    /// Whether the client has the beginning of the stream.
    pub fn is_continued(&self) -> bool {
        matches!(self, Self::NextLink(_))
    }

    /// Whether the proxy takes a body of so many bytes with its instructions.
    pub fn may_begin_with(&self, bytes: usize) -> bool {
        self.is_continued() || bytes <= MAX_BODY
    }

    /// What the proxy is told in the head of an answer. Without a cursor for each topic it holds
    /// nothing, and the client comes back by itself.
    pub fn instructions(&self, state: &State) -> Option<Vec<Instruction>> {
        match self {
            Self::Poll(timeout) => state.hold_poll(*timeout),
            Self::Stream(seal, segment) => state.hold_stream(seal, &format!("{segment}/"), true),
            Self::NextLink(seal) => state.hold_stream(seal, "", !state.is_whole),
        }
    }
}

impl Interest<'_> {
    /// About how many bytes its channels take; `None` if there are too many.
    fn size(&self) -> Option<usize> {
        let channels = self.channels();
        let bytes = channels.iter().map(|channel| channel.name().len() + OVERHEAD).sum();
        (channels.len() <= MAX_CHANNELS).then_some(bytes)
    }

    /// A subscriber by pattern hears of every event.
    fn channels(&self) -> Vec<Channel> {
        let followed = self.following.map(Following::topics);
        let mut channels: Vec<_> = match followed {
            Some(None) => vec![Channel::of_all()],
            Some(Some(topics)) => topics.into_iter().map(Channel::of).collect(),
            None => self.topics.iter().map(Channel::of).collect(),
        };
        channels.sort_unstable();
        channels.dedup();
        channels
    }
}

/// Where a subscriber stands after its look.
pub(super) struct State<'a> {
    pub subscriptions: Vec<Subscription>,
    pub following: Option<&'a Following>,
    pub grant: &'a Grant,
    /// What its renderer has saved.
    pub renderer: String,
    /// A heartbeat of its stream.
    pub heartbeat: Vec<u8>,
    /// Whether the look has found all.
    pub is_whole: bool,
}

impl State<'_> {
    /// The ids close the gap between the look and the hold: the proxy asks again if it was told
    /// of another event last. It forgets that id when it asks. So of several requests in that gap
    /// it may hold one, which gets the event at the end of its hold: soon, after an event.
    fn hold_poll(&self, timeout: Duration) -> Option<Vec<Instruction>> {
        let now = Cursor::now();
        let mut all = vec![("Grip-Hold", "response".into())];
        let mut is_recent = false;
        for Subscription { topic, since } in &self.subscriptions {
            let cursor = since.cursor()?;
            is_recent |= cursor.age(now) < SHORTEST;
            all.push(subscribe(&Channel::of(topic), Some(&cursor))?);
        }
        if let Some(following) = self.following {
            let position = following.position();
            for channel in self.interest(&[]).channels() {
                all.push(subscribe(&channel, Some(&position))?);
            }
        }
        let timeout = if is_recent { SHORTEST } else { timeout };
        all.push(("Grip-Timeout", FieldValue::new(timeout.as_secs().to_string())?));
        Some(all)
    }

    /// The link is asked for at once if the client did not wait yet: an event between the look and
    /// the hold is found then. Later, the proxy keeps what it is told meanwhile.
    ///
    /// Pushpin gives one answer to all that ask for one path at the same time, whatever the query.
    /// So the mark of the link is in its path, too.
    fn hold_stream(&self, seal: &Seal, below: &str, at_once: bool) -> Option<Vec<Instruction>> {
        let topics: Vec<_> = self.subscriptions.iter().map(|one| one.topic.clone()).collect();
        let mut all = vec![("Grip-Hold", "stream".into())];
        for channel in self.interest(&topics).channels() {
            all.push(subscribe::<Cursor>(&channel, None)?);
        }
        let left = self.grant.expires_in(Cursor::now()).as_secs().saturating_add(1);
        let refresh = if at_once { 0 } else { REFRESH.as_secs().min(left) };
        let state = serde_json::to_string(&self.continuation()).ok()?;
        let link = seal.close(state.as_bytes());
        let (_, mark) = link.split_once('.')?;
        let link = format!("<{below}{mark}?grip={link}>; rel=next; timeout={refresh}");
        let beat = format!("{}; format=cstring; timeout={HEARTBEAT}", cstring(&self.heartbeat));
        all.push(("Grip-Link", FieldValue::new(link)?));
        all.push(("Grip-Keep-Alive", FieldValue::new(beat)?));
        Some(all)
    }

    fn continuation(&self) -> Continuation {
        Continuation {
            subscriptions: self.subscriptions.clone(),
            following: self.following.map(Following::record),
            grant: self.grant.clone(),
            renderer: self.renderer.clone(),
            until: (Cursor::now().seconds() / VALID + 2) * VALID,
        }
    }

    fn interest<'i>(&'i self, topics: &'i [Topic]) -> Interest<'i> {
        Interest { topics, following: self.following }
    }
}

impl Continuation {
    /// The stream that a proxy asks to go on with.
    ///
    /// # Errors
    /// 400 for a text that is not ours, or too old.
    pub fn open(seal: &Seal, text: &str) -> Result<Self, Error> {
        let content = seal.open(text);
        let continuation: Option<Self> =
            content.and_then(|content| serde_json::from_slice(&content).ok());
        let is_fresh = |it: &Self| Cursor::now().seconds() <= it.until;
        continuation
            .filter(is_fresh)
            .ok_or_else(|| Error::bad_request("grip is not a link of this program"))
    }
}

impl Holder {
    /// A request from now on that is asked for again has begun where the proxy says.
    pub fn resume(&self, subscriptions: &mut [Subscription], following: &mut Option<Following>) {
        for (channel, id) in last_ids(&self.last) {
            for one in subscriptions.iter_mut().filter(|one| Channel::of(&one.topic) == channel) {
                // A second that was not over is from now on, too.
                let is_from_now_on = one.since.resolve(Cursor::now()) == Since::Now;
                let last = Since::parse(id).ok().filter(|_| is_from_now_on);
                one.since = last.unwrap_or(one.since);
            }
            if let (Some(following), Some(position)) = (following.as_mut(), Position::parse(id)) {
                following.begin_at(position);
            }
        }
    }
}

fn subscribe<I: ToString>(channel: &Channel, id: Option<&I>) -> Option<Instruction> {
    let id = id.map(|id| format!("; prev-id={}", id.to_string())).unwrap_or_default();
    Some(("Grip-Channel", FieldValue::new(format!("{}{id}", channel.name()))?))
}

/// As Pushpin reads it: a backslash before what is not visible.
fn cstring(bytes: &[u8]) -> String {
    let escaped = |&byte: &u8| match byte {
        b'\n' => "\\n".to_owned(),
        b'!'..=b'~' if !matches!(byte, b'\\' | b';' | b',' | b'"') => char::from(byte).to_string(),
        other => format!("\\x{other:02x}"),
    };
    bytes.iter().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeat_is_a_visible_text() {
        assert_eq!(cstring(b":\n\n"), ":\\n\\n");
        assert_eq!(cstring(b"a; \\"), "a\\x3b\\x20\\x5c");
    }
}
