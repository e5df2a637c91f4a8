//! What holds for every policy whatever the candidates are, and for each what makes it that one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::rotation::{Rotation, TURN};
use super::*;

const SEED: [u8; 16] = *b"sixteen byte key";

fn worker(id: u32) -> Candidate {
    Candidate {
        id,
        weight: 1,
        draining: false,
        free: true,
        in_flight: 0,
        utilisation: 0,
    }
}

fn workers(count: u32) -> Vec<Candidate> {
    (1..=count).map(worker).collect()
}

fn weighted(weights: &[u32]) -> Vec<Candidate> {
    let ids = 1..;
    let pairs = ids.zip(weights);
    pairs
        .map(|(id, &weight)| Candidate {
            weight,
            ..worker(id)
        })
        .collect()
}

fn client(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(number.wrapping_add(0x0a00_0000)))
}

/// The id of the worker chosen.
fn choose(scheduler: &mut Scheduler, candidates: &[Candidate], client: Option<IpAddr>) -> u32 {
    match scheduler.choose(candidates, client) {
        Choice::Worker(index) => candidates[index].id,
        other => panic!("{other:?} with {candidates:?}"),
    }
}

/// How often each worker is chosen, in the order of the candidates.
fn tally(scheduler: &mut Scheduler, candidates: &[Candidate], choices: u32) -> Vec<u32> {
    let mut counts = vec![0; candidates.len()];
    for number in 0..choices {
        match scheduler.choose(candidates, Some(client(number))) {
            Choice::Worker(index) => counts[index] += 1,
            other => panic!("{other:?} with {candidates:?}"),
        }
    }
    counts
}

fn assert_shares(counts: &[u32], weights: &[u32], tolerance: f64) {
    let all: u32 = counts.iter().sum();
    let total: u32 = weights.iter().sum();
    for (&count, &weight) in counts.iter().zip(weights) {
        let due = f64::from(all) * f64::from(weight) / f64::from(total);
        let error = (f64::from(count) - due).abs() / due;
        assert!(
            error <= tolerance,
            "{counts:?} by {weights:?}: off by {error}"
        );
    }
}

fn any_candidate() -> impl Strategy<Value = Candidate> {
    (
        1u32..12,
        prop_oneof![4 => 1u32..10, 1 => any::<u32>()],
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.7),
        prop_oneof![4 => 0u32..50, 1 => any::<u32>()],
        any::<u16>(),
    )
        .prop_map(
            |(id, weight, draining, free, in_flight, utilisation)| Candidate {
                id,
                weight,
                draining,
                free,
                in_flight,
                utilisation,
            },
        )
}

