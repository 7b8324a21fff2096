//! The resources that tell who subscribes.

use std::hash::{DefaultHasher, Hash, Hasher};

use percent_encoding::percent_decode_str;
use serde::Serialize;
use url::Url;

use super::fields::bad;
use super::place;
use super::subscriber::{CONTEXT, Document, HUB_TYPE, Kind, SUBSCRIPTIONS, path_of};
use crate::auth::Generation;
use crate::cgi::{FieldValue, Head, Request, Response};
use crate::error::Error;
use crate::event::Topic;
use crate::event::position::Position;

/// What a request asks of the subscriptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The path of the URL, as the hub writes it: the topic that a token is to grant.
    pub path: Topic,
    hub: Url,
    segments: Vec<String>,
}

impl Question {
    /// Reads the path as the client wrote it, because a segment can have slashes.
    ///
    /// # Errors
    /// 404 for another path below the hub, 400 for a segment that is no text.
    pub fn parse(request: &Request, configured: Option<&str>) -> Result<Self, Error> {
        let (hub, rest) = place::split(&request.written_path).ok_or(Error::NotFound)?;
        let rest = rest.strip_prefix(SUBSCRIPTIONS).ok_or(Error::NotFound)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let mut segments = Vec::new();
        for segment in rest.split('/').skip(1) {
            match percent_decode_str(segment).decode_utf8() {
                Ok(text) if !text.is_empty() => segments.push(text.into_owned()),
                Ok(_) => return Err(Error::NotFound),
                Err(_) => return bad("the path is not UTF-8"),
            }
        }
        if !rest.is_empty() && !rest.starts_with('/') || segments.len() > 3 {
            return Err(Error::NotFound);
        }
        let hub = place::hub_url(request, hub, configured);
        let path = path_of(hub.path(), segments.iter().map(String::as_str));
        Ok(Self { path: Topic::new(path)?, hub, segments })
    }

    /// The answer, of these documents and others; `last` is a place before all events to come.
    ///
    /// # Errors
    /// 404 for a subscription that is not there, and for a path of the other generation.
    pub fn answer(
        &self,
        generation: Generation,
        documents: &[String],
        last: Position,
    ) -> Result<Response, Error> {
        let last = format!("#{last}");
        let found = documents.iter().filter_map(|json| serde_json::from_str(json).ok());
        let found: Vec<Document> = found.filter(|it| self.wants(it, generation)).collect();
        let etag = etag(&found);
        let json = match self.is_single(generation)? {
            true => {
                let mut document = found.into_iter().next().ok_or(Error::NotFound)?;
                document.last_event_id = (generation == Generation::V0).then(|| last.clone());
                document.json()
            }
            false => self.collection(found, generation, &last),
        };
        Ok(head(generation, &self.hub, &last).header("ETag", etag).body(json))
    }

    /// Whether it asks for one subscription. The names of the segments depend on the generation:
    /// topic and subscriber, or type, matcher and subscriber.
    fn is_single(&self, generation: Generation) -> Result<bool, Error> {
        match (generation, self.segments.len()) {
            (_, 0) | (Generation::V0, 1) => Ok(false),
            (Generation::V0, 2) => Ok(true),
            (Generation::V1, 2 | 3) if !Kind::is_name(&self.segments[0]) => {
                bad("the types of matchers are exact and urlpattern")
            }
            (Generation::V1, length @ (2 | 3)) => Ok(length == 3),
            _ => Err(Error::NotFound),
        }
    }

