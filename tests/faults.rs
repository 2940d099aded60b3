//! Failures of a machine, a process or the link between them: the code, whether the call may have
//! run, where its time went, and how soon the call fails. Over real sockets, with separate
//! processes where one has to be killed.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use iip_rpc::{
    CallContext, CallOptions, Client, ClientBuilder, Code, Execution, Limits, Phases, Server,
    Status, Stream, Streaming, service,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::common::alone::name_in_binary;
use crate::common::authority::Authority;
use crate::common::calls::{expect, port};
use crate::common::peer::{accepted, listener};
use crate::common::{SERVED, eventually, spawn, within};

/// The keepalive settings in these tests: a server that is silent for twice the interval is dead.
const SHORT: Duration = Duration::from_secs(1);

#[service]
trait Work {
    async fn echo(&self, number: u64) -> Result<u64, Status>;

    /// Takes a moment, so that calls are under way whenever a failure occurs.
    #[rpc(idempotent)]
    async fn look(&self, number: u64) -> Result<u64, Status>;

    async fn hang(&self) -> Result<(), Status>;

    /// Sends one number, and then nothing.
    async fn numbers(&self) -> Result<impl Stream<Item = Result<u64, Status>>, Status>;

    /// Returns the port of the caller's connection, which identifies it.
    async fn port(&self, ctx: &CallContext) -> Result<u16, Status>;
}

/// Reports when a call begins to hang and when its handler is dropped.
struct Worker(UnboundedSender<&'static str>);

struct Hanging<'a>(&'a Worker);

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        // The receiver is gone when the test has ended.
        let _ = self.0.0.send("dropped");
    }
}

impl Work for Worker {
    async fn echo(&self, number: u64) -> Result<u64, Status> {
        Ok(number)
    }

    async fn look(&self, number: u64) -> Result<u64, Status> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(number)
    }

    async fn hang(&self) -> Result<(), Status> {
        let _hanging = Hanging(self);
        let _ = self.0.send("hanging");
        std::future::pending().await
    }

    async fn numbers(&self) -> Result<impl Stream<Item = Result<u64, Status>>, Status> {
        let (sender, numbers) = Streaming::channel(1);
        spawn(async move {
            let _ = sender.send(7).await;
            std::future::pending::<()>().await;
        });
        Ok(numbers)
    }

    async fn port(&self, ctx: &CallContext) -> Result<u16, Status> {
        port(ctx)
    }
}

async fn serve() -> (Server, UnboundedReceiver<&'static str>) {
    let (tell, events) = unbounded_channel();
    let server = Server::builder().service(WorkServer::new(Worker(tell)));
    let server = server.bind("127.0.0.1:0").await.expect("a free port");
    (server, events)
}

/// A client with a short keepalive interval.
fn watchful() -> ClientBuilder {
    let limits = Limits::default()
        .keepalive_interval(SHORT)
        .keepalive_timeout(SHORT);
    Client::builder().limits(limits)
}

async fn client_of(target: &str, client: ClientBuilder) -> WorkClient {
    WorkClient::new(client.connect(target).await.expect("it listens"))
}

fn hanging(work: &WorkClient) -> JoinHandle<Result<(), Status>> {
    let work = work.clone();
    spawn(async move { work.hang().await })
}

async fn failure<T: std::fmt::Debug>(call: JoinHandle<Result<T, Status>>) -> Status {
    let outcome = within("the outcome", call).await.expect("no panic");
    outcome.expect_err("the call fails")
}

#[track_caller]
fn phases(status: &Status) -> Phases {
    *status.phases().expect("the call was measured")
}

/// Checks that the request was sent and that the time was spent waiting for the reply.
#[track_caller]
fn waited_for_the_reply(status: &Status, at_least: Duration) {
    let phases = phases(status);
    assert!(phases.connect.is_zero(), "{phases}");
    assert!(phases.reply >= at_least, "{phases}");
    assert!(phases.reply * 2 > phases.total(), "{phases}");
}

// ---- processes ----

const CHILD: &str = "IIP_TEST_SERVES_AT";

/// A server in a separate process: this binary, running only the ignored test below.
struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    target: String,
}

impl Process {
    async fn start(target: &str) -> Self {
        let binary = std::env::current_exe().expect("a test binary knows itself");
        Self::start_by(Command::new(binary), target).await
    }

