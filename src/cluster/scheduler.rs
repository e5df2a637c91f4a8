//! Which worker gets the next connection. A scheduler sees only what it is handed: no clock, no
//! system call, no thread. It keeps whose turn it is, by worker id, and a random generator; who is
//! a candidate, how busy each is and what becomes of the choice is the dispatcher's business.

mod random;
mod rotation;
mod sticky;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod simulation;

use std::net::IpAddr;

use random::Random;
use rotation::Rotation;
use sticky::Affinity;

/// How a worker is chosen. The numbers are those of the boundary; 1 is Node's `SCHED_NONE`, where
/// workers accept by themselves and nothing is chosen, and 2 is Node's `SCHED_RR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Policy {
    /// In turn, by weight; a worker at its bound is skipped.
    RoundRobin = 2,
    /// In turn, by weight; a worker at its bound is waited for, so that shares are exact.
    StrictRoundRobin = 3,
    /// Who has the fewest open connections for its weight.
    LeastConnections = 4,
    /// The less loaded of two drawn at random.
    PowerOfTwo = 5,
    /// Always the same worker for the same client address.
    Sticky = 6,
}

impl Policy {
    /// All there are.
    pub const ALL: [Policy; 5] = [
        Policy::RoundRobin,
        Policy::StrictRoundRobin,
        Policy::LeastConnections,
        Policy::PowerOfTwo,
        Policy::Sticky,
    ];

    /// The policy with this number at the boundary.
    pub fn from_number(number: i32) -> Option<Policy> {
        Policy::ALL
            .into_iter()
            .find(|&policy| policy as i32 == number)
    }
}

/// The greatest weight, so that the smallest share is still some part of a turn.
pub const MAX_WEIGHT: u32 = 1 << 20;

/// A worker as the dispatcher sees it at the moment of a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who it is, from one choice to the next. No two candidates of a choice share an id.
    pub id: u32,
    /// Its share relative to the others', from 1 to [`MAX_WEIGHT`]; what is outside counts as the
    /// nearest of the two.
    pub weight: u32,
    /// Gets nothing any more.
    pub draining: bool,
    /// Below its bound: may be handed a connection now.
    pub free: bool,
    /// Open connections, those handed over and not yet accepted included.
    pub in_flight: u32,
    /// How much of the time its event loop works, in permille; more than 1000 counts as 1000.
    pub utilisation: u16,
}

impl Candidate {
    fn can_take(&self) -> bool {
        self.free && !self.draining
    }

    fn share(&self) -> u64 {
        u64::from(self.weight.clamp(1, MAX_WEIGHT))
    }
}

/// What came of a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The candidate with this index.
    Worker(usize),
    /// Somebody must get room first.
    Wait,
    /// No candidate could ever take it: there is none, or all are draining.
    Nobody,
}

/// Chooses workers by one policy.
#[derive(Debug)]
pub struct Scheduler {
    policy: Policy,
    rotation: Rotation,
    random: Random,
    affinity: Affinity,
}

impl Scheduler {
    /// A scheduler that has chosen nobody yet. `seed` must be unpredictable, or clients could find
    /// out which worker they are going to get; schedulers with the same seed send a client to the
    /// same worker.
    pub fn new(policy: Policy, seed: [u8; 16]) -> Self {
        Scheduler {
            policy,
            rotation: Rotation::default(),
            random: Random::new(sticky::derive(&seed, b"draws")),
            affinity: Affinity::new(&seed),
        }
    }

    /// The policy it was made with.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Chooses among the candidates for a connection of `client` (`None` where there is no address,
    /// as on a Unix socket). A worker that is chosen has had its turn, whatever becomes of it.
    pub fn choose(&mut self, candidates: &[Candidate], client: Option<IpAddr>) -> Choice {
        if candidates.iter().all(|candidate| candidate.draining) {
            return Choice::Nobody;
        }
        let chosen = match (self.policy, client) {
            (Policy::RoundRobin, _) | (Policy::Sticky, None) => self.in_turn(candidates),
            (Policy::StrictRoundRobin, _) => self.strictly_in_turn(candidates),
            (Policy::LeastConnections, _) => self.least_connections(candidates),
            (Policy::PowerOfTwo, _) => self.power_of_two(candidates),
            (Policy::Sticky, Some(client)) => self.affinity.of(client, candidates),
        };
        chosen.map_or(Choice::Wait, Choice::Worker)
    }

