use proptest::prelude::*;

use std::sync::Arc;

use super::super::{BackendState, CallKey, Notice, PickError, Target, go_hash};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn without_backends_there_is_nothing_to_pick() {
    for policy in policies() {
        let (balancer, now) = balancer(BalanceOptions::new().policy(policy), &[]);
        let error = balancer
            .picker()
            .pick(&PickHint::new(), now, 1)
            .unwrap_err();
        assert_eq!(error, PickError::NoBackend);
    }
}

#[test]
fn a_drained_backend_is_never_picked() {
    for policy in policies() {
        let mut set = infos(4);
        set[1].weight = 0;
        let (mut balancer, now) = balancer(BalanceOptions::new().policy(policy.clone()), &set);
        assert!(
            !picks(&balancer, PickHint::new(), now, 500).contains(&1),
            "{policy:?}"
        );
        for info in &mut set {
            info.weight = 0;
        }
        let _ = apply(&mut balancer, &set, now);
        balancer.refresh(now);
        let error = balancer
            .picker()
            .pick(&PickHint::new(), now, 1)
            .unwrap_err();
        assert_eq!(error, PickError::NoBackend, "{policy:?}");
    }
}

#[test]
fn ten_thousand_backends_are_picked_from() {
    for policy in policies() {
        let options = BalanceOptions::new().policy(policy.clone()).ring_size(1024);
        let (balancer, now) = balancer(options, &infos(10_000));
        let picks = picks(&balancer, PickHint::new(), now, 200);
        assert!(picks.iter().all(|pick| *pick < 10_000), "{policy:?}");
    }
}

#[test]
fn an_excluded_backend_is_picked_only_if_nothing_else_is_left() {
    for policy in policies() {
        let (balancer, now) = balancer(BalanceOptions::new().policy(policy.clone()), &infos(4));
        let ids: Vec<_> = balancer
            .set()
            .iter()
            .map(|(backend, _)| backend.id())
            .collect();
        for left in 1..4 {
            let hint = PickHint::new().excluded(&ids[left..]);
            let picks = picks(&balancer, hint, now, 200);
            assert!(picks.iter().all(|pick| *pick < left), "{policy:?}");
        }
        let picks = picks(&balancer, PickHint::new().excluded(&ids), now, 200);
        assert!(
            (0..4).all(|number| share(&picks, number) > 0.0),
            "{policy:?}"
        );
    }
}

#[test]
fn weights_are_kept_within_two_percent() {
    let weights = [5, 1, 4, 0, 10];
    let mut set = infos(5);
    for (info, weight) in set.iter_mut().zip(weights) {
        info.weight = weight;
    }
    for policy in [
        Policy::Weighted,
        Policy::Random,
        Policy::RingHash,
        Policy::GoHashIp,
    ] {
        let (balancer, now) = balancer(BalanceOptions::new().policy(policy.clone()), &set);
        let picks = picks(&balancer, PickHint::new(), now, 10_000);
        for (number, weight) in weights.into_iter().enumerate() {
            let off = (share(&picks, number) - f64::from(weight) / 20.0).abs();
            assert!(off <= 0.02, "{policy:?}: {off} of {number}");
        }
    }
}

#[test]
fn round_robin_begins_anywhere_and_takes_each_in_turn() {
    let starts: std::collections::BTreeSet<_> = (0..20)
        .map(|seed| {
            let now = Instant::now();
            let options = BalanceOptions::new().policy(Policy::RoundRobin);
            let mut balancer = Balancer::new(options, now, seed).unwrap();
            let _ = apply(&mut balancer, &infos(3), now);
            balancer.refresh(now);
            let picks = picks(&balancer, PickHint::new(), now, 4);
            assert_eq!(picks[0], picks[3]);
            assert_eq!((picks[0] + 1) % 3, picks[1]);
            picks[0]
        })
        .collect();
    assert_eq!(starts.len(), 3);
}

#[test]
fn hashes_lead_to_the_entries_of_the_go_client() {
    let target: Target = "10.0.0.1:1#3,10.0.0.1:2#1".parse().unwrap();
    let set: Vec<_> = target.backends().unwrap();
    let layout = [0, 1, 0, 0];
    let now = Instant::now();
    for policy in [
        Policy::GoHashIp,
        Policy::GoHashParam {
            name: "user".into(),
        },
    ] {
        let options = BalanceOptions::new().policy(policy.clone());
        let mut balancer = Balancer::new(options, now, 1).unwrap();
        let _ = balancer.apply(&set, now, |_, _| ());
        balancer.refresh(now);
        for number in 0..50 {
            let text = format!("10.1.2.{number}");
            let path = format!("/x?user={text}");
            let hash = policy.hash(CallKey::new(&path).key(text.as_bytes()));
            let hint = PickHint::new().hash(hash);
            let picked = balancer.picker().pick(&hint, now, 5).unwrap().index;
            assert_eq!(picked, layout[go_hash(text.as_bytes()) as usize % 4]);
        }
    }
}

