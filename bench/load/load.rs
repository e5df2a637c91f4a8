//! The load client of rows S11 to S14: so many requests at a time, each followed by the next as
//! soon as its answer is complete and right. One thread, so that the servers have the rest of a
//! small machine.
//!
//! `load PORT SECONDS CONCURRENT new-connections|keep-alive|keep-alive-at-once` prints the requests
//! that were answered, the ones that were not, and the time from the first to the last answer.
//! Connections that are kept are opened one after the other, each when the one before has had its
//! first answer, or all at once.

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// How long the last answers may take after the end.
const GRACE: Duration = Duration::from_secs(5);
const TICK_MS: u16 = 100;
const EVENTS: usize = 64;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, seconds, concurrent, kind] = arguments.as_slice() else {
        return Err("usage: load PORT SECONDS CONCURRENT KIND".into());
    };
    let (keep_alive, at_once) = match kind.as_str() {
        "keep-alive" => (true, false),
        "keep-alive-at-once" => (true, true),
        "new-connections" => (false, true),
        other => return Err(format!("no kind of load: {other}").into()),
    };
    let mut load = Load {
        port: port.parse()?,
        keep_alive,
        request: request(keep_alive),
        epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
        places: Vec::new(),
        answered: 0,
        errors: 0,
    };
    let time = Duration::from_secs_f64(seconds.parse()?);
    let seconds = load.run(time, concurrent.parse()?, at_once)?;
    println!(
        r#"{{"requests":{},"errors":{},"seconds":{seconds}}}"#,
        load.answered, load.errors
    );
    Ok(())
}

fn request(keep_alive: bool) -> String {
    let connection = if keep_alive { "keep-alive" } else { "close" };
    format!("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n\r\n")
}

struct Load {
    port: u16,
    keep_alive: bool,
    request: String,
    epoll: Epoll,
    places: Vec<Option<Exchange>>,
    answered: usize,
    errors: usize,
}

/// A request that waits for its answer.
struct Exchange {
    connection: TcpStream,
    answer: Vec<u8>,
}

impl Load {
    /// Keeps `concurrent` requests going for `time`, then waits for the last answers. Returns the
    /// seconds up to the last answer.
    fn run(&mut self, time: Duration, concurrent: usize, at_once: bool) -> Outcome<f64> {
        let start = Instant::now();
        let end = start + time;
        for _ in 0..if at_once { concurrent } else { 1 } {
            self.add()?;
        }
        let mut last = start;
        let mut events = [EpollEvent::empty(); EVENTS];
        while self.places.iter().any(Option::is_some) && Instant::now() < end + GRACE {
            let count = self.epoll.wait(&mut events, TICK_MS)?;
            for event in &events[..count] {
                let place = event.data() as usize;
                let before = self.answered;
                self.advance(place, Instant::now() < end)?;
                if self.answered > before {
                    last = Instant::now();
                    let is_newest = place + 1 == self.places.len();
                    if is_newest && self.places.len() < concurrent {
                        self.add()?;
                    }
                }
            }
        }
        // What was never answered is lost.
        self.errors += self.places.iter().flatten().count();
        Ok((last - start).as_secs_f64())
    }

    /// One more request at a time.
    fn add(&mut self) -> Outcome<()> {
        self.places.push(None);
        self.open(self.places.len() - 1)
    }

    /// Connects and asks. A refusal is an error of this request, and the place stays empty.
    fn open(&mut self, place: usize) -> Outcome<()> {
        let asked = TcpStream::connect(("127.0.0.1", self.port)).and_then(|mut connection| {
            connection.set_nodelay(true)?;
            connection.write_all(self.request.as_bytes())?;
            connection.set_nonblocking(true)?;
            Ok(connection)
        });
        let Ok(connection) = asked else {
            self.errors += 1;
            return Ok(());
        };
        let event = EpollEvent::new(EpollFlags::EPOLLIN, place as u64);
        self.epoll.add(&connection, event)?;
        self.places[place] = Some(Exchange {
            connection,
            answer: Vec::new(),
        });
        Ok(())
    }

    /// Reads what there is and begins the next request when this one has ended, if there is to be
    /// a next.
    fn advance(&mut self, place: usize, go_on: bool) -> Outcome<()> {
        let Some(exchange) = self.places[place].as_mut() else {
            return Ok(());
        };
        let closed = match exchange.read() {
            Ok(closed) => closed,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(_) => true,
        };
        let over = closed || (self.keep_alive && is_whole(&exchange.answer));
        if !over {
            return Ok(());
        }
        if is_right(&exchange.answer) {
            self.answered += 1;
        } else {
            self.errors += 1;
        }
        if !closed && go_on {
            exchange.answer.clear();
            if exchange
                .connection
                .write_all(self.request.as_bytes())
                .is_ok()
            {
                return Ok(());
            }
            self.errors += 1;
        }
        // Closing it takes it out of epoll.
        self.places[place] = None;
        if go_on {
            self.open(place)?;
        }
        Ok(())
    }
}

impl Exchange {
    /// Returns whether the server has closed the connection.
    fn read(&mut self) -> std::io::Result<bool> {
        let mut block = [0; 4096];
        let bytes = self.connection.read(&mut block)?;
        self.answer.extend_from_slice(&block[..bytes]);
        Ok(bytes == 0)
    }
}

/// Whether as much has come as the head announces.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "));
    length.and_then(|length| length.parse().ok()) == Some(body.len())
}

/// Whether it is the whole answer and the expected one.
fn is_right(answer: &[u8]) -> bool {
    answer.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.ends_with(b"\r\n\r\nok")
}
