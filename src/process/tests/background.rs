//! Starts by another thread.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::mpsc::channel;
use std::{env, fs, thread};

use nix::errno::Errno;

use super::*;

/// Begins the command; our ends of its pipes, and what waits for what has become of it.
fn begin(command: Command) -> (Vec<Option<OwnedFd>>, impl FnOnce() -> Result<Child, Errno>) {
    let (sender, outcome) = channel();
    let ends = spawn_in_background(command, move |outcome| sender.send(outcome).unwrap()).unwrap();
    (ends, move || outcome.recv().unwrap())
}

alone! {
    fn the_child_gets_what_was_there_at_the_call() {
        // SAFETY: no other thread of this process uses its environment.
        unsafe { env::set_var("BROOD_MARK", "before") };
        env::set_current_dir("/proc").unwrap();
        let file = fs::File::open("/etc/passwd").unwrap();
        let (ends, outcome) = begin(Command {
            stdio: vec![Stdio::Inherit(file.as_raw_fd()), Stdio::Pipe, Stdio::Ignore],
            ..shell("echo $BROOD_MARK; pwd; readlink /proc/$$/fd/0")
        });
        drop(file);
        unsafe { env::set_var("BROOD_MARK", "after") };
        env::set_current_dir("/").unwrap();
        let text = read_all(ends.into_iter().nth(1).unwrap().unwrap());
        assert_eq!(text, "before\n/proc\n/etc/passwd\n");
        let status = outcome().unwrap().wait().unwrap().status;
        assert_eq!(status, Status::Exited(0));
    }
}

#[test]
fn what_keeps_the_program_from_running_is_told_and_the_pipes_end() {
    let (ends, outcome) = begin(Command {
        stdio: vec![Stdio::Ignore, Stdio::Pipe],
        ..command(&["/no/such/program"])
    });
    assert_eq!(outcome().unwrap_err(), Errno::ENOENT);
    assert_eq!(read_all(ends.into_iter().nth(1).unwrap().unwrap()), "");
}

#[test]
fn a_descriptor_that_is_not_open_is_refused_at_once() {
    let stdio = vec![Stdio::Inherit(987_654)];
    let refused = spawn_in_background(
        Command {
            stdio,
            ..command(&["true"])
        },
        |_| unreachable!("nothing was begun"),
    );
    assert_eq!(refused.unwrap_err().errno, Errno::EBADF);
}

#[test]
fn many_threads_may_begin_at_once() {
    let threads = (0..8).map(|_| {
        thread::spawn(|| {
            let begun: Vec<_> = (0..20)
                .map(|i| (i, begin(shell(&format!("exit {i}")))))
                .collect();
            for (i, (_, outcome)) in begun {
                let status = outcome().unwrap().wait().unwrap().status;
                assert_eq!(status, Status::Exited(i));
            }
        })
    });
    let threads: Vec<_> = threads.collect();
    for thread in threads {
        thread.join().unwrap();
    }
}
