//! The addresses of a name, by the resolver of the operating system.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::look_ups::{Answer, MAX_INTERVAL, MIN_INTERVAL, Refresh, watch_look_ups};
use super::{BoxFuture, Discover, DiscoverError, SnapshotStream};
use crate::balance::{BackendInfo, Target};
use crate::transport;

/// Default pause between two look-ups.
const INTERVAL: Duration = Duration::from_secs(30);

/// All addresses of a name, by the resolver of the operating system. Each address is a backend.
///
/// The name is looked up every 30 s ±10 %, and within a second after
/// [`refresh`](Discover::refresh), but at most once per second. A look-up that fails, or that takes
/// longer than 5 s, is an error of the stream; the previous addresses stay. It is repeated after 1
/// to 1.5 s, and then after ever longer pauses of at most 30 s.
///
/// The resolver of the operating system does not distinguish a name that does not exist from a
/// failure, so this source never sends an empty snapshot. It does not report the TTL of the records
/// either. `DnsSrv` (feature `dns-srv`) does both.
///
/// ```no_run
/// use std::time::Duration;
/// use iip_core::discover::Dns;
///
/// let source = Dns::new("orders.shop.svc.cluster.local.", 7000).interval(Duration::from_secs(10));
/// ```
#[derive(Clone)]
pub struct Dns {
    host: String,
    port: u16,
    interval: Duration,
    resolve: Arc<Resolve>,
    refresh: Refresh,
}

/// Looks up a name and a port.
type Resolve = dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync;

impl Dns {
    /// Creates a source of the addresses of `host`, each with `port`. A final dot of the name keeps
    /// the resolver from trying the search domains of the machine first.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self::with_resolver(host.into(), port, |host, port| async move {
            transport::look_up(&host, port).await
        })
    }

    fn with_resolver<F, Fut>(host: String, port: u16, resolve: F) -> Self
    where
        F: Fn(String, u16) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        Self {
            host,
            port,
            interval: INTERVAL,
            resolve: Arc::new(move |host, port| Box::pin(resolve(host, port))),
            refresh: Refresh::default(),
        }
    }

    /// Sets the pause between two look-ups, before its jitter of ±10 %: from 1 s to one day,
    /// default 30 s. A value outside that range counts as its nearest end.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval.clamp(MIN_INTERVAL, MAX_INTERVAL);
        self
    }
}

/// Returns a backend for each address of `host`, sorted. An IPv4 address may come in the form of an
/// IPv6 address too.
fn backends(host: &str, mut found: Vec<SocketAddr>) -> Vec<BackendInfo> {
    for addr in &mut found {
        if addr.ip().to_canonical().is_ipv4() {
            *addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
        }
    }
    found.sort_unstable();
    found.dedup();
    // The certificates of all servers have the name that was asked for.
    let host: Arc<str> = host.trim_end_matches('.').into();
    let infos = found.into_iter();
    infos
        .map(|addr| BackendInfo::new(addr.into()).host(Arc::clone(&host)))
        .collect()
}

impl Discover for Dns {
    fn watch(&self) -> SnapshotStream {
        let (host, port, pause) = (self.host.clone(), self.port, self.interval);
        let resolve = Arc::clone(&self.resolve);
        watch_look_ups(&self.refresh, move || {
            let found = resolve(host.clone(), port);
            let (host, none) = (host.clone(), format!("`{host}` has no address"));
            async move {
                let backends = backends(&host, found.await.map_err(DiscoverError::new)?);
                match backends.is_empty() {
                    true => Err(DiscoverError::new(none)),
                    false => Ok(Answer { backends, pause }),
                }
            }
        })
    }

    fn refresh(&self) {
        self.refresh.ask();
    }

