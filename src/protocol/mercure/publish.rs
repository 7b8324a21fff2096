//! A form becomes an update.

use url::Url;

use super::fields::{bad, check, fields};
use super::place::is_reserved;
use super::subscribe::EARLIEST;
use super::subscriber::HUB_TYPE;
use crate::cgi::FieldValue;
use crate::error::Error;
use crate::event::{Draft, Extra, MAX_TOPIC, Topic};
use crate::hub::NewUpdate;

/// How many topics an update has at most. Each is written to.
pub const MAX_TOPICS: usize = 64;

/// The longest `id` and the longest `type`, in bytes.
pub const MAX_FIELD: usize = 1_024;

/// Reads the form of a publisher.
///
/// # Errors
/// 400 with what is wrong, 413 for what is too large.
pub fn parse(form: &str, hub: &Url, max_data: usize) -> Result<NewUpdate, Error> {
    let mut found = Found::default();
    for (name, value) in fields(form.as_bytes())? {
        found.add(&name, &value, hub)?;
    }
    found.update(max_data)
}

/// The fields of a form, as they came.
#[derive(Default)]
struct Found {
    topics: Vec<Topic>,
    private: bool,
    data: Option<String>,
    id: Option<String>,
    kind: Option<String>,
    retry: Option<String>,
}

impl Found {
    /// Adds one field. The first one with its name counts, except for topics. Other names
    /// are ignored.
    fn add(&mut self, name: &str, value: &str, hub: &Url) -> Result<(), Error> {
        let field = match name {
            "topic" => return add(&mut self.topics, topic(value, hub)?),
            "private" => {
                self.private = true;
                return Ok(());
            }
            "data" => &mut self.data,
            "id" => &mut self.id,
            "type" => &mut self.kind,
            "retry" => &mut self.retry,
            _ => return Ok(()),
        };
        field.get_or_insert_with(|| value.to_owned());
        Ok(())
    }

    fn update(self, max_data: usize) -> Result<NewUpdate, Error> {
        let data = self.data.unwrap_or_default();
        if self.topics.is_empty() {
            return bad("an update has at least one topic");
        }
        if data.len() > max_data {
            return Err(Error::MessageTooLong(max_data));
        }
        let extra = Extra {
            kind: filled(self.kind).map(event_type).transpose()?,
            private: self.private,
            client_id: filled(self.id).map(own_id).transpose()?.flatten(),
            retry: filled(self.retry).map(|digits| milliseconds(&digits)).transpose()?,
            ..Extra::default()
        };
        // Without data it is a message all the same: it can be private, and have an id.
        Ok(NewUpdate { topics: self.topics, message: Draft { data, extra } })
    }
}

/// An empty field is none.
fn filled(field: Option<String>) -> Option<String> {
    field.filter(|text| !text.is_empty())
}

fn add(topics: &mut Vec<Topic>, topic: Topic) -> Result<(), Error> {
    match topics.contains(&topic) {
        true => Ok(()),
        false if topics.len() == MAX_TOPICS => {
            Err(Error::TooLarge(format!("an update has at most {MAX_TOPICS} topics")))
        }
        false => {
            topics.push(topic);
            Ok(())
        }
    }
}

fn topic(name: &str, hub: &Url) -> Result<Topic, Error> {
    if name.len() > MAX_TOPIC {
        return Err(Error::TooLarge(format!("a topic has at most {MAX_TOPIC} bytes")));
    }
    check("a topic", name)?;
    match name {
        "*" => bad("* matches every topic, so it is none"),
        _ if is_reserved(name, hub) => bad("the hub itself publishes to topics below its URL"),
        _ => Topic::new(name),
    }
}

/// An id that cannot be in a header is replaced by the hub's own: a client could not name
/// it when it comes back.
fn own_id(id: String) -> Result<Option<String>, Error> {
    check_field("an id", &id)?;
    match id.starts_with('#') || id == EARLIEST {
        true => bad("an id does not begin with # and is not earliest"),
        false => Ok(FieldValue::new(id.as_str()).map(|_| id)),
    }
}

fn event_type(kind: String) -> Result<String, Error> {
    check_field("a type", &kind)?;
    match kind == HUB_TYPE {
        true => bad("the type mercure is the hub's own"),
        false => Ok(kind),
    }
}

fn check_field(field: &str, text: &str) -> Result<(), Error> {
    match text.len() > MAX_FIELD {
        true => Err(Error::TooLarge(format!("{field} has at most {MAX_FIELD} bytes"))),
        false => check(field, text),
    }
}