#[test]
fn a_key_moves_only_from_a_backend_that_is_ejected() {
    let options = BalanceOptions::new().policy(Policy::RingHash);
    let (mut balancer, now) = balancer(options, &infos(5));
    let before = picks(&balancer, PickHint::new(), now, 1000);
    fail(&mut balancer, 2, now);
    let after = picks(&balancer, PickHint::new(), now, 1000);
    let again = picks(&balancer, PickHint::new(), now, 1000);
    assert_eq!(after, again);
    for (before, after) in before.iter().zip(&after) {
        assert!(*after != 2 && (before == after || *before == 2));
    }
    for number in [0, 1, 3, 4] {
        assert!(
            share(&after, number) > share(&before, number),
            "its keys spread"
        );
    }
}

#[test]
fn the_load_of_each_is_at_most_a_quarter_above_the_mean_under_skewed_keys() {
    let options = BalanceOptions::new().policy(Policy::RingHash);
    let (balancer, now) = balancer(options, &infos(8));
    let mut rng = fastrand::Rng::with_seed(3);
    let mut running = std::collections::VecDeque::new();
    for step in 0..5000_u64 {
        // Zipf's law with exponent 1: the first key has a tenth of the calls.
        let key = (10_000_f64.powf(rng.f64())) as u64;
        let hint = PickHint::new().hash(Some(super::super::hash_key(&key.to_le_bytes())));
        let backend = balancer.picker().pick(&hint, now, step).unwrap().backend;
        backend.started();
        running.push_back(backend.clone());
        let mean = running.len() as f64 / 8.0;
        let max = balancer
            .set()
            .iter()
            .map(|(backend, _)| backend.load().in_flight())
            .max();
        assert!(
            f64::from(max.unwrap()) <= 1.25 * mean + 1.0,
            "{max:?} of {mean}"
        );
        if running.len() == 200 {
            let ended = running.remove(rng.usize(..200)).unwrap();
            let _ = ended.finished(now, SECOND, Outcome::Success, false);
        }
    }
}

#[test]
fn at_most_half_are_ejected_and_never_the_last() {
    for (count, ejected) in [(1, 0), (2, 1), (3, 1), (4, 2), (7, 3)] {
        let (mut balancer, now) = balancer(BalanceOptions::new(), &infos(count));
        for number in 0..usize::from(count) {
            fail(&mut balancer, number, now);
        }
        let states = balancer.explain(&PickHint::new(), now);
        let out = states
            .iter()
            .filter(|one| one.state == BackendState::Ejected)
            .count();
        assert_eq!(out, ejected, "of {count}");
    }
}

#[test]
fn a_backend_that_refuses_connections_does_not_use_the_quota() {
    let (mut balancer, now) = balancer(BalanceOptions::new(), &infos(4));
    let ids: Vec<_> = balancer
        .set()
        .iter()
        .map(|(backend, _)| backend.id())
        .collect();
    assert!(balancer.refused(ids[0], now));
    assert!(!balancer.refused(ids[0], now), "nothing has changed");
    fail(&mut balancer, 1, now);
    fail(&mut balancer, 2, now);
    let picks_of = |balancer: &Balancer<usize>| picks(balancer, PickHint::new(), now, 100);
    assert!((share(&picks_of(&balancer), 3) - 1.0).abs() < 1e-9);
    fail(&mut balancer, 3, now);
    assert!(
        (share(&picks_of(&balancer), 3) - 1.0).abs() < 1e-9,
        "it is the last"
    );
    balancer.refused(ids[3], now);
    balancer.refresh(now);
    let picks = picks_of(&balancer);
    assert!(
        share(&picks, 1) + share(&picks, 2) > 0.99,
        "ejected ones are the last resort"
    );
}

#[test]
fn if_all_are_unreachable_a_call_gets_one_of_them() {
    for policy in policies() {
        let (mut balancer, now) = balancer(BalanceOptions::new().policy(policy), &infos(3));
        let ids: Vec<_> = balancer
            .set()
            .iter()
            .map(|(backend, _)| backend.id())
            .collect();
        for id in ids {
            balancer.refused(id, now);
        }
        balancer.refresh(now);
        assert_eq!(picks(&balancer, PickHint::new(), now, 20).len(), 20);
    }
}

