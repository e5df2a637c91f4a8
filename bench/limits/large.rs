//! The limit of rows S10b and S10c: large payloads from one process to another, one after the other,
//! without JavaScript on either side. The receiver looks at every byte of its own copy, or of memory
//! that nobody else can write to, and answers. `large HOW SIZE COUNT` prints megabytes a second.
//!
//! HOW: `copied-area` copies the payload into memory that is used again and again, `filled-area`
//! fills that; `copied-memfd` and `filled-memfd` do so with new memory each time.

use std::env;
use std::error::Error;
use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::ptr;
use std::time::Instant;

use brood::sys::area::{Area, View};
use brood::sys::block::Block;
use brood::sys::sealed;
use brood::sys::socket::{self, Ancillary};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

type Outcome<T> = Result<T, Box<dyn Error>>;

const LOOK: &str = "look";
const NEVER_THERE: u8 = 1;
/// Turns before the clock runs, as in the row.
const WARM_UP: usize = 2;
const USAGE: &str = "usage: large HOW SIZE COUNT";

fn main() -> Outcome<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [how, size, rest] = arguments.as_slice() else {
        return Err(USAGE.into());
    };
    let size = size.parse()?;
    if rest == LOOK {
        let channel = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        return match how.ends_with("area") {
            true => look_at_area(channel, size),
            false => look_at_files(channel, size),
        };
    }
    let (mut channel, theirs) = UnixStream::pair()?;
    let mut child = Command::new(env::current_exe()?)
        .args([how, &size.to_string(), LOOK])
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()?;
    let mut sender = Sender::new(how, size)?;
    for _ in 0..WARM_UP {
        sender.turn(&mut channel)?;
    }
    let (count, start) = (rest.parse()?, Instant::now());
    for _ in 0..count {
        sender.turn(&mut channel)?;
    }
    let rate = (count * size) as f64 / 1e6 / start.elapsed().as_secs_f64();
    println!(r#"{{"rate":{rate}}}"#);
    drop(channel);
    child.wait()?;
    Ok(())
}

/// What a turn sends.
struct Sender {
    payload: Vec<u8>,
    is_filled: bool,
    /// The area, and its descriptor until it is sent.
    area: Option<(Area, Option<OwnedFd>)>,
}

impl Sender {
    fn new(how: &str, size: usize) -> Outcome<Sender> {
        let (is_filled, has_area) = match how {
            "copied-area" => (false, true),
            "filled-area" => (true, true),
            "copied-memfd" => (false, false),
            "filled-memfd" => (true, false),
            _ => return Err(USAGE.into()),
        };
        let area = match has_area {
            true => Some(Area::create(size)?),
            false => None,
        };
        Ok(Sender {
            payload: vec![b'a'; size],
            is_filled,
            area: area.map(|(area, file)| (area, Some(file))),
        })
    }

    fn turn(&mut self, channel: &mut UnixStream) -> Outcome<()> {
        let file = match &mut self.area {
            Some((area, file)) => {
                if self.is_filled {
                    // SAFETY: as many bytes are mapped and writable.
                    unsafe { ptr::write_bytes(area.start().as_ptr(), 7, area.size()) };
                } else {
                    area.fill(&self.payload);
                }
                file.take()
            }
            None if self.is_filled => Some(filled(self.payload.len())?),
            None => Some(sealed::copy(&self.payload)?),
        };
        let file: Vec<BorrowedFd<'_>> = file.iter().map(AsFd::as_fd).collect();
        socket::send(channel.as_fd(), &[IoSlice::new(b"m")], &file)?;
        wait(channel)?;
        channel.read_exact(&mut [0])?;
        Ok(())
    }
}

fn filled(size: usize) -> Outcome<OwnedFd> {
    let (file, mapping) = sealed::writable(size)?;
    // SAFETY: as many bytes are mapped and writable.
    unsafe { ptr::write_bytes(mapping.start().cast::<u8>().as_ptr(), 7, size) };
    drop(mapping);
    sealed::seal(&file)?;
    Ok(file)
}

/// Waits as an event loop does.
fn wait(channel: &UnixStream) -> Outcome<()> {
    let mut waiting = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
    poll(&mut waiting, PollTimeout::NONE)?;
    Ok(())
}

/// The next message's descriptor, if it has one; nothing at the end.
fn next(channel: &UnixStream) -> Outcome<Option<Option<OwnedFd>>> {
    wait(channel)?;
    let received = socket::receive(channel.as_fd(), &mut [0])?;
    Ok(match (received.bytes, received.ancillary) {
        (0, _) => None,
        (_, Ancillary::Complete(mut files)) => Some(files.pop()),
        _ => Some(None),
    })
}

fn look(bytes: &[u8]) -> Outcome<()> {
    match memchr::memchr(NEVER_THERE, bytes) {
        None => Ok(()),
        Some(_) => Err("a byte that should not be there".into()),
    }
}

fn look_at_area(mut channel: UnixStream, size: usize) -> Outcome<()> {
    let (mut block, mut view) = (Block::new(size)?, None);
    while let Some(file) = next(&channel)? {
        if let Some(file) = file {
            view = Some(View::open(&file, size)?);
        }
        let view: &View = view.as_ref().ok_or("no area")?;
        view.copy_to(&mut block, size);
        look(block.bytes(size))?;
        channel.write_all(b"a")?;
    }
    Ok(())
}

fn look_at_files(mut channel: UnixStream, size: usize) -> Outcome<()> {
    while let Some(file) = next(&channel)? {
        let mapping = sealed::map(&file.ok_or("no memory")?, size)?;
        look(mapping.bytes())?;
        drop(mapping);
        channel.write_all(b"a")?;
    }
    Ok(())
}
