//! Methods with their services, and the parts of their calls.

use iip_rpc::schema::{Description, Format, Method, MethodKind, Type};

/// A part of a call that carries a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Arguments,
    /// A message of the client.
    Request,
    /// A message of the server.
    Message,
    /// The value of the reply.
    Result,
    /// The method's own error.
    Error,
    /// The error that ends a stream of replies.
    StreamError,
}

impl Part {
    /// Returns the part for the own error of a method, before or after it has accepted the stream.
    pub(crate) fn error(accepted: bool) -> Self {
        match accepted {
            true => Self::StreamError,
            false => Self::Error,
        }
    }

    pub(crate) const ALL: [Self; 6] = [
        Self::Arguments,
        Self::Request,
        Self::Message,
        Self::Result,
        Self::Error,
        Self::StreamError,
    ];
}

/// A method with its service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Described<'a> {
    pub(super) service: &'a Description,
    pub(crate) method: &'a Method,
    secrets: [bool; Part::ALL.len()],
}

impl<'a> Described<'a> {
    pub(super) fn new(
        service: &'a Description,
        method: &'a Method,
        secrets: [bool; Part::ALL.len()],
    ) -> Self {
        Self {
            service,
            method,
            secrets,
        }
    }

    /// Returns the name, such as `shop.Orders.place`.
    pub(crate) fn name(&self) -> String {
        format!("{}.{}", self.service.service, self.method.name)
    }

    /// Returns `true` if the messages have neither an envelope nor a known form.
    pub(crate) fn is_raw(&self) -> bool {
        self.method.format == Format::Raw
    }

    /// Returns the type of a part; `None` for the arguments, which have several.
    pub(super) fn ty(&self, part: Part) -> Option<Type> {
        let method = self.method;
        match part {
            Part::Arguments => None,
            Part::Request => method.requests.clone(),
            Part::Message if method.kind == MethodKind::Subscription => {
                // Each value is paired with its sequence number.
                Some(Type::Tuple(vec![Type::U64, method.result.clone()]))
            }
            Part::Message => Some(method.result.clone()),
            Part::Result if self.streams_replies() => Some(Type::Unit),
            Part::Result => Some(method.result.clone()),
            Part::Error => method.error.clone(),
            Part::StreamError if self.streams_replies() => method.stream_error.clone(),
            Part::StreamError => method.error.clone(),
        }
    }

    /// Returns `true` if the type of a part has secrets.
    pub(super) fn finds_secrets(&self, part: Part) -> bool {
        let types = &self.service.types;
        match part {
            Part::Arguments => {
                let mut args = self.method.args.iter();
                args.any(|argument| types.has_secrets(&argument.ty))
            }
            part => self.ty(part).is_some_and(|ty| types.has_secrets(&ty)),
        }
    }

    /// Returns `true` if a part of its calls may contain secrets.
    pub(crate) fn has_secrets(&self, part: Part) -> bool {
        self.secrets[part as usize]
    }

    /// Returns `true` if the server replies with a stream.
    pub(crate) fn streams_replies(&self) -> bool {
        matches!(
            self.method.kind,
            MethodKind::ServerStream | MethodKind::Bidirectional | MethodKind::Subscription
        )
    }
}