    /// Starts `command`, which ends with the path of this binary.
    async fn start_by(mut command: Command, target: &str) -> Self {
        let mut child = command
            .arg(name_in_binary("a_process_that_serves"))
            .args(["--exact", "--ignored"])
            .args(["--nocapture", "--test-threads=1"])
            .env(CHILD, target)
            // It ends when this end of the pipe is closed, also by the death of this process.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the test binary starts again");
        let stdout = child.stdout.take().expect("it was asked for");
        let lines = BufReader::new(stdout).lines();
        let target = String::new();
        let mut process = Self {
            child,
            lines,
            target,
        };
        process.target = process.says("serves at ").await;
        process
    }

    /// Waits for a line with this prefix, and returns its rest.
    async fn says(&mut self, begins: &str) -> String {
        let line = async {
            loop {
                let line = self.lines.next_line().await.expect("a pipe can be read");
                let line = line.expect("the process lives");
                if let Some(rest) = line.strip_prefix(begins) {
                    return rest.to_owned();
                }
            }
        };
        within(begins, line).await
    }

    /// SIGKILL gives it no chance to send a going-away notice.
    async fn kill(&mut self) {
        self.child.kill().await.expect("it can be killed");
    }
}

#[test]
#[ignore = "the server process of other tests"]
fn a_process_that_serves() {
    let Ok(target) = std::env::var(CHILD) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let (tell, mut events) = unbounded_channel();
        let server = Server::builder().service(WorkServer::new(Worker(tell)));
        let server = server.bind(target).await.expect("the address is free");
        println!("\nserves at {}", server.target());
        spawn(async move {
            while let Some(event) = events.recv().await {
                println!("{event}");
            }
        });
        let mut nothing = Vec::new();
        let _ = tokio::io::stdin().read_to_end(&mut nothing).await;
    });
    runtime.shutdown_background();
}

#[tokio::test]
async fn a_server_that_is_killed_fails_its_calls_at_once() {
    let mut process = Process::start("127.0.0.1:0").await;
    let work = client_of(&process.target, Client::builder()).await;
    let call = hanging(&work);
    process.says("hanging").await;
    let mut numbers = work.numbers().await.expect("the stream begins");
    assert_eq!(within("a number", numbers.next()).await, Some(Ok(7)));

    let begun = Instant::now();
    process.kill().await;
    let status = failure(call).await;
    assert!(begun.elapsed() < SERVED, "{:?}", begun.elapsed());
    expect(&status, Code::Unavailable, Execution::MayHaveExecuted);
    waited_for_the_reply(&status, Duration::ZERO);

    // A stream that was cut does not look like one that ended.
    let last = within("the end of the stream", numbers.next()).await;
    let status = last.expect("not the end").expect_err("not a number");
    expect(&status, Code::Unavailable, Execution::MayHaveExecuted);

    let begun = Instant::now();
    let status = within("the next call", work.echo(1)).await.unwrap_err();
    assert!(begun.elapsed() < SERVED, "{:?}", begun.elapsed());
    expect(&status, Code::Unavailable, Execution::NotSent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_under_load_fails_no_idempotent_call_and_reports_which_others_may_have_run()
{
    const CALLERS: usize = 8;
    const KILLS: u64 = 2;
    let mut process = Process::start("127.0.0.1:0").await;
    let target = process.target.clone();
    let work = client_of(&target, Client::builder().wait_for_ready(true)).await;
    let over = Arc::new(AtomicBool::new(false));
    let (progress, mut replies) = watch::channel(0_u64);
    let in_doubt = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (work, over, progress) = (work.clone(), Arc::clone(&over), progress.clone());
            let in_doubt = Arc::clone(&in_doubt);
            spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    if caller % 2 == 0 {
                        assert_eq!(work.look(7).await, Ok(7), "it may be made again");
                    } else if let Err(status) = work.echo(7).await {
                        // Calls that did not run were retried transparently, so only this status
                        // remains.
                        expect(&status, Code::Unavailable, Execution::MayHaveExecuted);
                        in_doubt.fetch_add(1, Ordering::Relaxed);
                    }
                    progress.send_modify(|replies| *replies += 1);
                }
            })
        })
        .collect();
    for kill in 1..=KILLS + 1 {
        let some = replies.wait_for(|&replies| replies >= 300 * kill);
        assert!(within("calls get their replies", some).await.is_ok());
        if kill <= KILLS {
            process.kill().await;
            process = Process::start(&target).await;
        }
    }
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        within("the caller", caller).await.expect("no call fails");
    }
    // At most one for each call that was under way.
    assert!(in_doubt.load(Ordering::Relaxed) <= KILLS * CALLERS as u64 / 2);
}

