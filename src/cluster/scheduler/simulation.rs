//! How connections come to be spread when they last: four workers, connections that are short, long
//! or a mix of both, and a clock that is a counter. `cargo test distribution -- --nocapture`
//! prints the table.

use std::net::{IpAddr, Ipv4Addr};

use super::random::Random;
use super::*;

const WORKERS: usize = 4;
const CONNECTIONS: u32 = 20_000;
/// Open connections a worker may have.
const BOUND: u32 = 500;
/// Open connections that keep a loop busy all the time.
const SATURATION: u32 = 50;

/// How long the connection with this number lasts, in arrivals.
type Life = fn(u32, &mut Random) -> u32;

fn short(_: u32, _: &mut Random) -> u32 {
    1
}

fn long(_: u32, random: &mut Random) -> u32 {
    50 + random.below(101) as u32
}

/// Every fourth connection is long: what ruins plain round robin among four.
fn uneven(number: u32, random: &mut Random) -> u32 {
    match number % 4 {
        0 => 4 * long(number, random),
        _ => 1,
    }
}

struct Outcome {
    /// Connections each worker got, in parts of all.
    shares: [f64; WORKERS],
    /// Mean of its open connections, in parts of everybody's; 0 when none lasts.
    open: [f64; WORKERS],
}

fn simulate(policy: Policy, weights: [u32; WORKERS], life: Life) -> Outcome {
    let mut random = Random::new(7);
    let mut scheduler = Scheduler::new(policy, [3; 16]);
    let mut ends: [Vec<u32>; WORKERS] = Default::default();
    let mut accepted = [0u32; WORKERS];
    let mut open = [0u64; WORKERS];
    for now in 0..CONNECTIONS {
        let mut candidates = Vec::new();
        for (index, ends) in ends.iter_mut().enumerate() {
            ends.retain(|&end| end > now);
            let in_flight = ends.len() as u32;
            open[index] += u64::from(in_flight);
            candidates.push(Candidate {
                id: index as u32 + 1,
                weight: weights[index],
                draining: false,
                free: in_flight < BOUND,
                in_flight,
                utilisation: (in_flight * 1000 / (SATURATION * weights[index])).min(1000) as u16,
            });
        }
        let client = IpAddr::V4(Ipv4Addr::from_bits(random.below(1 << 32) as u32));
        let Choice::Worker(index) = scheduler.choose(&candidates, Some(client)) else {
            panic!("nobody reaches the bound: {candidates:?}");
        };
        accepted[index] += 1;
        ends[index].push(now + life(now, &mut random));
    }
    let all_open: u64 = open.iter().sum();
    Outcome {
        shares: accepted.map(|count| f64::from(count) / f64::from(CONNECTIONS)),
        open: open.map(|sum| sum as f64 / all_open.max(1) as f64),
    }
}

/// The largest distance between a share and what the weights ask for, in parts of the latter.
fn error(shares: [f64; WORKERS], weights: [u32; WORKERS]) -> f64 {
    let total: u32 = weights.iter().sum();
    let errors = shares.iter().zip(weights).map(|(share, weight)| {
        let due = f64::from(weight) / f64::from(total);
        (share - due).abs() / due
    });
    errors.fold(0.0, f64::max)
}

const EVEN: [u32; WORKERS] = [1; WORKERS];
const WEIGHTED: [u32; WORKERS] = [4, 2, 1, 1];

#[test]
fn distribution_of_short_long_and_uneven_connections() {
    let lives: [(&str, Life); 3] = [("short", short), ("long", long), ("uneven", uneven)];
    for policy in Policy::ALL {
        for (name, life) in lives {
            for weights in [EVEN, WEIGHTED] {
                let Outcome { shares, open } = simulate(policy, weights, life);
                println!("{policy:?} {name} {weights:?}: got {shares:.3?}, open {open:.3?}");
                let (got, held) = (error(shares, weights), error(open, weights));
                check(policy, name, got, held);
            }
        }
    }
}

/// What each policy promises: `got` is the error of the number of connections, `held` that of those
/// open at the same time.
fn check(policy: Policy, life: &str, got: f64, held: f64) {
    match (policy, life) {
        // Numbers are fair whatever connections do, what is open need not be.
        (Policy::RoundRobin | Policy::StrictRoundRobin, _) => assert!(got < 0.01, "{got}"),
        // What is open is fair, numbers need not be.
        (Policy::LeastConnections, "short") => assert!(got < 0.01, "{got}"),
        (Policy::LeastConnections, _) => assert!(held < 0.15, "{held}"),
        (Policy::PowerOfTwo, "short") => assert!(got < 0.1, "{got}"),
        (Policy::PowerOfTwo, _) => assert!(held < 0.25, "{held}"),
        // Fair as far as chance is, for clients come in any number.
        (Policy::Sticky, _) => assert!(got < 0.1, "{got}"),
    }
}

#[test]
fn only_policies_that_look_at_workers_spread_uneven_connections_evenly() {
    let held = |policy| error(simulate(policy, EVEN, uneven).open, EVEN);
    assert!(held(Policy::RoundRobin) > 1.0);
    assert!(held(Policy::LeastConnections) < 0.1);
    assert!(held(Policy::PowerOfTwo) < 0.1);
}

#[test]
fn a_blocked_worker_gets_next_to_nothing_from_two_choices() {
    let mut scheduler = Scheduler::new(Policy::PowerOfTwo, [3; 16]);
    let mut candidates: Vec<_> = (1..=4)
        .map(|id| Candidate {
            id,
            weight: 1,
            draining: false,
            free: true,
            in_flight: 20,
            utilisation: 300,
        })
        .collect();
    candidates[0].utilisation = 1000;
    for _ in 0..10_000 {
        assert_ne!(scheduler.choose(&candidates, None), Choice::Worker(0));
    }
}
