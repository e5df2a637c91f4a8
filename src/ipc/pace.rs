//! When to wait before reading on. A peer that floods with small messages wakes its reader for
//! every one or two of them; reading a fraction of a millisecond later takes dozens at the price
//! of one wake-up, and spares the writer the waking. The wait is chosen so that the socket's
//! buffer fills by half, which does not stop the writer. Only a one-way flood is slowed down like
//! that: who is answered is waited for by nobody. Pure: the clock and the waiting belong to the
//! driver.

use std::time::{Duration, Instant};

/// The shortest and the longest wait: the latter is the delay a flooding peer may see.
const SHORTEST: Duration = Duration::from_micros(100);
const LONGEST: Duration = Duration::from_millis(1);

/// What a small message takes of the socket's buffer, which counts memory and not bytes.
const SMALL: usize = 768;

/// The bytes one read should bring, where messages are so large that it brings these first.
const BYTES: f64 = 65_536.0;

/// Wake-ups closer than this are a flood, if there are enough of them in a row.
const CLOSE: Duration = Duration::from_micros(125);
const IN_A_ROW: u32 = 16;

/// A read after the longest wait that brings fewer messages than this ends the pacing.
const TOO_FEW: usize = 8;

/// What a read brought.
#[derive(Clone, Copy, Debug)]
pub struct Brought {
    /// Messages.
    pub messages: usize,
    /// Bytes.
    pub bytes: usize,
}

impl Brought {
    /// How it compares with what one read should bring, `messages` small ones; never zero.
    fn load(self, messages: usize) -> f64 {
        (self.messages as f64 / messages as f64)
            .max(self.bytes as f64 / BYTES)
            .max(1e-3)
    }
}

/// What a reader knows of its peer's habits.
#[derive(Debug)]
pub struct Pace {
    /// The small messages one read should bring.
    messages: usize,
    last: Option<Instant>,
    close_ones: u32,
    wait: Option<Duration>,
}

impl Pace {
    /// For a peer whose socket takes `room` bytes, as the kernel counts them, before it stops.
    pub fn new(room: usize) -> Pace {
        Pace {
            messages: (room / SMALL / 2).max(1),
            last: None,
            close_ones: 0,
            wait: None,
        }
    }

    /// How long to wait before the next read, if at all. `answered` says that something was sent
    /// to the peer since the last read.
    pub fn wait(&mut self, brought: Brought, answered: bool, now: Instant) -> Option<Duration> {
        let gap = self
            .last
            .replace(now)
            .map(|last| now.saturating_duration_since(last));
        if answered {
            self.forget();
            return None;
        }
        self.wait = match self.wait {
            Some(wait) if wait == LONGEST && brought.messages < TOO_FEW => {
                self.forget();
                None
            }
            Some(wait) => Some(
                wait.div_f64(brought.load(self.messages))
                    .clamp(SHORTEST, LONGEST),
            ),
            None => self.first_wait(brought, gap),
        };
        self.wait
    }

    fn first_wait(&mut self, brought: Brought, gap: Option<Duration>) -> Option<Duration> {
        if brought.load(self.messages) >= 1.0 || gap.is_none_or(|gap| gap > CLOSE) {
            self.close_ones = 0;
            return None;
        }
        self.close_ones += 1;
        (self.close_ones >= IN_A_ROW).then_some(SHORTEST)
    }

    fn forget(&mut self) {
        self.close_ones = 0;
        self.wait = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Brought = Brought {
        messages: 1,
        bytes: 100,
    };

    /// Room for 160 small messages, of which one read should bring half.
    fn pace() -> Pace {
        Pace::new(160 * SMALL)
    }

    /// Reads `brought` every `gap`, `times` times; the last wait.
    fn read(pace: &mut Pace, brought: Brought, gap: Duration, times: u32) -> Option<Duration> {
        let start = pace.last.unwrap_or_else(Instant::now);
        (1..=times)
            .map(|i| pace.wait(brought, false, start + gap * i))
            .last()
            .flatten()
    }

    fn flooded() -> Pace {
        let mut pace = pace();
        assert_eq!(read(&mut pace, ONE, CLOSE / 2, IN_A_ROW), None);
        assert_eq!(read(&mut pace, ONE, CLOSE / 2, 1), Some(SHORTEST));
        pace
    }

    /// A peer that writes `rate` messages a second of `size` bytes: the wait it comes to.
    fn settled(rate: f64, size: usize) -> Option<Duration> {
        let mut pace = flooded();
        let (mut wait, mut now) = (SHORTEST, pace.last.unwrap_or_else(Instant::now));
        for _ in 0..50 {
            now += wait;
            let messages = (rate * wait.as_secs_f64()) as usize;
            wait = pace.wait(
                Brought {
                    messages,
                    bytes: messages * size,
                },
                false,
                now,
            )?;
        }
        Some(wait)
    }

    #[test]
    fn messages_now_and_then_are_never_waited_for() {
        assert_eq!(read(&mut pace(), ONE, CLOSE * 2, 1000), None);
    }

    #[test]
    fn a_conversation_is_never_waited_for() {
        let mut pace = flooded();
        let now = pace.last.unwrap_or_else(Instant::now);
        for i in 1..1000 {
            assert_eq!(pace.wait(ONE, true, now + CLOSE / 4 * i), None);
        }
    }

    #[test]
    fn the_wait_settles_where_a_read_brings_what_it_should() {
        let wait = settled(200_000.0, 100).unwrap_or_default().as_secs_f64();
        assert!((wait * 200_000.0 - 80.0).abs() < 20.0, "{wait}");
        let wait = settled(20_000.0, 8192).unwrap_or_default().as_secs_f64();
        assert!(
            (wait * 20_000.0 * 8192.0 - BYTES).abs() < BYTES / 2.0,
            "{wait}"
        );
    }

    #[test]
    fn no_wait_is_longer_than_a_millisecond_or_shorter_than_a_tenth() {
        assert_eq!(settled(10_000.0, 100), Some(LONGEST));
        assert_eq!(settled(10_000_000.0, 100), Some(SHORTEST));
    }

    #[test]
    fn waiting_ends_when_the_longest_wait_brought_little() {
        assert_eq!(settled(1_000.0, 100), None);
        let mut pace = flooded();
        let three = Brought {
            messages: 3,
            bytes: 300,
        };
        assert_eq!(read(&mut pace, three, LONGEST, 1), Some(LONGEST));
        assert_eq!(read(&mut pace, three, LONGEST, 100), None);
    }

    #[test]
    fn large_reads_are_no_flood() {
        let large = Brought {
            messages: 90,
            bytes: 9000,
        };
        assert_eq!(read(&mut pace(), large, CLOSE / 2, 1000), None);
    }
}
