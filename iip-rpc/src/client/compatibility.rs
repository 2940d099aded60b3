//! The codec of a call to a server whose build may differ from this one.

use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use iip_core::{Connection, Peer};
use iip_schema::file::{Limits, parse_description};

use super::Client;
use super::failure::{call_status, not_sent};
use crate::codec::CodecId;
use crate::envelope::PlainError;
use crate::hello::RpcPeer;
use crate::method::{Format, MethodDescriptor};
use crate::schema::SchemaCheck;
use crate::schema::announced::Announced;
use crate::schema::builds::{Describe, PeerBuild};
use crate::schema::finding::{self, Finding};
use crate::schema::own::Own;
use crate::schema::served::{DESCRIBE, FINGERPRINT};
use crate::status::{Code, Status};

/// A service whose methods this connection has not compared yet, or found to differ.
#[inline]
fn unsettled<'a>(
    method: &MethodDescriptor,
    peer: Option<&'a RpcPeer>,
) -> Option<(&'a PeerBuild, Describe)> {
    let build = peer?.build.as_deref()?;
    let describe = method.description_fn()?;
    (!build.is_settled(describe)).then_some((build, describe))
}

impl Client {
    /// Returns `true` if the method must be compared with that of the server first, by
    /// [`check_method`](Self::check_method).
    #[inline]
    pub(super) fn must_check(&self, method: &MethodDescriptor, peer: &Peer) -> bool {
        match unsettled(method, peer.extension(RpcPeer::read)) {
            None => false,
            Some((build, describe)) => self.is_unknown(build, describe),
        }
    }

    #[cold]
    fn is_unknown(&self, build: &PeerBuild, describe: Describe) -> bool {
        let settings = &self.settings;
        let is_off = settings.schema_check == SchemaCheck::Off;
        // A server with this service alone announces its fingerprint.
        if is_off || Own::of(describe).announced == build.announced {
            build.settle(describe);
            return false;
        }
        match build.finding(describe, &settings.builds).get() {
            // Found on another connection.
            Some(Finding::Settled) => build.settle(describe),
            Some(Finding::Different(_)) => {}
            None => return true,
        }
        false
    }

    /// Compares the service of a method with that of the server. If the server does not reply, the
    /// service stays unknown.
    pub(super) async fn check_method(
        &self,
        method: &MethodDescriptor,
        connection: &Connection,
        deadline: Instant,
    ) {
        let peer = connection.peer().extension(RpcPeer::read);
        let Some((build, describe)) = unsettled(method, peer) else {
            return;
        };
        let finding = build.finding(describe, &self.settings.builds);
        let comparing = || self.compare(describe, connection, deadline);
        // Calls that begin meanwhile wait for the same comparison.
        match finding.get_or_try_init(comparing).await {
            Ok(Finding::Settled) => build.settle(describe),
            Ok(Finding::Different(_)) => {}
            Err(status) => tracing::debug!(
                service = method.service(),
                %status,
                "the methods of the server could not be compared"
            ),
        }
    }

    async fn compare(
        &self,
        describe: Describe,
        connection: &Connection,
        deadline: Instant,
    ) -> Result<Finding, Status> {
        let own = Own::of(describe);
        let service = &own.description.service;
        let fingerprint = match ask(connection, FINGERPRINT, service, deadline).await? {
            Ok(reply) => serde_json::from_slice::<String>(&reply).unwrap_or_default(),
            Err(refused) => return Ok(finding::unchecked(service, &refused)),
        };
        if Announced::read(&fingerprint) == Some(own.announced) {
            return Ok(Finding::Settled);
        }
        let reply = match ask(connection, DESCRIBE, service, deadline).await? {
            Ok(reply) => reply,
            Err(refused) => return Ok(finding::unchecked(service, &refused)),
        };
        Ok(match parse_description(&reply, &Limits::default()) {
            Ok(theirs) => finding::of(&own.description, &theirs, self.settings.schema_check),
            Err(error) => {
                let text = format!("the server's description is refused: {error}");
                finding::unchecked(service, &Status::internal(text))
            }
        })
    }

    /// Returns the codec for calls of a method to a server: `wanted` unless the two builds differ.
    ///
    /// # Errors
    ///
    /// FAILED_PRECONDITION if no codec that both have carries the values of both builds.
    #[inline]
    pub(super) fn agreed_codec(
        &self,
        method: &MethodDescriptor,
        peer: Option<&RpcPeer>,
        wanted: Option<CodecId>,
    ) -> Result<Option<CodecId>, Status> {
        match (unsettled(method, peer), peer) {
            (Some((build, describe)), Some(peer)) => {
                self.codec_between_builds(method, peer, build, describe, wanted)
            }
            _ => Ok(wanted),
        }
    }

    #[cold]
    fn codec_between_builds(
        &self,
        method: &MethodDescriptor,
        peer: &RpcPeer,
        build: &PeerBuild,
        describe: Describe,
        wanted: Option<CodecId>,
    ) -> Result<Option<CodecId>, Status> {
        let finding = build.finding(describe, &self.settings.builds);
        let Some(Finding::Different(different)) = finding.get() else {
            return Ok(wanted);
        };
        let may_change = method.format() == Format::Envelope && method.service_codec().is_none();
        let first = wanted.unwrap_or(CodecId::JSON);
        let others = [CodecId::MSGPACK, CodecId::JSON].into_iter();
        let others = others.filter(|&codec| may_change && peer.has(codec) && codec != first);
        let candidates = std::iter::once(first).chain(others);
        let codec = different.codec(method.path(), candidates);
        match codec {
            Ok(codec) if codec == first => Ok(wanted),
            Ok(codec) => {
                self.settings
                    .builds
                    .fallbacks
                    .fetch_add(1, Ordering::Relaxed);
                #[cfg(feature = "metrics")]
                crate::observe::count_codec_fallback(method);
                Ok(Some(codec))
            }
            Err(_) if self.settings.schema_check != SchemaCheck::Enforce => Ok(wanted),
            Err(text) => Err(not_sent(Status::failed_precondition(format!(
                "{method}: the server has another build, which is not compatible: {text} (option \
                 schema_check)"
            )))),
        }
    }

    /// Returns how many calls were made in another codec than the configured one, because the
    /// server's build differs from this one. It rests once both sides have the same build again.
    /// With the feature `metrics`, the counter `iip_codec_fallback_total` counts the calls of all
    /// clients, with the label `rpc.method`.
    #[must_use]
    pub fn codec_fallbacks(&self) -> u64 {
        self.settings.builds.fallbacks.load(Ordering::Relaxed)
    }
}

/// Asks a server about a service, in plain JSON. The inner error is the server's.
pub(super) async fn ask(
    connection: &Connection,
    method: &'static MethodDescriptor,
    service: &str,
    deadline: Instant,
) -> Result<Result<Bytes, Status>, Status> {
    let body = match method.args() {
        [] => "{}".to_owned(),
        _ => serde_json::json!({ "service": service }).to_string(),
    };
    let reply = connection
        .call(method.path(), Bytes::from(body), deadline)
        .await;
    let reply = reply.map_err(|error| call_status(&error, Some(method)))?;
    let Some(error) = PlainError::read(&reply) else {
        return Ok(Ok(reply));
    };
    let status = error.into_status();
    match status.code() {
        // These pass.
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded => Err(status),
        _ => Ok(Err(status)),
    }
}
