//! Arguments in the form in which they are sent: those that outlive their caller, and those that
//! the caller has encoded.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use serde::ser::Error as _;

use super::{Arguments, sealed};
use crate::codec::{CodecId, EncodeError};
use crate::method::MethodDescriptor;

/// Arguments as they were sent. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecordedArgs(Arc<Mutex<Option<(CodecId, Bytes)>>>);

impl sealed::Sealed for RecordedArgs {}

impl Arguments for RecordedArgs {
    fn encode_split(
        &self,
        _: &MethodDescriptor,
        codec: CodecId,
        out: &mut BytesMut,
    ) -> Result<Option<Bytes>, EncodeError> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            // The values are gone, so the bytes cannot be encoded in another codec.
            Some((sent_in, bytes)) if *sent_in == codec => {
                out.extend_from_slice(bytes);
                Ok(None)
            }
            _ => Err(EncodeError::custom(format_args!(
                "the arguments are kept in another codec, and the server now takes {codec}"
            ))),
        }
    }
}

/// Arguments that are recorded as they are sent.
#[derive(Debug)]
pub(crate) struct RecordingArgs<A> {
    args: A,
    kept: RecordedArgs,
}

impl<A> RecordingArgs<A> {
    pub(crate) fn new(args: A, kept: &RecordedArgs) -> Self {
        Self {
            args,
            kept: kept.clone(),
        }
    }
}

impl<A> sealed::Sealed for RecordingArgs<A> {}

impl<A: Arguments> Arguments for RecordingArgs<A> {
    fn encode_split(
        &self,
        method: &MethodDescriptor,
        codec: CodecId,
        out: &mut BytesMut,
    ) -> Result<Option<Bytes>, EncodeError> {
        let begin = out.len();
        // Not split: the bytes are copied here in any case.
        self.args.encode(method, codec, out)?;
        let sent = Bytes::copy_from_slice(&out[begin..]);
        *self.kept.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((codec, sent));
        Ok(None)
    }
}

/// Arguments that the caller has encoded.
#[derive(Clone, Debug)]
pub(crate) struct EncodedArgs {
    pub(crate) codec: CodecId,
    pub(crate) bytes: Bytes,
}

impl sealed::Sealed for EncodedArgs {}

impl Arguments for EncodedArgs {
    fn encode_split(
        &self,
        _: &MethodDescriptor,
        codec: CodecId,
        out: &mut BytesMut,
    ) -> Result<Option<Bytes>, EncodeError> {
        if codec != self.codec {
            return Err(EncodeError::unsupported(codec));
        }
        out.extend_from_slice(&self.bytes);
        Ok(None)
    }
}
