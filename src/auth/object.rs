//! The JSON of a token.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

/// An object of JSON without duplicate names: of two `exp` another reader may
/// believe the other one.
#[derive(Default)]
pub(super) struct Object(Vec<(String, Box<RawValue>)>);

/// The few types keep the executable small: each has a parser of its own.
impl Object {
    pub fn parse(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    pub fn has(&self, name: &str) -> bool {
        self.json(name).is_some()
    }

    /// The value as it is written.
    pub fn json(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.get())
    }

    pub fn number(&self, name: &str) -> Option<f64> {
        serde_json::from_str(self.json(name)?).ok()
    }

    pub fn text(&self, name: &str) -> Option<String> {
        text(self.json(name)?)
    }

    pub fn texts(&self, name: &str) -> Option<Vec<String>> {
        self.list(name, text)
    }

    pub fn object(&self, name: &str) -> Option<Self> {
        Self::parse(self.json(name)?)
    }

    pub fn objects(&self, name: &str) -> Option<Vec<Self>> {
        self.list(name, Self::parse)
    }

    fn list<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
        let list: Vec<Box<RawValue>> = serde_json::from_str(self.json(name)?).ok()?;
        list.iter().map(|item| parse(item.get())).collect()
    }
}

fn text(json: &str) -> Option<String> {
    serde_json::from_str(json).ok()
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object without duplicate names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
        let mut object = Object::default();
        while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
            if object.has(&name) {
                return Err(A::Error::custom("a duplicate name"));
            }
            object.0.push((name, value));
        }
        Ok(object)
    }
}