    fn in_turn(&mut self, candidates: &[Candidate]) -> Option<usize> {
        self.rotation.follow(candidates);
        self.rotation.next(candidates, Candidate::can_take)
    }

    /// A turn that cannot be taken now is not lost: it is the same worker's at the next call.
    fn strictly_in_turn(&mut self, candidates: &[Candidate]) -> Option<usize> {
        let takes_part = |candidate: &Candidate| !candidate.draining;
        self.rotation.follow(candidates);
        let next = self.rotation.peek(candidates, takes_part)?;
        if !candidates[next].free {
            return None;
        }
        self.rotation.advance(candidates, takes_part, next);
        Some(next)
    }

    /// Equals take turns by weight: while connections are so short that nobody ever has one open,
    /// this is round robin.
    fn least_connections(&mut self, candidates: &[Candidate]) -> Option<usize> {
        let able = candidates.iter().filter(|candidate| candidate.can_take());
        let least = *able.min_by(|a, b| compare(connections(a), connections(b)))?;
        self.rotation.follow(candidates);
        self.rotation.next(candidates, |candidate| {
            candidate.can_take() && compare(connections(candidate), connections(&least)).is_eq()
        })
    }

    fn power_of_two(&mut self, candidates: &[Candidate]) -> Option<usize> {
        let first = self.draw(candidates, None)?;
        let Some(second) = self.draw(candidates, Some(first)) else {
            return Some(first);
        };
        let is_lower = compare(load(&candidates[second]), load(&candidates[first])).is_lt();
        Some(if is_lower { second } else { first })
    }

    /// Draws one that can take a connection, by weight, and not the one already drawn.
    fn draw(&mut self, candidates: &[Candidate], drawn: Option<usize>) -> Option<usize> {
        let eligible = || {
            let all = candidates.iter().enumerate();
            all.filter(|(index, candidate)| candidate.can_take() && Some(*index) != drawn)
        };
        let total: u64 = eligible().map(|(_, candidate)| candidate.share()).sum();
        if total == 0 {
            return None;
        }
        let mut ticket = self.random.below(total);
        for (index, candidate) in eligible() {
            if ticket < candidate.share() {
                return Some(index);
            }
            ticket -= candidate.share();
        }
        None
    }
}

/// A quotient, kept as two whole numbers so that equals are equal.
type Quotient = (u64, u64);

fn compare(a: Quotient, b: Quotient) -> std::cmp::Ordering {
    let widen = u128::from;
    (widen(a.0) * widen(b.1)).cmp(&(widen(b.0) * widen(a.1)))
}

fn connections(candidate: &Candidate) -> Quotient {
    (u64::from(candidate.in_flight), candidate.share())
}

/// How long a new connection would have to wait here, in arbitrary units:
/// `(1 + in_flight / weight) * 1 / (1 - utilisation)`.
///
/// A loop that works the fraction u of its time serves new work 1 / (1 - u) times slower than an
/// idle one: the mean slowdown of a server that shares its time evenly, whatever the sizes of the
/// jobs. The connections that are open compete for the same loop, and so does the new one, hence
/// the 1, without which a saturated loop with no connection would pass for idle. The slowdown is
/// rounded down to a whole number, so below half of utilisation it is 1: there new work mostly
/// finds the loop idle, and noise of the measurement must not overrule weights. At saturation it is
/// 1000, so that such a worker loses against an idle one with hundreds of connections more.
fn load(candidate: &Candidate) -> Quotient {
    let utilisation = u64::from(candidate.utilisation.min(999));
    let slowdown = 1000 / (1000 - utilisation);
    let share = candidate.share();
    ((share + u64::from(candidate.in_flight)) * slowdown, share)
}
