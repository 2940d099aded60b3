//! The differences between a recorded reply and a new one.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use iip_rpc::Code;
use iip_rpc::codec::CodecId;
use iip_rpc::schema::MethodKind;
use serde::Serialize;
use serde_json::{Value, json};

use super::calls::Call;
use super::ignore::{Ignored, Place, Step};
use super::send::{End, Replayed};
use crate::capture::{BLANK, Body, Described, Outcome, Part};
use crate::plural::counted;

/// The maximum number of differences of one call.
const MAX_DIFFERENCES: usize = 100;

/// A difference.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Difference {
    /// The place in the reply; empty for the reply as a whole.
    pub(super) field: String,
    pub(super) recorded: Value,
    pub(super) replayed: Value,
}

/// A comparison, with the differences found so far in one call.
pub(super) struct Comparison<'a> {
    described: Option<Described<'a>>,
    ignored: &'a [Ignored],
    found: Vec<Difference>,
}

/// A value of a reply.
#[derive(Debug)]
enum Shown {
    Json(Value),
    Bytes(Bytes),
}

impl<'a> Comparison<'a> {
    /// Compares a call with its repetition.
    pub(super) fn of(
        call: &Call,
        replayed: &Replayed,
        described: Option<Described<'a>>,
        ignored: &'a [Ignored],
    ) -> Vec<Difference> {
        let mut this = Self {
            described,
            ignored,
            found: Vec::new(),
        };
        this.messages(call, replayed);
        this.reply(call, replayed);
        this.found
    }

    fn add(&mut self, place: &Place, recorded: Value, replayed: Value) {
        let is_ignored = self.ignored.iter().any(|ignored| ignored.covers(place));
        if !is_ignored && self.found.len() < MAX_DIFFERENCES {
            self.found.push(Difference {
                field: place.to_string(),
                recorded,
                replayed,
            });
        }
    }

    fn messages(&mut self, call: &Call, replayed: &Replayed) {
        // A different number is always reported, even if it is ignored.
        if call.messages.len() as u64 != replayed.count {
            let count = |count: u64| json!(counted(count, "message"));
            self.found.push(Difference {
                field: "messages".to_owned(),
                recorded: count(call.messages.len() as u64),
                replayed: count(replayed.count),
            });
        }
        let codec = CodecId::new(call.request.codec);
        for (index, (old, new)) in call.messages.iter().zip(&replayed.messages).enumerate() {
            let place = Place::name("messages").with(Step::Index(index));
            let old = self.recorded(Part::Message, codec, old);
            self.value(Part::Message, &place, old, CodecId::JSON, new);
        }
    }

    fn reply(&mut self, call: &Call, replayed: &Replayed) {
        let whole = Place::default();
        let Some(reply) = &call.reply else { return };
        // Nobody waited for the reply of a cancelled call.
        if matches!(replayed.end, End::Stopped) {
            return;
        }
        let codec = CodecId::new(reply.codec);
        match (&reply.outcome, &replayed.end) {
            (Outcome::Value, End::Value(codec_now, bytes)) => {
                let old = self.recorded(Part::Result, codec, &reply.body);
                self.value(Part::Result, &whole, old, *codec_now, bytes);
            }
            (Outcome::Error, End::Error(codec_now, now)) => {
                let part = Part::error(reply.accepted);
                let old = self.recorded(part, codec, &reply.body);
                self.value(part, &whole, old, *codec_now, now);
            }
            (Outcome::Status { code, message }, End::Status(now)) => {
                let status = Place::name("status");
                let part = |name: &str| status.with(Step::Name(name.to_owned()));
                if *code != now.code().as_u8() {
                    self.add(
                        &part("code"),
                        json!(code_name(*code)),
                        json!(now.code().name()),
                    );
                }
                if message != now.message() {
                    self.add(&part("message"), json!(message), json!(now.message()));
                }
                let details = reply.body.bytes.clone().unwrap_or_default();
                if details != now.details() {
                    let shown = |bytes: &[u8]| json!(String::from_utf8_lossy(bytes));
                    self.add(&part("details"), shown(&details), shown(now.details()));
                }
            }
            (old, new) => {
                let old = match old {
                    Outcome::Value => "a value".to_owned(),
                    Outcome::Error => "the method's own error".to_owned(),
                    Outcome::Status { code, message } => format!("{}: {message}", code_name(*code)),
                };
                // This is never ignored: all else is compared only if the outcomes are equal.
                self.found.push(Difference {
                    field: String::new(),
                    recorded: json!(old),
                    replayed: json!(new.to_string()),
                });
                return;
            }
        }
        // A call without an envelope has no metadata, but is repeated with an envelope.
        if !call.request.plain {
            self.metadata(&reply.metadata, &replayed.metadata);
        }
    }

    /// Compares all values of each key. Blanked values are not compared, and values of a key that
    /// was not recorded are not shown, because they may be secret.
    fn metadata(&mut self, recorded: &[(String, Bytes)], replayed: &[(String, Bytes)]) {
        let (old, new) = (by_key(recorded), by_key(replayed));
        let keys: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
        for key in keys {
            let place = key.split('.').fold(Place::name("metadata"), |place, name| {
                place.with(Step::Name(name.to_owned()))
            });
            match (old.get(key), new.get(key)) {
                (Some(old), Some(new)) if old == new || old.contains(&BLANK.as_bytes()) => {}
                (Some(old), new) => {
                    let new = new.map_or_else(missing, |new| texts(new));
                    self.add(&place, texts(old), new);
                }
                (None, _) => self.add(&place, missing(), now(&Value::Null, true)),
            }
        }
    }

