//! All servers are down for some time, while many callers wait, and return together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use iip_benches::BoxError;
use iip_rpc::Client;

use crate::cluster::{Directory, Member, WorkClient, calls, load, serve};
use crate::options::Options;

const CALLERS: usize = 1000;
const TAKES: Duration = Duration::from_millis(20);
const WINDOW: Duration = Duration::from_millis(50);
/// The time after which a service that is not back is an error.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn run(options: &Options) -> Result<(), BoxError> {
    let mut rounds = Vec::with_capacity(options.rounds);
    for _ in 0..options.rounds {
        rounds.push(outage(options).await?);
    }
    let [first, full, peak, failed, cpu] = options.medians(&rounds);
    println!(
        "| servers down | first reply | full rate | most running calls of a server, limit | failed calls | processor time during the outage |"
    );
    println!("|---:|---:|---:|---:|---:|---:|");
    println!(
        "| {:.0} s | {first:.2} s | {full:.2} s | {peak:.0}, {} | {failed:.0} | {cpu:.0} % of a core |",
        options.down.as_secs_f64(),
        options.limit,
    );
    Ok(())
}

/// Returns the seconds until the first reply and until the rate of before; the highest number of
/// running calls of a server after the outage; the number of failed calls; and the percentage of a
/// core that the process used during the outage.
async fn outage(options: &Options) -> Result<[f64; 5], BoxError> {
    let callers = options.callers.unwrap_or(CALLERS);
    let members = Member::start_all(3, TAKES).await?;
    let addrs: Vec<_> = members
        .iter()
        .map(|member| member.server.target().to_owned())
        .collect();
    let (_list, directory) = Directory::new(&members);
    let client = Client::builder()
        .wait_for_ready(true)
        .timeout(options.down + PATIENCE)
        .discover(directory)
        .await?;
    let work = WorkClient::new(client);
    let done = Arc::new(AtomicU64::new(0));
    let call = {
        let (call, done) = (calls(&work), Arc::clone(&done));
        move || {
            let (call, done) = (call(), Arc::clone(&done));
            async move {
                let reply = call.await;
                done.fetch_add(u64::from(reply.is_ok()), Ordering::Relaxed);
                reply
            }
        }
    };
    load(callers, Duration::from_secs(1), call.clone()).await?;
    let usual = load(callers, Duration::from_secs(1), call.clone())
        .await?
        .times
        .len() as f64;

    let mut nodes = Vec::new();
    for member in members {
        member.server.shutdown(Duration::ZERO).await;
        nodes.push(member.node);
    }
    // Ends when all callers have one reply at least.
    let running = tokio::spawn(load(callers, options.down + Duration::from_secs(15), call));
    let cpu = iip_benches::cpu::own()?;
    tokio::time::sleep(options.down).await;
    let cpu = (iip_benches::cpu::own()? - cpu).as_secs_f64() / options.down.as_secs_f64();
    let mut servers = Vec::new();
    for (node, addr) in nodes.iter().zip(&addrs) {
        node.peak.store(0, Ordering::Relaxed);
        servers.push(serve(node, addr, Some(options.limit)).await?);
    }
    let (back, before) = (Instant::now(), done.load(Ordering::Relaxed));
    let (mut first, mut last) = (None, before);
    let wanted = 0.9 * usual * WINDOW.as_secs_f64();
    let mut ticks = tokio::time::interval(WINDOW);
    ticks.tick().await;
    let full = loop {
        ticks.tick().await;
        let now = done.load(Ordering::Relaxed);
        if now > before && first.is_none() {
            first = Some(back.elapsed());
        }
        if (now - last) as f64 >= wanted {
            break back.elapsed();
        }
        if back.elapsed() > PATIENCE {
            return Err("the service is not back to its rate".into());
        }
        last = now;
    };
    let seen = running.await??;
    if let Some(error) = &seen.error {
        eprintln!("the first of {} failed calls: {error}", seen.failed);
    }
    let peaks = nodes.iter().map(|node| node.peak.load(Ordering::Relaxed));
    let peak = peaks.max().unwrap_or_default();
    for server in servers {
        server.shutdown(Duration::ZERO).await;
    }
    Ok([
        first.unwrap_or(full).as_secs_f64(),
        full.as_secs_f64(),
        peak as f64,
        seen.failed as f64,
        100.0 * cpu,
    ])
}
