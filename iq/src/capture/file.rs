//! The framing of records in a file.

use std::fs::File;
use std::hash::Hasher;
use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;

use bytes::{BufMut, BytesMut};
use iip_rpc::codec::{CodecId, DecodeLimits, decode_value, encode_value};
use twox_hash::XxHash64;

use super::record::{Begin, Record};
use crate::exit::{Failure, Outcome};

/// The first bytes of a file. The first byte is not ASCII, and the line endings reveal a conversion
/// of the file as text.
const MAGIC: [u8; 8] = *b"\x89IQR\r\n\x1a\n";

/// The version of the format, which follows the first bytes.
const VERSION: u16 = 1;

/// Size of the head of a record, in bytes: its length and its hash.
const HEAD_BYTES: usize = 4 + 8;

/// Maximum size of the content of a record, in bytes: the largest message, with room for the other
/// fields.
const MAX_RECORD_BYTES: usize = 20 * 1024 * 1024;

/// Maximum size of the descriptions of all services together, in bytes.
const MAX_DESCRIBED_BYTES: usize = 16 * 1024 * 1024;

/// Appends the beginning of a file.
pub(crate) fn begin(out: &mut BytesMut) {
    out.put_slice(&MAGIC);
    out.put_u16(VERSION);
}

/// Appends a record.
pub(crate) fn encode(record: &Record, out: &mut BytesMut) -> Result<(), String> {
    let start = out.len();
    out.put_bytes(0, HEAD_BYTES);
    let encoded = encode_value(CodecId::MSGPACK, record, out);
    let content = out.split_off(start + HEAD_BYTES);
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
    out.truncate(start);
    encoded.map_err(|error| error.to_string())?;
    if content.len() > MAX_RECORD_BYTES {
        return Err(format!("a record has {length} bytes"));
    }
    out.put_u32(length);
    out.put_u64(hash(&content));
    out.unsplit(content);
    Ok(())
}

fn hash(content: &[u8]) -> u64 {
    let mut hasher = XxHash64::with_seed(0);
    hasher.write(content);
    hasher.finish()
}

/// A reader of the records of a file.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    name: String,
    input: R,
    /// The position of the next record.
    position: u64,
    /// Size of all descriptions so far, in bytes.
    described: usize,
    state: State,
}

#[derive(Debug, PartialEq)]
enum State {
    Reading,
    /// The end after the last record.
    Ended,
    /// The end after a complete record, but without an `End` record.
    NoEnd,
    /// The end within a record.
    Cut,
}

impl Reader<BufReader<File>> {
    /// Opens a file, and reads its first record.
    pub(crate) fn open(path: &Path) -> Outcome<(Self, Begin)> {
        let name = path.display().to_string();
        let file = File::open(path);
        let file = file.map_err(|error| Failure::Usage(format!("{name}: {error}")))?;
        Self::new(name, BufReader::with_capacity(256 * 1024, file)).begin()
    }
}

impl<R: Read> Reader<R> {
    fn new(name: String, input: R) -> Self {
        Self {
            name,
            input,
            position: 0,
            described: 0,
            state: State::Reading,
        }
    }

    fn begin(mut self) -> Outcome<(Self, Begin)> {
        let head = self.take(MAGIC.len() + 2)?;
        let Some((magic, version)) = head.split_first_chunk::<8>() else {
            return Err(self.mistake("is not a recording of iq: it is too short"));
        };
        if *magic != MAGIC {
            return Err(self.mistake("is not a recording of iq"));
        }
        let version = version
            .iter()
            .fold(0_u16, |all, byte| all << 8 | u16::from(*byte));
        if head.len() < MAGIC.len() + 2 || version != VERSION {
            let text = format!("has version {version} of the format; this iq reads {VERSION}");
            return Err(self.mistake(&text));
        }
        self.position = (MAGIC.len() + 2) as u64;
        match self.next()? {
            Some(Record::Begin(begin)) => Ok((self, begin)),
            Some(_) => Err(self.mistake("does not begin with its first record")),
            None => Err(self.mistake("has no records")),
        }
    }

