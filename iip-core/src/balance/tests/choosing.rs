//! Backends that the application chooses.

use std::collections::BTreeSet;

use super::super::{BackendState, CallKey, CallMetadata, CallView, Fallback, PickError, go_hash};
use super::*;

/// Backends 0 to 5, of which 0 and 1 are in the group `a`, and 1, 2 and 3 in `b`.
fn grouped() -> Vec<BackendInfo> {
    let mut set = infos(6);
    for (number, group) in [(0, "a"), (1, "a"), (1, "b"), (2, "b"), (3, "b")] {
        set[number] = set[number].clone().metadata("group", group);
    }
    set
}

fn chooses(fallback: Fallback) -> BalanceOptions {
    let by_param = Policy::choose(|call| {
        let param = |name: &str| call.param(name);
        match (param("backend"), param("group"), param("reject")) {
            (Some(id), _, _) => Choice::backend(id),
            (_, Some(name), _) => Choice::group(name),
            (_, _, Some(reason)) => Choice::reject(reason),
            _ => Choice::Any,
        }
    });
    BalanceOptions::new().policy(by_param).fallback(fallback)
}

/// The backends that picks for a call of `path` get.
fn picked(
    balancer: &Balancer<usize>,
    path: &str,
    hint: PickHint<'_>,
    now: Instant,
) -> Result<BTreeSet<usize>, PickError> {
    let view = CallView::new(path);
    let choice = balancer.options.policy.chooser().unwrap().choose(&view);
    let hint = hint.choice(Some(&choice));
    let picks = (0..50).map(|random| balancer.picker().pick(&hint, now, random));
    picks.map(|picked| Ok(*picked?.backend.data())).collect()
}

#[test]
fn a_call_gets_a_backend_of_those_that_were_chosen() {
    for fallback in [Fallback::Fail, Fallback::Any] {
        let (balancer, now) = balancer(chooses(fallback), &grouped());
        let picked = |path| picked(&balancer, path, PickHint::new(), now).unwrap();
        assert_eq!(picked("/x"), (0..6).collect());
        assert_eq!(picked("/x?backend=4"), [4].into());
        assert_eq!(picked("/x?group=a"), [0, 1].into());
        assert_eq!(picked("/x?group=b"), [1, 2, 3].into());
    }
}

#[test]
fn a_choice_that_is_not_known_fails_or_falls_back() {
    let cases = ["/x?backend=9", "/x?backend=", "/x?group=c", "/x?group="];
    let (mut fails, now) = balancer(chooses(Fallback::Fail), &grouped());
    let (falls_back, _) = balancer(chooses(Fallback::Any), &grouped());
    for path in cases {
        let hint = PickHint::new();
        assert_eq!(picked(&fails, path, hint, now), Err(PickError::NotFound));
        let all = picked(&falls_back, path, hint, now);
        assert_eq!(all, Ok((0..6).collect()), "{path}");
    }
    for balancer in [&fails, &falls_back] {
        let rejected = picked(balancer, "/x?reject=no", PickHint::new(), now);
        assert_eq!(rejected, Err(PickError::Rejected));
    }
    // A backend may be known later: without any, the call waits for the first snapshot.
    let _ = apply(&mut fails, &[], now);
    fails.refresh(now);
    let none = picked(&fails, "/x?backend=4", PickHint::new(), now);
    assert_eq!(none, Err(PickError::NoBackend));
}

#[test]
fn a_drained_backend_is_not_chosen() {
    let mut set = grouped();
    (set[0].weight, set[1].weight) = (0, 0);
    let (fails, now) = balancer(chooses(Fallback::Fail), &set);
    let (falls_back, _) = balancer(chooses(Fallback::Any), &set);
    for path in ["/x?backend=0", "/x?group=a"] {
        let hint = PickHint::new();
        assert_eq!(picked(&fails, path, hint, now), Err(PickError::NotFound));
        let others = picked(&falls_back, path, hint, now);
        assert_eq!(others, Ok((2..6).collect()), "{path}");
    }
    let left = picked(&fails, "/x?group=b", PickHint::new(), now);
    assert_eq!(left, Ok([2, 3].into()));
}

