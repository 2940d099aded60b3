//! Recordings of calls: the files that `iq record` writes and `iq replay` reads.
//! `docs/recordings.md` describes their format.

mod described;
mod file;
mod payload;
mod record;
mod services;

pub(crate) use self::described::{Described, Part};
pub(crate) use self::file::{Reader, begin, encode};
pub(crate) use self::payload::Blanked;
pub(crate) use self::record::{
    BLANK, Begin, Body, Closed, End, Lost, Message, Moment, Opened, Outcome, Record, Reply, Request,
};
pub(crate) use self::services::Services;
