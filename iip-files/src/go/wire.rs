//! The messages of Go's file servers and clients.

use std::fmt::Display;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use iip_rpc::Status;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Maximum number of file bytes in the reply to a download. Source: recording `file_download`.
pub(super) const DOWNLOAD_BYTES: usize = 10_236;

/// Maximum number of file bytes in an upload request. Source: Go's `upload_client`.
pub(super) const MAX_UPLOAD_BYTES: usize = 10 << 20;

/// Maximum number of JSON bytes in a message.
const MAX_JSON_BYTES: usize = 64 << 10;

/// A request to `/download_file`.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Download {
    pub(super) task_id: i64,
    pub(super) file_path: String,
    pub(super) download_start_pos: u64,
}

/// The head of a request to `/upload_file`; the bytes of the file follow.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Upload {
    pub(super) task_id: i64,
    pub(super) file_path: String,
    pub(super) upload_start_pos: u64,
    pub(super) completed: bool,
}

/// A reply of `/upload_file`.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Uploaded {
    pub(super) task_id: i64,
    /// Number of bytes of the request that were written.
    pub(super) done_bytes: u64,
}

/// A reply of `/download_file`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) data: Bytes,
    /// Set if no more bytes follow.
    pub(super) is_end: bool,
}

impl Download {
    pub(super) fn encode(&self) -> Result<Bytes, Status> {
        json(self).map(Bytes::from)
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, Status> {
        parsed("request", body)
    }
}

impl Upload {
    /// Encodes the request with these bytes of the file.
    pub(super) fn encode(&self, data: &[u8]) -> Result<Bytes, Status> {
        let json = json(self)?;
        let length = u32::try_from(json.len()).map_err(Status::internal_from)?;
        let mut body = BytesMut::with_capacity(4 + json.len() + data.len());
        body.put_u32(length);
        body.put_slice(&json);
        body.put_slice(data);
        Ok(body.freeze())
    }

    /// Decodes the request, and returns it with the bytes of the file.
    pub(super) fn decode(mut body: Bytes) -> Result<(Self, Bytes), Status> {
        let length = match body.len() {
            0..4 => usize::MAX,
            _ => usize::try_from(body.get_u32()).unwrap_or(usize::MAX),
        };
        if length > body.len() {
            return Err(malformed("request", "it ends before its JSON does"));
        }
        let json = body.split_to(length);
        if body.len() > MAX_UPLOAD_BYTES {
            return Err(Status::invalid_argument(format!(
                "a request has at most {MAX_UPLOAD_BYTES} bytes of the file, and this one has {}",
                body.len()
            )));
        }
        Ok((parsed("request", &json)?, body))
    }
}

impl Uploaded {
    pub(super) fn encode(&self) -> Result<Bytes, Status> {
        json(self).map(Bytes::from)
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, Status> {
        parsed("reply", body)
    }
}

impl Part {
    pub(super) fn encode(&self) -> Bytes {
        let mut body = BytesMut::with_capacity(4 + self.data.len());
        body.put_u32(self.is_end.into());
        body.put_slice(&self.data);
        body.freeze()
    }

    pub(super) fn decode(mut body: Bytes) -> Result<Self, Status> {
        if body.len() < 4 {
            return Err(malformed("reply", "it has no flag"));
        }
        let is_end = match body.get_u32() {
            0 => false,
            1 => true,
            flag => return Err(malformed("reply", format_args!("{flag} is no flag"))),
        };
        Ok(Self { data: body, is_end })
    }
}

fn json(message: &impl Serialize) -> Result<Vec<u8>, Status> {
    serde_json::to_vec(message).map_err(Status::internal_from)
}

fn parsed<T: DeserializeOwned>(what: &str, json: &[u8]) -> Result<T, Status> {
    if json.len() > MAX_JSON_BYTES {
        let text = format_args!("its JSON has {} of {MAX_JSON_BYTES} bytes", json.len());
        return Err(malformed(what, text));
    }
    serde_json::from_slice(json).map_err(|error| malformed(what, error))
}

fn malformed(what: &str, why: impl Display) -> Status {
    Status::invalid_argument(format!("the {what} is malformed: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_recorded_form() {
        // Recordings `file_download` and `file_upload`.
        let download = Download {
            task_id: 1,
            file_path: "/srv/files/example/dl.bin".to_owned(),
            download_start_pos: 10_236,
        };
        let json =
            br#"{"TaskId":1,"FilePath":"/srv/files/example/dl.bin","DownloadStartPos":10236}"#;
        assert_eq!(download.encode().unwrap(), json[..]);
        assert_eq!(Download::decode(json).unwrap(), download);

        let upload = Upload {
            task_id: 1,
            file_path: "/srv/files/example/up.bin".to_owned(),
            upload_start_pos: 30_000,
            completed: true,
        };
        let json = concat!(
            r#"{"TaskId":1,"FilePath":"/srv/files/example/up.bin","#,
            r#""UploadStartPos":30000,"Completed":true}"#
        );
        let body = [b"\0\0\0\x5b", json.as_bytes(), b"data"].concat();
        assert_eq!(upload.encode(b"data").unwrap(), body);
        let data = Bytes::from_static(b"data");
        assert_eq!(Upload::decode(body.into()).unwrap(), (upload, data));

        let uploaded = Uploaded {
            task_id: 1,
            done_bytes: 30_000,
        };
        let json = br#"{"TaskId":1,"DoneBytes":30000}"#;
        assert_eq!(uploaded.encode().unwrap(), json[..]);
        assert_eq!(Uploaded::decode(json).unwrap(), uploaded);

        for (is_end, data, body) in [(false, "x", "\0\0\0\0x"), (true, "", "\0\0\0\x01")] {
            let part = Part {
                data: data.into(),
                is_end,
            };
            assert_eq!(part.encode(), body);
            assert_eq!(Part::decode(body.into()).unwrap(), part);
        }
    }

    #[test]
    fn fields_that_go_leaves_out_are_zero_and_further_ones_are_skipped() {
        let request = Download::decode(br#"{"FilePath":"a","More":[1]}"#).unwrap();
        assert_eq!((request.task_id, request.download_start_pos), (0, 0));
    }

    #[test]
    fn malformed_messages_are_refused() {
        for body in [
            "",
            "\0\0\0",
            "\0\0\0\x03{}",
            "\x7f\x7f\x7f\x7f{}",
            "\0\0\0\x02{,",
        ] {
            assert!(Upload::decode(body.into()).is_err(), "{body:?}");
        }
        for body in ["", "\0\0\0", "\0\0\0\x02", r#"{"code":-1,"message":"no"}"#] {
            assert!(Part::decode(body.into()).is_err(), "{body:?}");
        }
        let negative = br#"{"FilePath":"a","DownloadStartPos":-1}"#;
        assert!(Download::decode(negative).is_err());
        let long = format!(r#"{{"FilePath":"{}"}}"#, "a".repeat(MAX_JSON_BYTES));
        assert!(Download::decode(long.as_bytes()).is_err());

        let data = vec![0; MAX_UPLOAD_BYTES + 1];
        let body = Upload::default().encode(&data).unwrap();
        let error = Upload::decode(body).unwrap_err();
        assert!(error.message().contains("10485760"), "{error}");
    }
}