#[test]
fn a_drain_notice_is_not_a_failure() {
    let (mut balancer, now) = balancer(BalanceOptions::new(), &infos(2));
    let backend = balancer.set().get(0).unwrap().clone();
    for _ in 0..100 {
        backend.started();
        let _ = backend.finished(now, SECOND, Outcome::Cancelled, false);
    }
    balancer.going_away(backend.id(), now);
    assert!(!balancer.failing(backend.id(), now));
    balancer.refresh(now);
    assert!(!picks(&balancer, PickHint::new(), now, 100).contains(&0));
    balancer.connected(backend.id(), now);
    balancer.refresh(now);
    let state = balancer.explain(&PickHint::new(), now)[0].state;
    assert_eq!(
        state,
        BackendState::Ready,
        "a short absence does not begin slow start"
    );
}

#[test]
fn an_ejected_backend_is_tested_by_one_idempotent_call() {
    let (mut balancer, now) = balancer(BalanceOptions::new(), &infos(2));
    fail(&mut balancer, 0, now);
    let later = now + 13 * SECOND;
    assert!(balancer.refresh(later).is_none(), "it waits for a ping");
    let due: Vec<_> = balancer.due_pings().map(|backend| backend.id()).collect();
    assert_eq!(due.len(), 1);
    assert!(balancer.pinged(due[0], later, true));
    balancer.refresh(later);
    let picker = balancer.picker().clone();
    let pick = |hint: PickHint<'_>| {
        let picked = picker.pick(&hint, later, 1).unwrap();
        (*picked.backend.data(), picked.trial)
    };
    assert_eq!(pick(PickHint::new()), (1, false));
    assert_eq!(pick(PickHint::new().idempotent(true)), (0, true));
    assert_eq!(
        pick(PickHint::new().idempotent(true)),
        (1, false),
        "only one"
    );
    let backend = balancer.set().get(0).unwrap().clone();
    let notice = backend.finished(later, SECOND, Outcome::Cancelled, true);
    assert_eq!(notice, Notice::None);
    assert_eq!(
        pick(PickHint::new().idempotent(true)),
        (0, true),
        "the next one"
    );
    let notice = backend.finished(later, SECOND, Outcome::Success, true);
    assert_eq!(notice, Notice::Trial(true));
    assert!(balancer.trial_ended(backend.id(), later, true));
    balancer.refresh(later);
    let state = balancer.explain(&PickHint::new(), later)[0].state;
    assert_eq!(state, BackendState::SlowStart);
}

#[test]
fn after_an_outage_of_all_calls_are_throttled() {
    let (mut balancer, now) = balancer(BalanceOptions::new(), &infos(8));
    let ids: Vec<_> = balancer
        .set()
        .iter()
        .map(|(backend, _)| backend.id())
        .collect();
    balancer.connected(ids[0], now);
    for id in &ids {
        balancer.refused(*id, now);
    }
    balancer.refresh(now);
    balancer.connected(ids[0], now);
    let next = balancer.refresh(now).unwrap();
    assert_eq!(next, now + 10 * SECOND);
    let passed = |balancer: &Balancer<usize>| {
        let picked = (0..4000).map(|random| balancer.picker().pick(&PickHint::new(), now, random));
        picked.filter(Result::is_ok).count()
    };
    assert!(passed(&balancer).abs_diff(1000) < 120);
    balancer.connected(ids[1], now);
    balancer.refresh(now);
    assert!(passed(&balancer).abs_diff(2000) < 150);
    balancer.refresh(now + 10 * SECOND);
    assert_eq!(passed(&balancer), 4000);
}

#[test]
fn the_lowest_priority_with_a_usable_backend_is_used() {
    let set = [info(0), info(1), info(2).priority(1), info(3).priority(1)];
    for policy in policies() {
        let (mut balancer, now) = balancer(BalanceOptions::new().policy(policy.clone()), &set);
        let ids: Vec<_> = balancer
            .set()
            .iter()
            .map(|(backend, _)| backend.id())
            .collect();
        let first = picks(&balancer, PickHint::new(), now, 200);
        assert!(first.iter().all(|pick| *pick < 2), "{policy:?}");
        let other = picks(&balancer, PickHint::new().excluded(&ids[..2]), now, 200);
        assert!(other.iter().all(|pick| *pick >= 2), "{policy:?}");
        balancer.refused(ids[0], now);
        balancer.refused(ids[1], now);
        balancer.refresh(now);
        let second = picks(&balancer, PickHint::new(), now, 200);
        assert!(second.iter().all(|pick| *pick >= 2), "{policy:?}");
    }
}

