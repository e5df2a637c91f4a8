//! The limit of row S6: a parent of a stock Node child that only counts the lines it receives.
//! `count_lines NODE SCRIPT COUNT` prints messages a second.

use std::error::Error;
use std::io::{Read, Write};
use std::time::Instant;

mod stock_child;

const BLOCK: usize = 64 * 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, node, script, count] = arguments.as_slice() else {
        return Err("usage: count_lines NODE SCRIPT COUNT".into());
    };
    let (mut child, mut channel) = stock_child::start(node, script, &[count], &[])?;
    wait_for_lines(&mut channel, 1)?;
    let start = Instant::now();
    channel.write_all(b"\"go\"\n")?;
    let count: usize = count.parse()?;
    wait_for_lines(&mut channel, count)?;
    let rate = count as f64 / start.elapsed().as_secs_f64();
    println!(r#"{{"rate":{rate}}}"#);
    drop(channel);
    child.wait()?;
    Ok(())
}

fn wait_for_lines(channel: &mut impl Read, count: usize) -> Result<(), Box<dyn Error>> {
    let mut block = vec![0; BLOCK];
    let mut seen = 0;
    while seen < count {
        let bytes = channel.read(&mut block)?;
        if bytes == 0 {
            return Err("the child closed its channel".into());
        }
        seen += memchr::memchr_iter(b'\n', &block[..bytes]).count();
    }
    Ok(())
}
