//! The only way from a request to a store; everything on it is authorised.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::asking::ask;
use super::following::{Following, Start, Wish, find};
use super::hold::{Continuation, Hold, Holder, Interest};
use super::joining::Together;
use super::rounded::{is_possible, unround};
use super::session::SessionTerms;
use super::subscription::Subscription;
use super::waiter::{Renderer, Restore, Until, Wanted};
use crate::auth::Generation;
use crate::auth::grant::Grant;
use crate::error::Error;
use crate::event::pattern::Pattern;
use crate::event::position::Position;
use crate::event::{Cursor, Draft, Event, Since, Topic};
use crate::grip::Proxies;
use crate::process::random::Random;
use crate::process::slots::{Slot, Slots};
use crate::store::Store;

/// Opens the store.
type Open<'a, 's> = &'a dyn Fn() -> Result<Box<dyn Store + 's>, Error>;

/// How long a subscriber may wait, and how many may wait at once.
pub struct Terms<'a> {
    /// The longest poll.
    pub poll: Duration,
    /// The longest stream.
    pub stream: Duration,
    /// How often the store is read when nothing wakes the process.
    pub interval: Duration,
    /// `None` for a shell: it holds no worker of a server and needs no slot.
    pub slots: Option<Slots<'a>>,
    /// The client's address.
    pub address: &'a str,
    /// The client's port.
    pub port: &'a str,
    /// With whom a subscriber of this store would wait, if with others.
    pub together: &'a dyn Fn(&dyn Store) -> Option<Together>,
    /// The names of all leaders of this store, of any user and server. `None` if the kernel does
    /// not say.
    pub leaders: &'a dyn Fn(&dyn Store) -> Option<BTreeSet<String>>,
    /// The sessions of clients.
    pub sessions: SessionTerms,
    /// The proxies that are told of events.
    pub proxies: &'a Proxies,
    /// The proxy that holds the client's connection.
    pub holder: Option<Holder>,
    /// Makes the renderer of a stream that goes on.
    pub restore: Restore,
    /// Tells the administrator of a fault that does not concern the client.
    pub report: &'a dyn Fn(Error),
}

impl Terms<'_> {
    /// The client's end of its connection, if the server tells it.
    fn client(&self) -> Option<SocketAddr> {
        let ip: IpAddr = self.address.parse().ok()?;
        Some(SocketAddr::new(ip.to_canonical(), self.port.parse().ok()?))
    }
}

/// An event that is to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The topic.
    pub topic: Topic,
    /// The message, if there is one.
    pub data: Option<String>,
}

/// A message for several topics, with what is said of it besides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewUpdate {
    /// The topics, the canonical one first.
    pub topics: Vec<Topic>,
    /// The message.
    pub message: Draft,
}

/// What a client may know of the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct About {
    /// Its version.
    pub version: &'static str,
    /// The protocols that it speaks.
    pub protocols: Vec<&'static str>,
    /// The URL of the directory of the events, if the client may know that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
}

/// How long a batch may take before none of its messages is begun any more. A topic that hangs
/// takes 2 s of a message, so one does not stop the others.
pub const BATCH_LIMIT: Duration = Duration::from_secs(3);

/// How long a poll waits at least if its client may already have what it gets. A client that rounds
/// its cursors would ask again at once, and again.
const DOUBT_PAUSE: Duration = Duration::from_secs(1);

/// The operations that an action of a protocol can use.
pub struct Hub<'a, 's> {
    pub(super) grant: &'a Grant,
    pub(super) open: Open<'a, 's>,
    pub(super) terms: Terms<'a>,
    about: &'a dyn Fn() -> About,
}

impl<'a, 's> Hub<'a, 's> {
    /// A hub for one request. `open` is called when the store is needed.
    #[must_use]
    pub fn new(
        grant: &'a Grant,
        open: Open<'a, 's>,
        terms: Terms<'a>,
        about: &'a dyn Fn() -> About,
    ) -> Self {
        Self { grant, open, terms, about }
    }

    /// What the client may know of the program.
    #[must_use]
    pub fn about(&self) -> About {
        (self.about)()
    }

    /// Publishes to every topic, in order.
    ///
    /// # Errors
    /// 403 for a topic that is not granted, before anything is published. The
    /// store's, at the first topic that fails; those before it are published.
    pub fn publish(&self, topics: Vec<Topic>, data: Option<&str>) -> Result<Vec<Event>, Error> {
        self.grant.check_publish(&topics)?;
        let store = (self.open)()?;
        let mut events = Vec::new();
        let publish = |topic: Topic| {
            let cursor = store.publish(&topic, data)?;
            events.push(Event { topic, cursor });
            Ok(())
        };
        let published = topics.into_iter().try_for_each(publish);
        self.tell(&events);
        published.map(|()| events)
    }

