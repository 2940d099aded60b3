//! Scenarios in which one of three servers is worse than the others.

use std::sync::atomic::Ordering;
use std::time::Duration;

use iip_benches::BoxError;
use iip_rpc::balance::{BalanceOptions, Policy};

use crate::cluster::{Member, calls, connect, counts, load, share};
use crate::options::Options;
use crate::tower_p2c;

const CALLERS: usize = 50;
const TAKES: Duration = Duration::from_millis(1);

/// Whose calls are measured.
#[derive(Clone)]
enum Balancing {
    Iip(BalanceOptions),
    Tower,
}

/// The share of a server in percent, p50 and p99 in milliseconds, calls per second, and the number
/// of failed calls.
type Figures = [f64; 5];

/// Measures calls of which the first server gets a share, after `warm`.
async fn measure(
    balancing: &Balancing,
    change: impl FnOnce(&Member),
    callers: usize,
    warm: Duration,
    time: Duration,
) -> Result<Figures, BoxError> {
    let members = Member::start_all(3, TAKES).await?;
    let call = match balancing {
        Balancing::Iip(options) => Call::Iip(calls(&connect(&members, options.clone()).await?)),
        Balancing::Tower => Call::Tower(tower_p2c::calls(&members).await?),
    };
    let run = async |time| match &call {
        Call::Iip(call) => load(callers, time, call.clone()).await,
        Call::Tower(call) => load(callers, time, call.clone()).await,
    };
    // All servers are connected and known.
    run(Duration::from_millis(500)).await?;
    change(&members[0]);
    let first = run(warm).await?;
    let before = counts(&members);
    let seen = run(time).await?;
    let percent = 100.0 * share(&members, &before, 0);
    for member in members {
        member.server.shutdown(Duration::ZERO).await;
    }
    Ok([
        percent,
        seen.quantile(0.5),
        seen.quantile(0.99),
        seen.times.len() as f64 / time.as_secs_f64(),
        (first.failed + seen.failed) as f64,
    ])
}

/// The two kinds of calls.
enum Call<I, T> {
    Iip(I),
    Tower(T),
}

async fn rounds(
    options: &Options,
    balancing: &Balancing,
    change: impl Fn(&Member),
    callers: usize,
) -> Result<Figures, BoxError> {
    let warm = Duration::from_secs(1);
    let time = options.secs.unwrap_or(Duration::from_secs(2));
    let mut figures = Vec::with_capacity(options.rounds);
    for _ in 0..options.rounds {
        figures.push(measure(balancing, &change, callers, warm, time).await?);
    }
    Ok(options.medians(&figures))
}

/// One server fails its calls at once.
pub(crate) async fn fails_at_once(options: &Options) -> Result<(), BoxError> {
    let callers = options.callers.unwrap_or(CALLERS);
    let fails = |member: &Member| member.node.fails.store(true, Ordering::Relaxed);
    let clients = [
        ("IIP, default", Balancing::Iip(BalanceOptions::new())),
        (
            "IIP, without ejection",
            Balancing::Iip(BalanceOptions::new().max_ejected(0.0)),
        ),
        (
            "IIP, `RoundRobin` without ejection",
            Balancing::Iip(
                BalanceOptions::new()
                    .policy(Policy::RoundRobin)
                    .max_ejected(0.0),
            ),
        ),
        ("tower, `p2c` with `PeakEwma`", Balancing::Tower),
    ];
    println!("| client | share of the failing server | calls/s | failed calls |");
    println!("|---|---:|---:|---:|");
    for (name, balancing) in clients {
        let [share, _, _, rate, failed] = rounds(options, &balancing, fails, callers).await?;
        println!("| {name} | {share:.2} % | {rate:.0} | {failed:.0} |");
    }
    Ok(())
}

/// One server is ten times slower.
pub(crate) async fn slow(options: &Options) -> Result<(), BoxError> {
    let busy = options.callers.unwrap_or(CALLERS);
    let slows = |member: &Member| {
        let takes = TAKES.as_micros() as u64 * 10;
        member.node.takes.store(takes, Ordering::Relaxed);
    };
    println!("| callers | client | p50 | p99 | share of the slow server | calls/s |");
    println!("|---:|---|---:|---:|---:|---:|");
    for callers in [1, busy] {
        // A slow start of the servers that were connected last would change the shares.
        let balance = BalanceOptions::new().slow_start(Duration::ZERO, 1.0);
        let of = |policy| Balancing::Iip(balance.clone().policy(policy));
        let clients = [
            ("IIP, `P2c`", of(Policy::P2c)),
            ("IIP, `LeastPending`", of(Policy::LeastPending)),
            ("IIP, `RoundRobin`", of(Policy::RoundRobin)),
            ("tower, `p2c` with `PeakEwma`", Balancing::Tower),
        ];
        for (name, balancing) in clients {
            let [share, p50, p99, rate, failed] =
                rounds(options, &balancing, slows, callers).await?;
            if failed > 0.0 {
                return Err(format!("{name}: {failed} calls have failed").into());
            }
            println!(
                "| {callers} | {name} | {p50:.1} ms | {p99:.1} ms | {share:.1} % | {rate:.0} |"
            );
        }
    }
    Ok(())
}