/// Some candidates with different ids, in any order.
fn any_candidates() -> impl Strategy<Value = Vec<Candidate>> {
    prop::collection::vec(any_candidate(), 0..10).prop_map(|mut candidates| {
        let mut seen = std::collections::HashSet::new();
        candidates.retain(|candidate| seen.insert(candidate.id));
        candidates
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn only_workers_that_can_take_one_are_chosen(
        rounds in prop::collection::vec((any_candidates(), any::<Option<u32>>()), 1..40),
        seed: [u8; 16],
    ) {
        for policy in Policy::ALL {
            let mut scheduler = Scheduler::new(policy, seed);
            for (candidates, number) in &rounds {
                let able = candidates.iter().any(Candidate::can_take);
                let is_hopeless = candidates.iter().all(|candidate| candidate.draining);
                match scheduler.choose(candidates, number.map(client)) {
                    Choice::Worker(index) => prop_assert!(candidates[index].can_take()),
                    Choice::Nobody => prop_assert!(is_hopeless),
                    Choice::Wait => {
                        prop_assert!(!is_hopeless);
                        let waits_for_one =
                            matches!(policy, Policy::StrictRoundRobin | Policy::Sticky);
                        prop_assert!(waits_for_one || !able, "{policy:?} waits for nothing");
                    }
                }
            }
        }
    }

    #[test]
    fn a_hopeless_choice_is_told_from_one_to_wait_for(candidates in any_candidates()) {
        let is_hopeless = candidates.iter().all(|candidate| candidate.draining);
        for policy in Policy::ALL {
            let choice = Scheduler::new(policy, SEED).choose(&candidates, Some(client(1)));
            prop_assert_eq!(choice == Choice::Nobody, is_hopeless);
        }
    }

    #[test]
    fn strict_shares_are_exact_to_a_turn_after_any_number_of_circles(
        weights in prop::collection::vec(1u32..20, 1..8),
        circles in 1u32..20,
    ) {
        let candidates = weighted(&weights);
        let mut scheduler = Scheduler::new(Policy::StrictRoundRobin, SEED);
        let counts = tally(&mut scheduler, &candidates, circles * weights.iter().sum::<u32>());
        for (count, weight) in counts.iter().zip(&weights) {
            prop_assert!(count.abs_diff(circles * weight) <= 1, "{counts:?} by {weights:?}");
        }
    }

    #[test]
    fn strict_shares_are_within_one_percent_when_workers_are_often_at_their_bound(
        weights in prop::collection::vec(1u32..6, 2..6),
        bounds in prop::collection::vec(any::<u8>(), 64..128),
    ) {
        let mut candidates = weighted(&weights);
        let mut scheduler = Scheduler::new(Policy::StrictRoundRobin, SEED);
        let mut counts = vec![0; candidates.len()];
        let mut rounds = bounds.iter().cycle();
        while counts.iter().sum::<u32>() < 6_000 {
            let mask = rounds.next().copied().unwrap_or_default();
            for (index, candidate) in candidates.iter_mut().enumerate() {
                candidate.free = mask & 1 << index == 0;
            }
            match scheduler.choose(&candidates, None) {
                Choice::Worker(index) => counts[index] += 1,
                // What is waited for comes.
                _ => rounds = [0].iter().cycle(),
            }
        }
        assert_shares(&counts, &weights, 0.01);
    }

    #[test]
    fn nobody_is_owed_more_than_a_few_turns_however_workers_come_and_go(
        weights: [u8; 8],
        rounds in prop::collection::vec((any::<u8>(), any::<u8>()), 1..2000),
    ) {
        let all: Vec<_> = weights.map(u32::from).to_vec();
        let mut rotation = Rotation::default();
        for (members, able) in rounds {
            let mut candidates = weighted(&all);
            candidates.retain(|candidate| members & 1 << (candidate.id - 1) != 0);
            rotation.follow(&candidates);
            rotation.next(&candidates, |candidate| able & 1 << (candidate.id - 1) != 0);
            for credit in rotation.credits() {
                prop_assert!(credit.unsigned_abs() <= 4 * TURN);
            }
        }
    }

    #[test]
    fn least_connections_takes_one_that_has_no_more_than_any_other(
        candidates in any_candidates(),
    ) {
        let choice = Scheduler::new(Policy::LeastConnections, SEED).choose(&candidates, None);
        if let Choice::Worker(index) = choice {
            let chosen = connections(&candidates[index]);
            for other in candidates.iter().filter(|candidate| candidate.can_take()) {
                prop_assert!(compare(chosen, connections(other)).is_le());
            }
        }
    }

    #[test]
    fn one_of_two_is_never_the_more_loaded(
        pair in [any_candidate(), any_candidate()],
        seed: [u8; 16],
    ) {
        let [first, second] = pair;
        let pair = [
            Candidate { id: 1, draining: false, free: true, ..first },
            Candidate { id: 2, draining: false, free: true, ..second },
        ];
        let Choice::Worker(index) = Scheduler::new(Policy::PowerOfTwo, seed).choose(&pair, None)
        else {
            panic!("both are free");
        };
        prop_assert!(compare(load(&pair[index]), load(&pair[1 - index])).is_le());
    }

    #[test]
    fn a_client_keeps_its_worker_whatever_the_load_and_the_order(
        (candidates, shuffled) in any_candidates().prop_flat_map(|candidates| {
            (Just(candidates.clone()), Just(candidates).prop_shuffle())
        }),
        number: u32,
    ) {
        let mut scheduler = Scheduler::new(Policy::Sticky, SEED);
        let calm: Vec<_> = candidates
            .iter()
            .map(|candidate| Candidate { free: true, in_flight: 0, utilisation: 0, ..*candidate })
            .collect();
        let Choice::Worker(home) = scheduler.choose(&calm, Some(client(number))) else {
            return Ok(());
        };
        let home = calm[home].id;
        match scheduler.choose(&shuffled, Some(client(number))) {
            Choice::Worker(index) => prop_assert_eq!(shuffled[index].id, home),
            _ => prop_assert!(candidates.iter().any(|it| it.id == home && !it.free)),
        }
    }

    #[test]
    fn a_client_moves_only_when_its_worker_leaves(
        weights in prop::collection::vec(1u32..5, 2..8),
        leaver: prop::sample::Index,
        drains: bool,
    ) {
        let before = weighted(&weights);
        let mut after = before.clone();
        let left = leaver.index(before.len());
        match drains {
            true => after[left].draining = true,
            false => drop(after.remove(left)),
        }
        let mut scheduler = Scheduler::new(Policy::Sticky, SEED);
        for number in 0..500 {
            let home = choose(&mut scheduler, &before, Some(client(number)));
            let new = choose(&mut scheduler, &after, Some(client(number)));
            prop_assert!(new == home || home == before[left].id);
            prop_assert!(new != before[left].id);
        }
    }

    #[test]
    fn a_client_moves_only_to_the_worker_that_joined(weights in prop::collection::vec(1u32..5, 2..8)) {
        let after = weighted(&weights);
        let (joined, before) = after.split_last().unwrap();
        let mut scheduler = Scheduler::new(Policy::Sticky, SEED);
        for number in 0..500 {
            let home = choose(&mut scheduler, before, Some(client(number)));
            let new = choose(&mut scheduler, &after, Some(client(number)));
            prop_assert!(new == home || new == joined.id);
        }
    }
}

#[test]
fn the_turns_of_a_heavy_worker_are_spread_out() {
    let mut scheduler = Scheduler::new(Policy::RoundRobin, SEED);
    let candidates = weighted(&[3, 1]);
    let turns: Vec<_> = (0..8)
        .map(|_| choose(&mut scheduler, &candidates, None))
        .collect();
    assert_eq!(turns, [1, 1, 2, 1, 1, 1, 2, 1]);
}

#[test]
fn round_robin_goes_on_without_a_worker_at_its_bound_and_strict_waits_for_it() {
    let mut candidates = workers(3);
    candidates[1].free = false;
    let mut skipping = Scheduler::new(Policy::RoundRobin, SEED);
    assert_eq!(tally(&mut skipping, &candidates, 4), [2, 0, 2]);

    let mut strict = Scheduler::new(Policy::StrictRoundRobin, SEED);
    assert_eq!(choose(&mut strict, &candidates, None), 1);
    assert_eq!(strict.choose(&candidates, None), Choice::Wait);
    assert_eq!(strict.choose(&candidates, None), Choice::Wait);
    candidates[1].free = true;
    assert_eq!(choose(&mut strict, &candidates, None), 2);
    assert_eq!(choose(&mut strict, &candidates, None), 3);
}

#[test]
fn strict_round_robin_passes_over_a_worker_that_drains_or_has_gone() {
    let mut candidates = workers(3);
    let mut strict = Scheduler::new(Policy::StrictRoundRobin, SEED);
    assert_eq!(choose(&mut strict, &candidates, None), 1);
    candidates[1].draining = true;
    assert_eq!(choose(&mut strict, &candidates, None), 3);
    candidates.remove(2);
    assert_eq!(choose(&mut strict, &candidates, None), 1);
}

#[test]
fn a_newcomer_is_neither_flooded_nor_starved() {
    for policy in [Policy::RoundRobin, Policy::StrictRoundRobin] {
        let mut scheduler = Scheduler::new(policy, SEED);
        tally(&mut scheduler, &workers(4), 1_001);
        assert_shares(&tally(&mut scheduler, &workers(5), 500), &[1; 5], 0.01);
    }
}

#[test]
fn a_worker_that_dies_after_each_turn_does_not_lock_its_successors_out() {
    let mut scheduler = Scheduler::new(Policy::RoundRobin, SEED);
    let mut candidates = workers(3);
    let mut deaths = 0;
    for id in 100..1_100 {
        // The third dies whenever it has had its turn.
        if choose(&mut scheduler, &candidates, None) == candidates[2].id {
            candidates[2] = worker(id);
            deaths += 1;
        }
    }
    assert!(deaths > 200, "only {deaths} turns in 1000");
}

#[test]
fn a_changed_weight_counts_at_once() {
    let mut scheduler = Scheduler::new(Policy::RoundRobin, SEED);
    tally(&mut scheduler, &weighted(&[1_000_000, 1]), 17);
    let counts = tally(&mut scheduler, &weighted(&[1, 1]), 100);
    assert_shares(&counts, &[1, 1], 0.02);
}

#[test]
fn a_heavy_worker_that_takes_no_part_does_not_upset_the_turns_of_the_light_ones() {
    let mut scheduler = Scheduler::new(Policy::RoundRobin, SEED);
    let mut candidates = weighted(&[1000, 1, 1]);
    tally(&mut scheduler, &candidates, 700);
    candidates[0].free = false;
    let counts = tally(&mut scheduler, &candidates, 20);
    assert!(counts[1].abs_diff(counts[2]) <= 2, "{counts:?}");
}

#[test]
fn the_smallest_weight_gets_its_turns_beside_the_largest() {
    let mut scheduler = Scheduler::new(Policy::RoundRobin, SEED);
    let candidates = weighted(&[u32::MAX, 0]);
    let counts = tally(&mut scheduler, &candidates, MAX_WEIGHT + 1);
    assert_eq!(counts, [MAX_WEIGHT, 1]);
}

#[test]
fn workers_with_equally_few_connections_take_turns_by_weight() {
    let mut scheduler = Scheduler::new(Policy::LeastConnections, SEED);
    assert_eq!(
        tally(&mut scheduler, &weighted(&[1, 2, 1]), 400),
        [100, 200, 100]
    );
    let mut candidates = weighted(&[1, 2, 2]);
    candidates[0].in_flight = 3;
    candidates[1].in_flight = 6;
    candidates[2].in_flight = 5;
    assert_eq!(choose(&mut scheduler, &candidates, None), 3);
}

#[test]
fn a_saturated_loop_loses_against_an_idle_one_that_has_more_connections() {
    for seed in 0..100 {
        let mut scheduler = Scheduler::new(Policy::PowerOfTwo, [seed; 16]);
        let mut candidates = workers(2);
        candidates[0].utilisation = 1000;
        candidates[1].in_flight = 500;
        assert_eq!(choose(&mut scheduler, &candidates, None), 2);
    }
}

#[test]
fn two_idle_workers_are_drawn_by_weight() {
    let weights = [1, 2, 3, 4];
    let counts = tally(
        &mut Scheduler::new(Policy::PowerOfTwo, SEED),
        &weighted(&weights),
        100_000,
    );
    assert_shares(&counts, &weights, 0.03);
}

#[test]
fn the_random_choice_depends_on_the_seed_only() {
    let turns = |seed: u8| {
        let mut scheduler = Scheduler::new(Policy::PowerOfTwo, [seed; 16]);
        (0..64)
            .map(|_| choose(&mut scheduler, &workers(5), None))
            .collect::<Vec<_>>()
    };
    assert_eq!(turns(1), turns(1));
    assert_ne!(turns(1), turns(2));
}

#[test]
fn clients_are_spread_by_weight() {
    let weights = [1, 1, 2, 4];
    let mut scheduler = Scheduler::new(Policy::Sticky, SEED);
    let counts = tally(&mut scheduler, &weighted(&weights), 100_000);
    assert_shares(&counts, &weights, 0.03);
}

#[test]
fn a_worker_that_leaves_or_joins_moves_its_own_share_of_the_clients() {
    const CLIENTS: u32 = 50_000;
    let mut scheduler = Scheduler::new(Policy::Sticky, SEED);
    let (few, many) = (workers(4), workers(5));
    let moved = (0..CLIENTS)
        .filter(|&number| {
            let before = choose(&mut scheduler, &few, Some(client(number)));
            before != choose(&mut scheduler, &many, Some(client(number)))
        })
        .count();
    let part = moved as f64 / f64::from(CLIENTS);
    assert!((part - 0.2).abs() < 0.01, "{part} of the clients moved");
}

#[test]
fn the_clients_of_a_worker_that_left_are_shared_by_all_the_others() {
    let mut scheduler = Scheduler::new(Policy::Sticky, SEED);
    let (before, after) = (workers(5), workers(4));
    let mut heirs: HashMap<u32, u32> = HashMap::new();
    for number in 0..50_000 {
        if choose(&mut scheduler, &before, Some(client(number))) == 5 {
            *heirs
                .entry(choose(&mut scheduler, &after, Some(client(number))))
                .or_default() += 1;
        }
    }
    let counts: Vec<_> = (1..=4).map(|id| heirs[&id]).collect();
    assert_shares(&counts, &[1; 4], 0.06);
}

#[test]
fn a_clients_worker_cannot_be_told_without_the_key() {
    const CLIENTS: u32 = 20_000;
    let candidates = workers(4);
    let mut one = Scheduler::new(Policy::Sticky, SEED);
    let mut other_key = SEED;
    other_key[15] ^= 1;
    let mut other = Scheduler::new(Policy::Sticky, other_key);
    let same = (0..CLIENTS)
        .filter(|&number| {
            let client = Some(client(number));
            choose(&mut one, &candidates, client) == choose(&mut other, &candidates, client)
        })
        .count();
    // As often as by chance: one in four.
    let part = same as f64 / f64::from(CLIENTS);
    assert!((part - 0.25).abs() < 0.02, "{part} guessed right");
}

#[test]
fn a_client_waits_for_its_own_worker() {
    let mut scheduler = Scheduler::new(Policy::Sticky, SEED);
    let mut candidates = workers(4);
    let home = choose(&mut scheduler, &candidates, Some(client(7)));
    candidates[home as usize - 1].free = false;
    assert_eq!(scheduler.choose(&candidates, Some(client(7))), Choice::Wait);
    candidates[home as usize - 1].draining = true;
    assert_ne!(choose(&mut scheduler, &candidates, Some(client(7))), home);
}

#[test]
fn a_client_is_the_same_over_ipv4_and_through_a_dual_stack_socket() {
    let mut scheduler = Scheduler::new(Policy::Sticky, SEED);
    let candidates = workers(16);
    for number in 0..100 {
        let IpAddr::V4(address) = client(number) else {
            unreachable!("clients have IPv4 addresses")
        };
        let mapped = IpAddr::V6(address.to_ipv6_mapped());
        assert_eq!(
            choose(&mut scheduler, &candidates, Some(IpAddr::V4(address))),
            choose(&mut scheduler, &candidates, Some(mapped))
        );
    }
    let v6 = |last| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last));
    let homes: std::collections::HashSet<_> = (0..100)
        .map(|last| choose(&mut scheduler, &candidates, Some(v6(last))))
        .collect();
    assert!(homes.len() > 10);
}

#[test]
fn clients_without_an_address_are_served_in_turn() {
    let mut scheduler = Scheduler::new(Policy::Sticky, SEED);
    let candidates = weighted(&[1, 2]);
    let turns: Vec<_> = (0..6)
        .map(|_| choose(&mut scheduler, &candidates, None))
        .collect();
    assert_eq!(turns, [2, 1, 2, 2, 1, 2]);
}

#[test]
fn policies_have_the_numbers_of_the_boundary() {
    for policy in Policy::ALL {
        assert_eq!(Policy::from_number(policy as i32), Some(policy));
    }
    assert_eq!(Policy::from_number(1), None);
    assert_eq!(Policy::from_number(7), None);
}
