//! When the dispatcher lets things gather: a thread that is woken for each connection spends more
//! on waking than on the connection. Pure; the clock is the caller's.

use std::time::Duration;

/// A thread that has waited less than this before something happened has much to do.
const BUSY: Duration = Duration::from_micros(100);

/// So many times in a row: a few connections at once are not a flood.
const STREAK: u32 = 8;

/// How long things may gather then, for each connection that the worker with the fewest has still
/// to begin with: less than it takes, so that none runs dry. Clients wait so much longer for their
/// connection, in the kernel's backlog, and get it back many times over in processor time for the
/// workers.
const EACH: Duration = Duration::from_micros(40);
/// However much there is to do, and however little.
const LONGEST: Duration = Duration::from_micros(400);
const SHORTEST: Duration = Duration::from_micros(50);

/// How busy the thread has been of late.
#[derive(Debug, Default)]
pub struct Gathering {
    streak: u32,
}

impl Gathering {
    /// How long to pause before the next look, after one for which the thread has `waited`, while
    /// every worker has at least `at_hand` connections to begin with.
    pub fn pause(&mut self, waited: Duration, at_hand: usize) -> Option<Duration> {
        if waited >= BUSY {
            self.streak = 0;
            return None;
        }
        self.streak = (self.streak + 1).min(STREAK);
        let pause = EACH.saturating_mul(u32::try_from(at_hand).unwrap_or(u32::MAX));
        (self.streak == STREAK).then_some(pause.clamp(SHORTEST, LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_micros(10);

    #[test]
    fn a_flood_gathers_and_a_burst_does_not() {
        let mut gathering = Gathering::default();
        for _ in 1..STREAK {
            assert_eq!(gathering.pause(SHORT, 4), None);
        }
        assert_eq!(gathering.pause(SHORT, 4), Some(4 * EACH));
        assert_eq!(gathering.pause(SHORT, 5), Some(5 * EACH));
    }

    #[test]
    fn no_pause_is_so_long_that_a_worker_runs_dry_nor_longer_than_anybody_would_wait() {
        let mut gathering = Gathering::default();
        for _ in 0..STREAK {
            gathering.pause(SHORT, 0);
        }
        assert_eq!(gathering.pause(SHORT, 0), Some(SHORTEST));
        assert_eq!(gathering.pause(SHORT, usize::MAX), Some(LONGEST));
    }

    #[test]
    fn a_quiet_moment_ends_the_flood() {
        let mut gathering = Gathering::default();
        for _ in 0..2 * STREAK {
            gathering.pause(SHORT, 1);
        }
        assert_eq!(gathering.pause(BUSY, 1), None);
        assert_eq!(gathering.pause(SHORT, 1), None);
    }
}
