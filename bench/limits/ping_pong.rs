//! The limit of row S9: the round trip of one small message between two processes that wait in
//! poll, without JavaScript on either side. `ping_pong COUNT` prints the median in microseconds.

use std::env;
use std::error::Error;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

const MESSAGE: &[u8] =
    b"{\"type\":\"task\",\"id\":12345,\"name\":\"some name\",\"values\":[1,2,3],\"ok\":true}\n";
const ECHO: &str = "echo";

fn main() -> Result<(), Box<dyn Error>> {
    let argument = env::args().nth(1).ok_or("usage: ping_pong COUNT")?;
    if argument == ECHO {
        return echo(UnixStream::from(
            std::io::stdin().as_fd().try_clone_to_owned()?,
        ));
    }
    let (mut ours, theirs) = UnixStream::pair()?;
    let mut child = Command::new(env::current_exe()?)
        .arg(ECHO)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()?;
    let mut times: Vec<f64> = Vec::new();
    for _ in 0..argument.parse()? {
        let start = Instant::now();
        ours.write_all(MESSAGE)?;
        receive(&mut ours)?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    drop(ours);
    child.wait()?;
    times.sort_by(f64::total_cmp);
    println!(r#"{{"time":{}}}"#, times[times.len() / 2]);
    Ok(())
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
