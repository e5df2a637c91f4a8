//! When to look for an answer instead of sleeping until one comes. A sleeping process is woken
//! within tens of microseconds; one that looks all the time sees an answer in one or two, at the
//! price of a processor. So only for a while, only after something was said, and less and less
//! often where it is in vain. Pure: the looking and the clock are the driver's.

use std::time::Duration;

/// How many occasions are let pass at most, after looking in vain again and again.
const LONGEST_PAUSE: u32 = 64;

/// What one event loop knows of the use of looking.
#[derive(Debug, Default)]
pub struct Busy {
    limit: Duration,
    /// Something was sent or received since the last occasion.
    active: bool,
    /// Occasions to let pass now, and after the next look in vain.
    skip: u32,
    pause: u32,
}

impl Busy {
    /// Looks for `limit` from now on; zero means never.
    pub fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
        (self.skip, self.pause) = (0, 0);
    }

    /// Something was sent or received.
    pub fn stir(&mut self) {
        self.active = true;
    }

    /// The loop is about to sleep: how long to look before it does.
    pub fn occasion(&mut self) -> Option<Duration> {
        if !std::mem::take(&mut self.active) || self.limit.is_zero() {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        Some(self.limit)
    }

    /// Whether looking has paid.
    pub fn looked(&mut self, seen: bool) {
        self.pause = match seen {
            true => 0,
            false => (self.pause * 2).clamp(1, LONGEST_PAUSE),
        };
        // The first look in vain costs nothing yet: a pause for thought is no change of habits.
        self.skip = self.pause / 2;
    }
}

/// Whether looking can pay here: with one processor it keeps from the answer whoever should give it.
pub fn is_worth_while() -> bool {
    std::thread::available_parallelism().is_ok_and(|processors| processors.get() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(50);

    fn busy() -> Busy {
        let mut busy = Busy::default();
        busy.set_limit(LIMIT);
        busy
    }

    /// How many of `occasions`, each after a message, are used, given what looking brings.
    fn looks(busy: &mut Busy, occasions: u32, seen: bool) -> u32 {
        (0..occasions)
            .filter(|_| {
                busy.stir();
                let looks = busy.occasion().is_some();
                if looks {
                    busy.looked(seen);
                }
                looks
            })
            .count() as u32
    }

    #[test]
    fn nobody_looks_without_being_asked_to_or_without_a_message() {
        let mut idle = Busy::default();
        idle.stir();
        assert_eq!(idle.occasion(), None);
        let mut busy = busy();
        assert_eq!(busy.occasion(), None);
        busy.stir();
        assert_eq!(busy.occasion(), Some(LIMIT));
        assert_eq!(busy.occasion(), None);
    }

    #[test]
    fn a_lively_conversation_is_looked_for_every_time() {
        assert_eq!(looks(&mut busy(), 1000, true), 1000);
    }

    #[test]
    fn looking_in_vain_becomes_rare_and_one_answer_brings_it_back() {
        let mut busy = busy();
        let vain = looks(&mut busy, 1000, false);
        assert!((10..50).contains(&vain), "{vain}");
        while looks(&mut busy, 1, true) == 0 {}
        assert_eq!(looks(&mut busy, 100, true), 100);
    }
}
