//! The live page of a process: its state, read over HTTP.

mod model;
mod page;
mod url;

pub(crate) use self::model::{
    Backend, Call, Connection, Connections, Figures, Method, Phase, Snapshot, Source, Text, Total,
    Verdict,
};
pub(crate) use self::page::{Page, PageSettings};
pub(crate) use self::url::{Url, is_url, without_user};
