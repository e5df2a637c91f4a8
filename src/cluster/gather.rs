//! When the dispatcher lets things gather: a thread that is woken for each connection spends more
//! on waking than on the connection. Pure; the clock is the caller's.

use std::time::Duration;

/// A thread that has waited less than this before something happened has much to do.
const BUSY: Duration = Duration::from_micros(100);

/// So many times in a row: a few connections at once are not a flood.
const STREAK: u32 = 8;

/// How long things may gather then. Clients wait so much longer for their connection, in the
/// kernel's backlog, and get it back in processor time for the workers. With 32 clients and two
/// workers 200 us served the most: after 50 the thread still wakes for one or two connections, and
/// from 400 on the workers run dry.
const PAUSE: Duration = Duration::from_micros(200);

/// How busy the thread has been of late.
#[derive(Debug, Default)]
pub struct Gathering {
    streak: u32,
}

impl Gathering {
    /// Whether to pause before the next look, after one for which the thread has `waited`.
    pub fn pause(&mut self, waited: Duration) -> Option<Duration> {
        if waited >= BUSY {
            self.streak = 0;
            return None;
        }
        self.streak = (self.streak + 1).min(STREAK);
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
            assert_eq!(gathering.pause(SHORT), None);
        }
        assert_eq!(gathering.pause(SHORT), Some(PAUSE));
        assert_eq!(gathering.pause(SHORT), Some(PAUSE));
    }

    #[test]
    fn a_quiet_moment_ends_the_flood() {
        let mut gathering = Gathering::default();
        for _ in 0..2 * STREAK {
            gathering.pause(SHORT);
        }
        assert_eq!(gathering.pause(BUSY), None);
        assert_eq!(gathering.pause(SHORT), None);
    }
}
