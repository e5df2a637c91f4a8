//! What children can observe, and what a spawn leaves behind in the parent: against real
//! processes. Tests that change the process they run in, or count what it has, run alone in a
//! process of their own.

#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "tests, whose processes end with them"
)]

mod background;
mod descriptors;
mod ending;
mod exec;
mod limits;
mod signals;
mod sync;
mod tree;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command as StdCommand;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::*;

/// Runs `body` in a process of its own: this test binary with only the test of that name.
fn run_alone(module: &str, test: &str, body: impl FnOnce()) {
    const WITNESS: &str = "BROOD_TEST_ALONE";
    if std::env::var_os(WITNESS).is_some() {
        return body();
    }
    let name = format!("{module}::{test}");
    let name = name.split_once("::").map_or(&*name, |(_, rest)| rest);
    let output = StdCommand::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(WITNESS, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(text.contains("1 passed"), "{name} is not a test:\n{text}");
}

/// A test that runs alone.
macro_rules! alone {
    ($(#[$attribute:meta])* fn $name:ident() $body:block) => {
        $(#[$attribute])*
        #[test]
        fn $name() {
            super::run_alone(module_path!(), stringify!($name), || $body);
        }
    };
}
use alone;

/// A command with these arguments, the first of which is also its file.
fn command(arguments: &[&str]) -> Command {
    Command {
        file: arguments[0].into(),
        arguments: arguments.join("\0").into(),
        ..Command::default()
    }
}

fn shell(script: &str) -> Command {
    command(&["sh", "-c", script])
}

/// Runs the command with its output in a pipe; returns what it wrote and how it ended.
fn output(mut command: Command) -> (String, Status) {
    command
        .stdio
        .resize(command.stdio.len().max(3), Stdio::Ignore);
    command.stdio[1] = Stdio::Pipe;
    let mut spawned = spawn(command).unwrap();
    let text = read_all(spawned.ends[1].take().unwrap());
    (text, spawned.child.wait().unwrap().status)
}

/// What the command wrote; it must end well.
fn written(command: Command) -> String {
    let (text, status) = output(command);
    assert_eq!(status, Status::Exited(0), "{text}");
    text
}

/// Eight threads that run a program over and over.
fn spawn_from_many_threads() {
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                for turn in 0..25 {
                    let text = format!("{thread}-{turn}");
                    assert_eq!(written(command(&["printf", &text])), text);
                }
            });
        }
    });
}

fn read_all(end: OwnedFd) -> String {
    set_blocking(&end);
    let mut text = String::new();
    File::from(end).read_to_string(&mut text).unwrap();
    text
}

/// Reads until the end of a line, and leaves the pipe open.
fn read_line(end: &OwnedFd) -> String {
    set_blocking(end);
    let mut file = File::from(end.try_clone().unwrap());
    let (mut line, mut byte) = (Vec::new(), [0]);
    while file.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

fn set_blocking(end: &OwnedFd) {
    fcntl(end, FcntlArg::F_SETFL(OFlag::O_RDWR)).unwrap();
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// A directory that is removed at the end of the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("brood-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn file(&self, name: &str, mode: u32, text: &str) -> String {
        use std::os::unix::fs::PermissionsExt;
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn raw(fd: &OwnedFd) -> i32 {
    fd.as_raw_fd()
}