    fn describe(&self) -> String {
        let target = Target::Dns {
            host: self.host.clone(),
            port: self.port,
        };
        target.to_string()
    }
}

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dns")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::Instant;

    use super::super::stream::tests::{error, ids, next};
    use super::*;

    type Answers = Arc<Mutex<Result<Vec<&'static str>, &'static str>>>;

    /// A source whose answers the test sets, and the times of its look-ups.
    fn source(answers: &Answers) -> (Dns, Arc<Mutex<Vec<Instant>>>) {
        let times = Arc::new(Mutex::new(Vec::new()));
        let (seen, answers) = (Arc::clone(&times), Arc::clone(answers));
        let source = Dns::with_resolver("orders.".into(), 7000, move |host, port| {
            assert_eq!((&*host, port), ("orders.", 7000));
            seen.lock().unwrap().push(Instant::now());
            let answer = answers.lock().unwrap().clone();
            async move {
                let found = answer.map_err(io::Error::other)?;
                let found = found.iter().map(|text| text.parse().unwrap());
                Ok(found.collect())
            }
        });
        (source, times)
    }

    fn answers(list: &[&'static str]) -> Answers {
        Arc::new(Mutex::new(Ok(list.to_vec())))
    }

    fn set(answers: &Answers, answer: Result<&[&'static str], &'static str>) {
        *answers.lock().unwrap() = answer.map(<[_]>::to_vec);
    }

    /// The pauses between look-ups, in seconds.
    fn pauses(times: &Mutex<Vec<Instant>>) -> Vec<f64> {
        let times = times.lock().unwrap();
        let pauses = times
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).as_secs_f64());
        pauses.collect()
    }

    /// Polls the stream for a time in which nothing must arrive.
    async fn nothing_for(seconds: u64, stream: &mut SnapshotStream) {
        let item = std::future::poll_fn(|cx| stream.as_mut().poll_next(cx));
        let item = tokio::time::timeout(Duration::from_secs(seconds), item).await;
        assert!(item.is_err(), "{item:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_certificate_must_have_the_name_that_was_asked_for() {
        let (source, _) = source(&answers(&["10.0.0.1:7000"]));
        let snapshot = next(&mut source.watch()).await.unwrap();
        assert_eq!(snapshot.backends[0].host.as_deref(), Some("orders"));
    }

    #[tokio::test(start_paused = true)]
    async fn each_address_is_a_backend_once_and_in_order() {
        let answers = answers(&[
            "[::1]:7000",
            "10.0.0.2:7000",
            "[::ffff:10.0.0.1]:7000",
            "10.0.0.2:7000",
            "10.0.0.1:7000",
            "[fe80::1%3]:7000",
        ]);
        let (source, _) = source(&answers);
        let found = ids(&mut source.watch()).await;
        let expected = [
            "10.0.0.1:7000",
            "10.0.0.2:7000",
            "[::1]:7000",
            "[fe80::1%3]:7000",
        ];
        assert_eq!(found, expected);
        assert_eq!(source.describe(), "dns://orders.:7000");
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_looked_up_at_intervals_and_only_changes_are_sent() {
        let answers = answers(&["10.0.0.1:7000", "10.0.0.2:7000"]);
        let (source, times) = source(&answers);
        let mut stream = source.watch();
        next(&mut stream).await.unwrap();
        set(&answers, Ok(&["10.0.0.2:7000", "10.0.0.1:7000"]));
        nothing_for(3_000, &mut stream).await;
        set(&answers, Ok(&["10.0.0.3:7000"]));
        assert_eq!(ids(&mut stream).await, ["10.0.0.3:7000"]);
        let pauses = pauses(&times);
        assert!((90..=112).contains(&pauses.len()), "{}", pauses.len());
        assert!(
            pauses.iter().all(|pause| (27.0..=33.1).contains(pause)),
            "{pauses:?}"
        );
        assert!(
            pauses
                .windows(2)
                .any(|pair| (pair[0] - pair[1]).abs() > 0.5),
            "{pauses:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_looks_up_at_once_but_not_twice_a_second() {
        let answers = answers(&["10.0.0.1:7000"]);
        let (source, times) = source(&answers);
        let mut stream = source.watch();
        next(&mut stream).await.unwrap();
        nothing_for(5, &mut stream).await;
        set(&answers, Ok(&["10.0.0.2:7000"]));
        source.refresh();
        assert_eq!(ids(&mut stream).await, ["10.0.0.2:7000"]);
        let first = pauses(&times);
        assert!((4.9..5.1).contains(&first[0]), "{first:?}");
        // One look-up serves all that is asked within its second.
        for _ in 0..10 {
            source.clone().refresh();
            nothing_for(0, &mut stream).await;
        }
        nothing_for(10, &mut stream).await;
        let pauses = pauses(&times);
        assert_eq!(pauses.len(), 2, "{pauses:?}");
        assert!((1.0..1.1).contains(&pauses[1]), "{pauses:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_sent_once_and_repeated_after_longer_pauses() {
        let answers = answers(&["10.0.0.1:7000"]);
        let (source, times) = source(&answers);
        let mut stream = source.watch();
        next(&mut stream).await.unwrap();
        set(&answers, Err("no server"));
        assert_eq!(error(&mut stream).await, "no server");
        times.lock().unwrap().clear();
        // Clients whose connections fail do not shorten the pauses.
        for _ in 0..100 {
            source.refresh();
            nothing_for(2, &mut stream).await;
        }
        let after = pauses(&times);
        let most = [3.1, 6.1, 12.1, 24.1];
        let expected = [2.0, 4.0, 8.0, 16.0];
        for (pause, (min, max)) in after.iter().zip(expected.into_iter().zip(most)) {
            assert!((min..max).contains(pause), "{after:?}");
        }
        assert!(
            after[4..].iter().all(|pause| (20.0..=30.1).contains(pause)),
            "{after:?}"
        );
        set(&answers, Err("another reason"));
        assert_eq!(error(&mut stream).await, "another reason");
        set(&answers, Ok(&["10.0.0.1:7000"]));
        assert_eq!(ids(&mut stream).await, ["10.0.0.1:7000"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_without_an_address_is_a_failure() {
        let answers = answers(&[]);
        let (source, _) = source(&answers);
        let mut stream = source.watch();
        assert_eq!(error(&mut stream).await, "`orders.` has no address");
        set(&answers, Ok(&["10.0.0.1:7000"]));
        assert_eq!(ids(&mut stream).await, ["10.0.0.1:7000"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_up_that_hangs_is_a_failure_and_no_other_one_starts_beside_it() {
        let (started, ended) = (
            Arc::new(AtomicU32::new(0)),
            Arc::new(tokio::sync::Notify::new()),
        );
        let (count, end) = (Arc::clone(&started), Arc::clone(&ended));
        let source = Dns::with_resolver("orders.".into(), 7000, move |_, _| {
            count.fetch_add(1, Ordering::SeqCst);
            let end = Arc::clone(&end);
            async move {
                end.notified().await;
                Ok(vec![([10, 0, 0, 1], 7000).into()])
            }
        });
        let begin = Instant::now();
        let mut stream = source.watch();
        assert!(error(&mut stream).await.contains("longer than 5s"));
        assert!((5.0..5.1).contains(&begin.elapsed().as_secs_f64()));
        nothing_for(600, &mut stream).await;
        assert_eq!(started.load(Ordering::SeqCst), 1);
        // What comes late is used.
        ended.notify_one();
        assert_eq!(ids(&mut stream).await, ["10.0.0.1:7000"]);
        assert_eq!(started.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_failure_is_not_another_error() {
        let source = Dns::with_resolver("orders.".into(), 7000, |_, _| async {
            tokio::time::sleep(Duration::from_millis(5_500)).await;
            Err(io::Error::other("no server"))
        });
        let mut stream = source.watch();
        assert!(error(&mut stream).await.contains("longer than 5s"));
        nothing_for(600, &mut stream).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_outlives_its_source_and_intervals_have_limits() {
        let answers = answers(&["10.0.0.1:7000"]);
        let (source, times) = source(&answers);
        let mut stream = source.interval(Duration::ZERO).watch();
        next(&mut stream).await.unwrap();
        nothing_for(100, &mut stream).await;
        let pauses = pauses(&times);
        assert!((90..=112).contains(&pauses.len()), "{}", pauses.len());
        let long = Dns::new("orders.", 7000).interval(Duration::MAX);
        assert_eq!(long.interval, MAX_INTERVAL);
    }

    #[tokio::test]
    async fn the_resolver_of_the_system_is_asked() {
        let found = ids(&mut Dns::new("127.0.0.1", 7000).watch()).await;
        assert_eq!(found, ["127.0.0.1:7000"]);
        let found = ids(&mut Dns::new("localhost", 7000).watch()).await;
        assert!(found.iter().any(|id| id.ends_with(":7000")), "{found:?}");
    }
}
