//! The trace of a request, in the form of W3C Trace Context.

use std::sync::OnceLock;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use iip_rpc::observe::TraceContext;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The trace of a request: that of the client, or a new one that is created when it is needed.
#[derive(Debug)]
pub(crate) struct Trace {
    context: OnceLock<TraceContext>,
    is_of_client: bool,
}

impl Trace {
    /// Returns the trace of a request with these headers.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let first = values.next().filter(|_| values.next().is_none());
        let context = first.and_then(|value| TraceContext::parse(value.to_str().ok()?));
        Self {
            is_of_client: context.is_some(),
            context: context.map_or_else(OnceLock::new, OnceLock::from),
        }
    }

    fn context(&self) -> &TraceContext {
        self.context.get_or_init(TraceContext::begin)
    }

    /// Returns the id of the trace.
    pub(crate) fn id(&self) -> Box<str> {
        format!("{:032x}", self.context().trace_id()).into()
    }

    /// Adds the trace to the headers of a request, unless it is that of the client.
    pub(crate) fn add_to(&self, headers: &mut HeaderMap) {
        if self.is_of_client {
            return;
        }
        if let Ok(value) = HeaderValue::try_from(self.context().to_string()) {
            headers.insert(TRACEPARENT, value);
        }
        // It belongs to a `traceparent` that could not be read.
        headers.remove(TRACESTATE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACEPARENT, HeaderValue::from_str(value).unwrap());
        }
        headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
        headers
    }

    #[test]
    fn the_trace_of_the_client_is_passed_on_unchanged() {
        let sent = headers(&[&format!("01-{ID}-00f067aa0ba902b7-03-more")]);
        let trace = Trace::of(&sent);
        assert_eq!(&*trace.id(), ID);
        let mut passed_on = sent.clone();
        trace.add_to(&mut passed_on);
        assert_eq!(passed_on, sent);
    }

    #[test]
    fn a_trace_begins_where_the_client_has_named_none() {
        let valid = format!("00-{ID}-00f067aa0ba902b7-01");
        for values in [
            &[][..],
            &["00-"],
            &[&format!("00-{ID}-1-1")],
            &[&valid, &valid],
        ] {
            let mut headers = headers(values);
            let trace = Trace::of(&headers);
            trace.add_to(&mut headers);
            let begun = Trace::of(&headers);
            assert!(begun.is_of_client, "{values:?}");
            assert_eq!(begun.id(), trace.id());
            assert_ne!(&*trace.id(), ID);
            assert!(!headers.contains_key(TRACESTATE), "{values:?}");
        }
    }
}
