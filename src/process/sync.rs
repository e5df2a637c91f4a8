//! Runs a child to its end while the caller waits: feeds its inputs, collects its outputs, keeps a
//! deadline and a bound on memory. What counts as an error, and which one is reported, is as in
//! Node's spawnSync.

use std::iter::repeat;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, Shutdown, send, shutdown};
use nix::unistd::read;

use super::child::Child;
use super::command::Command;
use super::spawn::{Spawned, spawn_fed};
use crate::sys::pidfd::Ended;

/// Node reads into blocks of this size, and what fits one when the bound is crossed is kept.
const BLOCK: usize = 64 * 1024;
/// Reads of one pipe before the others get their turn.
const READS: usize = 32;

/// How to run.
#[derive(Debug, Default)]
pub struct Options<'a> {
    /// What is written to the pipe of each descriptor, which is then shut down. The standard
    /// input is shut down in any case.
    pub inputs: Vec<Option<&'a [u8]>>,
    /// How long the child may run.
    pub timeout: Option<Duration>,
    /// How many bytes all outputs together may have.
    pub max_buffer: Option<u64>,
    /// What ends a child that runs too long or writes too much.
    pub kill_signal: i32,
}

/// What became of it.
#[derive(Default)]
pub struct Outcome {
    /// The child's number, 0 when there was none.
    pub pid: i32,
    /// How the child ended; `None` when there was none.
    pub ended: Option<Ended>,
    /// For each descriptor that is a pipe the child writes to, what it wrote.
    pub output: Vec<Option<Vec<u8>>>,
    /// The first thing that went wrong.
    pub error: Option<Errno>,
}

/// Runs the command and waits for its end and that of its outputs.
pub fn run(command: Command, options: &Options<'_>) -> Outcome {
    let deadline = options
        .timeout
        .and_then(|time| Instant::now().checked_add(time));
    let mut inputs = options.inputs.clone();
    let spawned = match spawn_fed(command, |ends| feed(ends, &mut inputs)) {
        Ok(spawned) => spawned,
        Err(failed) => {
            return Outcome {
                error: Some(failed.errno),
                ..Outcome::default()
            };
        }
    };
    let mut run = Run::new(spawned, inputs, options, deadline);
    while run.is_going_on() {
        run.turn();
    }
    run.outcome
}

/// Writes as much of the inputs as the sockets take, and leaves the rest. Done before there is a
/// child, for one that ends without reading would make a short input an error or none, by chance.
fn feed(ends: &[Option<OwnedFd>], inputs: &mut [Option<&[u8]>]) {
    for (end, input) in ends.iter().zip(inputs) {
        if let (Some(socket), Some(bytes)) = (end, input.as_mut())
            && let Ok(rest) = write(socket, bytes)
        {
            *bytes = rest;
        }
    }
}

/// Writes what the socket takes; returns the rest.
fn write<'a>(socket: &OwnedFd, mut bytes: &'a [u8]) -> Result<&'a [u8], Errno> {
    while !bytes.is_empty() {
        match send(socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(bytes)
}

/// Our end of a pipe.
struct Pipe<'a> {
    socket: OwnedFd,
    /// What is still to be written before the writing side is shut down.
    input: Option<&'a [u8]>,
    /// Whether there is more to read.
    open: bool,
}

struct Run<'a> {
    child: Child,
    /// One place a descriptor; all gone once the child was killed.
    pipes: Vec<Option<Pipe<'a>>>,
    kill_signal: i32,
    max_buffer: u64,
    /// Until the child has ended or was killed.
    deadline: Option<Instant>,
    buffered: u64,
    gone: bool,
    killed: bool,
    /// Whether the error of the outcome came from a pipe: any other one takes its place.
    pipe_error: bool,
    block: Box<[u8]>,
    outcome: Outcome,
}

