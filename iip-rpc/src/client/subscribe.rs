//! Subscriptions, at the client: the first call, and further ones that resume after the last value
//! seen.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::body::{Failure, StreamBody};
use super::call::CallSpec;
use super::failure::not_sent;
use super::streamed::StreamedCall;
use super::times::Times;
use super::{Client, ReplyMetadata};
use crate::arguments::Arguments;
use crate::arguments::recorded::{RecordedArgs, RecordingArgs};
use crate::context::CallContext;
use crate::method::MethodDescriptor;
use crate::status::{MethodError, Status};
use crate::subscription::{BEGINS, Position, RESUME, Remote, Resubscribe, Subscription};

impl Client {
    /// Calls a method that replies with a [`Subscription`]; generated clients use it.
    ///
    /// Completes once the method has accepted the call, like
    /// [`server_stream`](Self::server_stream). The arguments are kept in their encoded form for as
    /// long as the subscription lasts.
    ///
    /// # Errors
    ///
    /// The method's own error, or a [`Status`] converted to its type.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, or the subscription, cancels the call; the server is notified.
    pub fn subscribe<A, T, E>(
        &self,
        method: &'static MethodDescriptor,
        ctx: Option<&CallContext>,
        args: A,
    ) -> impl Future<Output = Result<Subscription<T>, E>> + Send
    where
        A: Arguments + Send,
        T: DeserializeOwned + Send + 'static,
        E: MethodError,
    {
        async move {
            let deadline = Times::new(self, method, ctx).whole;
            let ctx = ctx.cloned().unwrap_or_default().with_deadline(deadline);
            let (kept, after) = (RecordedArgs::default(), self.options.resume);
            let mut body = StreamBody::<_, E>::new(RecordingArgs::new(args, &kept));
            let mut spec = CallSpec::new(method, Some(&ctx), &mut body);
            let first = self.values(&mut spec, after).await;
            let first = match first {
                Ok((call, begins)) => (call.into_stream(), begins),
                Err(failure) => return Err(body.into_error(failure)),
            };
            // The first call has recorded its arguments; the later ones send the same bytes.
            let client = self.clone();
            let again: Resubscribe<T> = Box::new(move |after| {
                let (client, ctx, args) = (client.clone(), ctx.clone(), kept.clone());
                Box::pin(async move {
                    let mut body = StreamBody::<_, E>::new(args);
                    let mut spec = CallSpec::new(method, Some(&ctx), &mut body);
                    match client.values(&mut spec, Some(after)).await {
                        Ok((call, begins)) => Ok((call.into_stream(), begins)),
                        Err(failure) => Err(own_status(&body.into_error(failure))),
                    }
                })
            });
            Ok(Subscription::there(
                Remote::new(again, first, deadline),
                after,
            ))
        }
    }

    /// Makes one of the calls of a subscription. Returns it with the position where its values
    /// begin.
    async fn values(
        &self,
        spec: &mut CallSpec<'_>,
        after: Option<Position>,
    ) -> Result<(StreamedCall, Position), Failure> {
        // The position is in the metadata of the reply, which the caller may want as well.
        let place = ReplyMetadata::new();
        let mut options = self.options.as_ref().clone();
        let asked = options.reply_metadata.replace(place.clone());
        if let Some(after) = after {
            let added = options.metadata.insert_text(RESUME, &after.to_string());
            added.map_err(|error| not_sent(error.into()))?;
        }
        let client = Self {
            options: Arc::new(options),
            ..self.clone()
        };
        let call = client.open(spec, None).await?;
        let metadata = place.get();
        let begins = metadata.text(BEGINS).map(str::parse);
        if let Some(asked) = asked {
            asked.set(metadata);
        }
        match begins {
            Some(Ok(begins)) => Ok((call, begins)),
            _ => {
                let text = format!(
                    "{}: the server did not send the position at which the subscription begins",
                    spec.method
                );
                Err(Status::internal(text).into())
            }
        }
    }
}

/// The status of an error, for a subscription, which has no other errors.
fn own_status<E: MethodError>(error: &E) -> Status {
    match error.as_status() {
        Some(status) => status.clone(),
        None => Status::unknown(error.to_string()),
    }
}
