//! Tests of the whole: properties of snapshots and picks, and simulations with virtual time.

mod choosing;
mod picking;
mod simulation;
mod snapshots;

use std::time::{Duration, Instant};

use super::{BackendInfo, BalanceOptions, Balancer, Choice, Outcome, PickHint, Policy};
use crate::transport::Endpoint;

/// Every policy.
fn policies() -> Vec<Policy> {
    vec![
        Policy::P2c,
        Policy::LeastPending,
        Policy::RoundRobin,
        Policy::Random,
        Policy::Weighted,
        Policy::RingHash,
        Policy::GoHashIp,
        Policy::GoHashParam { name: "k".into() },
        Policy::choose(|_| Choice::Any),
    ]
}

/// A backend with a number, which is its id and its port.
fn info(number: u16) -> BackendInfo {
    let endpoint = Endpoint::Tcp {
        host: "10.0.0.1".into(),
        port: number,
    };
    BackendInfo::new(endpoint).id(number.to_string())
}

fn infos(count: u16) -> Vec<BackendInfo> {
    (0..count).map(info).collect()
}

/// A balancer with these backends. What it keeps with a backend is its number.
fn balancer(options: BalanceOptions, infos: &[BackendInfo]) -> (Balancer<usize>, Instant) {
    let now = Instant::now();
    let mut balancer = Balancer::new(options, now, 7).unwrap();
    let _ = apply(&mut balancer, infos, now);
    balancer.refresh(now);
    (balancer, now)
}

fn apply(
    balancer: &mut Balancer<usize>,
    infos: &[BackendInfo],
    now: Instant,
) -> super::SetChange<usize> {
    balancer.apply(infos, now, |_, info| info.id.parse().unwrap())
}

/// The numbers of the backends that `count` picks get.
fn picks(balancer: &Balancer<usize>, hint: PickHint<'_>, now: Instant, count: u64) -> Vec<usize> {
    (0..count)
        .map(|random| {
            let hint = match hint.hash {
                Some(_) => hint,
                None => hint.hash(Some(super::hash_key(&random.to_le_bytes()))),
            };
            let picker = balancer.picker();
            *picker.pick(&hint, now, random).unwrap().backend.data()
        })
        .collect()
}

fn share(picks: &[usize], number: usize) -> f64 {
    let count = picks.iter().filter(|pick| **pick == number).count();
    count as f64 / picks.len() as f64
}

/// Lets a backend fail as often as it takes to be ejected, if it may be.
fn fail(balancer: &mut Balancer<usize>, number: usize, now: Instant) {
    let set = balancer.set().clone();
    let (backend, _) = set
        .iter()
        .find(|(backend, _)| *backend.data() == number)
        .unwrap();
    for _ in 0..5 {
        backend.started();
        let failure = Outcome::Failure { pushback: None };
        let _ = backend.finished(now, Duration::from_millis(1), failure, false);
    }
    balancer.failing(backend.id(), now);
    balancer.refresh(now);
}