fn milliseconds(digits: &str) -> Result<u64, Error> {
    match digits.parse() {
        Ok(number) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Ok(number),
        _ => bad("retry is a number of milliseconds, in digits"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(form: &str) -> Result<NewUpdate, Error> {
        let hub = Url::parse("https://hub.example/.well-known/mercure").unwrap();
        parse(form, &hub, 99)
    }

    fn update(form: &str) -> NewUpdate {
        read(form).unwrap()
    }

    fn topic(name: &str) -> Topic {
        Topic::new(name).unwrap()
    }

    /// As src/Hub.php of symfony/mercure sends it.
    #[test]
    fn all_fields_are_read() {
        let form = "topic=https%3A%2F%2Fexample.com%2Fbooks%2F1&topic=b&data=%7B%22a%22%3A+1%7D\
                    &private=on&id=urn%3Auuid%3Aa&type=book&retry=5";
        assert_eq!(
            update(form),
            NewUpdate {
                topics: vec![topic("https://example.com/books/1"), topic("b")],
                message: Draft {
                    data: "{\"a\": 1}".into(),
                    extra: Extra {
                        kind: Some("book".into()),
                        private: true,
                        client_id: Some("urn:uuid:a".into()),
                        retry: Some(5),
                        ..Extra::default()
                    }
                },
            }
        );
    }

    #[test]
    fn topic_is_enough() {
        let empty = NewUpdate { topics: vec![topic("a")], message: Draft::new("") };
        for form in ["topic=a", "topic=a&topic=a&x=y&id=&type=&retry=&data=&Private=on"] {
            assert_eq!(update(form), empty, "{form}");
        }
    }

    #[test]
    fn private_is_a_matter_of_presence() {
        for form in
            ["topic=a&private=on", "topic=a&private=", "topic=a&private", "private=0&topic=a"]
        {
            assert!(update(form).message.extra.private, "{form}");
        }
    }

    #[test]
    fn first_of_several_counts() {
        let Draft { data, extra } =
            update("topic=a&data=1&data=2&id=a&id=b&retry=1&retry=2").message;
        assert_eq!((data.as_str(), extra.client_id.as_deref()), ("1", Some("a")));
        assert_eq!(extra.retry, Some(1));
    }

    #[test]
    fn id_that_no_header_can_have_is_replaced() {
        for id in ["%C3%A9", "+a", "a+"] {
            assert_eq!(update(&format!("topic=a&id={id}")).message.extra.client_id, None, "{id}");
        }
        assert_eq!(update("topic=a&id=a+b").message.extra.client_id.as_deref(), Some("a b"));
    }

    #[test]
    fn invalid_fields_are_refused() {
        for form in [
            "",
            "data=a",
            "Topic=a",
            "topic=",
            "topic=*",
            "topic=a&topic=*",
            "topic=a%0Ab",
            "topic=%C2%85",
            "topic=%E2%80%AE",
            "topic=%FF",
            "topic=a&data=%FF",
            "topic=a&%FF=1",
            "topic=/.well-known/mercure/subscriptions/a",
            "topic=a&id=%23a",
            "topic=a&id=earliest",
            "topic=a&id=a%0Adata:b",
            "topic=a&id=%00",
            "topic=a&type=mercure",
            "topic=a&type=a%0Db",
            "topic=a&type=%C2%AD",
            "topic=a&retry=-1",
            "topic=a&retry=%2B1",
            "topic=a&retry=1.5",
            "topic=a&retry=x",
            "topic=a&retry=18446744073709551616",
        ] {
            assert_eq!(read(form).unwrap_err().status(), 400, "{form}");
        }
    }

    #[test]
    fn too_large_fields_are_refused() {
        let topics: Vec<_> = (0..=MAX_TOPICS).map(|number| format!("topic={number}")).collect();
        for form in [
            topics.join("&"),
            format!("topic={}", "x".repeat(MAX_TOPIC + 1)),
            format!("topic=a&id={}", "x".repeat(MAX_FIELD + 1)),
            format!("topic=a&type={}", "x".repeat(MAX_FIELD + 1)),
            format!("topic=a&data={}", "x".repeat(100)),
        ] {
            assert_eq!(read(&form).unwrap_err().status(), 413, "{form}");
        }
        assert!(read(&topics[1..].join("&")).is_ok());
        assert!(
            read(&format!("topic={}&id={}", "x".repeat(MAX_TOPIC), "x".repeat(MAX_FIELD))).is_ok()
        );
    }
}