#[test]
fn health_matters_within_a_group_and_for_the_fallback() {
    let (mut fails, now) = balancer(chooses(Fallback::Fail), &grouped());
    let (mut falls_back, _) = balancer(chooses(Fallback::Any), &grouped());
    for balancer in [&mut fails, &mut falls_back] {
        fail(balancer, 0, now);
    }
    let hint = PickHint::new();
    assert_eq!(picked(&fails, "/x?group=a", hint, now), Ok([1].into()));
    assert_eq!(picked(&fails, "/x?backend=0", hint, now), Ok([0].into()));
    let others = picked(&falls_back, "/x?backend=0", hint, now);
    assert_eq!(others, Ok((1..6).collect()));
    for balancer in [&mut fails, &mut falls_back] {
        fail(balancer, 1, now);
        let states = balancer.explain(&hint, now);
        assert_eq!(states[1].state, BackendState::Ejected);
    }
    assert_eq!(picked(&fails, "/x?group=a", hint, now), Ok([0, 1].into()));
    let others = picked(&falls_back, "/x?group=a", hint, now);
    assert_eq!(others, Ok((2..6).collect()));
}

#[test]
fn an_excluded_backend_is_avoided_within_the_choice() {
    let (fails, now) = balancer(chooses(Fallback::Fail), &grouped());
    let (falls_back, _) = balancer(chooses(Fallback::Any), &grouped());
    let ids = |balancer: &Balancer<usize>| {
        let set = balancer.set().iter();
        set.map(|(backend, _)| backend.id()).collect::<Vec<_>>()
    };
    let (strict, loose) = (ids(&fails), ids(&falls_back));
    let hint = PickHint::new();
    let (one, both) = (hint.excluded(&strict[..1]), hint.excluded(&strict[..2]));
    assert_eq!(picked(&fails, "/x?group=a", one, now), Ok([1].into()));
    assert_eq!(picked(&fails, "/x?group=a", both, now), Ok([0, 1].into()));
    assert_eq!(picked(&fails, "/x?backend=0", one, now), Ok([0].into()));
    let (one, both) = (hint.excluded(&loose[..1]), hint.excluded(&loose[..2]));
    let others = picked(&falls_back, "/x?backend=0", one, now);
    assert_eq!(others, Ok((1..6).collect()));
    let others = picked(&falls_back, "/x?group=a", both, now);
    assert_eq!(others, Ok((2..6).collect()));
}

#[test]
fn a_trial_is_a_call_for_which_its_backend_was_chosen() {
    let (mut balancer, now) = balancer(chooses(Fallback::Fail), &grouped());
    fail(&mut balancer, 0, now);
    let later = now + Duration::from_secs(60);
    balancer.refresh(later);
    let id = balancer.set().get(0).unwrap().id();
    balancer.pinged(id, later, true);
    balancer.refresh(later);
    let trial = |path| {
        let view = CallView::new(path);
        let choice = balancer.options.policy.chooser().unwrap().choose(&view);
        let hint = PickHint::new().idempotent(true).choice(Some(&choice));
        let picked = balancer.picker().pick(&hint, later, 1).unwrap();
        (*picked.backend.data(), picked.trial)
    };
    assert_eq!(trial("/x?backend=4"), (4, false));
    assert!(!trial("/x?group=b").1);
    assert_eq!(trial("/x?group=a"), (0, true));
}

#[test]
fn priorities_hold_within_a_group() {
    let mut set = grouped();
    (set[1].priority, set[2].priority) = (1, 1);
    let (mut balancer, now) = balancer(chooses(Fallback::Fail), &set);
    let first = picked(&balancer, "/x?group=b", PickHint::new(), now);
    assert_eq!(first, Ok([3].into()));
    fail(&mut balancer, 3, now);
    let second = picked(&balancer, "/x?group=b", PickHint::new(), now);
    assert_eq!(second, Ok([1, 2].into()));
}

