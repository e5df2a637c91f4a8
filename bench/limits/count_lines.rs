//! The limit of row S6: a parent of a stock Node child that only counts the lines it receives, and
//! pauses after each read that found less than it could take. `count_lines NODE SCRIPT COUNT PAUSE`
//! prints messages a second and the microseconds of processor time for one; the pause is in
//! microseconds.

use std::error::Error;
use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

mod stock_child;

const BLOCK: usize = 64 * 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, node, script, count, pause] = arguments.as_slice() else {
        return Err("usage: count_lines NODE SCRIPT COUNT PAUSE".into());
    };
    let (mut child, mut channel) = stock_child::start(node, script, &[count], &[])?;
    let pause = Duration::from_micros(pause.parse()?);
    wait_for_lines(&mut channel, 1, Duration::ZERO)?;
    let (start, before) = (Instant::now(), processor_time()?);
    channel.write_all(b"\"go\"\n")?;
    let count: usize = count.parse()?;
    wait_for_lines(&mut channel, count, pause)?;
    let rate = count as f64 / start.elapsed().as_secs_f64();
    let cpu = (processor_time()? - before) as f64 / count as f64;
    println!(r#"{{"rate":{rate},"cpu":{cpu}}}"#);
    drop(channel);
    child.wait()?;
    Ok(())
}

/// Microseconds that this process has used.
fn processor_time() -> Result<i64, Box<dyn Error>> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    Ok((usage.user_time() + usage.system_time()).num_microseconds())
}

fn wait_for_lines(
    channel: &mut impl Read,
    count: usize,
    pause: Duration,
) -> Result<(), Box<dyn Error>> {
    let mut block = vec![0; BLOCK];
    let mut seen = 0;
    while seen < count {
        let bytes = channel.read(&mut block)?;
        if bytes == 0 {
            return Err("the child closed its channel".into());
        }
        seen += memchr::memchr_iter(b'\n', &block[..bytes]).count();
        if bytes < BLOCK && !pause.is_zero() {
            thread::sleep(pause);
        }
    }
    Ok(())
}
