//! The functions by which generated code describes a service.

use std::any::{TypeId, type_name};
use std::marker::PhantomData;

use iip_schema::__private::assert_positional;
use iip_schema::{Argument, Description, Format, Method, MethodKind, Registry, Type};

use crate::codec::CodecId;
use crate::method::{self, MethodDescriptor, Priority};
use crate::status::{MethodError, Status};

/// Describes a type, with the named types that it uses added to the registry.
type TypeFn = fn(&mut Registry) -> Type;

/// A description that is being made.
#[derive(Debug)]
pub struct Describing {
    description: Description,
    types: Registry,
}

/// A method to describe.
#[derive(Debug)]
pub struct DescribedMethod<'a> {
    /// Its names and policies.
    pub method: &'static MethodDescriptor,
    /// The number of messages that each side sends.
    pub kind: MethodKind,
    /// Its documentation.
    pub doc: &'static str,
    /// The note of its deprecation.
    pub deprecated: Option<&'static str>,
    /// The types of its arguments.
    pub args: &'a [TypeFn],
    /// The type of the messages from the client.
    pub requests: Option<TypeFn>,
    /// The type of the result, or of the messages from the server.
    pub result: TypeFn,
    /// The type of its own errors.
    pub error: Option<ErrorType>,
    /// The type of the errors of its stream of replies.
    pub stream_error: Option<ErrorType>,
}

/// The type of a method's own errors.
#[derive(Debug, Clone, Copy)]
pub struct ErrorType {
    describe: TypeFn,
    /// See [`MethodError::HTTP_STATUSES`].
    http: &'static [(u32, u16)],
}

impl ErrorType {
    fn describe(self, types: &mut Registry) -> Type {
        let ty = (self.describe)(types);
        types.set_http_statuses(&ty, self.http);
        ty
    }
}

impl Describing {
    /// Begins with a service that has no methods.
    #[must_use]
    pub fn new(service: &str, doc: &str, deprecated: Option<&str>) -> Self {
        let mut description = Description::new(service);
        description.doc = doc.to_owned();
        description.deprecated = deprecated.map(str::to_owned);
        Self {
            description,
            types: Registry::new(),
        }
    }

    /// Adds a method.
    #[must_use]
    pub fn method(mut self, described: DescribedMethod<'_>) -> Self {
        let descriptor = described.method;
        let types = &mut self.types;
        let mut method = Method::new(descriptor.name(), descriptor.path());
        method.kind = described.kind;
        method.format = match descriptor.format() {
            method::Format::Envelope => Format::Envelope,
            method::Format::Json => Format::Json,
            method::Format::Raw => Format::Raw,
        };
        method.codec = descriptor.service_codec().map(|codec| codec.to_string());
        let names = descriptor.args().iter();
        let args = names.zip(described.args);
        method.args = args
            .map(|(&name, describe)| Argument::new(name, describe(types)))
            .collect();
        method.requests = described.requests.map(|describe| describe(types));
        method.result = (described.result)(types);
        method.error = described.error.map(|error| error.describe(types));
        method.stream_error = described.stream_error.map(|error| error.describe(types));
        method.idempotent = descriptor.is_idempotent();
        let timeout = descriptor.default_timeout();
        method.timeout_ms =
            timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        method.priority = match descriptor.call_priority() {
            Priority::Low => Some("low".to_owned()),
            Priority::Normal => None,
            Priority::High => Some("high".to_owned()),
        };
        method.auth = descriptor.auth_requirement().map(str::to_owned);
        method.doc = described.doc.to_owned();
        method.deprecated = described.deprecated.map(str::to_owned);
        self.description.methods.push(method);
        self
    }

    /// The description.
    #[must_use]
    pub fn finish(self) -> Description {
        let mut description = self.description;
        let (types, names) = self.types.finish();
        let methods = description.methods.iter_mut();
        methods
            .flat_map(Method::parts_mut)
            .for_each(|ty| names.apply(ty));
        description.types = types;
        description
    }
}

/// Returns the type if `E` is an error of the method itself, and not a [`Status`].
#[must_use]
pub fn error_type<E: 'static>(describe: TypeFn, http: &'static [(u32, u16)]) -> Option<ErrorType> {
    let is_own = TypeId::of::<E>() != TypeId::of::<Status>();
    is_own.then_some(ErrorType { describe, http })
}

/// The statuses of HTTP of an error: `Statuses::<E>::OF_HTTP`, with [`NoStatuses`] in scope.
#[derive(Debug)]
pub struct Statuses<E>(PhantomData<E>);

impl<E: MethodError> Statuses<E> {
    /// Those of the error.
    pub const OF_HTTP: &'static [(u32, u16)] = E::HTTP_STATUSES;
}

/// The constant of [`Statuses`] for types that are no [`MethodError`], a mistake that is reported
/// elsewhere.
pub trait NoStatuses {
    /// None.
    const OF_HTTP: &'static [(u32, u16)] = &[];
}

impl<E> NoStatuses for Statuses<E> {}

/// Checks at compile time that the values of a type can travel in the codec of a service, or in the
/// default codec, if there is a reason why they may not.
///
/// # Panics
///
/// The codec has no names of fields, and there is a reason why they are needed.
pub const fn assert_codec_fits(codec: Option<CodecId>, reason: Option<&'static str>) {
    let codec = match codec {
        Some(codec) => codec,
        None => CodecId::DEFAULT,
    };
    if matches!(codec, CodecId::BINCODE | CodecId::POSTCARD) {
        assert_positional(reason);
    }
}

/// The type of a raw message.
#[must_use]
pub fn raw_type(_: &mut Registry) -> Type {
    Type::Bytes
}

/// The type of a protobuf message.
#[must_use]
pub fn protobuf_type<T>(_: &mut Registry) -> Type {
    Type::opaque(type_name::<T>(), "it is a protobuf message")
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use iip_schema::Shape;
    use serde::{Deserialize, Serialize};

    use super::*;

    /// An error without a `Schema`.
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Observed {
        WasRemoved,
        Rpc(Status),
    }

    impl fmt::Display for Observed {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("it is gone")
        }
    }

    impl std::error::Error for Observed {}

    impl From<Status> for Observed {
        fn from(status: Status) -> Self {
            Self::Rpc(status)
        }
    }

    impl MethodError for Observed {
        const HTTP_STATUSES: &'static [(u32, u16)] = &[(0, 410)];
    }

    #[test]
    fn an_error_that_is_observed_has_its_statuses_too() {
        let mut types = Registry::new();
        let error = crate::__private::error_type!(Observed).expect("it is not a status");
        let ty = error.describe(&mut types);
        let Some(Shape::Enum(shape)) = types.get(&ty).map(|definition| &definition.shape) else {
            panic!("{types:?}");
        };
        let variants = shape.variants.iter();
        let statuses = variants.map(|variant| (&*variant.name, variant.http_status()));
        let expected = [("was_removed", Some(410)), ("rpc", None)];
        assert_eq!(statuses.collect::<Vec<_>>(), expected);
    }
}
