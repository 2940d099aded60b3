//! The processor time that the live page takes from a server under load: while nobody looks at it,
//! and with one viewer. Prints a Markdown table.
//!
//! `live [--rounds N] [--secs S] METHODSxCONNECTIONS@CALLS_PER_SECOND ..`
//!
//! The server is a process of its own, which this one calls at a constant rate. In that process the
//! page has a thread of its own, whose time is that of the page: reading the counters, events, HTTP.

use std::net::SocketAddr;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use iip_benches::{BoxError, cpu, memory};
use iip_core::{Client, HandlerError, Request, Response, Server, handler_fn};
use iip_gateway::live::LivePage;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

const DEFAULT: [&str; 3] = ["10x10@20000", "100x100@10000", "500x1000@10000"];

/// Calls are made in groups, this long apart.
const STEP: Duration = Duration::from_millis(10);

/// What is not counted, after each change.
const SETTLES: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), BoxError> {
    memory::raise_file_limit()?;
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut runtime = Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build()?;
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", methods] => serve(&runtime, methods.parse()?),
        _ => runtime.block_on(compare(args)),
    }
}

fn path(method: usize) -> String {
    format!("/Service{}/method{method}", method / 10)
}

/// The server: prints its address and that of its page, and then for each line that it reads the
/// processor time of the process and of the page, in microseconds.
fn serve(runtime: &Runtime, methods: usize) -> Result<(), BoxError> {
    let mut server = Server::builder();
    for method in 0..methods {
        let echo = handler_fn(|request: Request| async move {
            Ok::<_, HandlerError>(Response::from(request.into_body()))
        });
        server = server.route(&path(method), echo);
    }
    let server = runtime.block_on(server.bind("127.0.0.1:0"))?;
    let page = Builder::new_current_thread().enable_all().build()?;
    page.block_on(async {
        let page = LivePage::new("bench").server("bench", &server);
        let page = page.listen("127.0.0.1:0").await?;
        println!("{} {page}", server.target());
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while lines.next_line().await?.is_some() {
            let (all, own) = (cpu::own()?, cpu::own_thread()?);
            println!("{} {}", all.as_micros(), own.as_micros());
        }
        Ok(())
    })
}

/// A server in a process of its own.
struct Process {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    target: String,
    page: SocketAddr,
}

impl Process {
    async fn start(methods: usize) -> Result<Self, BoxError> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve", &methods.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = child.stdin.take().ok_or("no input")?;
        let output = child.stdout.take().ok_or("no output")?;
        let mut output = BufReader::new(output).lines();
        let line = output.next_line().await?.ok_or("the server has ended")?;
        let (target, page) = line.split_once(' ').ok_or("two addresses are expected")?;
        Ok(Self {
            _child: child,
            input,
            target: target.to_owned(),
            page: page.parse()?,
            output,
        })
    }

    /// Returns the processor time of the process and of its page, in microseconds.
    async fn used(&mut self) -> Result<[u64; 2], BoxError> {
        self.input.write_all(b"\n").await?;
        let line = self.output.next_line().await?;
        let line = line.ok_or("the server has ended")?;
        let (all, page) = line.split_once(' ').ok_or("two times are expected")?;
        Ok([all.parse()?, page.parse()?])
    }

    /// Returns both in milliseconds per second, once the load has settled.
    async fn measured(&mut self, secs: Duration) -> Result<[f64; 2], BoxError> {
        sleep(SETTLES).await;
        let (start, before) = (Instant::now(), self.used().await?);
        sleep(secs).await;
        let used = self.used().await?;
        let took = start.elapsed().as_secs_f64();
        Ok(std::array::from_fn(|i| {
            (used[i] - before[i]) as f64 / 1e3 / took
        }))
    }
}

/// One kind of load.
#[derive(Clone, Copy)]
struct Cell {
    methods: usize,
    connections: usize,
    rate: usize,
}

impl Cell {
    fn parse(text: &str) -> Option<Self> {
        let (methods, rest) = text.split_once('x')?;
        let (connections, rate) = rest.split_once('@')?;
        Some(Self {
            methods: methods.parse().ok()?,
            connections: connections.parse().ok()?,
            rate: rate.parse().ok()?,
        })
    }

    /// Calls all methods on all connections until it is dropped.
    async fn load(self, target: String) -> Result<(), BoxError> {
        let mut clients = Vec::with_capacity(self.connections);
        for _ in 0..self.connections {
            clients.push(Client::connect(target.as_str()).await?);
        }
        let paths: Arc<Vec<String>> = Arc::new((0..self.methods).map(path).collect());
        let mut steps = interval(STEP);
        steps.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let each = self.rate * STEP.as_millis() as usize / 1000;
        let mut calls = 0..;
        loop {
            steps.tick().await;
            for call in calls.by_ref().take(each) {
                let client = clients[call % self.connections].clone();
                let paths = Arc::clone(&paths);
                tokio::spawn(async move {
                    // Each method is called on each connection.
                    let method = (call + call / paths.len()) % paths.len();
                    client.request(&paths[method], "hello, world!...").await
                });
            }
        }
    }
}

/// Reads events until it is dropped.
async fn view(page: SocketAddr) -> Result<(), BoxError> {
    let mut stream = TcpStream::connect(page).await?;
    let request = format!("GET /live/events HTTP/1.1\r\nHost: {page}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut buffer = vec![0; 64 * 1024];
    while stream.read(&mut buffer).await? > 0 {}
    Err("the page has closed the connection".into())
}

/// Waits for `measured` while `beside` runs, which must not end.
async fn beside<T>(
    work: impl Future<Output = Result<(), BoxError>>,
    measured: impl Future<Output = Result<T, BoxError>>,
) -> Result<T, BoxError> {
    tokio::select! {
        measured = measured => measured,
        ended = work => Err(ended.err().unwrap_or_else(|| "it has ended".into())),
    }
}

async fn compare(args: Vec<String>) -> Result<(), BoxError> {
    let (mut rounds, mut secs, mut cells) = (3, Duration::from_secs(10), Vec::new());
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--rounds" => rounds = value()?.parse()?,
            "--secs" => secs = Duration::from_secs_f64(value()?.parse()?),
            cell => cells.push(Cell::parse(cell).ok_or(format!("{cell:?} is not understood"))?),
        }
    }
    if cells.is_empty() {
        cells.extend(DEFAULT.iter().filter_map(|cell| Cell::parse(cell)));
    }
    println!("Processor time in ms per second: medians of {rounds} rounds\n");
    println!("| methods | connections | calls/s | server and page | page | page with a viewer |");
    println!("|---:|---:|---:|---:|---:|---:|");
    for cell in cells {
        let mut all = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..rounds {
            let mut server = Process::start(cell.methods).await?;
            let (target, page) = (server.target.clone(), server.page);
            let both = async {
                let alone = server.measured(secs).await?;
                Ok((alone, beside(view(page), server.measured(secs)).await?))
            };
            let ([_, alone], [process, viewed]) = beside(cell.load(target), both).await?;
            for (values, value) in all.iter_mut().zip([process, alone, viewed]) {
                values.push(value);
            }
        }
        let [process, alone, viewed] = all.map(median);
        let Cell {
            methods,
            connections,
            rate,
        } = cell;
        println!(
            "| {methods} | {connections} | {rate} | {process:.0} | {alone:.2} | {viewed:.2} |"
        );
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
