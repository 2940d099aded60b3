//! JSON that the user has written.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::Serialize;
use serde_json::{Map, Value};

/// Parses JSON whose objects have every name at most once.
pub(super) fn parse(text: &str) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Unique.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Returns the text of an error without its line and column.
pub(super) fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).unwrap_or(&text).to_owned()
}

/// Returns the JSON to send for `text`, which is the JSON of `given`. It is unchanged if it has
/// what is in `described`, the value that serde reads on the server; else it is that value, with
/// numbers in place of texts for example.
pub(super) fn for_server(
    text: &str,
    given: &Value,
    described: &impl Serialize,
) -> Result<String, serde_json::Error> {
    let written = serde_json::to_string(described)?;
    // A `Value` does not hold all numbers exactly, so the text is kept if it can be.
    Ok(match has(&serde_json::from_str(&written)?, given) {
        true => text.to_owned(),
        false => written,
    })
}

/// Returns `true` if all of `given` is in `written`, which may have more fields.
fn has(written: &Value, given: &Value) -> bool {
    match (written, given) {
        (Value::Object(written), Value::Object(given)) => given
            .iter()
            .all(|(name, given)| written.get(name).is_some_and(|written| has(written, given))),
        (Value::Array(written), Value::Array(given)) => {
            written.len() == given.len()
                && written
                    .iter()
                    .zip(given)
                    .all(|(written, given)| has(written, given))
        }
        (written, given) => written == given,
    }
}

/// Reads a value, and rejects a name that an object has twice.
struct Unique;

impl<'de> DeserializeSeed<'de> for Unique {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = seq.next_element_seed(Self)? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(de::Error::custom(format_args!("`{name}` is given twice")));
            }
            object.insert(name, map.next_value_seed(Self)?);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_that_is_given_twice_is_reported_with_its_place() {
        let text = r#"{"a":[1,-2,1.5,"x",true,null,{"b":{}}]}"#;
        assert_eq!(
            parse(text).unwrap(),
            serde_json::from_str::<Value>(text).unwrap()
        );
        let error = parse("[{\"id\":7,\n\"id\":8}]").unwrap_err();
        assert_eq!(error.to_string(), "`id` is given twice at line 2 column 4");
        assert_eq!(reason(&error), "`id` is given twice");
        assert!(parse("1 2").is_err());
    }

    #[test]
    fn a_text_is_kept_unless_the_server_reads_another_value() {
        let text = r#"{"n": 1.50, "any": 18446744073709551616}"#;
        let given = parse(text).unwrap();
        let more = json!({"n": 1.5, "any": 18446744073709551616.0, "note": null});
        assert_eq!(for_server(text, &given, &more).unwrap(), text);
        let number = json!({"id": 5});
        assert_eq!(
            for_server(r#"{"id":"5"}"#, &json!({"id": "5"}), &number).unwrap(),
            r#"{"id":5}"#
        );
    }
}
