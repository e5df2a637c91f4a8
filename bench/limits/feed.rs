//! The limit of row S5: feeds a stock Node child with small messages, 64 KiB a write, without any
//! JavaScript on this side. `feed NODE SCRIPT COUNT` prints messages a second.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

mod stock_child;

const MESSAGE: &str = r#"{"type":"task","id":12345,"name":"some name","values":[1,2,3],"ok":true}"#;
const BLOCK: usize = 64 * 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, node, script, count] = arguments.as_slice() else {
        return Err("usage: feed NODE SCRIPT COUNT".into());
    };
    let (mut child, channel) = stock_child::start(node, script, &[count], &[])?;
    let mut replies = BufReader::new(channel.try_clone()?);
    let rate = feed(channel, &mut replies, count.parse()?)?;
    println!(r#"{{"rate":{rate}}}"#);
    drop(replies);
    child.wait()?;
    Ok(())
}

fn feed(
    mut channel: UnixStream,
    replies: &mut impl BufRead,
    count: usize,
) -> Result<f64, Box<dyn Error>> {
    let line = format!("{MESSAGE}\n");
    let per_block = BLOCK / line.len();
    let block = line.repeat(per_block);
    let mut reply = String::new();
    replies.read_line(&mut reply)?;
    let start = Instant::now();
    let mut left = count;
    while left > 0 {
        let now = left.min(per_block);
        channel.write_all(&block.as_bytes()[..now * line.len()])?;
        left -= now;
    }
    replies.read_line(&mut reply)?;
    Ok(count as f64 / start.elapsed().as_secs_f64())
}
