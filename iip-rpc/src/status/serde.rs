//! A status inside another type.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeTuple};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Code, Execution, Status};
use crate::metadata::Metadata;
use crate::payload::Payload;

/// Inside another type, a status is a tuple of code, execution (0 may have executed, 1 not),
/// message, details and metadata; in JSON, an object without the empty parts. Phases and source are
/// not included.
impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let inner = &*self.0;
        let details = Payload::from(inner.details.clone());
        if !serializer.is_human_readable() {
            let mut out = serializer.serialize_tuple(5)?;
            out.serialize_element(&inner.code)?;
            out.serialize_element(&u8::from(inner.execution.is_safe_to_repeat()))?;
            out.serialize_element(&inner.message)?;
            out.serialize_element(&details)?;
            out.serialize_element(&inner.metadata)?;
            return out.end();
        }
        let mut out = serializer.serialize_map(None)?;
        out.serialize_entry("code", &inner.code)?;
        out.serialize_entry("message", &inner.message)?;
        if inner.execution.is_safe_to_repeat() {
            out.serialize_entry("executed", &false)?;
        }
        if !details.is_empty() {
            out.serialize_entry("details", &details)?;
        }
        if !inner.metadata.is_empty() {
            out.serialize_entry("metadata", &inner.metadata)?;
        }
        out.end()
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            // A struct, and not a map, so that its fields are observed in types around it.
            deserializer.deserialize_struct("Status", &FIELDS, ByName)
        } else {
            deserializer.deserialize_tuple(5, ByPlace)
        }
    }
}

const FIELDS: [&str; 5] = ["code", "message", "executed", "details", "metadata"];

fn build(
    code: Code,
    rejected: bool,
    message: String,
    details: Payload,
    metadata: Metadata,
) -> Status {
    let execution = if rejected {
        Execution::NotExecuted
    } else {
        Execution::MayHaveExecuted
    };
    let mut status = Status::new(code, message)
        .with_execution(execution)
        .with_details(details)
        .with_metadata(metadata);
    status.0.travelled = true;
    status
}

struct ByPlace;

impl<'de> Visitor<'de> for ByPlace {
    type Value = Status;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a status")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Status, A::Error> {
        fn next<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(
            seq: &mut A,
            at: usize,
        ) -> Result<T, A::Error> {
            let missing = || de::Error::invalid_length(at, &ByPlace);
            seq.next_element()?.ok_or_else(missing)
        }
        let code = next(&mut seq, 0)?;
        let rejected = next::<u8, A>(&mut seq, 1)? == 1;
        Ok(build(
            code,
            rejected,
            next(&mut seq, 2)?,
            next(&mut seq, 3)?,
            next(&mut seq, 4)?,
        ))
    }
}

struct ByName;

impl<'de> Visitor<'de> for ByName {
    type Value = Status;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a status")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Status, A::Error> {
        let (mut code, mut executed, mut message) = (None, true, String::new());
        let (mut details, mut metadata) = (Payload::default(), Metadata::new());
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match &*key {
                "code" => code = Some(map.next_value()?),
                "message" => message = map.next_value()?,
                "executed" => executed = map.next_value()?,
                "details" => details = map.next_value()?,
                "metadata" => metadata = map.next_value()?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let code = code.ok_or_else(|| de::Error::missing_field("code"))?;
        Ok(build(code, !executed, message, details, metadata))
    }
}