#[test]
fn the_own_zone_is_preferred_until_its_queue_is_long() {
    let set: Vec<_> = (0..6_u16)
        .map(|number| info(number).zone(["a", "b", "c"][usize::from(number) / 2]))
        .collect();
    let (mut balancer, now) = balancer(BalanceOptions::new().zone("a"), &set);
    assert!(
        picks(&balancer, PickHint::new(), now, 200)
            .iter()
            .all(|pick| *pick < 2)
    );
    let other = picks(&balancer, PickHint::new().zone("c"), now, 200);
    assert!(other.iter().all(|pick| *pick >= 4));
    for _ in 0..40 {
        balancer.set().get(0).unwrap().started();
        balancer.set().get(1).unwrap().started();
    }
    for second in 1..=5 {
        balancer.refresh(now + second * SECOND);
    }
    let away = |balancer: &Balancer<usize>| {
        let picks = picks(balancer, PickHint::new(), now, 1000);
        picks.iter().filter(|pick| **pick >= 2).count()
    };
    assert!(
        away(&balancer).abs_diff(500) < 100,
        "half of the calls leave"
    );
    for _ in 0..40 {
        balancer.set().get(0).unwrap().load().finished();
        balancer.set().get(1).unwrap().load().finished();
    }
    for second in 6..=16 {
        balancer.refresh(now + second * SECOND);
    }
    assert_eq!(away(&balancer), 0);
    let id = balancer.set().get(0).unwrap().id();
    balancer.refused(id, now);
    balancer.refresh(now);
    assert!(away(&balancer) > 500, "one backend is too few for a zone");
}

#[test]
fn an_explanation_says_why() {
    let set = [info(0), info(1).weight(0), info(2).zone("b"), info(3)];
    let (mut balancer, now) = balancer(BalanceOptions::new().zone("a"), &set);
    fail(&mut balancer, 0, now);
    let id = balancer.set().get(3).unwrap().id();
    let excluded = [id];
    let all = balancer.explain(&PickHint::new().excluded(&excluded), now);
    assert_eq!(all[0].state, BackendState::Ejected);
    assert!(
        all[0].reasons[0].contains("5 failures in a row"),
        "{:?}",
        all[0].reasons
    );
    assert_eq!((all[1].state, all[1].score), (BackendState::Drained, None));
    assert!(
        all[2]
            .reasons
            .iter()
            .any(|reason| reason.contains("another zone"))
    );
    assert!(
        all[3]
            .reasons
            .iter()
            .any(|reason| reason.contains("already"))
    );
    assert!(all[0].score > all[2].score);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_sequence_of_events_leaves_a_backend_that_is_not_drained(
        weights in proptest::collection::vec(0..3_u32, 1..8),
        events in proptest::collection::vec((0..8_usize, 0..8_u8, 0..20_u64), 0..40),
        policy in 0..8_usize,
    ) {
        let set = (0..).zip(&weights).map(|(number, weight)| info(number).weight(*weight));
        let set: Vec<_> = set.collect();
        let options = BalanceOptions::new().policy(policies()[policy].clone()).ring_size(1024);
        let (mut balancer, mut now) = balancer(options.recovery(Duration::ZERO, 0.5), &set);
        for (number, event, seconds) in events {
            now += Duration::from_secs(seconds);
            let Some(backend) = balancer.set().get(number % weights.len()).cloned() else {
                continue;
            };
            match event {
                0 => drop(balancer.refused(backend.id(), now)),
                1 => drop(balancer.going_away(backend.id(), now)),
                2 => drop(balancer.connected(backend.id(), now)),
                3 => drop(balancer.pinged(backend.id(), now, seconds % 2 == 0)),
                4 => drop(balancer.trial_ended(backend.id(), now, seconds % 2 == 0)),
                5 => drop(backend.started()),
                _ => fail(&mut balancer, number % weights.len(), now),
            }
            balancer.refresh(now);
            let hint = PickHint::new().hash(Some(seconds)).idempotent(event % 2 == 0);
            match balancer.picker().pick(&hint, now, seconds) {
                Ok(picked) => prop_assert!(set[picked.index].weight > 0),
                Err(_) => prop_assert!(weights.iter().all(|weight| *weight == 0)),
            }
        }
    }
}

#[test]
fn a_backend_at_its_capacity_is_avoided_and_not_ejected() {
    let reject = |policy: Policy| {
        let options = BalanceOptions::new().policy(policy);
        let (mut balancer, now) = balancer(options, &infos(3));
        let backend = Arc::clone(balancer.set().get(0).unwrap());
        let rejected = Outcome::Rejected {
            pushback: Duration::from_millis(100),
        };
        for _ in 0..100 {
            backend.started();
            let notice = backend.finished(now, Duration::from_micros(50), rejected, false);
            if notice == Notice::Failing {
                balancer.failing(backend.id(), now);
            }
        }
        for number in [1, 2] {
            let other = balancer.set().get(number).unwrap();
            other.observed(now, Duration::from_millis(1), 1);
        }
        balancer.refresh(now);
        let picks = picks(&balancer, PickHint::new(), now, 1000);
        let ejected = balancer.explain(&PickHint::new(), now)[0].state == BackendState::Ejected;
        (share(&picks, 0), ejected)
    };
    assert_eq!(reject(Policy::P2c), (0.0, false));
    assert_eq!(reject(Policy::LeastPending), (0.0, true));
}
