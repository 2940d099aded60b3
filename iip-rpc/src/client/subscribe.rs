//! Subscriptions, at the client: the first call, and further ones that resume after the last value
//! seen.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::failure::not_sent;
use super::streaming::Times;
use super::{Client, ReplyMetadata};
use crate::arguments::Arguments;
use crate::arguments::recorded::{RecordedArgs, RecordingArgs};
use crate::context::CallContext;
use crate::method::MethodDescriptor;
use crate::status::{MethodError, Status};
use crate::subscription::{BEGINS, Position, RESUME, Remote, Resubscribe, Subscription, Values};

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
    pub async fn subscribe<A, T, E>(
        &self,
        method: &'static MethodDescriptor,
        ctx: Option<&CallContext>,
        args: A,
    ) -> Result<Subscription<T>, E>
    where
        A: Arguments + Send,
        T: DeserializeOwned + Send + 'static,
        E: MethodError,
    {
        let deadline = Times::new(self, method, ctx).whole;
        let ctx = ctx.cloned().unwrap_or_default().with_deadline(deadline);
        let (kept, after) = (RecordedArgs::default(), self.options.resume);
        let args = RecordingArgs::new(args, &kept);
        let first = self.values::<_, T, E>(method, &ctx, args, after).await?;
        let client = self.clone();
        let again: Resubscribe<T> = Box::new(move |after| {
            let (client, ctx, args) = (client.clone(), ctx.clone(), kept.clone());
            Box::pin(async move {
                let values = client.values::<_, T, E>(method, &ctx, args, Some(after));
                values.await.map_err(|error| match error.as_status() {
                    Some(status) => status.clone(),
                    None => Status::unknown(error.to_string()),
                })
            })
        });
        Ok(Subscription::there(
            Remote::new(again, first, deadline),
            after,
        ))
    }

    /// Makes one of the calls of a subscription.
    async fn values<A, T, E>(
        &self,
        method: &'static MethodDescriptor,
        ctx: &CallContext,
        args: A,
        after: Option<Position>,
    ) -> Result<Values<T>, E>
    where
        A: Arguments + Send,
        T: DeserializeOwned + Send + 'static,
        E: MethodError,
    {
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
        let values = client.server_stream(method, Some(ctx), args).await?;
        let metadata = place.get();
        let begins = metadata.text(BEGINS).map(str::parse);
        if let Some(asked) = asked {
            asked.set(metadata);
        }
        match begins {
            Some(Ok(begins)) => Ok((values, begins)),
            _ => {
                let text =
                    format!("{method}: the server does not say where the subscription begins");
                Err(Status::internal(text).into())
            }
        }
    }
}
