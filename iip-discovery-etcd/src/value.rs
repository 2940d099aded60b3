//! The value of a key.

use iip_core::balance::{BackendInfo, Target};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::failure::printable;

/// The maximum length of a value in bytes.
const MAX_VALUE: usize = 64 * 1024;

/// Reads a value: the JSON of a backend, or `ip:port#weight`. `id` is the part of the key after the
/// prefix.
pub(crate) fn read_backend(id: &[u8], value: &[u8]) -> Result<BackendInfo, String> {
    let Ok(id) = str::from_utf8(id) else {
        return Err("the key is not UTF-8".to_owned());
    };
    if id.is_empty() {
        return Err("the key has no id after the prefix".to_owned());
    }
    if value.len() > MAX_VALUE {
        let length = value.len();
        return Err(format!(
            "the value has {length} bytes, more than {MAX_VALUE}"
        ));
    }
    let value = value.trim_ascii();
    match value.first() {
        Some(b'{') => read_json(id, value),
        Some(_) => read_text(id, value),
        None => Err("the value is empty".to_owned()),
    }
}

fn read_json(id: &str, value: &[u8]) -> Result<BackendInfo, String> {
    #[derive(Deserialize)]
    struct HasId {
        id: Option<IgnoredAny>,
    }

    let reason = |error: serde_json::Error| printable(error.to_string().as_bytes());
    let info: BackendInfo = serde_json::from_slice(value).map_err(reason)?;
    let has_id: HasId = serde_json::from_slice(value).map_err(reason)?;
    Ok(match has_id.id {
        Some(_) => info,
        None => info.id(id),
    })
}

fn read_text(id: &str, value: &[u8]) -> Result<BackendInfo, String> {
    let target = str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse::<Target>().ok());
    let backends = target
        .and_then(|target| target.backends())
        .unwrap_or_default();
    match <[BackendInfo; 1]>::try_from(backends) {
        Ok([info]) => Ok(info.id(id)),
        Err(_) => {
            let value = printable(value);
            Err(format!(
                "`{value}` is neither the JSON of a backend nor `ip:port#weight`"
            ))
        }
    }
}

/// Writes the value of a server.
pub(crate) fn write_backend(info: &BackendInfo) -> Result<String, serde_json::Error> {
    serde_json::to_string(info)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(value: &str) -> Result<BackendInfo, String> {
        read_backend(b"a", value.as_bytes())
    }

    #[test]
    fn the_id_is_that_of_the_key_unless_the_value_has_one() {
        let info = read(r#"{"address":"10.0.0.1:7000","weight":3}"#).unwrap();
        assert_eq!((&*info.id, info.weight), ("a", 3));
        let info = read(r#" {"address":"10.0.0.1:7000","id":"10.0.0.1:7000"} "#).unwrap();
        assert_eq!(&*info.id, "10.0.0.1:7000");
        let info = read(r#"{"address":"10.0.0.1:7000","id":null}"#).unwrap();
        assert_eq!(&*info.id, "a");
    }

    #[test]
    fn values_of_go_programs_are_read() {
        let info = read("10.0.0.1:7000#100\n").unwrap();
        assert_eq!((&*info.id, info.weight), ("a", 100));
        assert_eq!(info.endpoint.to_string(), "10.0.0.1:7000");
        assert_eq!(read("10.0.0.1:7000").unwrap().weight, 1);
    }

    #[test]
    fn a_value_with_a_fault_has_a_reason() {
        for (value, reason) in [
            ("", "empty"),
            (" \n", "empty"),
            ("{", "EOF"),
            ("{\"adress\":\"a:1\"}", "unknown field `adress`"),
            ("a:1#1,b:1#1", "neither"),
            ("dns://a:1", "neither"),
            ("etcd://a:1/b", "neither"),
            ("a:1#101", "neither"),
            ("\u{1b}[2J", "`\\u{1b}[2J`"),
            ("[]", "neither"),
        ] {
            let error = read(value).unwrap_err();
            assert!(error.contains(reason), "{value}: {error}");
            assert!(error.len() < 2000);
        }
        assert!(
            read(&"x".repeat(MAX_VALUE + 1))
                .unwrap_err()
                .contains("65537 bytes")
        );
        assert!(read_backend(b"\xff", b"a:1").unwrap_err().contains("UTF-8"));
        assert!(read_backend(b"", b"a:1").unwrap_err().contains("no id"));
    }

    proptest! {
        #[test]
        fn a_backend_is_read_as_it_is_written(
            id in "[a-z0-9:/.]{1,12}",
            weight in 0_u32..70_000,
            zone in proptest::option::of("[a-z]{1,4}"),
        ) {
            let mut info = BackendInfo::new("10.0.0.1:7000".parse().unwrap()).weight(weight);
            info.zone = zone.map(Into::into);
            let info = info.id(&*id);
            let value = write_backend(&info).unwrap();
            prop_assert_eq!(read_backend(id.as_bytes(), value.as_bytes()), Ok(info));
        }
    }
}