// ---- the link between ----

/// A proxy to a server that the test can silently cut, or make slow.
struct Proxy {
    addr: SocketAddr,
    cuts: watch::Sender<u32>,
    carrying: JoinHandle<()>,
}

impl Proxy {
    /// A proxy to `target` that delays every piece of bytes by `delay`.
    async fn to(target: &str, delay: Duration) -> Self {
        let (listener, addr) = listener().await;
        let (cuts, cut) = watch::channel(0);
        let carrying = spawn(carry_all(listener, target.to_owned(), cut, delay));
        Self {
            addr,
            cuts,
            carrying,
        }
    }

    /// Silently stops all existing connections; later ones work.
    fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

async fn carry_all(
    listener: TcpListener,
    target: String,
    cut: watch::Receiver<u32>,
    delay: Duration,
) {
    loop {
        let here = accepted(&listener).await;
        let there = TcpStream::connect(&target).await.expect("it listens");
        let _ = there.set_nodelay(true);
        let mut cut = cut.clone();
        cut.mark_unchanged();
        spawn(async move {
            let (mut here_out, mut there_out) = (here.into_split(), there.into_split());
            let both = async {
                tokio::join!(
                    carry(&mut here_out.0, &mut there_out.1, delay),
                    carry(&mut there_out.0, &mut here_out.1, delay)
                )
            };
            tokio::select! {
                _ = both => {}
                // Both sockets stay open.
                Ok(()) = cut.changed() => std::future::pending().await,
            }
        });
    }
}

async fn carry(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    delay: Duration,
) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if to.write_all(&piece[..length]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

#[tokio::test]
async fn calls_over_a_silently_cut_connection_fail_when_the_keepalive_times_out() {
    let (server, mut events) = serve().await;
    let proxy = Proxy::to(server.target(), Duration::ZERO).await;
    let work = client_of(&proxy.addr.to_string(), watchful()).await;
    let call = hanging(&work);
    assert_eq!(within("the call", events.recv()).await, Some("hanging"));
    let mut numbers = work.numbers().await.expect("the stream begins");
    assert_eq!(within("a number", numbers.next()).await, Some(Ok(7)));

    let begun = Instant::now();
    proxy.cut();
    let status = failure(call).await;
    let took = begun.elapsed();
    expect(&status, Code::Unavailable, Execution::MayHaveExecuted);
    waited_for_the_reply(&status, SHORT);
    assert!(
        status.message().contains("keepalive_timeout"),
        "the option is named: {status}"
    );
    assert!(took < 2 * SHORT + SERVED, "{took:?}");
    let last = within("the end of the stream", numbers.next()).await;
    let status = last.expect("not the end").expect_err("not a number");
    expect(&status, Code::Unavailable, Execution::MayHaveExecuted);

    assert_eq!(within("the next call", work.echo(1)).await, Ok(1));
}

#[tokio::test]
async fn a_call_over_a_cut_connection_ends_at_its_deadline_on_both_sides() {
    let (server, mut events) = serve().await;
    let proxy = Proxy::to(server.target(), Duration::ZERO).await;
    let work = client_of(&proxy.addr.to_string(), Client::builder()).await;
    let begun = Instant::now();
    let call = hanging(&work.with_options(CallOptions::new().timeout(SHORT)));
    assert_eq!(within("the call", events.recv()).await, Some("hanging"));
    proxy.cut();

    let status = failure(call).await;
    let took = begun.elapsed();
    expect(&status, Code::DeadlineExceeded, Execution::MayHaveExecuted);
    waited_for_the_reply(&status, SHORT / 2);
    assert!(took >= SHORT && took < SHORT + SERVED, "{took:?}");
    // The cancellation cannot reach the server, which enforces the deadline itself.
    assert_eq!(within("the handler", events.recv()).await, Some("dropped"));
    assert!(begun.elapsed() < SHORT + SERVED, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_idempotent_call_survives_a_cut_connection() {
    let (server, _events) = serve().await;
    let proxy = Proxy::to(server.target(), Duration::ZERO).await;
    let work = client_of(&proxy.addr.to_string(), watchful()).await;
    assert_eq!(within("a reply", work.look(1)).await, Ok(1));
    let begun = Instant::now();
    proxy.cut();
    assert_eq!(within("a reply", work.look(2)).await, Ok(2));
    let took = begun.elapsed();
    assert!(took >= SHORT && took < 2 * SHORT + SERVED, "{took:?}");
}

#[tokio::test]
async fn a_slow_link_is_not_taken_for_a_dead_server() {
    let (server, _events) = serve().await;
    let proxy = Proxy::to(server.target(), SHORT / 6).await;
    let work = client_of(&proxy.addr.to_string(), watchful()).await;
    let options = CallOptions::new().timeout(6 * SHORT);
    let status = failure(hanging(&work.with_options(options))).await;
    expect(&status, Code::DeadlineExceeded, Execution::MayHaveExecuted);
    assert_eq!(within("the same connection", work.echo(1)).await, Ok(1));
}

// ---- TLS ----

#[tokio::test]
async fn a_handshake_that_never_ends_fails_at_the_connect_timeout_and_nothing_was_sent() {
    let (listener, addr) = listener().await;
    let tls = Authority::new("a").client();
    let client = Client::builder().tls(tls).connect_timeout(SHORT);
    let target = format!("localhost:{}", addr.port());
    let work = WorkClient::new(client.connect_lazy(target).expect("an address"));
    let begun = Instant::now();
    let call = spawn(async move { work.echo(1).await });
    // Connections are accepted and get no byte.
    let _silent = accepted(&listener).await;
    let status = failure(call).await;
    let took = begun.elapsed();
    expect(&status, Code::Unavailable, Execution::NotSent);
    let phases = phases(&status);
    assert!(phases.connect * 2 > phases.total(), "{phases}");
    assert!(took >= SHORT && took < SHORT + SERVED, "{took:?}");
    let text = status.to_string();
    assert!(text.contains("connect_timeout"), "{text}");
    assert!(
        text.contains("accepted, but the TLS handshake did not finish"),
        "{text}"
    );
}

#[tokio::test]
async fn a_slow_handshake_is_waited_for() {
    let authority = Authority::new("a");
    let (tell, _events) = unbounded_channel();
    let server = Server::builder().tls(authority.server());
    let server = server.service(WorkServer::new(Worker(tell)));
    let server = server.bind("127.0.0.1:0").await.expect("a free port");
    let proxy = Proxy::to(server.target(), Duration::from_millis(100)).await;
    let target = format!("localhost:{}", proxy.addr.port());
    let work = client_of(&target, Client::builder().tls(authority.client())).await;
    assert_eq!(within("a reply", work.echo(1)).await, Ok(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_swapped_under_load_fail_no_call() {
    const SWAPS: u64 = 6;
    let authority = Authority::new("a");
    let tls = authority.server();
    let reloader = tls.reloader();
    let (tell, _events) = unbounded_channel();
    // Connections are replaced all the time, so that handshakes overlap the swaps.
    let server = Server::builder()
        .tls(tls)
        .max_connection_age(Duration::from_millis(50))
        .service(WorkServer::new(Worker(tell)));
    let server = server.bind("127.0.0.1:0").await.expect("a free port");
    let port = server.local_addr().expect("a TCP server").port();
    let target = format!("localhost:{port}");
    let client = Client::builder().tls(authority.client()).connections(2);
    let client = client.connect(&target).await.expect("it is trusted");
    let work = WorkClient::new(client.clone());
    let over = Arc::new(AtomicBool::new(false));
    let (progress, mut connections) = watch::channel(std::collections::HashSet::new());
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (work, over, progress) = (work.clone(), Arc::clone(&over), progress.clone());
            spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let port = work.port(&CallContext::new()).await.expect("no call fails");
                    progress.send_if_modified(|ports| ports.insert(port));
                }
            })
        })
        .collect();
    let mut last = Vec::new();
    for _ in 0..SWAPS {
        let renewed = authority.issue("localhost");
        reloader
            .reload_pem(&renewed.chain, &renewed.key)
            .expect("a usable certificate");
        last = renewed.der;
        let seen = connections.borrow().len();
        let more = connections.wait_for(|ports| ports.len() > seen + 2);
        assert!(within("new connections", more).await.is_ok());
    }
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        within("the caller", caller).await.expect("no call fails");
    }
    let connection = client.raw().connection(Instant::now() + SERVED).await;
    let connection = connection.expect("a connection");
    assert_eq!(connection.peer().certificates().first(), Some(&last));
}

// ---- a link that goes down ----

/// A network namespace with one link to this one. It needs `ip` and the permission to use it.
struct Link {
    space: String,
    here: String,
    there: String,
    /// Returns the addresses of the two ends.
    ends: [String; 2],
}

fn ip(args: &str) -> Result<(), String> {
    let output = std::process::Command::new("ip")
        .args(args.split(' '))
        .output()
        .map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("ip {args}: {}", said.trim()))
}

