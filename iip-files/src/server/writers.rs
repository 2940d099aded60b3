//! The writers of files that arrive in separate calls: at most one for each file.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use iip_rpc::{CallContext, Status};
use tokio::sync::OwnedSemaphorePermit;

use super::contact::{Contact, has_gone, is_gone};
use crate::part::busy;
use crate::path::FilePath;
use crate::sync::locked;

/// The writers, by the path of the file.
#[derive(Debug, Default)]
pub(crate) struct Writers(Mutex<HashMap<FilePath, Writer>>);

#[derive(Debug)]
struct Writer {
    who: Who,
    /// The context of the first call of the writer.
    ctx: Option<CallContext>,
    contact: Contact,
    _place: OwnedSemaphorePermit,
}

/// The connection, identified by the memory address of its peer, and the number that the client
/// chose for the transfer.
type Who = (usize, i64);

impl Writers {
    /// Makes the caller the writer of a file, unless there is another one. A writer that is silent,
    /// or whose client has disconnected, gives way. `acquire` returns the place of a new writer.
    pub(crate) async fn claim(
        &self,
        path: &FilePath,
        task: i64,
        silence: Duration,
        acquire: impl Fn() -> Result<OwnedSemaphorePermit, Status>,
    ) -> Result<(), Status> {
        let ctx = CallContext::current();
        let peer = ctx.as_ref().and_then(CallContext::peer);
        let address = peer.map_or(0, |peer| std::ptr::from_ref(peer) as usize);
        let who = (address, task);
        let mut place = None;
        loop {
            let Some((other, ctx_of_other, is_silent)) = self.touch(path, who, silence) else {
                let free = place.take().map_or_else(&acquire, Ok)?;
                let mut writers = self.table();
                if writers.contains_key(path) {
                    place = Some(free);
                    continue;
                }
                let writer = Writer {
                    who,
                    ctx,
                    contact: Contact::new(),
                    _place: free,
                };
                writers.insert(path.clone(), writer);
                return Ok(());
            };
            if other == who {
                return Ok(());
            }
            if !is_silent && !has_gone(ctx_of_other.as_ref()).await {
                return Err(busy(path.as_str(), "another client"));
            }
            let mut writers = self.table();
            if writers.get(path).is_some_and(|writer| writer.who == other) {
                writers.remove(path);
            }
        }
    }

    /// Records contact with the writer of a file if it is `who`. Returns it, with the context of
    /// its first call, and `true` if it was silent; `None` if the file has no writer.
    fn touch(
        &self,
        path: &FilePath,
        who: Who,
        silence: Duration,
    ) -> Option<(Who, Option<CallContext>, bool)> {
        let writers = self.table();
        let writer = writers.get(path)?;
        let is_silent = writer.contact.is_silent(silence);
        if writer.who == who {
            writer.contact.touch();
        }
        Some((writer.who, writer.ctx.clone(), is_silent))
    }

    /// Ends the writer of a file.
    pub(crate) fn remove(&self, path: &FilePath) {
        self.table().remove(path);
    }

    /// Ends writers that are silent or whose clients have disconnected.
    pub(super) fn remove_idle(&self, silence: Duration) {
        let is_idle =
            |writer: &Writer| writer.contact.is_silent(silence) || is_gone(writer.ctx.as_ref());
        self.table().retain(|_, writer| !is_idle(writer));
    }

    fn table(&self) -> MutexGuard<'_, HashMap<FilePath, Writer>> {
        locked(&self.0)
    }
}
