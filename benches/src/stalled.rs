//! The load of stalled streams: many streams from the server, one of which is read and not read in
//! turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::stream::StreamExt;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::args::ClientOptions;
use crate::load::{Meter, Window};
use crate::report::Report;
use crate::{BoxError, EchoClient};

/// Number of intervals with a stalled stream, and without.
const TURNS: u32 = 10;

/// Messages between two counts.
const EVERY: u64 = 32;

/// Runs `options.inflight` streams. The report counts the messages of all except the one that
/// stalls.
///
/// # Errors
/// An error if a stream fails or ends, if the peer has none, or if processor time cannot be read.
pub async fn run<C: EchoClient>(client: C, options: &ClientOptions) -> Result<Report, BoxError> {
    let window = Window::of(options);
    let measured = Meter::new()?;
    let count = Arc::new(AtomicU64::new(0));
    let (stall, is_stalled) = watch::channel(false);
    let mut tasks = JoinSet::new();
    tasks.spawn(read(
        client.clone(),
        options.payload,
        Arc::default(),
        Some(is_stalled),
    ));
    for _ in 1..options.inflight {
        let count = Arc::clone(&count);
        tasks.spawn(read(client.clone(), options.payload, count, None));
    }
    let turns = async {
        tokio::time::sleep(options.warm).await;
        let mut kept = Vec::new();
        for turn in 0..TURNS {
            // Both are first equally often.
            let first = turn % 2 == 0;
            let mut rates = [0.0; 2];
            for stalled in [first, !first] {
                stall.send_replace(stalled);
                rates[usize::from(stalled)] = rate(&count, options.secs / (2 * TURNS)).await;
            }
            kept.push(rates[1] / rates[0]);
        }
        kept.sort_by(f64::total_cmp);
        kept[kept.len() / 2]
    };
    let (cpu, kept) = tokio::select! {
        ended = tasks.join_next() => {
            ended.ok_or("there are no streams")???;
            return Err("a stream has ended".into());
        }
        measured = async { tokio::join!(window.cpu(options), turns) } => measured,
    };
    measured.count(count.load(Ordering::Relaxed));
    let mut report = measured.report(options, &cpu?);
    report.kept = Some(kept);
    Ok(report)
}

/// Returns the messages per second in the last three quarters of `time`; messages in transit arrive
/// in the first.
async fn rate(count: &AtomicU64, time: Duration) -> f64 {
    tokio::time::sleep(time / 4).await;
    let (before, start) = (count.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(time * 3 / 4).await;
    (count.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64()
}

/// Reads a stream, except while it must stall.
async fn read<C: EchoClient>(
    client: C,
    payload: usize,
    count: Arc<AtomicU64>,
    mut stalled: Option<watch::Receiver<bool>>,
) -> Result<(), BoxError> {
    let mut messages = client.download(payload).await?;
    for turn in 1_u64.. {
        if let Some(stalled) = &mut stalled {
            stalled.wait_for(|&stalled| !stalled).await?;
        }
        let Some(message) = messages.next().await else {
            break;
        };
        message?;
        if turn.is_multiple_of(EVERY) {
            count.fetch_add(EVERY, Ordering::Relaxed);
        }
    }
    Ok(())
}
