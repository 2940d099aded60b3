//! Plain JSON: replies without an envelope, for peers that know only IIP.

use bytes::{BufMut, BytesMut};
use iip_core::Body;
use serde::de::{DeserializeOwned, Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize};

use crate::codec::{Codec, DecodeError, DecodeLimits, Json};
use crate::status::{Code, Execution, MethodError, Status};

/// In-band error in the format of IIP: `{"code":102,"message":"handle error"}`. Plain mode uses the
/// same format, with the code of a [`Status`] and, for the method's own error, that error as
/// `error`.
///
/// Without a type for the method's own error, that error is skipped: only its presence is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "E: Deserialize<'de>"))]
pub struct PlainError<E = IgnoredAny> {
    /// Negative or above 100: IIP's own. From 1 to 16: a [`Code`].
    pub code: i64,
    /// The text for people; may be empty.
    pub message: String,
    /// The method's own error, in the JSON form of its type.
    #[serde(
        default = "none",
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub error: Option<E>,
}

fn none<E>() -> Option<E> {
    None
}

/// Deserializes an error that is present: `null` counts as one too.
fn present<'de, E: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<E>, D::Error> {
    E::deserialize(deserializer).map(Some)
}

impl PlainError {
    /// Reads `body` if it has exactly the form of an error; any other body is a value.
    ///
    /// The form is an object at the very beginning of `body` with a `code` other than 0, a
    /// `message`, optionally an `error`, and nothing else. Our servers write a space before a value
    /// of that form; a value of that form from another server is taken for an error.
    #[must_use]
    pub fn read(body: &[u8]) -> Option<Self> {
        // This check spares most values the parsing.
        if body.first() != Some(&b'{') {
            return None;
        }
        serde_json::from_slice(body)
            .ok()
            .filter(|error: &Self| error.code != 0)
    }

    /// Returns `true` if this is an error of IIP itself, not a status or a value of the method.
    pub(crate) fn is_in_band(&self) -> bool {
        self.code < 0 || self.code > 100
    }

    /// Returns `true` if this is the error for a path without a handler.
    pub(crate) fn is_unknown_path(&self) -> bool {
        self.code == 102
    }

    /// Converts the error to a status.
    #[must_use]
    pub fn into_status(self) -> Status {
        let (code, execution) = match self.code {
            // Source: error.go of the Go implementation. The codes mean: the handler failed, the
            // handler gave no data, there is no handler, there is no further channel or connection.
            -1 => (Code::Unknown, Execution::MayHaveExecuted),
            101 => (Code::Internal, Execution::MayHaveExecuted),
            102 => (Code::Unimplemented, Execution::NotExecuted),
            106 | 107 => (Code::ResourceExhausted, Execution::NotExecuted),
            code => {
                let code = u8::try_from(code).ok().and_then(Code::from_u8);
                (code.unwrap_or(Code::Unknown), Execution::MayHaveExecuted)
            }
        };
        Status::new(code, self.message).with_execution(execution)
    }
}

/// Reads the method's own error from a reply that holds one according to [`PlainError::read`].
pub(crate) fn read_plain_error<E: DeserializeOwned>(
    body: &[u8],
    limits: &DecodeLimits,
) -> Result<E, DecodeError> {
    let plain: PlainError<E> = Json::decode(body, limits)?;
    plain
        .error
        .ok_or_else(|| DecodeError::custom("there is no error"))
}

/// Inserts a space before the plain value at `start` of `out`, if it has the form of an error.
pub(crate) fn set_apart_from_errors(out: &mut BytesMut, start: usize) {
    let value = out.get(start..).unwrap_or_default();
    if PlainError::read(value).is_some() {
        // The space changes nothing for a reader of JSON, and an error begins with its brace.
        let value = out.split_off(start);
        out.put_u8(b' ');
        out.extend_from_slice(&value);
    }
}

/// Appends a failure to `out` in the format of plain mode: `{"code":5,"message":"no such user"}`.
pub fn write_plain_status(status: &Status, out: &mut BytesMut) {
    let plain = PlainError::<()> {
        code: status.code().as_u8().into(),
        message: status.message().to_owned(),
        error: None,
    };
    write_json(&plain, out);
}

/// Appends the error of a method to `out` in the format of plain mode:
/// `{"code":2,"message":"name is empty","error":"EmptyName"}`. A status inside it is written as a
/// status.
pub fn write_plain_error<E: MethodError>(error: &E, out: &mut BytesMut) {
    if let Some(status) = error.as_status() {
        return write_plain_status(status, out);
    }
    let before = out.len();
    let plain = PlainError {
        code: Code::Unknown.as_u8().into(),
        message: error.to_string(),
        error: Some(error),
    };
    if Json::encode(&plain, out).is_err() {
        // The type has no JSON form, but the caller still gets its text.
        out.truncate(before);
        let PlainError { code, message, .. } = plain;
        write_json(
            &PlainError {
                code,
                message,
                error: None,
            },
            out,
        );
    }
}

