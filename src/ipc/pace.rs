//! When to wait before reading on. A peer that floods with small messages wakes its reader for
//! every one or two of them; reading a millisecond later takes a hundred at the price of one
//! wake-up, and spares the writer the waking. Only a one-way flood is slowed down like that: who
//! answers is waited for by nobody. Pure: the clock and the waiting belong to the driver.

use std::time::{Duration, Instant};

/// How long a paced reader waits: the delay a flooding peer's messages may see.
pub const PAUSE: Duration = Duration::from_millis(1);

/// Wake-ups closer than this are a flood, if there are enough of them in a row.
const CLOSE: Duration = Duration::from_micros(125);
const IN_A_ROW: u32 = 16;

/// A paced read that brings fewer messages than this was not worth waiting for.
const TOO_FEW: usize = 8;

/// A read of so much brings enough by itself, and the socket's buffer may be filling up.
const PLENTY: usize = 128;
const PLENTY_BYTES: usize = 32 * 1024;

/// What a read brought.
#[derive(Clone, Copy, Debug)]
pub struct Brought {
    /// Messages.
    pub messages: usize,
    /// Bytes.
    pub bytes: usize,
}

/// What a reader knows of its peer's habits.
#[derive(Debug, Default)]
pub struct Pace {
    last: Option<Instant>,
    close_ones: u32,
    paced: bool,
}

impl Pace {
    /// Whether to let [`PAUSE`] pass before the next read. `answered` says that something was
    /// sent to the peer since the last read.
    pub fn should_pause(&mut self, brought: Brought, answered: bool, now: Instant) -> bool {
        let gap = self
            .last
            .replace(now)
            .map(|last| now.saturating_duration_since(last));
        if answered {
            self.forget();
            return false;
        }
        let plenty = brought.messages >= PLENTY || brought.bytes >= PLENTY_BYTES;
        if self.paced {
            if brought.messages < TOO_FEW {
                self.forget();
            }
            return self.paced && !plenty;
        }
        if plenty || gap.is_none_or(|gap| gap > CLOSE) {
            self.close_ones = 0;
            return false;
        }
        self.close_ones += 1;
        self.paced = self.close_ones >= IN_A_ROW;
        self.paced
    }

    fn forget(&mut self) {
        self.close_ones = 0;
        self.paced = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Brought = Brought {
        messages: 1,
        bytes: 100,
    };
    const MANY: Brought = Brought {
        messages: 70,
        bytes: 7000,
    };

    /// Reads `brought` every `gap`, `times` times; how many of them were followed by a pause.
    fn pauses(pace: &mut Pace, brought: Brought, gap: Duration, answered: bool, times: u32) -> u32 {
        let start = pace.last.unwrap_or_else(Instant::now) + gap;
        let pause = |i| u32::from(pace.should_pause(brought, answered, start + gap * i));
        (0..times).map(pause).sum()
    }

    #[test]
    fn a_flood_of_single_messages_is_paced_after_a_while() {
        let mut pace = Pace::default();
        assert_eq!(pauses(&mut pace, ONE, CLOSE / 2, false, IN_A_ROW), 0);
        assert_eq!(pauses(&mut pace, ONE, CLOSE / 2, false, 1), 1);
        assert_eq!(pauses(&mut pace, MANY, PAUSE, false, 100), 100);
    }

    #[test]
    fn messages_now_and_then_are_never_paced() {
        let mut pace = Pace::default();
        assert_eq!(pauses(&mut pace, ONE, CLOSE * 2, false, 1000), 0);
    }

    #[test]
    fn a_conversation_is_never_paced() {
        let mut pace = Pace::default();
        assert_eq!(pauses(&mut pace, ONE, CLOSE / 4, true, 1000), 0);
    }

    #[test]
    fn pacing_ends_with_the_first_pause_that_brought_little() {
        let mut pace = Pace::default();
        pauses(&mut pace, ONE, CLOSE / 2, false, IN_A_ROW + 1);
        assert_eq!(pauses(&mut pace, MANY, PAUSE, false, 1), 1);
        assert_eq!(pauses(&mut pace, ONE, PAUSE, false, 1), 0);
        assert_eq!(pauses(&mut pace, ONE, PAUSE, false, 100), 0);
    }

    #[test]
    fn a_reader_that_gets_plenty_reads_on_at_once_and_stays_paced() {
        let mut pace = Pace::default();
        pauses(&mut pace, ONE, CLOSE / 2, false, IN_A_ROW + 1);
        let plenty = Brought {
            messages: PLENTY,
            bytes: 9000,
        };
        assert_eq!(pauses(&mut pace, plenty, PAUSE, false, 10), 0);
        let large = Brought {
            messages: 10,
            bytes: PLENTY_BYTES,
        };
        assert_eq!(pauses(&mut pace, large, PAUSE, false, 10), 0);
        assert_eq!(pauses(&mut pace, MANY, PAUSE, false, 10), 10);
    }
}
