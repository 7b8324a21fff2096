//! A query becomes a [`Subscription`].

use url::Url;

use super::fields::{bad, check, fields};
use super::subscriber::{Kind, Matcher};
use crate::auth::Generation;
use crate::cgi::{FieldValue, Request};
use crate::error::Error;
use crate::event::Topic;
use crate::event::pattern::Pattern;
use crate::event::position::Position;
use crate::hub::Start;

/// How many matchers a request has at most.
pub const MAX_MATCHERS: usize = 100;

/// The longest matcher, in bytes.
pub const MAX_MATCHER: usize = 4_096;

/// The first event that is kept, in place of an id.
pub const EARLIEST: &str = "earliest";

/// The names of the parameter with the last id: of 1.0, of 0.x, and of 0.13 and before.
/// A page of symfony/mercure sends the last two.
const LAST_EVENT_ID: [&str; 3] = ["last_event_id", "lastEventID", "Last-Event-ID"];

/// What a subscriber wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The generation of the parameters.
    pub generation: Generation,
    /// The topics.
    pub patterns: Vec<Pattern>,
    /// The same, as the client wrote them.
    pub matchers: Vec<Matcher>,
    /// The path of the hub.
    pub hub: String,
    /// The last id that the client has seen, or `earliest`, if it says so.
    pub last_id: Option<String>,
}

impl Subscription {
    /// Where it begins, and what the answer says of that if the client is known there.
    /// An id that no event can have is unknown at once.
    #[must_use]
    pub fn start(&self) -> (Start, Option<FieldValue>) {
        let Some(last) = &self.last_id else { return (Start::Now, None) };
        let start = match (last.strip_prefix('#'), FieldValue::new(last.as_str())) {
            _ if last == EARLIEST => Some((Start::Earliest, EARLIEST.into())),
            (Some(text), Some(value)) => {
                // A notice has an identifier of its own after the place.
                let place = text.split('/').next().unwrap_or_default();
                Position::parse(place).map(|position| (Start::After(position), value))
            }
            (None, Some(value)) if !last.is_empty() => Some((Start::AfterId(last.clone()), value)),
            _ => None,
        };
        let (start, value) = start.unwrap_or((Start::Now, EARLIEST.into()));
        (start, Some(value))
    }
}

/// Reads the query, and a form of QUERY: their union.
///
/// # Errors
/// 400 with what is wrong.
pub fn parse(request: &Request, form: &str, hub: &Url) -> Result<Subscription, Error> {
    let mut parameters = Parameters::default();
    for encoded in [&request.query, form.as_bytes()] {
        for (name, value) in fields(encoded)? {
            parameters.add(&name, &value, hub)?;
        }
    }
    let header = String::from_utf8_lossy(&request.last_event_id).into_owned();
    let header = Some(header).filter(|header| !header.is_empty());
    let [newest, newer, old] = std::mem::take(&mut parameters.last_ids);
    let Some(generation) = parameters.generation else {
        return bad("say what: match, match_urlpattern (1.0) or topic (0.x)");
    };
    let last_id = header.or(newest).or(newer).or(old);
    let Parameters { patterns, matchers, .. } = parameters;
    Ok(Subscription { generation, patterns, matchers, hub: hub.path().to_owned(), last_id })
}

#[derive(Default)]
struct Parameters {
    generation: Option<Generation>,
    patterns: Vec<Pattern>,
    matchers: Vec<Matcher>,
    last_ids: [Option<String>; LAST_EVENT_ID.len()],
}

impl Parameters {
    /// Adds one parameter; other names are ignored.
    fn add(&mut self, name: &str, value: &str, hub: &Url) -> Result<(), Error> {
        match name {
            "topic" => self.add_pattern(Kind::Topic, value, Pattern::template),
            "match" | "match_exact" => self.add_pattern(Kind::Exact, value, exact),
            "match_urlpattern" => {
                let pattern = |text: &str| match text {
                    "*" => Ok(Pattern::every()),
                    _ => Pattern::url(text, hub.as_str()),
                };
                self.add_pattern(Kind::UrlPattern, value, pattern)
            }
            _ if is_reserved(name) => bad("the matchers are match, match_exact, match_urlpattern"),
            _ => {
                if let Some(nth) = LAST_EVENT_ID.iter().position(|known| *known == name) {
                    self.last_ids[nth].get_or_insert_with(|| value.to_owned());
                }
                Ok(())
            }
        }
    }

    fn add_pattern(
        &mut self,
        kind: Kind,
        value: &str,
        pattern: impl Fn(&str) -> Result<Pattern, Error>,
    ) -> Result<(), Error> {
        check("a matcher", value)?;
        let generation = kind.generation();
        if self.generation.replace(generation).is_some_and(|other| other != generation) {
            return bad("topic is of Mercure 0.x and match of 1.0: use one of them");
        }
        if value.len() > MAX_MATCHER {
            return bad(format!("a matcher has at most {MAX_MATCHER} bytes"));
        }
        if self.patterns.len() == MAX_MATCHERS {
            return bad(format!("a request has at most {MAX_MATCHERS} matchers"));
        }
        self.patterns.push(pattern(value)?);
        self.matchers.push(Matcher { kind, text: value.to_owned() });
        Ok(())
    }
}

