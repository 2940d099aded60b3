//! Memory of a server for connections that have made their calls and are idle.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::args::ClientOptions;
use crate::load::Bodies;
use crate::report::IdleReport;
use crate::{BoxError, EchoClient, Peer, memory};

/// Opens connections one after the other, lets each make its calls, and reads the server's memory
/// once all are idle.
///
/// Run it on a runtime of one thread: there, all tasks of a connection start their calls before the
/// task that writes them runs, so the calls overlap and each has its own channel.
///
/// # Errors
/// An error if a connection or a call fails, if the server has fewer connections than were opened,
/// or if its memory cannot be read.
pub async fn measure<P: Peer>(
    addr: SocketAddr,
    options: &ClientOptions,
) -> Result<IdleReport, BoxError> {
    let &ClientOptions {
        connections,
        channels,
        ..
    } = options;
    let pid = options.server_pid.ok_or("idle needs --server-pid")?;
    if connections == 0 || channels == 0 {
        return Err("idle needs at least one connection and one channel".into());
    }
    memory::check_file_limit(connections)?;
    let bodies = Bodies::new(options.payload);

    let files = memory::open_files(pid)?;
    let before = memory::resident_kib(pid)?;
    let mut clients = Vec::with_capacity(connections);
    for number in 0..connections {
        let client = P::connect(addr).await?;
        call_at_once(&client, &bodies, channels)
            .await
            .map_err(|e| format!("connection {number}: {e}"))?;
        clients.push(client);
    }
    let after = settled(pid).await?;

    let held = memory::open_files(pid)?.saturating_sub(files);
    if held < connections {
        return Err(format!("the server holds {held} of {connections} connections").into());
    }
    drop(clients);

    let growth = (after as f64 - before as f64) * 1024.0;
    let per_connection = growth / connections as f64;
    Ok(IdleReport {
        connections,
        channels,
        rss_before_kib: before,
        rss_after_kib: after,
        bytes_per_connection: per_connection,
        bytes_per_channel: (channels > 1).then(|| per_connection / channels as f64),
    })
}

async fn call_at_once<C: EchoClient>(
    client: &C,
    bodies: &Bodies,
    calls: usize,
) -> Result<(), BoxError> {
    let mut tasks = JoinSet::new();
    for call in 0..calls {
        let client = client.clone();
        let body = bodies.body(call, 0);
        tasks.spawn(async move {
            let reply = client.echo(body.clone()).await?;
            if reply != body {
                return Err("a reply differs from its request".into());
            }
            Ok::<_, BoxError>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Interval at which the server's memory is read, the time it must stay the same, and the maximum
/// wait for that.
const EVERY: Duration = Duration::from_millis(100);
const STEADY: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(20);

/// Returns the server's resident memory in KiB once it has stayed within 1 %.
async fn settled(pid: u32) -> Result<u64, BoxError> {
    let start = Instant::now();
    let mut since = start;
    let mut steady = memory::resident_kib(pid)?;
    loop {
        tokio::time::sleep(EVERY).await;
        let now = memory::resident_kib(pid)?;
        if now.abs_diff(steady) * 100 > steady {
            steady = now;
            since = Instant::now();
        }
        if since.elapsed() >= STEADY || start.elapsed() >= PATIENCE {
            return Ok(now);
        }
    }
}
