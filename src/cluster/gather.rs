//! When the dispatcher lets things gather: a thread that is woken for each connection spends more
//! on waking than on the connection. Pure; the clock is the caller's.

use std::time::Duration;

/// A thread that has waited less than this before something happened has much to do.
const BUSY: Duration = Duration::from_micros(100);

/// So many times in a row: a few connections at once are not a flood.
const STREAK: u32 = 8;

/// How long things may gather then. Clients do not wait for the thread, for workers have permits
/// ahead: what is left of it is what it costs, which with 32 clients and two workers was 4 us a
/// connection after 200 us, 3 after 500 and 2 to 2.5 after 1000. Less often than that, more permits
/// would have to be out.
const PAUSE: Duration = Duration::from_millis(1);

/// A flood is over when nothing has happened for so long.
const QUIET: Duration = Duration::from_millis(5);

/// How busy the thread has been of late.
#[derive(Debug, Default)]
pub struct Gathering {
    streak: u32,
    quiet: Duration,
}

impl Gathering {
    /// Whether to pause before the next look, after one for which the thread has `waited` until
    /// something `happened` or long enough: that is, whether there is a flood.
    pub fn pause(&mut self, waited: Duration, happened: bool) -> Option<Duration> {
        self.quiet = if happened {
            Duration::ZERO
        } else {
            self.quiet + waited
        };
        let is_flood = self.streak == STREAK;
        if self.quiet >= QUIET || !is_flood && waited >= BUSY {
            self.streak = 0;
        } else if !is_flood {
            self.streak += 1;
        }
        (self.streak == STREAK).then_some(PAUSE)
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
            assert_eq!(gathering.pause(SHORT, true), None);
        }
        assert_eq!(gathering.pause(SHORT, true), Some(PAUSE));
        assert_eq!(gathering.pause(SHORT, true), Some(PAUSE));
    }

    #[test]
    fn a_quiet_moment_ends_a_burst() {
        let mut gathering = Gathering::default();
        for _ in 1..STREAK {
            gathering.pause(SHORT, true);
        }
        assert_eq!(gathering.pause(BUSY, true), None);
        assert_eq!(gathering.pause(SHORT, true), None);
    }

    #[test]
    fn a_flood_goes_on_until_nothing_has_happened_for_long() {
        let mut gathering = Gathering::default();
        for _ in 0..STREAK {
            gathering.pause(SHORT, true);
        }
        for _ in 0..100 {
            assert_eq!(gathering.pause(QUIET / 2, false), Some(PAUSE));
            assert_eq!(gathering.pause(QUIET / 2, true), Some(PAUSE));
        }
        assert_eq!(gathering.pause(QUIET / 2, false), Some(PAUSE));
        assert_eq!(gathering.pause(QUIET / 2, false), None);
        assert_eq!(gathering.pause(SHORT, true), None);
    }
}