impl Link {
    fn new() -> Result<Self, String> {
        let id = std::process::id();
        let link = Self {
            space: format!("iip-test-{id}"),
            here: format!("iip{id}a"),
            there: format!("iip{id}b"),
            // An address of the range for such tests (RFC 2544), a different one for each process.
            ends: [1, 2].map(|end| format!("198.18.{}.{}", id / 64 % 250, id % 64 * 4 + end)),
        };
        let Self {
            space,
            here,
            there,
            ends: [near, far],
        } = &link;
        ip(&format!("netns add {space}"))?;
        ip(&format!(
            "link add {here} type veth peer name {there} netns {space}"
        ))?;
        ip(&format!("addr add {near}/30 dev {here}"))?;
        ip(&format!("-n {space} addr add {far}/30 dev {there}"))?;
        ip(&format!("link set {here} up"))?;
        link.set("up")?;
        Ok(link)
    }

    /// The link goes down at the far end: at this end only silence is noticeable.
    fn set(&self, state: &str) -> Result<(), String> {
        ip(&format!(
            "-n {} link set {} {state}",
            self.space, self.there
        ))
    }

    /// The system takes a moment to notice that both ends are up, and loses earlier packets.
    async fn carries(&self) {
        let state = format!("/sys/class/net/{}/operstate", self.here);
        let is_up = || std::fs::read_to_string(&state).is_ok_and(|state| state.trim() == "up");
        eventually("the link is up", is_up).await;
    }