    fn wants(&self, document: &Document, generation: Generation) -> bool {
        let is_first = document.context.is_some();
        let rest = document.id.strip_prefix(self.path.as_str());
        is_first == (generation == Generation::V0)
            && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    fn collection(&self, mut found: Vec<Document>, generation: Generation, last: &str) -> String {
        let is_first = generation == Generation::V0;
        // They have that of the collection.
        for document in &mut found {
            document.context = None;
        }
        let collection = Collection {
            context: is_first.then_some(CONTEXT),
            id: self.path.as_str(),
            kind: if is_first { "Subscriptions" } else { "subscriptions" },
            last_event_id: is_first.then_some(last),
            subscriptions: found,
        };
        // It has no map with keys that JSON cannot name, the only error.
        serde_json::to_string(&collection).unwrap_or_default()
    }
}

/// Several subscriptions.
#[derive(Serialize)]
struct Collection<'a> {
    #[serde(rename = "@context", skip_serializing_if = "Option::is_none")]
    context: Option<&'a str>,
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(rename = "lastEventID", skip_serializing_if = "Option::is_none")]
    last_event_id: Option<&'a str>,
    subscriptions: Vec<Document>,
}

/// 1.0 has the last id in a `Link`, and 0.x in the document.
fn head(generation: Generation, hub: &Url, last: &str) -> Head {
    let (content_type, link) = match generation {
        Generation::V0 => ("application/ld+json", format!("<{hub}>; rel=\"mercure\"")),
        Generation::V1 => (
            "application/json",
            format!(
                "<{hub}>; rel=\"mercure\"; last-event-id=\"{last}\"; type=\"{HUB_TYPE}\"; \
                 content-type=\"application/json\""
            ),
        ),
    };
    let head = Head::new(200, content_type);
    match FieldValue::new(link) {
        Some(link) => head.header("Link", link),
        None => head,
    }
}

/// The same for the same subscriptions (RFC 9110 §8.8.3).
fn etag(found: &[Document]) -> FieldValue {
    let mut hasher = DefaultHasher::new();
    for document in found {
        document.id.hash(&mut hasher);
    }
    FieldValue::new(format!("\"{:016x}\"", hasher.finish())).unwrap_or("\"\"".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(path: &str) -> Result<Question, Error> {
        let variable = |name: &str| (name == "REQUEST_URI").then(|| path.into());
        let variable = |name: &str| match name {
            "REQUEST_METHOD" => Some("GET".into()),
            "HTTP_HOST" => Some("hub.example".into()),
            other => variable(other),
        };
        Question::parse(&Request::from_env(variable).unwrap(), None)
    }

    #[test]
    fn path_is_read_as_it_is_written() {
        let all = question("/.well-known/mercure/subscriptions?a=b").unwrap();
        assert_eq!(all.path.as_str(), "/.well-known/mercure/subscriptions");
        let one = question("/x/.well-known/mercure/subscriptions/a%2fb:c/urn:uuid:d").unwrap();
        assert_eq!(one.segments, ["a/b:c", "urn:uuid:d"]);
        let path = "/x/.well-known/mercure/subscriptions/a%2Fb%3Ac/urn%3Auuid%3Ad";
        assert_eq!(one.path.as_str(), path);
    }

    #[test]
    fn other_paths_are_refused() {
        for (path, status) in [
            ("/.well-known/mercure/other", 404),
            ("/.well-known/mercure/subscriptions2", 404),
            ("/.well-known/mercure/subscriptions//a", 404),
            ("/.well-known/mercure/subscriptions/a/b/c/d", 404),
            ("/.well-known/mercure/subscriptions/%FF", 400),
        ] {
            assert_eq!(question(path).unwrap_err().status(), status, "{path}");
        }
    }

    #[test]
    fn segments_depend_on_the_generation() {
        let single = |path: &str, generation| {
            let question = question(&format!("/.well-known/mercure/subscriptions{path}")).unwrap();
            question.is_single(generation).map_err(|error| error.status())
        };
        for (path, first, second) in [
            ("", Ok(false), Ok(false)),
            ("/a", Ok(false), Err(404)),
            ("/exact/a", Ok(true), Ok(false)),
            ("/a/b", Ok(true), Err(400)),
            ("/urlpattern/a/b", Err(404), Ok(true)),
        ] {
            assert_eq!(single(path, Generation::V0), first, "{path}");
            assert_eq!(single(path, Generation::V1), second, "{path}");
        }
    }
}