    fn recorded(&self, part: Part, codec: CodecId, body: &Body) -> Option<Shown> {
        let bytes = body.bytes.as_ref()?;
        let decoded = self
            .described
            .and_then(|described| described.decode(part, codec, bytes));
        Some(match decoded {
            Some(value) => Shown::Json(self.item(part, value)),
            None => shown(codec, bytes),
        })
    }

    /// Returns a value of a subscription without its number, which differs each time.
    fn item(&self, part: Part, value: Value) -> Value {
        let kind = self.described.map(|described| described.method.kind);
        let is_numbered = kind == Some(MethodKind::Subscription) && part == Part::Message;
        match value {
            Value::Array(mut pair) if is_numbered && pair.len() == 2 => pair.remove(1),
            value => value,
        }
    }

    /// Compares a value, if it was recorded.
    fn value(&mut self, part: Part, place: &Place, old: Option<Shown>, codec: CodecId, new: &[u8]) {
        let Some(old) = old else { return };
        let raw = shown(codec, new);
        match (old, raw) {
            (Shown::Json(old), Shown::Json(raw)) => {
                let raw = self.item(part, raw);
                let described = self.described.filter(|described| !described.is_raw());
                let decoded = described.and_then(|described| described.decode(part, codec, new));
                match decoded {
                    Some(decoded) => {
                        let decoded = self.item(part, decoded);
                        self.values(place, &old, &decoded, false);
                        self.added(place, &decoded, &raw);
                    }
                    None => {
                        // The value has another type, in which secrets are not known.
                        let hide = described.is_some_and(|method| method.has_secrets(part));
                        self.values(place, &old, &raw, hide);
                    }
                }
            }
            (Shown::Bytes(old), Shown::Bytes(raw)) if old == raw => {}
            (old, raw) => self.add(place, old.summary(), raw.summary()),
        }
    }

    fn values(&mut self, place: &Place, old: &Value, new: &Value, hide: bool) {
        match (old, new) {
            (Value::Object(old), Value::Object(new)) => {
                for (name, value) in old {
                    let place = place.with(Step::Name(name.clone()));
                    match new.get(name) {
                        Some(now) => self.values(&place, value, now, hide),
                        None => self.add(&place, value.clone(), missing()),
                    }
                }
                for (name, value) in new {
                    if !old.contains_key(name) {
                        let place = place.with(Step::Name(name.clone()));
                        self.add(&place, missing(), now(value, hide));
                    }
                }
            }
            (Value::Array(old), Value::Array(new)) => {
                if old.len() != new.len() {
                    let count = |count: usize| json!(counted(count as u64, "element"));
                    self.add(place, count(old.len()), count(new.len()));
                }
                for (index, (old, new)) in old.iter().zip(new).enumerate() {
                    self.values(&place.with(Step::Index(index)), old, new, hide);
                }
            }
            (old, new) if old == new => {}
            (old, new) => self.add(place, old.clone(), now(new, hide)),
        }
    }

    /// Adds fields that are missing in the description, and thus in the decoded value. Their values
    /// are not shown, because they may be secret.
    fn added(&mut self, place: &Place, decoded: &Value, raw: &Value) {
        match (decoded, raw) {
            (Value::Object(decoded), Value::Object(raw)) => {
                for (name, raw) in raw {
                    let place = place.with(Step::Name(name.clone()));
                    match decoded.get(name) {
                        Some(decoded) => self.added(&place, decoded, raw),
                        None if raw.is_null() => {}
                        None => self.add(&place, missing(), now(raw, true)),
                    }
                }
            }
            (Value::Array(decoded), Value::Array(raw)) => {
                for (index, (decoded, raw)) in decoded.iter().zip(raw).enumerate() {
                    self.added(&place.with(Step::Index(index)), decoded, raw);
                }
            }
            _ => {}
        }
    }
}

impl Shown {
    fn summary(&self) -> Value {
        match self {
            Self::Json(value) => value.clone(),
            Self::Bytes(bytes) => json!(counted(bytes.len() as u64, "byte")),
        }
    }
}

/// Returns the values of each key, without the keys of the format: positions, and times to wait.
fn by_key(metadata: &[(String, Bytes)]) -> BTreeMap<&str, Vec<&[u8]>> {
    let mut values: BTreeMap<&str, Vec<&[u8]>> = BTreeMap::new();
    for (key, value) in metadata {
        if !key.starts_with("iip-") {
            values.entry(key).or_default().push(value);
        }
    }
    values
}

/// Returns the values of a key: a text, or a list of several.
fn texts(values: &[&[u8]]) -> Value {
    let texts = values.iter().map(|value| String::from_utf8_lossy(value));
    match values {
        [_] => texts.map(Value::from).next_back().unwrap_or_default(),
        _ => texts.collect(),
    }
}

/// Reads a value whose type is not known.
fn shown(codec: CodecId, bytes: &[u8]) -> Shown {
    let may_be_json = codec == CodecId::JSON || codec == CodecId::RAW;
    let json = may_be_json.then(|| serde_json::from_slice(bytes));
    match json {
        Some(Ok(value)) => Shown::Json(value),
        _ => Shown::Bytes(Bytes::copy_from_slice(bytes)),
    }
}

fn missing() -> Value {
    json!("(missing)")
}

fn now(value: &Value, hide: bool) -> Value {
    match hide {
        true => json!("(not shown)"),
        false => value.clone(),
    }
}

pub(super) fn code_name(code: u8) -> &'static str {
    Code::from_u8(code).unwrap_or(Code::Unknown).name()
}
