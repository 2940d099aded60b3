//! The data of methods bound to raw bytes.

use bytes::Bytes;
use iip_core::Body;

use crate::payload::Payload;

/// Data of a method bound to raw bytes.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the data of a raw method",
    note = "use `bytes::Bytes`, `Vec<u8>`, `String`, `&[u8]` or `&str`"
)]
pub trait RawBody {
    /// Converts to the body of a message; owned data is not copied.
    fn into_body(self) -> Body;
}

macro_rules! raw_body {
    (owned $($owned:ty),*; borrowed $($borrowed:ty),*) => {
        $(impl RawBody for $owned {
            fn into_body(self) -> Body {
                Bytes::from(self).into()
            }
        })*
        $(impl RawBody for $borrowed {
            fn into_body(self) -> Body {
                Bytes::copy_from_slice(self.as_ref()).into()
            }
        })*
    };
}

raw_body!(owned Bytes, Vec<u8>, String, Payload; borrowed &[u8], &str, &Vec<u8>, &String);

impl RawBody for &Bytes {
    fn into_body(self) -> Body {
        self.clone().into()
    }
}
