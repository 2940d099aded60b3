//! Requests to the members of a cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::answer::{Answer, blob, read_answer, read_message};
use crate::failure::Failure;
use crate::http::{Body, Connection, Dialer, Member, within};
use crate::keys::{Keys, MAX_TOTAL, Prefix};
use crate::lines::Lines;

/// The maximum length of the body of an answer: base64 and JSON make it longer than its contents.
const MAX_BODY: usize = MAX_TOTAL / 2 * 3;
/// The maximum length of an answer that contains no values.
const MAX_SHORT_BODY: usize = 64 * 1024;
/// The maximum length of a message of a watch.
const MAX_LINE: usize = 16 * 1024 * 1024;
/// The number of keys that are requested at once.
const PAGE: usize = 1000;

/// The time for which a connection may wait for its next request. After a longer time, something
/// between may have forgotten it without a notice.
const MAX_IDLE: Duration = Duration::from_secs(15);

/// The user of etcd.
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) password: String,
}

/// Time limits, and how often something happens.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) request_timeout: Duration,
    pub(crate) lease_ttl: Duration,
    pub(crate) status_interval: Duration,
    pub(crate) stale_after: Duration,
}

/// A client of the cluster.
pub(crate) struct Client {
    members: Vec<Member>,
    dialer: Dialer,
    user: Option<User>,
    pub(crate) settings: Settings,
    /// The member that is tried first.
    preferred: AtomicUsize,
    /// A connection that waits for the next request.
    idle: Mutex<Option<Idle>>,
    /// The latest token. Only one task at a time gets a new one.
    token: tokio::sync::Mutex<Option<Arc<str>>>,
}

struct Idle {
    member: usize,
    since: Instant,
    connection: Connection,
}

/// The state of the keys below a prefix, as another request sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Check {
    pub(crate) revision: i64,
    /// `true` if a key has been changed, added or removed.
    pub(crate) changed: bool,
}

/// A watch that etcd has accepted.
pub(crate) struct WatchStream {
    pub(crate) member: usize,
    _connection: Connection,
    body: Body,
    lines: Lines,
}

impl Client {
    /// Creates a client; `members` is not empty.
    pub(crate) fn new(
        members: Vec<Member>,
        dialer: Dialer,
        user: Option<User>,
        settings: Settings,
    ) -> Self {
        Self {
            preferred: AtomicUsize::new(fastrand::usize(..members.len().max(1))),
            members,
            dialer,
            user,
            settings,
            idle: Mutex::new(None),
            token: tokio::sync::Mutex::new(None),
        }
    }

    /// Returns the names of the members, separated by commas.
    pub(crate) fn names(&self) -> String {
        let names: Vec<&str> = self.members.iter().map(|member| &*member.name).collect();
        names.join(",")
    }

    /// Sends a request to the preferred member, and to the next ones if it does not answer.
    /// `timeout` is for each member, after the connection is made.
    pub(crate) async fn call(
        &self,
        path: &str,
        body: &Value,
        timeout: Duration,
    ) -> Result<Answer, Failure> {
        let first = self.preferred.load(Ordering::Relaxed);
        let (member, answer) = self.call_from(first, path, body, timeout).await?;
        self.preferred.store(member, Ordering::Relaxed);
        Ok(answer)
    }

    async fn call_from(
        &self,
        first: usize,
        path: &str,
        body: &Value,
        timeout: Duration,
    ) -> Result<(usize, Answer), Failure> {
        let body = Bytes::from(body.to_string());
        let mut failures = Vec::new();
        for index in self.order(first) {
            let asked = self.authorized(index, timeout, |token| {
                self.ask(index, path, token, body.clone(), timeout)
            });
            match asked.await {
                Ok(answer) => return Ok((index, answer)),
                Err(failure) => failures.push(self.continues(index, failure)?),
            }
        }
        Err(all(failures))
    }

    /// Returns all keys below a prefix; `old` is what was known before.
    pub(crate) async fn range(&self, prefix: &Arc<Prefix>, old: &Keys) -> Result<Keys, Failure> {
        let mut start = prefix.text().as_bytes().to_vec();
        let mut keys: Option<Keys> = None;
        loop {
            // The further pages show the state of the first one.
            let body = json!({
                "key": blob(&start),
                "range_end": blob(prefix.range_end()),
                "limit": PAGE.to_string(),
                "revision": keys.as_ref().map_or(0, Keys::revision).to_string(),
            });
            let answer = self
                .call("/v3/kv/range", &body, self.settings.request_timeout)
                .await?;
            let revision = answer.header.map_or(0, |header| header.revision.0);
            let mut page = keys
                .take()
                .unwrap_or_else(|| Keys::new(Arc::clone(prefix), revision));
            let last = answer.kvs.last().map(|pair| pair.key.0.clone());
            for pair in answer.kvs {
                page.put(pair, Some(old))?;
            }
            match last {
                Some(last) if answer.more && last >= start => {
                    start = last;
                    start.push(0);
                }
                Some(_) if answer.more => {
                    return Err(Failure::Bad(
                        "the pages of keys are not in order".to_owned(),
                    ));
                }
                _ => return Ok(page),
            }
            keys = Some(page);
        }
    }