    /// Tells the proxies of events that the store has.
    pub(super) fn tell(&self, events: &[Event]) {
        if let Err(fault) = self.terms.proxies.tell(events) {
            (self.terms.report)(fault);
        }
    }

    /// Publishes a message to its topics, in order. Each of them keeps it. Returns where the
    /// event of the canonical topic is.
    ///
    /// # Errors
    /// 403 for a topic that is not granted, before anything is published. The store's, at
    /// the first topic that fails; those before it are published.
    pub fn publish_update(&self, update: NewUpdate) -> Result<Position, Error> {
        let NewUpdate { topics, mut message } = update;
        self.grant.check_publish(&topics)?;
        let store = (self.open)()?;
        if topics.len() > 1 {
            message.extra.topics.clone_from(&topics);
        }
        let mut events = Vec::new();
        let put = |topic: &Topic| {
            let cursor = store.put(topic, Some(message.clone()))?;
            events.push(Event { topic: topic.clone(), cursor });
            Ok(())
        };
        let put = topics.iter().try_for_each(put);
        self.tell(&events);
        put?;
        let canonical = events.first().map(|event| Position::after(event.cursor));
        canonical.ok_or_else(|| Error::bad_request("an update needs a topic"))
    }

    /// Publishes these, one after the other, except for those that have been refused. If one
    /// fails, the others go on.
    ///
    /// # Errors
    /// 403 for a topic that is not granted, before anything is published. 503 if the store
    /// cannot be opened.
    pub fn publish_each(
        &self,
        publications: Vec<Result<Publication, Error>>,
    ) -> Result<Vec<Result<Event, Error>>, Error> {
        self.grant.check_publish(publications.iter().flatten().map(|each| &each.topic))?;
        let store = (self.open)()?;
        let until = Instant::now() + BATCH_LIMIT;
        let publish = |publication: Result<Publication, Error>| {
            let Publication { topic, data } = publication?;
            if Instant::now() >= until {
                return Err(too_late());
            }
            let cursor = store.publish(&topic, data.as_deref())?;
            Ok(Event { topic, cursor })
        };
        let published: Vec<_> = publications.into_iter().map(publish).collect();
        let events: Vec<_> = published.iter().flatten().cloned().collect();
        self.tell(&events);
        Ok(published)
    }

    /// Admits a subscriber, for at most `wait`. A subscriber that gets no slot
    /// reads the store once and gets `Retry-After`, so it polls.
    ///
    /// # Errors
    /// 401 when the token has expired, 403 for a topic that is not granted, 503
    /// when slots cannot be counted.
    pub fn subscribe(
        &self,
        mut subscriptions: Vec<Subscription>,
        until: Until,
        wait: Option<Duration>,
        renderer: Box<dyn Renderer>,
    ) -> Result<Wanted, Error> {
        let topics = subscriptions.iter().map(|each| &each.topic);
        self.grant.check_subscribe(topics, Cursor::now())?;
        let is_doubtful = self.unround(&mut subscriptions);
        // A proxy would repeat such a poll at once.
        let may_hold = !is_doubtful || until == Until::Deadline;
        let mut wanted = self.admit((subscriptions, None), until, wait, may_hold, |_| renderer)?;
        if is_doubtful && until == Until::FirstUpdate {
            wanted.pause = DOUBT_PAUSE.min(wanted.timeout);
        }
        Ok(wanted)
    }

    /// A store that cannot be used is reported when it is read.
    fn unround(&self, subscriptions: &mut [Subscription]) -> bool {
        if !is_possible(subscriptions) {
            return false;
        }
        let store = (self.open)();
        store.and_then(|store| unround(store.as_ref(), subscriptions)).unwrap_or(false)
    }

    /// The same for a subscriber by pattern. Each of its events is judged when it comes.
    ///
    /// # Errors
    /// 400 for patterns that take too much work, 401 when the token has expired, 501 if the
    /// store has no order of all topics, 503 when the store cannot be used or slots cannot be
    /// counted.
    pub fn follow(
        &self,
        wish: Wish,
        until: Until,
        wait: Option<Duration>,
        renderer: Box<dyn Renderer>,
    ) -> Result<Wanted, Error> {
        self.grant.check_valid(Cursor::now())?;
        let Wish { patterns, start, is_strict } = wish;
        Pattern::check_together(&patterns)?;
        let start = match start {
            Start::AfterId(id) => {
                let found = find((self.open)()?.as_ref(), &patterns, &id)?;
                found.map(Start::After)
            }
            known => Some(known),
        };
        let following = Following::new(patterns, start.as_ref(), is_strict);
        self.admit((Vec::new(), Some(following)), until, wait, true, |_| renderer)
    }