fn exact(text: &str) -> Result<Pattern, Error> {
    match text {
        "*" => Ok(Pattern::every()),
        _ => Topic::new(text).map(Pattern::exact),
    }
}

/// Whether 1.0 reserves the name for a matcher, in capital letters too.
fn is_reserved(name: &str) -> bool {
    const MATCH: &str = "match";
    name.get(..MATCH.len()).is_some_and(|start| start.eq_ignore_ascii_case(MATCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str, header: &str, form: &str) -> Result<Subscription, Error> {
        let variable = |name: &str| match name {
            "QUERY_STRING" => Some(query.into()),
            "HTTP_LAST_EVENT_ID" => Some(header.into()),
            _ => None,
        };
        let hub = Url::parse("https://hub.example/.well-known/mercure").unwrap();
        parse(&Request::from_env(variable).unwrap(), form, &hub)
    }

    fn subscription(query: &str) -> Subscription {
        read(query, "", "").unwrap()
    }

    fn pattern(topic: &str) -> Pattern {
        Pattern::exact(Topic::new(topic).unwrap())
    }

    #[test]
    fn matchers_tell_the_generation() {
        for (query, generation, patterns) in [
            ("topic=a&topic=b%20c", Generation::V0, vec![pattern("a"), pattern("b c")]),
            ("topic=*", Generation::V0, vec![Pattern::every()]),
            ("match=a&x=1&match_exact=b", Generation::V1, vec![pattern("a"), pattern("b")]),
            ("match=*&match_urlpattern=*", Generation::V1, vec![Pattern::every(); 2]),
            ("authorization=x&Topic=y&match=a%7Bb%7D", Generation::V1, vec![pattern("a{b}")]),
        ] {
            let read = subscription(query);
            assert_eq!((read.generation, read.patterns), (generation, patterns), "{query}");
        }
    }

    #[test]
    fn query_and_form_are_one() {
        let read = read("match=a&last_event_id=1", "", "match=b&last_event_id=2").unwrap();
        assert_eq!(read.patterns, [pattern("a"), pattern("b")]);
        assert_eq!(read.last_id.unwrap(), "1");
    }

    #[test]
    fn invalid_matchers_are_refused() {
        let many = vec!["match=a"; MAX_MATCHERS + 1].join("&");
        let long = format!("match=a&topic={}", "x".repeat(MAX_MATCHER + 1));
        for query in [
            "",
            "Topic=a",
            "last_event_id=1",
            "Match=a",
            "MATCH_EXACT=a",
            "match=a&matches=1",
            "match_regexp=a",
            "match_=a",
            "match",
            "topic=",
            "match=a&topic=a",
            "topic=a&match_urlpattern=a",
            "match=a%00",
            "match=a%0A",
            "topic=%E2%80%8B",
            "match=%FF",
            &many,
            &long,
        ] {
            assert_eq!(read(query, "", "").unwrap_err().status(), 400, "{query}");
        }
        assert!(read(&many["match=a&".len()..], "", "").is_ok());
    }

    #[test]
    fn last_id_is_found_in_all_its_places() {
        for (query, header, last) in [
            ("", "", None),
            ("", "h", Some("h")),
            ("&last_event_id=1&lastEventID=2&Last-Event-ID=3", "h", Some("h")),
            ("&Last-Event-ID=3&lastEventID=2&last_event_id=1", "", Some("1")),
            ("&Last-Event-ID=3&lastEventID=2", "", Some("2")),
            ("&Last-Event-ID=3", "", Some("3")),
            ("&last_event_id=1&last_event_id=2", "", Some("1")),
            ("&last_event_id=", "", Some("")),
            ("&lasteventid=1", "", None),
        ] {
            let read = read(&format!("topic=a{query}"), header, "").unwrap();
            assert_eq!(read.last_id.as_deref(), last, "{query} {header}");
        }
    }

    #[test]
    fn start_is_after_the_last_id() {
        let start = |id: &str| {
            let (start, preceding) = read("topic=a", id, "").unwrap().start();
            (start, preceding.map(|value| value.as_str().to_owned()))
        };
        let position = Position::parse("hof6g6si4m").unwrap();
        for (id, begins, preceding) in [
            ("", Start::Now, None),
            (EARLIEST, Start::Earliest, Some(EARLIEST)),
            ("#hof6g6si4m", Start::After(position), Some("#hof6g6si4m")),
            ("#", Start::Now, Some(EARLIEST)),
            ("#-1", Start::Now, Some(EARLIEST)),
            ("urn:a", Start::AfterId("urn:a".into()), Some("urn:a")),
            ("é", Start::Now, Some(EARLIEST)),
            ("a\r\nb: c", Start::Now, Some(EARLIEST)),
        ] {
            assert_eq!(start(id), (begins, preceding.map(str::to_owned)), "{id}");
        }
        let empty = subscription("match=a&last_event_id=").start();
        assert_eq!(empty, (Start::Now, Some(EARLIEST.into())));
    }
}
