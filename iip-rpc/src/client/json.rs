//! Calls by path with arguments in JSON, for tools that know no types.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use serde::de::{Error as _, IgnoredAny};

use super::Client;
use super::body::{CallBody, Failure, ReplyPart};
use super::call::{CallSpec, Kind, Single};
use super::failure::not_sent;
use crate::codec::{CodecId, DecodeError, DecodeLimits, EncodeError};
use crate::context::CallContext;
use crate::interceptor::Outcome;
use crate::method::MethodDescriptor;
use crate::status::Status;

/// The number of paths that a process can call by [`Client::call_json`].
const MAX_PATHS: usize = 16_384;

impl Client {
    /// Calls the method at `path`, such as `/greeter/hello`, with its arguments in JSON: an object
    /// with their names, or the value of the only one. Returns the result in JSON.
    ///
    /// For tools that have no types: what methods a server has, and what they take, is in its
    /// [description](crate::schema). Every method with an envelope or in plain JSON can be called
    /// if it has neither streams nor protobuf messages. Nothing is compared or checked before the
    /// call. A process can call 16,384 different paths in this way; the memory for a path, a few
    /// hundred bytes, is not released.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT, not sent, if `path` or `args` is not valid. If the method fails with an
    /// error of its own, the status has the code UNKNOWN, and the error in JSON as its details.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the call; the server is notified.
    pub fn call_json(
        &self,
        path: &str,
        args: &str,
    ) -> impl Future<Output = Result<String, Status>> + Send {
        let method = method_at(path);
        let valid = serde_json::from_str::<IgnoredAny>(args);
        let args = Bytes::copy_from_slice(args.as_bytes());
        async move {
            let method = method.map_err(not_sent)?;
            if let Err(error) = valid {
                let text = format!("{method}: the arguments are not JSON: {error}");
                return Err(not_sent(Status::invalid_argument(text)));
            }
            let mut body = JsonBody {
                args,
                reply: Bytes::new(),
            };
            let mut spec = CallSpec::new(method, None::<&CallContext>, &mut body);
            let outcome = self.run(&mut spec, Kind::Single(Single::Unary)).await;
            // The reply was read as UTF-8.
            let text = String::from_utf8_lossy(&body.reply).into_owned();
            match outcome {
                Ok(()) => Ok(text),
                Err(Failure::Own) => {
                    let status = Status::unknown(format!("the method's own error: {text}"));
                    Err(status.with_details(body.reply))
                }
                Err(failure) => Err(failure.into_status()),
            }
        }
    }
}

/// Arguments and a reply in JSON, which are passed on unchanged.
struct JsonBody {
    args: Bytes,
    reply: Bytes,
}

impl CallBody for JsonBody {
    fn encode(
        &self,
        _: &MethodDescriptor,
        codec: CodecId,
        out: &mut BytesMut,
    ) -> Result<Option<Bytes>, EncodeError> {
        if codec != CodecId::JSON {
            return Err(EncodeError::unsupported(codec));
        }
        out.extend_from_slice(&self.args);
        Ok(None)
    }

    fn release(&mut self) {
        self.args = Bytes::new();
    }

    fn read(
        &mut self,
        _: ReplyPart,
        codec: CodecId,
        data: &Bytes,
        limits: &DecodeLimits,
    ) -> Result<(), DecodeError> {
        if codec != CodecId::JSON {
            return Err(DecodeError::unsupported(codec));
        }
        limits.check_size(data)?;
        serde_json::from_slice::<IgnoredAny>(data).map_err(DecodeError::custom)?;
        self.reply = data.clone();
        Ok(())
    }

    fn error(&self) -> Option<Outcome> {
        None
    }
}

/// The descriptor of the method at a path. It lives as long as the process, as those of generated
/// clients do.
fn method_at(path: &str) -> Result<&'static MethodDescriptor, Status> {
    static KNOWN: Mutex<Option<HashMap<&'static str, &'static MethodDescriptor>>> =
        Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    if let Some(method) = known.get(path) {
        return Ok(method);
    }
    if known.len() >= MAX_PATHS {
        let text = format!("this process has called {MAX_PATHS} paths by name already");
        return Err(Status::resource_exhausted(text));
    }
    if let Err(error) = iip_core::path::check_label(path.as_bytes())
        .map_err(|error| error.to_string())
        .and_then(|()| match path.contains("%00") {
            true => Err("a path has no NUL, not even as %00".to_owned()),
            false => Ok(()),
        })
    {
        return Err(Status::invalid_argument(format!(
            "the path {path:?} is not valid: {error}"
        )));
    }
    let path: &'static str = Box::leak(path.into());
    let (service, name) = path.rsplit_once('/').unwrap_or(("", path));
    let service = service.trim_start_matches('/');
    let method = MethodDescriptor::new(service, name, path, &[]).codec(CodecId::JSON);
    let method: &'static MethodDescriptor = Box::leak(Box::new(method));
    known.insert(path, method);
    Ok(method)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_descriptor() {
        let method = method_at("/shop.Orders/place").unwrap();
        assert_eq!(method.to_string(), "shop.Orders.place");
        assert!(std::ptr::eq(
            method,
            method_at("/shop.Orders/place").unwrap()
        ));
    }

    #[test]
    fn a_path_that_cannot_be_sent_is_refused() {
        for path in ["", "/a\0b", "/a%00b", &"x".repeat(3000)] {
            assert!(method_at(path).is_err(), "{path:?}");
        }
    }
}
