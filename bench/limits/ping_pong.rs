//! The limits of row S9, as medians in microseconds of the round trip of one small message.
//! `ping_pong COUNT`: between two processes that wait in poll, without JavaScript on either side.
//! `ping_pong COUNT NODE SCRIPT THOUGHT`: with a stock Node child, by a parent that never sleeps, and
//! takes THOUGHT microseconds from each answer to the next message, as JavaScript does.

use std::env;
use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

mod stock_child;

const MESSAGE: &[u8] =
    b"{\"type\":\"task\",\"id\":12345,\"name\":\"some name\",\"values\":[1,2,3],\"ok\":true}\n";
const ECHO: &str = "echo";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let time = match arguments.as_slice() {
        [word] if word == ECHO => {
            return echo(UnixStream::from(
                std::io::stdin().as_fd().try_clone_to_owned()?,
            ));
        }
        [count] => with_ourselves(count.parse()?)?,
        [count, node, script, thought] => {
            let thought = Duration::from_micros(thought.parse()?);
            with_stock_child(count.parse()?, node, script, thought)?
        }
        _ => return Err("usage: ping_pong COUNT [NODE SCRIPT THOUGHT]".into()),
    };
    println!(r#"{{"time":{time}}}"#);
    Ok(())
}

fn with_ourselves(count: usize) -> Result<f64, Box<dyn Error>> {
    let (mut ours, theirs) = UnixStream::pair()?;
    let mut child = Command::new(env::current_exe()?)
        .arg(ECHO)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()?;
    let time = median_of(count, &mut ours, receive)?;
    drop(ours);
    child.wait()?;
    Ok(time)
}

fn with_stock_child(
    count: usize,
    node: &str,
    script: &str,
    thought: Duration,
) -> Result<f64, Box<dyn Error>> {
    let (mut child, mut channel) = stock_child::start(node, script, &[], &[])?;
    channel.set_nonblocking(true)?;
    let time = median_of(count, &mut channel, |channel| {
        let bytes = receive_spinning(channel)?;
        think(thought);
        Ok(bytes)
    })?;
    drop(channel);
    child.wait()?;
    Ok(time)
}

fn median_of(
    count: usize,
    channel: &mut UnixStream,
    receive: impl Fn(&mut UnixStream) -> Result<usize, Box<dyn Error>>,
) -> Result<f64, Box<dyn Error>> {
    let mut times: Vec<f64> = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        channel.write_all(MESSAGE)?;
        receive(channel)?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn echo(mut channel: UnixStream) -> Result<(), Box<dyn Error>> {
    while receive(&mut channel)? > 0 {
        channel.write_all(MESSAGE)?;
    }
    Ok(())
}

/// Waits as an event loop does. A message is small enough to arrive whole.
fn receive(channel: &mut UnixStream) -> Result<usize, Box<dyn Error>> {
    let mut waiting = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
    poll(&mut waiting, PollTimeout::NONE)?;
    Ok(channel.read(&mut [0; 4096])?)
}

fn receive_spinning(channel: &mut UnixStream) -> Result<usize, Box<dyn Error>> {
    loop {
        match channel.read(&mut [0; 4096]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
            result => return Ok(result?),
        }
    }
}

fn think(thought: Duration) {
    let start = Instant::now();
    while start.elapsed() < thought {
        std::hint::spin_loop();
    }
}
