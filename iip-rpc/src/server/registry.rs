//! Registration of services: which methods a server has, and the settings of each.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use iip_core::{Handler, Places};
use serde::Serialize;

use super::handler::MethodHandler;
use super::method::{Kind, Method, MethodBody, NewCall};
use super::raw::RawMethod;
use super::stream::{StreamCall, StreamMethod, StreamReply};
use super::unary::UnaryMethod;
use crate::arguments::FromArguments;
use crate::codec::DecodeLimits;
use crate::compression::Compression;
use crate::context::CallContext;
use crate::interceptor::{Layers, ServerCall, ServerInterceptor};
use crate::method::MethodDescriptor;
use crate::overload::Admission;
use crate::policy::{Deadlines, ServerPolicy};
use crate::raw::RawBody;
use crate::status::MethodError;

/// A service that a [`Server`](crate::Server) can serve. `#[service]` implements it for the server
/// type it generates, such as `GreeterServer`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a service",
    note = "wrap the implementation in the server type that `#[service]` generates, as in \
        `GreeterServer::new(..)`"
)]
pub trait Service {
    /// Registers every method.
    fn register(self, methods: &mut Methods);
}

/// The methods that are being registered with a server.
pub struct Methods {
    pub(super) handlers: Vec<(&'static MethodDescriptor, Arc<dyn Handler>)>,
    pub(super) limits: DecodeLimits,
    /// The compression for methods whose policies set none.
    pub(super) compression: Option<Compression>,
    pub(super) policy: ServerPolicy,
    pub(super) admission: Admission,
    /// The interceptors of the methods that are registered next.
    pub(super) interceptors: Layers<ServerCall>,
    /// The names of the service that is being registered: those of its methods, without consecutive
    /// duplicates.
    pub(super) services: Vec<&'static str>,
    /// The counter of running calls of the methods that are registered next, if they are counted
    /// separately from others.
    pub(super) places: Option<Arc<Places>>,
}

impl Methods {
    /// Registers a method: `call` runs for each of its calls.
    pub fn unary<S, A, T, E, F, Fut>(
        &mut self,
        method: &'static MethodDescriptor,
        service: &Arc<S>,
        call: F,
    ) where
        S: Send + Sync + 'static,
        A: FromArguments,
        T: Serialize + Send + 'static,
        E: MethodError,
        F: Fn(Arc<S>, &CallContext, A) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        self.add(
            method,
            UnaryMethod {
                service: Arc::clone(service),
                call,
                types: PhantomData,
            },
        );
    }

    /// Registers a method with a stream of messages in one direction or both: `call` runs for each
    /// of its calls, reads and sends through the [`StreamCall`], and returns the reply that it gets
    /// from it at the end.
    pub fn stream<S, A, F, Fut>(
        &mut self,
        method: &'static MethodDescriptor,
        service: &Arc<S>,
        call: F,
    ) where
        S: Send + Sync + 'static,
        A: FromArguments,
        F: Fn(Arc<S>, &CallContext, A, StreamCall) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = StreamReply> + Send + 'static,
    {
        self.add(
            method,
            StreamMethod {
                service: Arc::clone(service),
                call,
                types: PhantomData,
            },
        );
    }

    /// Registers a method bound to raw bytes.
    pub fn unary_raw<S, T, E, F, Fut>(
        &mut self,
        method: &'static MethodDescriptor,
        service: &Arc<S>,
        call: F,
    ) where
        S: Send + Sync + 'static,
        T: RawBody + Send + 'static,
        E: MethodError,
        F: Fn(Arc<S>, &CallContext, Bytes) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        self.add(
            method,
            RawMethod {
                service: Arc::clone(service),
                call,
            },
        );
    }

    /// The methods that were registered so far.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = &'static MethodDescriptor> {
        self.handlers.iter().map(|(descriptor, _)| *descriptor)
    }

    /// Registers methods with one more interceptor.
    pub(crate) fn within(
        &mut self,
        interceptor: impl ServerInterceptor,
        register: impl FnOnce(&mut Self),
    ) {
        // The interceptor applies only to the methods that are registered within.
        let outer = self.interceptors.clone();
        self.interceptors.push(interceptor);
        register(self);
        self.interceptors = outer;
    }

    /// Registers methods whose running calls are counted separately from others.
    pub(crate) fn counted_apart(&mut self, places: Places, register: impl FnOnce(&mut Self)) {
        self.places = Some(Arc::new(places));
        register(self);
        self.places = None;
    }

    fn add<B: MethodBody>(&mut self, descriptor: &'static MethodDescriptor, body: B) {
        self.add_boxed(descriptor, B::KIND, Box::new(body));
    }

    fn add_boxed(
        &mut self,
        descriptor: &'static MethodDescriptor,
        kind: Kind,
        body: Box<dyn NewCall>,
    ) {
        if self.services.last() != Some(&descriptor.service()) {
            self.services.push(descriptor.service());
        }
        let admission = &mut self.admission;
        let compression = admission.compression(descriptor);
        let handler = MethodHandler::new(Method {
            descriptor,
            interceptors: self.interceptors.clone(),
            limits: self.limits,
            compression: compression.unwrap_or(self.compression),
            deadlines: Deadlines::new(self.policy, admission.timeout(descriptor)),
            gate: admission.gate(descriptor),
            places: self.places.clone(),
            kind,
            body,
        });
        self.handlers.push((descriptor, Arc::new(handler)));
    }
}

impl fmt::Debug for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.handlers.iter().map(|(method, _)| method.path()))
            .finish()
    }
}