    async fn process(&self) -> Process {
        self.carries().await;
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.space])
            .arg(std::env::current_exe().expect("a test binary knows itself"));
        Process::start_by(command, &format!("{}:0", self.ends[1])).await
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The link is deleted with the network; deleting a network that was never created fails.
        let _ = ip(&format!("netns del {}", self.space));
        let _ = ip(&format!("link del {}", self.here));
    }
}

#[tokio::test]
async fn a_link_that_goes_down_fails_calls_when_the_keepalive_times_out_and_serves_when_it_is_up_again()
 {
    let link = match Link::new() {
        Ok(link) => link,
        Err(reason) => {
            eprintln!("skipped: this machine lets the test make no network of its own: {reason}");
            return;
        }
    };
    let mut process = link.process().await;
    let attempt = Duration::from_secs(1);
    let work = client_of(&process.target, watchful().connect_timeout(attempt)).await;
    let call = hanging(&work);
    process.says("hanging").await;

    let begun = Instant::now();
    link.set("down").expect("it was up");
    let status = failure(call).await;
    let took = begun.elapsed();
    expect(&status, Code::Unavailable, Execution::MayHaveExecuted);
    waited_for_the_reply(&status, SHORT);
    assert!(took < 2 * SHORT + SERVED, "{took:?}");

    let begun = Instant::now();
    let status = within("the next call", work.echo(1)).await.unwrap_err();
    expect(&status, Code::Unavailable, Execution::NotSent);
    assert!(begun.elapsed() < attempt + SERVED, "{:?}", begun.elapsed());

    link.set("up").expect("it was down");
    let options = CallOptions::new().wait_for_ready(true);
    let work = work.with_options(options);
    assert_eq!(within("a reply", work.echo(2)).await, Ok(2));
}
