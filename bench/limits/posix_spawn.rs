//! The limit of rows S1 and S3: what posix_spawn of a small program takes without JavaScript
//! around it. `posix_spawn blocked PROGRAM COUNT` prints the median that one takes in
//! microseconds, `posix_spawn rate PROGRAM COUNT PARALLEL` how many run to their end in a second.

use nix::sys::wait::wait;
use std::error::Error;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["blocked", program, count] => {
            println!(r#"{{"blocked":{}}}"#, blocked(program, count.parse()?)?);
        }
        ["rate", program, count, parallel] => {
            let rate = rate(program, count.parse()?, parallel.parse()?)?;
            println!(r#"{{"rate":{rate}}}"#);
        }
        _ => return Err("usage: posix_spawn blocked|rate PROGRAM COUNT [PARALLEL]".into()),
    }
    Ok(())
}

/// The standard library takes posix_spawn whenever nothing has to run in the child first.
fn spawn(program: &str) -> Result<Child, std::io::Error> {
    Command::new(program)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

fn blocked(program: &str, count: usize) -> Result<f64, Box<dyn Error>> {
    let mut times: Vec<f64> = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        let mut child = spawn(program)?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
        child.wait()?;
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// `parallel` of them live at a time: for each that ends the next is started.
fn rate(program: &str, count: usize, parallel: usize) -> Result<f64, Box<dyn Error>> {
    let start = Instant::now();
    for started in 0..count {
        if started >= parallel {
            wait()?;
        }
        spawn(program)?;
    }
    for _ in 0..parallel.min(count) {
        wait()?;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}