    /// Asks another member than `watching` if possible whether `count` keys at `revision` are the
    /// latest state. The answer comes from the leader, so a member without one is not believed.
    pub(crate) async fn check(
        &self,
        watching: usize,
        prefix: &Prefix,
        revision: i64,
        count: usize,
    ) -> Result<Check, Failure> {
        let range = |more: Value| {
            let mut body = json!({
                "key": blob(prefix.text()),
                "range_end": blob(prefix.range_end()),
            });
            if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
                body.extend(more);
            }
            body
        };
        let path = "/v3/kv/range";
        let timeout = self.settings.request_timeout;
        let first = watching.wrapping_add(1);
        let counted = range(json!({"count_only": true}));
        let (_, answer) = self.call_from(first, path, &counted, timeout).await?;
        let latest = answer.header.map_or(0, |header| header.revision.0);
        let same_count = usize::try_from(answer.count.0).is_ok_and(|found| found == count);
        if latest <= revision || !same_count {
            return Ok(Check {
                revision: latest,
                changed: latest > revision,
            });
        }
        // Other keys have changed, or as many have come as have gone.
        let newer = range(json!({
            "min_mod_revision": revision.saturating_add(1).to_string(),
            "keys_only": true,
            "limit": "1",
        }));
        let (_, answer) = self.call_from(first, path, &newer, timeout).await?;
        Ok(Check {
            revision: latest,
            changed: !answer.kvs.is_empty(),
        })
    }

    /// Watches the keys below a prefix from a revision on. Returns once etcd has accepted that.
    pub(crate) async fn watch(&self, prefix: &Prefix, from: i64) -> Result<WatchStream, Failure> {
        let body = json!({"create_request": {
            "key": blob(prefix.text()),
            "range_end": blob(prefix.range_end()),
            "start_revision": from.to_string(),
        }});
        let body = Bytes::from(body.to_string());
        let timeout = self.settings.request_timeout;
        let mut failures = Vec::new();
        for index in self.order(self.preferred.load(Ordering::Relaxed)) {
            let opened = self.authorized(index, timeout, |token| {
                self.open_watch(index, token, body.clone())
            });
            match opened.await {
                Ok(watch) => return Ok(watch),
                Err(failure) => failures.push(self.continues(index, failure)?),
            }
        }
        Err(all(failures))
    }

    async fn open_watch(
        &self,
        index: usize,
        token: Option<Arc<str>>,
        body: Bytes,
    ) -> Result<WatchStream, Failure> {
        let member = self.member(index)?;
        let mut connection = self.dialer.connect(member).await?;
        let opening = async move {
            let body = connection
                .post(member, "/v3/watch", token.as_deref(), body)
                .await?;
            let mut watch = WatchStream {
                member: index,
                _connection: connection,
                body,
                lines: Lines::new(MAX_LINE),
            };
            while !watch.next().await?.created {}
            Ok(watch)
        };
        within(self.settings.request_timeout, opening).await
    }

    /// Tries another member first from now on, because `member` has failed.
    pub(crate) fn avoid(&self, member: usize) {
        let next = member.wrapping_add(1) % self.members.len().max(1);
        self.preferred.store(next, Ordering::Relaxed);
        // What has broken the watch may have broken this one too.
        self.idle().take();
    }

    fn order(&self, first: usize) -> impl Iterator<Item = usize> + use<> {
        let count = self.members.len();
        let first = first % count.max(1);
        (first..count).chain(0..first)
    }

    fn member(&self, index: usize) -> Result<&Member, Failure> {
        let none = || Failure::Unreachable("there is no such member".to_owned());
        self.members.get(index).ok_or_else(none)
    }

    /// Returns the failure with its member, or an error if the next member cannot help.
    fn continues(&self, index: usize, failure: Failure) -> Result<(usize, Failure), Failure> {
        match failure.try_next() {
            true => Ok((index, self.at(index, failure))),
            false => Err(failure.explain(self.user.as_ref().map(|user| &*user.name))),
        }
    }

    /// Adds the name of the member to a failure of it.
    pub(crate) fn at(&self, index: usize, failure: Failure) -> Failure {
        match (self.members.get(index), failure) {
            // They have their names already.
            (_, failure @ Failure::All(_)) | (None, failure) => failure,
            (Some(member), failure) => Failure::At(member.name.clone(), Box::new(failure)),
        }
    }

    /// Runs a request with the token, and once more with a new one if it is not accepted.
    async fn authorized<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        index: usize,
        timeout: Duration,
        request: impl Fn(Option<Arc<str>>) -> F,
    ) -> Result<T, Failure> {
        let Some(user) = &self.user else {
            return request(None).await;
        };
        let known = self.token.lock().await.clone();
        let token = match known {
            Some(token) => Some(token),
            None => self.renew(index, user, None, timeout).await?,
        };
        match request(token.clone()).await {
            Err(failure) if failure.needs_token() => {
                let token = self.renew(index, user, token, timeout).await?;
                request(token).await
            }
            result => result,
        }
    }

    /// Gets a new token, unless another task has replaced `old` meanwhile. `None` if etcd needs
    /// none.
    async fn renew(
        &self,
        index: usize,
        user: &User,
        old: Option<Arc<str>>,
        timeout: Duration,
    ) -> Result<Option<Arc<str>>, Failure> {
        let mut token = self.token.lock().await;
        if *token != old && token.is_some() {
            return Ok(token.clone());
        }
        *token = None;
        let body = json!({"name": user.name, "password": user.password}).to_string();
        match self
            .ask(index, "/v3/auth/authenticate", None, body.into(), timeout)
            .await
        {
            Ok(answer) if !answer.token.is_empty() => {
                *token = Some(answer.token.into());
                Ok(token.clone())
            }
            Ok(_) => Err(Failure::Bad("etcd sent no token".to_owned())),
            Err(failure) if failure.auth_is_off() => Ok(None),
            Err(Failure::Rejected { code, message }) => {
                let failure = Failure::Rejected { code, message };
                match failure.try_next() {
                    true => Err(failure),
                    false => Err(Failure::WrongUser {
                        user: user.name.clone(),
                        message: failure.to_string(),
                    }),
                }
            }
            Err(failure) => Err(failure),
        }
    }

    /// Sends a request to one member and reads its answer.
    async fn ask(
        &self,
        index: usize,
        path: &str,
        token: Option<Arc<str>>,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Answer, Failure> {
        let member = self.member(index)?;
        let limit = match path {
            "/v3/kv/range" => MAX_BODY,
            _ => MAX_SHORT_BODY,
        };
        let exchange = async |mut connection: Connection| {
            let sent = connection
                .post(member, path, token.as_deref(), body.clone())
                .await?;
            Ok((connection, sent.read(limit).await?))
        };
        // A connection that waited may have been closed meanwhile: then a new one is made.
        let reused = match self.take_idle(index) {
            Some(connection) => match within(timeout, exchange(connection)).await {
                Err(Failure::Lost(_)) => None,
                result => Some(result?),
            },
            None => None,
        };
        let (connection, body) = match reused {
            Some(done) => done,
            None => {
                let connection = self.dialer.connect(member).await?;
                within(timeout, exchange(connection)).await?
            }
        };
        *self.idle() = Some(Idle {
            member: index,
            since: Instant::now(),
            connection,
        });
        match path {
            "/v3/lease/keepalive" => read_message(&body),
            _ => read_answer(&body),
        }
    }

    fn take_idle(&self, index: usize) -> Option<Connection> {
        let idle = self.idle().take()?;
        let usable =
            idle.member == index && idle.since.elapsed() <= MAX_IDLE && idle.connection.is_ready();
        usable.then_some(idle.connection)
    }

    fn idle(&self) -> MutexGuard<'_, Option<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WatchStream {
    /// Returns the next message.
    ///
    /// # Cancel safety
    ///
    /// No message is lost if the future is dropped.
    pub(crate) async fn next(&mut self) -> Result<Answer, Failure> {
        loop {
            if let Some(answer) = self.buffered()? {
                return Ok(answer);
            }
            match self.body.chunk().await? {
                Some(chunk) => self.lines.push(&chunk),
                None => return Err(Failure::Lost("etcd has ended the watch".to_owned())),
            }
        }
    }

    /// Returns the next message if it has been received already.
    pub(crate) fn buffered(&mut self) -> Result<Option<Answer>, Failure> {
        let too_long = |_| Failure::Bad(format!("a message is longer than {MAX_LINE} bytes"));
        let Some(line) = self.lines.next().map_err(too_long)? else {
            return Ok(None);
        };
        let answer = read_message(&line)?;
        if !answer.canceled {
            return Ok(Some(answer));
        }
        let compacted = answer.compact_revision.0;
        Err(match (compacted, &*answer.cancel_reason) {
            (0, reason) => cancelled(reason),
            _ => Failure::Bad(format!("revision {compacted} and older ones are compacted")),
        })
    }
}

/// Returns the failure for a watch that was cancelled, whose reason is a text of gRPC: `rpc error:
/// code = PermissionDenied desc = etcdserver: permission denied`.
fn cancelled(reason: &str) -> Failure {
    let code = match reason {
        _ if reason.contains("PermissionDenied") => 7,
        _ if reason.contains("Unauthenticated") => 16,
        _ if reason.contains("Unavailable") => 14,
        _ => 2,
    };
    let reason = match reason.split_once("desc = ") {
        Some((_, reason)) => reason,
        None if reason.is_empty() => "no reason",
        None => reason,
    };
    Failure::Rejected {
        code,
        message: format!(
            "etcd has cancelled the watch: {}",
            crate::failure::printable(reason.as_bytes())
        ),
    }
}

/// Returns the failure of all members, in their order, so that the text is the same each time.
fn all(mut failures: Vec<(usize, Failure)>) -> Failure {
    failures.sort_unstable_by_key(|(index, _)| *index);
    Failure::All(failures.into_iter().map(|(_, failure)| failure).collect())
}