#[test]
fn all_backends_with_one_id_are_chosen_by_it() {
    let mut set = infos(3);
    for info in &mut set[..2] {
        info.id = "twin".into();
    }
    let now = Instant::now();
    let mut balancer = Balancer::new(chooses(Fallback::Fail), now, 7).unwrap();
    let _ = balancer.apply(&set, now, |_, _| ());
    balancer.refresh(now);
    let choice = Choice::backend("twin");
    let hint = PickHint::new().choice(Some(&choice));
    let pick = || balancer.picker().pick(&hint, now, 1).unwrap();
    pick().backend.started();
    pick().backend.started();
    let set = balancer.set().iter();
    let in_flight: Vec<_> = set.map(|(backend, _)| backend.load().in_flight()).collect();
    assert_eq!(in_flight, [1, 1, 0]);
}

/// Metadata with one entry.
struct Tenant(&'static str);

impl CallMetadata for Tenant {
    fn text(&self, name: &str) -> Option<&str> {
        (name == "tenant").then_some(self.0)
    }
}

#[test]
fn a_view_shows_everything_of_a_call_but_its_payload() {
    let tenant = Tenant("acme");
    let view = CallView::new("/a%62?x=1&y=a+b&x=2")
        .with_key(Some(b"key"))
        .with_metadata(Some(&tenant))
        .with_random(7);
    assert_eq!(view.path(), "/a%62?x=1&y=a+b&x=2");
    assert_eq!(view.method(), "/ab");
    assert_eq!(view.param("y").as_deref(), Some("a b"));
    assert_eq!(view.param("z"), None);
    assert_eq!(view.query().all("x").collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!((view.key(), view.random()), (Some(&b"key"[..]), 7));
    assert_eq!(view.metadata("tenant"), Some("acme"));
    assert_eq!(view.metadata("other"), None);
    let bare = CallView::new("/a");
    assert_eq!(
        (bare.method().as_ref(), bare.metadata("tenant")),
        ("/a", None)
    );
}

#[test]
fn a_policy_that_chooses_is_equal_to_its_clones() {
    let policy = Policy::choose(|_| Choice::Any);
    assert_eq!(policy, policy.clone());
    assert_ne!(policy, Policy::choose(|_| Choice::Any));
    assert_eq!(format!("{policy:?}"), "Choose(Choose)");
}

/// FNV-1 of 32 bits as its definition has it, on wider numbers and without the code under test.
fn fnv1(bytes: &[u8]) -> u64 {
    let mut hash: u64 = 2_166_136_261;
    for byte in bytes {
        hash = hash * 16_777_619 % (1 << 32);
        hash ^= u64::from(*byte);
    }
    hash
}

#[test]
fn a_thousand_keys_get_the_entries_of_the_go_client() {
    let mut set = infos(3);
    for (info, weight) in set.iter_mut().zip([4, 1, 2]) {
        info.weight = weight;
    }
    // The rounds of Go: every backend once, then those with a weight of at least 2, and so on.
    let entries = [0, 1, 2, 0, 2, 0, 0];
    let param = Policy::GoHashParam { name: "u".into() };
    for policy in [Policy::GoHashIp, param] {
        let (balancer, now) = balancer(BalanceOptions::new().policy(policy.clone()), &set);
        let mut seen = BTreeSet::new();
        for number in 0..1000_u32 {
            let text = match number % 2 {
                0 => format!("10.{}.{}.{number}", number % 7, number % 251),
                _ => format!("user {number} ä"),
            };
            let escaped: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let path = format!("/x?v=1&u={escaped}&u=2");
            let hash = policy.hash(CallKey::new(&path).key(text.as_bytes()));
            assert_eq!(u64::from(go_hash(text.as_bytes())), fnv1(text.as_bytes()));
            let hint = PickHint::new().hash(hash);
            let picked = balancer.picker().pick(&hint, now, 5).unwrap();
            let entry = usize::try_from(fnv1(text.as_bytes()) % 7).unwrap();
            assert_eq!(*picked.backend.data(), entries[entry], "{text}");
            seen.insert(entry);
        }
        assert_eq!(seen.len(), 7);
    }
}