    pub(super) fn open(&self) -> Result<Box<dyn Store + 's>, Error> {
        (self.open)()
    }

    /// How long a request of a session is held.
    #[must_use]
    pub fn held(&self) -> Duration {
        self.terms.sessions.held
    }

    pub(super) fn grant(&self) -> &Grant {
        self.grant
    }

    pub(super) fn session_terms(&self) -> &SessionTerms {
        &self.terms.sessions
    }

    pub(super) fn address(&self) -> &str {
        self.terms.address
    }

    /// The slot of the one page of a browser that waits; `None` if another has it.
    pub(super) fn take_page(&self, browser: &str) -> Result<Option<Slot>, Error> {
        let Some(slots) = &self.terms.slots else { return Ok(Some(Slot::from(Vec::new()))) };
        Slots { most: 0, most_per_address: 1, ..*slots }.take(&format!("browser {browser}"))
    }

    pub(super) fn admit(
        &self,
        (mut subscriptions, mut following): (Vec<Subscription>, Option<Following>),
        until: Until,
        wait: Option<Duration>,
        may_hold: bool,
        renderer: impl FnOnce(Option<u32>) -> Box<dyn Renderer>,
    ) -> Result<Wanted, Error> {
        let now = Cursor::now();
        let longest = match until {
            Until::FirstUpdate => self.terms.poll,
            Until::Deadline => jittered(self.terms.stream),
        };
        let timeout = wait.unwrap_or(Duration::MAX).min(longest).min(self.grant.expires_in(now));
        if let Some(holder) = &self.terms.holder {
            holder.resume(&mut subscriptions, &mut following);
        }
        let has_end = until == Until::Deadline && wait.is_some();
        let hold = self.hold(&subscriptions, following.as_ref(), until, timeout);
        let hold = hold.filter(|_| may_hold && !has_end);
        let admission = match hold {
            Some(_) => Admission::Held,
            None => self.take_slot(timeout)?,
        };
        let (timeout, retry_after, slot) = match admission {
            Admission::Held => (Duration::ZERO, None, None),
            Admission::Refused => (Duration::ZERO, Some(retry_after_seconds()), None),
            Admission::Unlimited => (timeout, None, None),
            Admission::Slot(slot) => (timeout, None, Some(slot)),
        };
        let (interval, grant) = (self.terms.interval, self.grant.clone());
        let (client, renderer) = (self.terms.client(), renderer(retry_after));
        Ok(Wanted {
            subscriptions,
            following,
            until,
            timeout,
            interval,
            retry_after,
            grant,
            renderer,
            client,
            slot,
            pause: Duration::ZERO,
            bookmark: None,
            hold,
        })
    }

    /// How a proxy holds the request instead of this program. Of several messages the look after
    /// a hold would find the newest only, if the client wants the newest one.
    fn hold(
        &self,
        subscriptions: &[Subscription],
        following: Option<&Following>,
        until: Until,
        timeout: Duration,
    ) -> Option<Hold> {
        let holder = self.terms.holder.as_ref()?;
        let now = Cursor::now();
        let wants_newest = |one: &Subscription| one.since.resolve(now) == Since::Latest;
        if subscriptions.iter().any(wants_newest) || self.grant.is_foreign() || timeout.is_zero() {
            return None;
        }
        let topics: Vec<_> = subscriptions.iter().map(|one| one.topic.clone()).collect();
        let wanted = Interest { topics: &topics, following };
        match until {
            Until::FirstUpdate => Hold::plan_poll(wanted, timeout),
            Until::Deadline => Hold::plan_stream(holder, wanted, self.grant),
        }
    }

    /// Goes on with a stream that a proxy holds, by the link that it was given.
    ///
    /// # Errors
    /// 400 unless such a proxy returns such a link.
    pub fn go_on(&self, link: &str) -> Result<Wanted, Error> {
        let only_proxies = || Error::bad_request("grip is for the proxies of NOVCOMET_GRIP_KEY");
        let holder = self.terms.holder.as_ref().ok_or_else(only_proxies)?;
        let found = Continuation::open(&holder.seal, link)?;
        let renderer = (self.terms.restore)(&found.renderer).ok_or_else(only_proxies)?;
        Ok(Wanted {
            subscriptions: found.subscriptions,
            following: found.following,
            until: Until::Deadline,
            timeout: Duration::ZERO,
            interval: self.terms.interval,
            retry_after: None,
            grant: found.grant,
            renderer,
            client: None,
            slot: None,
            bookmark: None,
            hold: Some(Hold::NextLink(holder.seal.clone())),
            pause: Duration::ZERO,
        })
    }

    /// Whether the request comes through a proxy that holds connections.
    #[must_use]
    pub fn has_holder(&self) -> bool {
        self.terms.holder.is_some()
    }

    /// The generation of Mercure whose rules the client's token keeps; `None` without a token.
    #[must_use]
    pub fn generation(&self) -> Option<Generation> {
        self.grant.generation()
    }

    /// The messages of the notices about those who wait together now, in topics that begin with
    /// `prefix`; and a place in the order of all events before this.
    ///
    /// # Errors
    /// 401 when the token has expired, 403 if it does not grant `prefix` as a topic. 503 when
    /// the store cannot be opened, or their leader does not answer.
    pub fn notices(&self, prefix: &Topic) -> Result<(Vec<String>, Position), Error> {
        self.grant.check_granted(prefix, Cursor::now())?;
        let store = (self.open)()?;
        let position = Position::after(store.horizon()?.at);
        let together = (self.terms.together)(store.as_ref());
        let notices = together.map(|together| ask(&together, prefix.as_str())).transpose()?;
        Ok((notices.unwrap_or_default(), position))
    }

    /// The page whose script may read the answer asks from a configured origin.
    #[must_use]
    pub fn is_cross_origin(&self) -> bool {
        self.grant.allowed_origin().is_some()
    }

    /// The page of a foreign site gets no slot: it would use up those of its
    /// visitor's address.
    fn take_slot(&self, timeout: Duration) -> Result<Admission, Error> {
        match &self.terms.slots {
            Some(_) if !timeout.is_zero() && self.grant.is_foreign() => Ok(Admission::Refused),
            Some(slots) if !timeout.is_zero() => {
                let slot = slots.take(self.terms.address)?;
                Ok(slot.map_or(Admission::Refused, Admission::Slot))
            }
            _ => Ok(Admission::Unlimited),
        }
    }
}

