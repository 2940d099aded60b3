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
    /// Makes the caller the writer of a file for a call, unless there is another one. A writer that
    /// is silent, or whose client has disconnected, gives way. `acquire` returns the place of a new
    /// writer.
    pub(crate) async fn claim<'a>(
        &'a self,
        path: &'a FilePath,
        task: i64,
        silence: Duration,
        acquire: impl Fn() -> Result<OwnedSemaphorePermit, Status>,
    ) -> Result<Claim<'a>, Status> {
        let ctx = CallContext::current();
        let peer = ctx.as_ref().and_then(CallContext::peer);
        let address = peer.map_or(0, |peer| std::ptr::from_ref(peer) as usize);
        let who = (address, task);
        let claim = Claim {
            writers: self,
            path,
            who,
        };
        let mut place = None;
        loop {
            let Some((other, ctx_of_other, is_silent)) = self.look(path, who, silence) else {
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
                writer.contact.pause();
                writers.insert(path.clone(), writer);
                return Ok(claim);
            };
            if other == who {
                return Ok(claim);
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

    /// Returns the writer of a file, with the context of its first call, and `true` if it is
    /// silent; `None` if the file has no writer. If it is `who`, it is no longer awaited.
    fn look(
        &self,
        path: &FilePath,
        who: Who,
        silence: Duration,
    ) -> Option<(Who, Option<CallContext>, bool)> {
        let writers = self.table();
        let writer = writers.get(path)?;
        let is_silent = writer.contact.is_silent(silence);
        if writer.who == who {
            writer.contact.pause();
        }
        Some((writer.who, writer.ctx.clone(), is_silent))
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

/// A call of the writer of a file. Its time is not silence: the next call is awaited once this is
/// dropped.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    writers: &'a Writers,
    path: &'a FilePath,
    who: Who,
}

impl Claim<'_> {
    /// Ends the writer, unless another one has replaced it.
    pub(crate) fn end(self) {
        let mut writers = self.writers.table();
        if writers
            .get(self.path)
            .is_some_and(|writer| writer.who == self.who)
        {
            writers.remove(self.path);
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let writers = self.writers.table();
        if let Some(writer) = writers
            .get(self.path)
            .filter(|writer| writer.who == self.who)
        {
            writer.contact.touch();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn a_writer_is_not_silent_during_its_call() {
        let (writers, places) = (Writers::default(), Arc::new(Semaphore::new(2)));
        let path = FilePath::parse("file").expect("a path");
        let acquire = || {
            let place = Arc::clone(&places).try_acquire_owned();
            place.map_err(|_| Status::resource_exhausted("no place"))
        };
        let claim = |task| writers.claim(&path, task, Duration::ZERO, acquire);
        let first = claim(1).await.expect("a new file");
        claim(2).await.expect_err("it is being written");
        writers.remove_idle(Duration::ZERO);
        claim(2).await.expect_err("it is being written");
        drop(first);
        let second = claim(2).await.expect("the first one is silent");
        assert_eq!(places.available_permits(), 1);
        second.end();
        assert_eq!(places.available_permits(), 2);
    }
}
