//! Whose turn it is, by weight and smoothly: weights 3 and 1 give a, a, b, a and not a, a, a, b.
//! At every turn those who take part are credited their part of it, and the one who is owed most
//! takes the turn and pays for it. The credits of all workers thus sum to zero, and whoever does
//! not take part for a while keeps its credit: it neither loses a turn it was owed nor catches up
//! on those it missed.

use std::collections::HashMap;

use super::Candidate;

/// A whole turn. Parts of a turn, and not plain weights, so that a credit means the same when the
/// sum of the weights changes, because somebody heavy takes no part for a while, say.
pub(super) const TURN: u64 = 1 << 40;

#[derive(Debug)]
struct Seat {
    id: u32,
    credit: i64,
}

/// The seats of the workers of the last choice, in the order of its candidates.
#[derive(Debug, Default)]
pub(super) struct Rotation {
    seats: Vec<Seat>,
}

impl Rotation {
    /// Makes the seats those of `candidates`: who is gone is forgotten. To be called before the
    /// rest. Costs next to nothing while the workers are the same in the same order.
    pub(super) fn follow(&mut self, candidates: &[Candidate]) {
        let mut pairs = self.seats.iter().zip(candidates);
        let is_same = self.seats.len() == candidates.len()
            && pairs.all(|(seat, candidate)| seat.id == candidate.id);
        if !is_same {
            self.reseat(candidates);
        }
    }

    fn reseat(&mut self, candidates: &[Candidate]) {
        let seats = self.seats.drain(..);
        let credits: HashMap<_, _> = seats.map(|seat| (seat.id, seat.credit)).collect();
        self.seats.extend(candidates.iter().map(|candidate| Seat {
            id: candidate.id,
            credit: credits.get(&candidate.id).copied().unwrap_or(0),
        }));
        self.level();
    }

    /// Shares out what those who left took with them. Otherwise workers that die right after their
    /// turn, in debt, would leave the rest with ever more credit than any newcomer.
    fn level(&mut self) {
        let sum: i64 = self.seats.iter().map(|seat| seat.credit).sum();
        let mean = sum / (self.seats.len().max(1) as i64);
        for seat in &mut self.seats {
            seat.credit -= mean;
        }
    }

    /// Whose turn it is among those who take part; of equals, the first.
    pub(super) fn peek(
        &self,
        candidates: &[Candidate],
        takes_part: impl Fn(&Candidate) -> bool,
    ) -> Option<usize> {
        let total = total(candidates, &takes_part);
        let mut best = None;
        for (index, (seat, candidate)) in self.seats.iter().zip(candidates).enumerate() {
            if !takes_part(candidate) {
                continue;
            }
            let credit = seat.credit + part(candidate, total);
            if best.is_none_or(|(_, most)| credit > most) {
                best = Some((index, credit));
            }
        }
        best.map(|(index, _)| index)
    }

    /// Ends the turn of `chosen`, which [`Rotation::peek`] has named for the same candidates.
    pub(super) fn advance(
        &mut self,
        candidates: &[Candidate],
        takes_part: impl Fn(&Candidate) -> bool,
        chosen: usize,
    ) {
        let total = total(candidates, &takes_part);
        // What was credited, which rounding makes a little less than a turn.
        let mut price = 0;
        for (seat, candidate) in self.seats.iter_mut().zip(candidates) {
            if takes_part(candidate) {
                let part = part(candidate, total);
                seat.credit += part;
                price += part;
            }
        }
        self.seats[chosen].credit -= price;
    }

    /// Names the next and ends its turn.
    pub(super) fn next(
        &mut self,
        candidates: &[Candidate],
        takes_part: impl Fn(&Candidate) -> bool,
    ) -> Option<usize> {
        let next = self.peek(candidates, &takes_part)?;
        self.advance(candidates, &takes_part, next);
        Some(next)
    }

    #[cfg(test)]
    pub(super) fn credits(&self) -> impl Iterator<Item = i64> {
        self.seats.iter().map(|seat| seat.credit)
    }
}

fn total(candidates: &[Candidate], takes_part: impl Fn(&Candidate) -> bool) -> u64 {
    let taking_part = candidates.iter().filter(|candidate| takes_part(candidate));
    taking_part.map(Candidate::share).sum()
}

fn part(candidate: &Candidate, total: u64) -> i64 {
    (candidate.share() * TURN / total) as i64
}