    /// Reads the next record. Returns `None` after the last one, or if the file is cut off.
    pub(crate) fn next(&mut self) -> Outcome<Option<Record>> {
        if self.state != State::Reading {
            return Ok(None);
        }
        let head = self.take(HEAD_BYTES)?;
        let Some((length, expected)) = head
            .split_first_chunk::<4>()
            .filter(|_| head.len() == HEAD_BYTES)
        else {
            self.state = match head.is_empty() {
                true => State::NoEnd,
                false => State::Cut,
            };
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > MAX_RECORD_BYTES {
            return Err(self.damaged(&format!("a record claims {length} bytes")));
        }
        let content = self.take(length)?;
        if content.len() < length {
            self.state = State::Cut;
            return Ok(None);
        }
        if hash(&content).to_be_bytes() != expected {
            return Err(self.damaged("the hash of a record is wrong"));
        }
        let limits = DecodeLimits::new().max_message_bytes(MAX_RECORD_BYTES);
        let record = decode_value(CodecId::MSGPACK, &content.into(), &limits);
        let record: Record = record.map_err(|error| self.damaged(&error.to_string()))?;
        self.position += (HEAD_BYTES + length) as u64;
        match record {
            Record::End(_) => self.state = State::Ended,
            Record::Service(_) => {
                self.described += length;
                if self.described > MAX_DESCRIBED_BYTES {
                    let text =
                        format!("the descriptions have more than {MAX_DESCRIBED_BYTES} bytes");
                    return Err(self.damaged(&text));
                }
            }
            _ => {}
        }
        Ok(Some(record))
    }

    /// Returns a remark about a file without a proper end, after it was read.
    pub(crate) fn remark(&self) -> Option<String> {
        let (name, position) = (&self.name, self.position);
        match self.state {
            State::Reading | State::Ended => None,
            State::NoEnd => Some(format!(
                "{name} has no end: iq record was killed, or is still running"
            )),
            State::Cut => Some(format!(
                "{name} was cut within the record at byte {position}: the records before it are \
                 whole"
            )),
        }
    }

    /// Reads `count` bytes, or fewer at the end of the file. Allocates no more than the file
    /// contains.
    fn take(&mut self, count: usize) -> Outcome<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = (&mut self.input).take(count as u64).read_to_end(&mut bytes);
        match read {
            Ok(_) => Ok(bytes),
            Err(error) if error.kind() == ErrorKind::IsADirectory => {
                Err(self.mistake("is a folder"))
            }
            Err(error) => Err(Failure::Own(format!("{}: {error}", self.name))),
        }
    }

    fn mistake(&self, text: &str) -> Failure {
        Failure::Usage(format!("{} {text}", self.name))
    }

    fn damaged(&self, reason: &str) -> Failure {
        let (name, position) = (&self.name, self.position);
        Failure::Own(format!("{name} is damaged at byte {position}: {reason}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{Body, End, Lost, Message};
    use super::*;

    fn records() -> Vec<Record> {
        let begin = Begin {
            unix_us: 1,
            program: "iq 0".to_owned(),
            server: "localhost:7000".to_owned(),
            payloads: true,
        };
        let message = Message {
            call: 7,
            at: 2,
            of_client: true,
            body: Body {
                size: 3,
                bytes: Some(bytes::Bytes::from_static(b"\xff\0a")),
                left_out: None,
            },
        };
        vec![
            Record::Begin(begin),
            Record::Message(message),
            Record::Lost(Lost { records: 2 }),
            Record::End(End {
                at: 9,
                reason: "interrupted".to_owned(),
                lost: 2,
            }),
        ]
    }

    fn written(records: &[Record]) -> Vec<u8> {
        let mut out = BytesMut::new();
        begin(&mut out);
        for record in records {
            encode(record, &mut out).unwrap();
        }
        out.to_vec()
    }

    /// Reads a file. Returns the number of records, and the remark at the end.
    fn read(bytes: &[u8]) -> Outcome<(usize, Option<String>)> {
        let (mut reader, _) = Reader::new("f.iqr".to_owned(), bytes).begin()?;
        let mut count = 1;
        while reader.next()?.is_some() {
            count += 1;
        }
        Ok((count, reader.remark()))
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let bytes = written(&records());
        let (mut reader, begin) = Reader::new("f.iqr".to_owned(), &*bytes).begin().unwrap();
        let mut found = vec![Record::Begin(begin)];
        while let Some(record) = reader.next().unwrap() {
            found.push(record);
        }
        assert_eq!((found, reader.remark()), (records(), None));
    }

    #[test]
    fn a_cut_file_is_read_up_to_its_last_whole_record() {
        let bytes = written(&records());
        let whole: Vec<usize> = (1..=4)
            .map(|count| written(&records()[..count]).len())
            .collect();
        for length in whole[0]..bytes.len() {
            let (count, remark) = read(&bytes[..length]).unwrap();
            assert_eq!(count, whole.iter().filter(|end| **end <= length).count());
            let remark = remark.expect("a remark");
            assert_eq!(
                remark.contains("was cut"),
                !whole.contains(&length),
                "{remark}"
            );
        }
    }

    #[test]
    fn damage_is_an_error_wherever_it_is() {
        let bytes = written(&records());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x41;
            // A changed length that exceeds the rest of the file looks like a cut.
            match read(&damaged) {
                Err(Failure::Own(_) | Failure::Usage(_)) => {}
                Ok((count, Some(remark))) => assert!(count < 4 && remark.contains("cut")),
                other => panic!("byte {at}: {other:?}"),
            }
        }
        assert!(read(b"").is_err() && read(b"GIF89a").is_err() && read(&bytes[..9]).is_err());
    }

    #[test]
    fn a_length_that_is_not_there_allocates_nothing() {
        let mut bytes = written(&records()[..1]);
        bytes.extend_from_slice(&(MAX_RECORD_BYTES as u32).to_be_bytes());
        bytes.extend_from_slice(&[0; 8]);
        assert!(read(&bytes).unwrap().1.unwrap().contains("was cut"));
        let mut bytes = written(&records()[..1]);
        bytes.extend_from_slice(&u32::MAX.to_be_bytes());
        bytes.extend_from_slice(&[0; 8]);
        assert!(matches!(read(&bytes), Err(Failure::Own(text)) if text.contains("claims")));
    }
}
