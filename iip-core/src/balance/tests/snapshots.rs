use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[test]
fn a_snapshot_changes_what_differs() {
    let (mut balancer, now) = balancer(BalanceOptions::new(), &infos(4));
    let ids: Vec<_> = balancer
        .set()
        .iter()
        .map(|(backend, _)| backend.id())
        .collect();
    let next = [info(1).weight(9), info(2).zone("a"), info(3), info(4)];
    let change = apply(&mut balancer, &next, now);
    let numbers = |backends: &[std::sync::Arc<super::super::Backend<usize>>]| -> Vec<usize> {
        backends.iter().map(|backend| *backend.data()).collect()
    };
    assert_eq!(change.kept, 3);
    assert_eq!(numbers(&change.added), [4]);
    assert_eq!(numbers(&change.removed), [0]);
    assert_eq!(numbers(&change.changed), [1, 2]);
    let after: Vec<_> = balancer
        .set()
        .iter()
        .map(|(backend, _)| backend.id())
        .collect();
    assert_eq!(after[..3], ids[1..]);
    assert_eq!(balancer.set().info(0).unwrap().weight, 9);
}

#[test]
fn the_same_snapshot_again_changes_nothing() {
    let (mut balancer, now) = balancer(BalanceOptions::new(), &infos(4));
    let change = apply(&mut balancer, &infos(4), now);
    assert!(change.is_empty());
    assert_eq!(change.kept, 4);
}

#[test]
fn one_address_may_have_several_ids_and_a_repetition_of_both_is_skipped() {
    let twice = [info(1), info(1).id("2"), info(1)];
    let (balancer, _) = balancer(BalanceOptions::new(), &twice);
    assert_eq!(balancer.set().len(), 2);
}

#[test]
fn another_address_under_one_id_is_a_new_backend() {
    let (mut balancer, now) = balancer(BalanceOptions::new(), &infos(2));
    let old = balancer.set().get(0).unwrap().clone();
    old.started();
    let moved = info(7).id("0");
    let change = apply(&mut balancer, &[moved, info(1)], now);
    assert_eq!(
        (change.kept, change.added.len(), change.removed.len()),
        (1, 1, 1)
    );
    assert_ne!(change.added[0].id(), old.id());
    assert_eq!(change.added[0].load().in_flight(), 0);
    let picker_before_refresh = balancer.picker().clone();
    assert_eq!(picker_before_refresh.set().len(), 2, "a picker stays whole");
}

#[test]
fn statistics_stay_when_the_weight_changes() {
    let (mut balancer, now) = balancer(BalanceOptions::new(), &infos(2));
    balancer.set().get(0).unwrap().started();
    fail(&mut balancer, 1, now);
    let _ = apply(&mut balancer, &[info(1).weight(3), info(0).weight(2)], now);
    balancer.refresh(now);
    assert_eq!(balancer.set().get(1).unwrap().load().in_flight(), 1);
    let picks = picks(&balancer, PickHint::new(), now, 100);
    assert!(share(&picks, 0) > 0.99, "the other one is still ejected");
}

#[test]
fn a_subset_has_its_size_and_leaves_out_drained_backends() {
    let options = BalanceOptions::new().subset(5).client_id(3);
    let (mut balancer, now) = balancer(options, &infos(50));
    assert_eq!(balancer.set().len(), 5);
    let drained = *balancer.set().get(2).unwrap().data();
    let mut next = infos(50);
    next[drained].weight = 0;
    let change = apply(&mut balancer, &next, now);
    assert_eq!(
        (change.kept, change.added.len(), change.removed.len()),
        (4, 1, 1)
    );
}

#[test]
fn a_metadata_change_is_a_change() {
    let (mut balancer, now) = balancer(BalanceOptions::new(), &infos(1));
    let mut next = info(0);
    next.metadata = [("version".to_owned(), "2".to_owned())].into();
    let change = apply(&mut balancer, &[next], now);
    assert_eq!(change.changed.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_set_is_its_last_snapshot_and_what_stays_is_kept(
        snapshots in proptest::collection::vec(
            proptest::collection::vec((0..12_u16, 0..3_u32), 0..12), 1..6,
        ),
    ) {
        let (mut balancer, now) = balancer(BalanceOptions::new(), &[]);
        let mut before = BTreeSet::new();
        for snapshot in snapshots {
            let infos: Vec<_> = snapshot
                .iter()
                .map(|(number, weight)| info(*number).weight(*weight))
                .collect();
            let change = apply(&mut balancer, &infos, now);
            balancer.refresh(now);
            let after: BTreeSet<_> = snapshot.iter().map(|(number, _)| *number).collect();
            prop_assert_eq!(balancer.set().len(), after.len());
            prop_assert_eq!(change.kept, before.intersection(&after).count());
            prop_assert_eq!(change.added.len(), after.difference(&before).count());
            prop_assert_eq!(change.removed.len(), before.difference(&after).count());
            before = after;
        }
    }
}
