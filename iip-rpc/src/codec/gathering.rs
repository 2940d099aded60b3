//! Output of the codecs that are implemented by other crates.

use bytes::{Bytes, BytesMut};

use super::output::Output;

/// Size, in bytes, below which writes are gathered first: formats write a byte or two at a time,
/// and a growable buffer takes several times as long for each as an array.
const GATHERED_BYTES: usize = 128;

/// An [`Output`] that gathers small writes, until it is [finished](Self::finish).
#[must_use]
pub(super) struct Gathering<'a> {
    output: Output<'a>,
    /// The bytes after those of `output`, up to `filled`.
    gathered: [u8; GATHERED_BYTES],
    filled: usize,
}

impl<'a> Gathering<'a> {
    /// Creates an output like [`Output::new`].
    pub(super) fn new(head: &'a mut BytesMut, split: bool) -> Self {
        Self {
            output: Output::new(head, split),
            gathered: [0; GATHERED_BYTES],
            filled: 0,
        }
    }

    /// Finishes the output and returns the payload that was kept separate.
    pub(super) fn finish(mut self) -> Option<Bytes> {
        self.flush();
        self.output.finish()
    }

    #[inline]
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let end = self.filled + bytes.len();
        match self.gathered.get_mut(self.filled..end) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.filled = end;
            }
            None => self.push_large(bytes),
        }
    }

    fn push_large(&mut self, bytes: &[u8]) {
        // The order of the bytes must be kept.
        self.flush();
        match self.output.payload(bytes) {
            Some(payload) => self.output.keep(payload),
            None => self.output.push(bytes),
        }
    }

    /// Appends the gathered bytes. A payload that they follow has to be copied after all.
    fn flush(&mut self) {
        if self.filled > 0 {
            let gathered = self.gathered.get(..self.filled).unwrap_or_default();
            self.output.push(gathered);
            self.filled = 0;
        }
    }
}

/// The methods of a [`Codec`](super::Codec) that write, by a function that writes to a
/// [`Gathering`] and returns it.
macro_rules! write_by {
    ($write:path) => {
        fn encode<T: Serialize + ?Sized>(value: &T, out: &mut BytesMut) -> Result<(), EncodeError> {
            $write(value, Gathering::new(out, false))?.finish();
            Ok(())
        }

        fn encode_split<T: Serialize + ?Sized>(
            value: &T,
            out: &mut BytesMut,
        ) -> Result<Option<Bytes>, EncodeError> {
            Ok($write(value, Gathering::new(out, true))?.finish())
        }
    };
}

pub(super) use write_by;
