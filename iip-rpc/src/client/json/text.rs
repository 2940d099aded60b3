//! Values as JSON text, and the errors of methods that are called with it.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::codec::DecodeError;
use crate::status::{MethodError, Status};

/// A value as JSON text, which is passed on unchanged: a message of a stream of a
/// [`JsonCall`](super::JsonCall), or the error of a method.
///
/// ```
/// use iip_rpc::JsonText;
///
/// let text: JsonText = r#" {"id": 7} "#.parse().expect("it is JSON");
/// assert_eq!(text.as_str(), r#"{"id": 7}"#);
/// assert!("{".parse::<JsonText>().is_err());
/// ```
#[derive(Clone)]
pub struct JsonText(Box<RawValue>);

impl JsonText {
    /// Returns the text, without spaces around it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// Converts to the text.
    #[must_use]
    pub fn into_string(self) -> String {
        Box::<str>::from(self.0).into()
    }

    /// Reads a text from bytes.
    ///
    /// # Errors
    ///
    /// They are not JSON.
    pub fn from_bytes(text: &[u8]) -> Result<Self, DecodeError> {
        let value = serde_json::from_slice(text);
        value.map(Self).map_err(DecodeError::custom)
    }
}

impl FromStr for JsonText {
    type Err = DecodeError;

    fn from_str(text: &str) -> Result<Self, DecodeError> {
        Self::from_bytes(text.as_bytes())
    }
}

impl Serialize for JsonText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(Self)
    }
}

impl PartialEq for JsonText {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for JsonText {}

impl fmt::Display for JsonText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for JsonText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Failure of a [`JsonCall`](super::JsonCall).
///
/// Converted to a [`Status`], the method's own error has the code UNKNOWN, and its JSON as the
/// details.
#[derive(Clone, Debug, PartialEq)]
pub enum JsonError {
    /// The method's own error, as its type is written in JSON. The method has run.
    Own(JsonText),
    /// Any other failure.
    Status(Status),
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(error) => write!(f, "the method's own error: {error}"),
            Self::Status(status) => status.fmt(f),
        }
    }
}

impl std::error::Error for JsonError {}

impl From<Status> for JsonError {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

#[diagnostic::do_not_recommend]
impl From<JsonError> for Status {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::Own(own) => {
                let status = Self::unknown(format!("the method's own error: {own}"));
                status.with_details(Bytes::from(own.into_string()))
            }
            JsonError::Status(status) => status,
        }
    }
}

impl Serialize for JsonError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Own(error) => error.serialize(serializer),
            Self::Status(status) => status.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for JsonError {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        JsonText::deserialize(deserializer).map(Self::Own)
    }
}

// Not an error of a service, which a mistaken error type could be replaced by.
#[diagnostic::do_not_recommend]
impl MethodError for JsonError {
    fn as_status(&self) -> Option<&Status> {
        match self {
            Self::Own(_) => None,
            Self::Status(status) => Some(status),
        }
    }
}