impl<'a> Run<'a> {
    fn new(
        spawned: Spawned,
        inputs: Vec<Option<&'a [u8]>>,
        options: &Options<'a>,
        deadline: Option<Instant>,
    ) -> Run<'a> {
        let mut inputs = inputs.into_iter().chain(repeat(None));
        let mut pipes = Vec::with_capacity(spawned.ends.len());
        let mut output = Vec::with_capacity(spawned.ends.len());
        for (index, end) in spawned.ends.into_iter().enumerate() {
            let input = inputs.next().flatten();
            let (is_input, is_pipe) = (index == 0, end.is_some());
            output.push((is_pipe && !is_input).then(Vec::new));
            pipes.push(end.map(|socket| Pipe {
                socket,
                input: input.or(is_input.then_some(&[])),
                open: !is_input,
            }));
        }
        let outcome = Outcome {
            pid: spawned.child.pid(),
            output,
            ..Outcome::default()
        };
        Run {
            child: spawned.child,
            pipes,
            kill_signal: options.kill_signal,
            max_buffer: options.max_buffer.unwrap_or(u64::MAX),
            deadline,
            buffered: 0,
            gone: false,
            killed: false,
            pipe_error: false,
            block: vec![0; BLOCK].into_boxed_slice(),
            outcome,
        }
    }

    fn is_going_on(&self) -> bool {
        !self.gone || self.pipes.iter().flatten().any(Pipe::is_busy)
    }

    /// Waits for something to happen and deals with all that did.
    fn turn(&mut self) {
        let (child_ready, ready) = self.wait();
        for index in ready {
            self.serve(index);
        }
        if child_ready {
            self.take_end();
        }
        if self.is_going_on() && self.deadline.is_some_and(|time| time <= Instant::now()) {
            self.set_error(Errno::ETIMEDOUT);
            self.kill();
        }
    }

    /// Which of the child's end and the pipes want attention.
    fn wait(&self) -> (bool, Vec<usize>) {
        let child = if self.gone { None } else { self.child.as_fd() };
        let busy = self.pipes.iter().enumerate();
        let busy = busy.filter_map(|(index, pipe)| Some((index, pipe.as_ref()?)));
        let busy: Vec<_> = busy.filter(|(_, pipe)| pipe.is_busy()).collect();
        let mut fds: Vec<PollFd<'_>> = busy
            .iter()
            .map(|(_, pipe)| PollFd::new(pipe.socket.as_fd(), pipe.interest()))
            .collect();
        fds.extend(child.map(|fd: BorrowedFd<'_>| PollFd::new(fd, PollFlags::POLLIN)));
        if poll(&mut fds, self.time_left()).is_err() {
            return (false, Vec::new()); // interrupted: the next turn looks again
        }
        let child_ready = child.is_some() && fds.last().is_some_and(is_ready);
        let ready = busy.iter().zip(&fds).filter(|(_, fd)| is_ready(fd));
        (child_ready, ready.map(|((index, _), _)| *index).collect())
    }

    fn time_left(&self) -> PollTimeout {
        let Some(deadline) = self.deadline else {
            return PollTimeout::NONE;
        };
        // Rounded up, lest the last millisecond is spent looking again and again.
        let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    }

    fn serve(&mut self, index: usize) {
        let Some(pipe) = self.pipes.get_mut(index).and_then(Option::as_mut) else {
            return; // closed by a kill in this turn
        };
        if pipe.input.is_some()
            && let Err(errno) = pipe.write()
        {
            pipe.input = None;
            self.set_pipe_error(errno);
        }
        for _ in 0..READS {
            if !self.read_some(index) {
                break;
            }
        }
    }

    /// Reads once; whether to try again at once.
    fn read_some(&mut self, index: usize) -> bool {
        let Some(Some(pipe)) = self.pipes.get_mut(index) else {
            return false;
        };
        let Some(Some(output)) = self.outcome.output.get_mut(index) else {
            return false;
        };
        if !pipe.open {
            return false;
        }
        let room = BLOCK - output.len() % BLOCK;
        match read(&pipe.socket, &mut self.block[..room]) {
            Ok(0) => pipe.open = false,
            Ok(count) => {
                output.extend_from_slice(&self.block[..count]);
                self.buffered += count as u64;
                if self.buffered > self.max_buffer {
                    self.set_error(Errno::ENOBUFS);
                    self.kill();
                }
                return count == room;
            }
            Err(Errno::EAGAIN) => {}
            Err(Errno::EINTR) => return true,
            Err(errno) => {
                pipe.open = false;
                self.set_pipe_error(errno);
            }
        }
        false
    }

    fn take_end(&mut self) {
        match self.child.try_wait() {
            Ok(None) => return,
            Ok(ended) => self.outcome.ended = ended,
            Err(errno) => self.set_error(errno),
        }
        // The deadline stays: somebody else may hold the pipes open.
        self.gone = true;
    }

    /// Ends the child and stops listening to it. Its own children may go on.
    fn kill(&mut self) {
        if self.killed {
            return;
        }
        self.killed = true;
        self.deadline = None;
        if !self.gone {
            self.signal();
        }
        self.pipes.clear();
    }

    fn signal(&mut self) {
        match self.child.signal(self.kill_signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => {
                self.set_error(errno);
                let _ = self.child.signal(libc::SIGKILL);
            }
        }
    }

    fn set_error(&mut self, errno: Errno) {
        if self.outcome.error.is_none() || self.pipe_error {
            self.outcome.error = Some(errno);
            self.pipe_error = false;
        }
    }

    fn set_pipe_error(&mut self, errno: Errno) {
        if self.outcome.error.is_none() {
            self.outcome.error = Some(errno);
            self.pipe_error = true;
        }
    }
}

impl Pipe<'_> {
    fn is_busy(&self) -> bool {
        self.open || self.input.is_some()
    }

    fn interest(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::POLLIN, self.open);
        flags.set(PollFlags::POLLOUT, self.input.is_some());
        flags
    }

    /// Writes what the socket takes, and shuts the writing side down after the last byte.
    fn write(&mut self) -> Result<(), Errno> {
        let rest = write(&self.socket, self.input.unwrap_or_default())?;
        self.input = Some(rest);
        if !rest.is_empty() {
            return Ok(());
        }
        self.input = None;
        shutdown(self.socket.as_raw_fd(), Shutdown::Write)
    }
}

fn is_ready(fd: &PollFd<'_>) -> bool {
    fd.any().unwrap_or(false)
}
