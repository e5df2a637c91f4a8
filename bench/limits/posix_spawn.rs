//! The limit of row S1: how long posix_spawn of a small program takes without JavaScript around
//! it. `posix_spawn PROGRAM COUNT` prints the median in microseconds.

use std::error::Error;
use std::process::{Command, Stdio};
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, program, count] = arguments.as_slice() else {
        return Err("usage: posix_spawn PROGRAM COUNT".into());
    };
    let mut times: Vec<f64> = Vec::new();
    for _ in 0..count.parse()? {
        // The standard library takes posix_spawn whenever nothing has to run in the child first.
        let mut command = Command::new(program);
        let ignoring = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let start = Instant::now();
        let mut child = ignoring.spawn()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
        child.wait()?;
    }
    times.sort_by(f64::total_cmp);
    println!(r#"{{"blocked":{}}}"#, times[times.len() / 2]);
    Ok(())
}