enum Admission {
    /// A proxy holds the request.
    Held,
    Refused,
    /// No slot is needed.
    Unlimited,
    Slot(Slot),
}

/// The fault of a message that was not begun within [`BATCH_LIMIT`].
#[must_use]
pub fn too_late() -> Error {
    Error::unavailable(
        "the messages before this one took too long",
        "a batch took too long",
        "its last messages are not published; see why the store is slow",
    )
}

/// Up to a tenth less, so that streams that began together, after a restart
/// say, do not end together.
fn jittered(time: Duration) -> Duration {
    time.saturating_sub(time / 10_000 * Random::new().below(1000))
}

/// When a subscriber without a slot is to come back, in seconds: so soon that a
/// user still looks at the page, so late that a thousand of them are a hundred
/// requests a second, and never all at once.
#[must_use]
pub fn retry_after_seconds() -> u32 {
    const LEAST: u32 = 5;
    const MOST: u32 = 15;
    LEAST + Random::new().below(MOST - LEAST + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgi::{Head, Response};
    use crate::event::Message;
    use crate::hub::update::Piece;

    static NO_PROXIES: Proxies = Proxies::NONE;

    struct NoRenderer;

    impl Renderer for NoRenderer {
        fn head(&self) -> Head {
            Head::new(200, "text/plain")
        }

        fn render(&mut self, _: &Piece) -> Vec<u8> {
            Vec::new()
        }

        fn size(&self, _: &Topic, _: &Message) -> usize {
            0
        }

        fn refuse(&self, error: &Error) -> Response {
            panic!("{error:?}")
        }

        fn save(&self) -> String {
            String::new()
        }
    }

    fn terms() -> Terms<'static> {
        let second = Duration::from_secs(1);
        Terms {
            poll: second,
            stream: second,
            interval: second,
            slots: None,
            address: "",
            port: "",
            together: &|_| None,
            leaders: &|_| None,
            sessions: SessionTerms { held: second, lasts: second, most: 1, most_per_address: 1 },
            proxies: &NO_PROXIES,
            holder: None,
            restore: |_| None,
            report: &|_| (),
        }
    }

    fn nothing() -> About {
        unreachable!("nobody asks")
    }

    fn topic() -> Topic {
        Topic::new("a").unwrap()
    }

    fn subscribe(grant: &Grant) -> Result<Wanted, Error> {
        let open = || unreachable!("a subscription opens no store");
        let subscriptions = vec![Subscription { topic: topic(), since: Since::Now }];
        let hub = Hub::new(grant, &open, terms(), &nothing);
        hub.subscribe(subscriptions, Until::FirstUpdate, None, Box::new(NoRenderer))
    }

    #[test]
    fn publish_without_grant_reaches_no_store() {
        for grant in [Grant::of_nothing(), Grant::to_subscribe()] {
            let open = || unreachable!("the store is opened");
            let hub = Hub::new(&grant, &open, terms(), &nothing);
            assert_eq!(hub.publish(vec![topic()], None).unwrap_err().status(), 403);
        }
    }

    #[test]
    fn subscribe_without_grant_is_forbidden() {
        assert!(subscribe(&Grant::to_subscribe()).is_ok());
        assert_eq!(subscribe(&Grant::of_nothing()).err().map(|error| error.status()), Some(403));
    }
}
