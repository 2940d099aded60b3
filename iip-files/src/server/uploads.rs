//! The open uploads of a folder: at most one for each file.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use iip_rpc::{CallContext, Status};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, watch};

use super::contact::{Contact, has_gone, is_gone};
use crate::hash::Hash;
use crate::part::{Part, busy};
use crate::path::FilePath;
use crate::sync::locked;

/// Number of committed uploads whose hashes are kept for clients that did not get the reply.
const REMEMBERED: usize = 64;

/// The open uploads, and the last ones that were committed.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    table: Mutex<Table>,
    /// Generates upload numbers that other clients cannot guess.
    numbers: RandomState,
}

#[derive(Debug, Default)]
struct Table {
    open: BTreeMap<FilePath, Arc<Upload>>,
    committed: VecDeque<(u64, Hash)>,
    opened: u64,
}

/// The file of an upload; `None` until it is open, and while it is being received.
pub(super) type Slot = OwnedMutexGuard<Option<Part>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The client has disconnected. Bytes that have arrived may still be synced.
    Abandoned,
    /// Another upload replaces this one.
    Replaced,
    /// The upload is no longer in the table.
    Ended,
}

/// An open upload.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) number: u64,
    path: FilePath,
    /// The context of the call that opened the upload.
    ctx: Option<CallContext>,
    part: Arc<tokio::sync::Mutex<Option<Part>>>,
    pub(super) contact: Contact,
    state: watch::Sender<State>,
    /// Its place among the open transfers; `None` once it has ended, or another upload has taken
    /// the place over.
    place: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Uploads {
    fn table(&self) -> MutexGuard<'_, Table> {
        locked(&self.table)
    }

    /// Begins an upload, and returns it with the slot for its file. Replaces another upload of the
    /// same file, and takes over its place, if it is `previous` or silent, or its client has
    /// disconnected; otherwise fails. Without one to replace, `acquire` returns the place.
    pub(super) async fn begin(
        &self,
        path: &FilePath,
        previous: Option<u64>,
        silence: Duration,
        acquire: impl Fn() -> Result<OwnedSemaphorePermit, Status>,
    ) -> Result<(Arc<Upload>, Slot), Status> {
        let mut place = None;
        loop {
            let open = self.table().open.get(path).cloned();
            let Some(old) = open else {
                let free = place.take().map_or_else(&acquire, Ok)?;
                let upload = Arc::new(Upload::new(self.next_number(), path, free));
                let slot = Arc::clone(&upload.part).lock_owned().await;
                if self.insert(&upload) {
                    return Ok((upload, slot));
                }
                place = upload.take_place();
                continue;
            };
            let may_replace = previous == Some(old.number) || old.may_be_replaced(silence);
            if !may_replace && !has_gone(old.ctx.as_ref()).await {
                return Err(busy(path.as_str(), "another client"));
            }
            // Before the old upload ends, which would free the place for others.
            place = old.take_place().or(place);
            old.state.send_replace(State::Replaced);
            // Waits while the old upload is receiving: it holds the file.
            old.part.lock().await.take();
            self.remove(&old);
        }
    }

    fn next_number(&self) -> u64 {
        let mut table = self.table();
        table.opened += 1;
        self.numbers.hash_one(table.opened)
    }

    /// Adds an upload, unless another one of the same file is open.
    fn insert(&self, upload: &Arc<Upload>) -> bool {
        let mut table = self.table();
        let is_free = !table.open.contains_key(&upload.path);
        if is_free {
            let path = upload.path.clone();
            table.open.insert(path, Arc::clone(upload));
        }
        is_free
    }

    /// Finds an upload by its number, and records contact with its client.
    pub(super) fn find(&self, number: u64) -> Result<Arc<Upload>, Status> {
        let table = self.table();
        let found = table.open.values().find(|upload| upload.number == number);
        let Some(upload) = found else {
            let text = format!("there is no open upload {number}; it has to be opened again");
            return Err(Status::not_found(text));
        };
        upload.contact.touch();
        Ok(Arc::clone(upload))
    }

    /// Returns `true` if the file is being written.
    pub(super) fn is_open(&self, path: &FilePath) -> bool {
        self.table().open.contains_key(path)
    }

    /// Returns the hash of a recently committed upload.
    pub(super) fn committed(&self, number: u64) -> Option<Hash> {
        let table = self.table();
        let found = table
            .committed
            .iter()
            .find(|(committed, _)| *committed == number);
        found.map(|&(_, hash)| hash)
    }

    /// Ends an upload whose file was committed, and keeps its hash.
    pub(super) fn commit(&self, upload: &Upload, hash: Hash) {
        self.remove(upload);
        let mut table = self.table();
        table.committed.push_back((upload.number, hash));
        if table.committed.len() > REMEMBERED {
            table.committed.pop_front();
        }
    }

    /// Ends an upload, removes it from the table, and frees its place.
    pub(super) fn remove(&self, upload: &Upload) {
        let mut table = self.table();
        if table
            .open
            .get(&upload.path)
            .is_some_and(|open| open.number == upload.number)
        {
            table.open.remove(&upload.path);
        }
        upload.state.send_replace(State::Ended);
        upload.take_place();
    }

    /// Ends uploads that are not receiving and whose clients are silent or have disconnected.
    pub(super) fn remove_idle(&self, silence: Duration) {
        let is_idle = |upload: &&Arc<Upload>| {
            let has_ended = upload.may_be_replaced(silence) || is_gone(upload.ctx.as_ref());
            has_ended && upload.part.try_lock().is_ok()
        };
        let idle: Vec<_> = self
            .table()
            .open
            .values()
            .filter(is_idle)
            .cloned()
            .collect();
        idle.iter().for_each(|upload| self.remove(upload));
    }
}

impl Upload {
    fn new(number: u64, path: &FilePath, place: OwnedSemaphorePermit) -> Self {
        Self {
            number,
            path: path.clone(),
            ctx: CallContext::current(),
            part: Arc::default(),
            contact: Contact::new(),
            state: watch::Sender::new(State::Open),
            place: Mutex::new(Some(place)),
        }
    }

    fn take_place(&self) -> Option<OwnedSemaphorePermit> {
        locked(&self.place).take()
    }

    fn may_be_replaced(&self, silence: Duration) -> bool {
        self.contact.is_silent(silence) || *self.state.borrow() == State::Abandoned
    }

    /// Takes the file of the upload, and returns it with its slot.
    pub(super) fn take_part(&self) -> Result<(Part, Slot), Status> {
        let slot = Arc::clone(&self.part).try_lock_owned();
        slot.ok()
            .and_then(|mut slot| Some((slot.take()?, slot)))
            .ok_or_else(|| busy(self.path.as_str(), "another call of the same upload"))
    }

    /// Marks the upload as abandoned by its client.
    pub(super) fn abandon(&self) {
        self.state.send_if_modified(|state| {
            let is_open = *state == State::Open;
            if is_open {
                *state = State::Abandoned;
            }
            is_open
        });
    }

    async fn wait_for(&self, condition: impl FnMut(&State) -> bool) {
        let mut state = self.state.subscribe();
        // Cannot fail: the sender is a field of `self`.
        let _ = state.wait_for(condition).await;
    }

    /// Completes once the upload has ended, or its client has disconnected.
    pub(super) async fn is_over(&self) {
        self.wait_for(|state| *state != State::Open).await;
    }

    /// Completes once another upload replaces this one, with the status for its client.
    pub(super) async fn replaced(&self) -> Status {
        self.wait_for(|state| *state == State::Replaced).await;
        busy(
            self.path.as_str(),
            "a later upload, which replaces this one",
        )
    }
}
