//! Conversion of the results of a call for its client.

use bytes::Bytes;
use hyper::Response;
use iip_rpc::schema::Type;
use iip_rpc::schema::dynamic::variant;
use iip_rpc::{JsonError, JsonText};
use serde_json::Value;

use super::catalog::Found;
use super::lines::Fault;
use super::negotiation::JSON;
use super::options::{JsonInt64, TypedOptions};
use super::{headers, int64};
use crate::body::ReplyBody;
use crate::failure::Failure;
use crate::trace::Trace;

/// The settings for converting the results of a call.
pub(super) struct Results {
    found: Found,
    int64: JsonInt64,
    /// The fault in the body of the request, if messages are read from it.
    pub(super) fault: Fault,
    /// The trace of the call, for failures.
    trace_id: Box<str>,
}

impl Results {
    pub(super) fn new(found: &Found, options: &TypedOptions, trace: &Trace) -> Self {
        Self {
            found: found.clone(),
            int64: options.json_int64,
            fault: Fault::default(),
            trace_id: trace.id(),
        }
    }

    /// Returns the reply of a call with a single result.
    pub(super) fn reply(
        &self,
        result: Result<Bytes, JsonError>,
    ) -> Result<Response<ReplyBody>, Failure> {
        let result = result.map_err(|error| self.failure(error))?;
        let converted = match self.int64 {
            JsonInt64::Number => None,
            JsonInt64::String => {
                let text = String::from_utf8_lossy(&result);
                int64::write(&self.found, &self.found.method().result, &text)
            }
        };
        let result = converted.map_or(result, |converted| converted.to_string().into());
        Ok(headers::reply(result, JSON, "no-store"))
    }

    /// Returns the JSON of an item of a stream.
    pub(super) fn item(&self, item: JsonText) -> String {
        self.value(&self.found.method().result, item)
    }

    fn value(&self, ty: &Type, value: JsonText) -> String {
        match self.int64 {
            JsonInt64::Number => value.into_string(),
            JsonInt64::String => match int64::write(&self.found, ty, value.as_str()) {
                Some(converted) => converted.to_string(),
                None => value.into_string(),
            },
        }
    }

    /// Returns the failure of a call.
    pub(super) fn failure(&self, error: JsonError) -> Failure {
        let mut failure = self.of_error(error);
        failure.more().trace_id = Some(self.trace_id.clone());
        failure
    }

    fn of_error(&self, error: JsonError) -> Failure {
        // The call has failed because of a fault in the body.
        if let Some(fault) = self.fault.take() {
            return fault;
        }
        match error {
            JsonError::Status(status) => Failure::of_status(&status),
            JsonError::Own(error) => {
                let ty = self.found.method().error.as_ref();
                let text = match ty {
                    Some(ty) => self.value(ty, error),
                    None => error.into_string(),
                };
                let error = serde_json::from_str(&text).unwrap_or(Value::String(text));
                let types = self.found.types();
                let variant = ty.and_then(|ty| variant(ty, types, &error));
                Failure::of_method(error, variant)
            }
        }
    }
}
