//! The form of a backend in files and registries.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::backend::{BackendInfo, MAX_WEIGHT};
use crate::transport::ToEndpoint;

/// One entry of a list. Names of other fields are errors, because they are probably misspelt.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    weight: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    priority: u32,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
}

fn one() -> u32 {
    1
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_one(number: &u32) -> bool {
    *number == 1
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Reads an object such as `{"address": "10.0.0.1:7000", "id": "a", "weight": 3, "zone": "z1",
/// "priority": 0, "metadata": {"rack": "7"}}`. Only `address` is required.
impl<'de> Deserialize<'de> for BackendInfo {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entry = Entry::deserialize(deserializer)?;
        let endpoint = entry
            .address
            .to_endpoint()
            .map_err(serde::de::Error::custom)?;
        if entry.weight > MAX_WEIGHT {
            let error = format!("weight {} is more than {MAX_WEIGHT}", entry.weight);
            return Err(serde::de::Error::custom(error));
        }
        let mut info = Self::new(endpoint)
            .weight(entry.weight)
            .priority(entry.priority);
        if let Some(id) = entry.id {
            info = info.id(id);
        }
        if let Some(zone) = entry.zone {
            info = info.zone(zone);
        }
        if let Some(host) = entry.host {
            info = info.host(host);
        }
        info.metadata = entry.metadata.into_iter().collect();
        Ok(info)
    }
}

/// Writes the object that is read, without the fields that have their defaults.
impl Serialize for BackendInfo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let address = self.endpoint.to_string();
        let entry = Entry {
            id: (*self.id != *address).then(|| self.id.to_string()),
            address,
            weight: self.weight,
            zone: self.zone.as_deref().map(str::to_owned),
            host: self.host.as_deref().map(str::to_owned),
            priority: self.priority,
            metadata: self.metadata.iter().cloned().collect(),
        };
        entry.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_is_written() {
        let text = r#"{"address":"10.0.0.1:7000","id":"a","weight":3,"zone":"z","priority":1,"metadata":{"rack":"7"}}"#;
        let info: BackendInfo = serde_json::from_str(text).expect("valid");
        assert_eq!((&*info.id, info.weight, info.priority), ("a", 3, 1));
        assert_eq!(serde_json::to_string(&info).expect("written"), text);
        let short = r#"{"address":"10.0.0.1:7000"}"#;
        let info: BackendInfo = serde_json::from_str(short).expect("valid");
        assert_eq!((&*info.id, info.weight), ("10.0.0.1:7000", 1));
        assert_eq!(serde_json::to_string(&info).expect("written"), short);
    }

    #[test]
    fn an_entry_with_a_fault_is_rejected_with_its_reason() {
        let cases = [
            (r#"{"adress":"10.0.0.1:7000"}"#, "unknown field `adress`"),
            (r#"{"weight":3}"#, "missing field `address`"),
            (r#"{"address":"10.0.0.1"}"#, "port"),
            (
                r#"{"address":"10.0.0.1:7000","weight":65536}"#,
                "weight 65536 is more than 65535",
            ),
            (
                r#"{"address":"10.0.0.1:7000","weight":-1}"#,
                "invalid value",
            ),
        ];
        for (text, reason) in cases {
            let error = serde_json::from_str::<BackendInfo>(text).expect_err(text);
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}