/// The reply of a raw method whose handler failed or was not run, in the format of IIP.
pub(crate) fn handler_failed(text: &str) -> Body {
    let plain = PlainError::<()> {
        code: -1,
        message: format!("handler fail:{text}"),
        error: None,
    };
    let mut out = BytesMut::new();
    write_json(&plain, &mut out);
    out.freeze().into()
}

fn write_json(error: &PlainError<()>, out: &mut BytesMut) {
    // A number and a text always have a JSON form, and writing to a buffer cannot fail.
    let _ = serde_json::to_writer(out.writer(), error);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, thiserror::Error, Serialize, Deserialize)]
    enum GreetError {
        #[error("name is empty")]
        EmptyName,
        #[error(transparent)]
        Rpc(#[from] Status),
        #[error("has no json form")]
        Odd(std::collections::BTreeMap<(u8, u8), u8>),
    }

    impl MethodError for GreetError {
        fn as_status(&self) -> Option<&Status> {
            match self {
                Self::Rpc(status) => Some(status),
                _ => None,
            }
        }
    }

    #[test]
    fn plain_errors_have_the_form_of_the_protocol() {
        let plain = |error: GreetError| {
            let mut out = BytesMut::new();
            write_plain_error(&error, &mut out);
            String::from_utf8(out.to_vec()).unwrap()
        };
        let typed = plain(GreetError::EmptyName);
        assert_eq!(
            typed,
            r#"{"code":2,"message":"name is empty","error":"EmptyName"}"#
        );
        assert!(PlainError::read(typed.as_bytes()).unwrap().error.is_some());
        let limits = DecodeLimits::new();
        assert_eq!(
            read_plain_error::<GreetError>(typed.as_bytes(), &limits),
            Ok(GreetError::EmptyName)
        );
        assert_eq!(
            read_plain_error::<()>(br#"{"code":2,"message":"","error":null}"#, &limits),
            Ok(())
        );
        read_plain_error::<u8>(typed.as_bytes(), &limits).unwrap_err();
        let status = plain(GreetError::Rpc(Status::not_found("no <user>")));
        assert_eq!(status, r#"{"code":5,"message":"no <user>"}"#);
        assert_eq!(
            PlainError::read(status.as_bytes()).unwrap().into_status(),
            Status::not_found("no <user>")
        );
        let odd = plain(GreetError::Odd([((1, 2), 3)].into()));
        assert_eq!(odd, r#"{"code":2,"message":"has no json form"}"#);
        let silent = plain(GreetError::Rpc(Status::not_found("")));
        assert_eq!(silent, r#"{"code":5,"message":""}"#);
        assert_eq!(
            PlainError::read(silent.as_bytes()).unwrap().into_status(),
            Status::not_found("")
        );
    }

    #[test]
    fn the_in_band_errors_of_go_become_statuses_and_values_stay_values() {
        let status = |text: &str| PlainError::read(text.as_bytes()).map(PlainError::into_status);
        let missing = status(r#"{"code":102,"message":"handle error"}"#).unwrap();
        assert_eq!(
            (missing.code(), missing.execution()),
            (Code::Unimplemented, Execution::NotExecuted)
        );
        let failed = status(r#"{"code":-1,"message":"handler fail:boom"}"#).unwrap();
        assert_eq!(
            (failed.code(), failed.message()),
            (Code::Unknown, "handler fail:boom")
        );
        assert_eq!(
            status(r#"{"code":101,"message":"handle no response"}"#)
                .unwrap()
                .code(),
            Code::Internal
        );
        assert_eq!(
            status(r#"{"code":106,"message":"channel create limited"}"#)
                .unwrap()
                .code(),
            Code::ResourceExhausted
        );
        for value in [
            "1",
            "{}",
            r#"{"code":0}"#,
            r#"{"code":0,"message":"fine"}"#,
            r#"{"code":5}"#,
            r#"{"code":106}"#,
            r#"{"message":"x"}"#,
            r#"{"code":5,"message":7}"#,
            r#" {"code":5,"message":"x"}"#,
            r#"{"code":102,"other":1}"#,
            r#"{"code":"x"}"#,
            "[",
            "{\"code\":1",
        ] {
            assert_eq!(status(value), None, "{value}");
        }
    }
}
