//! The messages of a request.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use url::form_urlencoded;

use crate::cgi::Body;
use crate::error::Error;

/// How many messages a request has at most.
pub const MAX_MESSAGES: usize = 64;

/// The longest `id` of a message, in bytes of JSON. It is sent back.
const MAX_ID: usize = 128;

/// The only type of connection.
pub const LONG_POLLING: &str = "long-polling";

/// A message, as the client wrote it.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct Message(BTreeMap<String, Box<RawValue>>);

#[derive(Deserialize)]
struct Advice {
    timeout: Option<u32>,
}

impl Message {
    /// Reads the messages of a body: an array of JSON or one object, or a form with such in
    /// each `message`.
    ///
    /// # Errors
    /// 400 for another text, 413 for too many messages.
    pub fn read_all(body: &Body) -> Result<Vec<Self>, Error> {
        let mut messages = Vec::new();
        match body {
            Body::Empty => {}
            Body::Text(text) => add(&mut messages, text)?,
            Body::Form(form) => {
                for (_, text) in form_urlencoded::parse(form.as_bytes()).filter(is_message) {
                    add(&mut messages, &text)?;
                }
            }
        }
        match messages.len() {
            0 => Err(Error::bad_request("a request has at least one message of Bayeux, as JSON")),
            1..=MAX_MESSAGES => Ok(messages),
            _ => Err(Error::TooLarge(format!("a request has at most {MAX_MESSAGES} messages"))),
        }
    }

    /// A field of the type `T`; `None` if there is none.
    fn get<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.0.get(name)?.get()).ok()
    }

    /// A field that is text.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name)
    }

    /// The channel; empty without one.
    pub fn channel(&self) -> String {
        self.text("channel").unwrap_or_default()
    }

    /// The `id`, to be sent back: a text or a number.
    pub fn id(&self) -> Option<Box<RawValue>> {
        let id = self.0.get("id").filter(|id| id.get().len() <= MAX_ID)?;
        let is_plain = matches!(self.get("id")?, Value::String(_) | Value::Number(_));
        is_plain.then(|| id.clone())
    }

    /// The data as JSON. `null` is data.
    ///
    /// # Errors
    /// 400 if there is none, or if it is nested too deeply: more than 127 levels.
    pub fn data(&self) -> Result<&str, Error> {
        let missing = || Error::bad_request("a message to a channel has data");
        let data = self.0.get("data").ok_or_else(missing)?.get();
        match serde_json::from_str::<Value>(data) {
            Ok(_) => Ok(data),
            Err(error) => Err(Error::bad_request(format!("the data cannot be used: {error}"))),
        }
    }

    /// The channels in `subscription`: one or many.
    pub fn subscriptions(&self) -> Vec<String> {
        let one = self.text("subscription").map(|one| vec![one]);
        one.or_else(|| self.get("subscription")).unwrap_or_default()
    }

    /// The same as JSON, to be sent back.
    pub fn subscription(&self) -> Option<Box<RawValue>> {
        self.0.get("subscription").cloned()
    }

    /// Whether the client can wait for an answer, the only transport here.
    pub fn can_poll(&self) -> bool {
        let types: Vec<String> = self.get("supportedConnectionTypes").unwrap_or_default();
        types.iter().any(|one| one == LONG_POLLING)
    }

    /// Whether the client wants to say what it has received.
    pub fn acks(&self) -> bool {
        match self.ext("ack") {
            Some(Value::Bool(ack)) => ack,
            Some(Value::Object(ack)) => ack.get("enabled") == Some(&Value::Bool(true)),
            _ => false,
        }
    }

    /// The batch that the client has received.
    pub fn ack(&self) -> Option<u64> {
        self.ext("ack")?.as_u64()
    }

    /// The token in `ext`.
    pub fn token(&self) -> Option<String> {
        Some(self.ext("token")?.as_str()?.to_owned())
    }

    /// How long the client waits at most.
    pub fn wait(&self) -> Option<Duration> {
        let advice: Advice = self.get("advice")?;
        Some(Duration::from_millis(advice.timeout?.into()))
    }

    fn ext(&self, name: &str) -> Option<Value> {
        let ext: BTreeMap<String, Box<RawValue>> = self.get("ext")?;
        serde_json::from_str(ext.get(name)?.get()).ok()
    }
}

fn is_message<'f>((name, _): &(std::borrow::Cow<'f, str>, std::borrow::Cow<'f, str>)) -> bool {
    name == "message"
}

fn add(messages: &mut Vec<Message>, text: &str) -> Result<(), Error> {
    let is_array = text.trim_start().starts_with('[');
    let read = match is_array {
        true => serde_json::from_str::<Vec<Message>>(text),
        false => serde_json::from_str(text).map(|one| vec![one]),
    };
    // The error's own text may repeat the body.
    let read = read.map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Error::bad_request(format!("this is no message of Bayeux, at line {line} column {column}"))
    });
    messages.extend(read?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Message>, Error> {
        Message::read_all(&Body::Text(text.to_owned()))
    }

    fn one(text: &str) -> Message {
        read(text).unwrap().pop().unwrap()
    }

    #[test]
    fn body_is_an_array_an_object_or_a_form() {
        assert_eq!(read(r#"[{"channel":"/a"},{}]"#).unwrap().len(), 2);
        assert_eq!(read(r#" {"channel":"/a"}"#).unwrap()[0].channel(), "/a");
        let form = Body::Form("message=%7B%7D&a=b&message=[{},{}]".to_owned());
        assert_eq!(Message::read_all(&form).unwrap().len(), 3);
        let many = format!("[{}{{}}]", "{},".repeat(MAX_MESSAGES));
        assert_eq!(read(&many).err().unwrap().status(), 413);
        for text in ["", "[]", "1", "[1]", "[{}", "{\"a\":}", "\"{}\""] {
            assert_eq!(read(text).err().unwrap().status(), 400, "{text}");
        }
    }

    #[test]
    fn field_of_another_type_is_none() {
        let message = one(
            r#"{"channel":1,"id":{},"subscription":{},"ext":[],"advice":7,"supportedConnectionTypes":1}"#,
        );
        assert_eq!((message.channel(), message.id().is_none()), (String::new(), true));
        assert!(message.subscriptions().is_empty() && !message.can_poll() && !message.acks());
        assert_eq!((message.ack(), message.wait(), message.token()), (None, None, None));
    }

    #[test]
    fn data_keeps_its_bytes() {
        let data = r#"{"a": 1.10, "a":12345678901234567890}"#;
        assert_eq!(one(&format!(r#"{{"data":{data}}}"#)).data().unwrap(), data);
        assert_eq!(one(r#"{"data":null}"#).data().unwrap(), "null");
        let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
        for text in
            ["{}".to_owned(), format!(r#"{{"data":{deep}}}"#), r#"{"data":"\ud800"}"#.into()]
        {
            assert_eq!(one(&text).data().unwrap_err().status(), 400, "{text}");
        }
    }
}
