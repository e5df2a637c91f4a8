//! The end of a child: how it is learned, by whom, and what it tells.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::*;

fn waits_for_input() -> Command {
    Command {
        stdio: vec![Stdio::Pipe],
        ..command(&["cat"])
    }
}

#[test]
fn the_exit_code_and_the_signal_are_told() {
    assert_eq!(output(shell("exit 7")).1, Status::Exited(7));
    assert_eq!(output(shell("kill -9 $$")).1, Status::Signaled(9));
}

#[test]
fn a_running_child_has_no_end_and_its_descriptor_tells_when() {
    let mut spawned = spawn(waits_for_input()).unwrap();
    assert!(spawned.child.try_wait().unwrap().is_none());
    let readable = |child: &Child, wait: PollTimeout| {
        let mut fds = [PollFd::new(child.as_fd().unwrap(), PollFlags::POLLIN)];
        poll(&mut fds, wait).unwrap() == 1
    };
    assert!(!readable(&spawned.child, PollTimeout::ZERO));
    spawned.ends.clear();
    assert!(readable(&spawned.child, PollTimeout::NONE));
    let ended = spawned.child.try_wait().unwrap().unwrap();
    assert_eq!(ended.status, Status::Exited(0));
    assert_eq!(spawned.child.signal(0), Err(Errno::ESRCH));
    assert_eq!(spawned.child.try_wait().map(drop), Err(Errno::ECHILD));
}

#[test]
fn what_the_child_used_is_told() {
    let mut spawned = spawn(shell("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")).unwrap();
    let usage = spawned.child.wait().unwrap().usage;
    assert!(usage.ru_maxrss > 500);
    assert!(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec > 0);
}

#[test]
fn a_signal_reaches_a_child_and_a_bad_one_is_refused() {
    let mut spawned = spawn(waits_for_input()).unwrap();
    assert_eq!(spawned.child.signal(0), Ok(()));
    assert_eq!(spawned.child.signal(500), Err(Errno::EINVAL));
    spawned.child.signal(libc::SIGTERM).unwrap();
    let ended = spawned.child.wait().unwrap();
    assert_eq!(ended.status, Status::Signaled(libc::SIGTERM));
}

alone! {
    fn a_child_nobody_waits_for_is_reaped_by_later_spawns() {
        let pids: Vec<i32> = (0..20)
            .map(|_| {
                let mut spawned = spawn(waits_for_input()).unwrap();
                let input = spawned.ends[0].take();
                let pid = spawned.child.pid();
                drop(spawned); // the child runs
                drop(input); // and now ends
                pid
            })
            .collect();
        let gone = || pids.iter().all(|pid| !std::fs::exists(format!("/proc/{pid}")).unwrap());
        // At most a few at a time, and some may not have ended when they are looked at.
        let reaped = (0..1000).any(|_| {
            written(command(&["true"]));
            gone()
        });
        assert!(reaped);
        assert_eq!(orphan_count(), 0);
    }
}

alone! {
    fn an_end_that_somebody_else_has_taken_is_an_error() {
        let mut spawned = spawn(command(&["true"])).unwrap();
        nix::sys::wait::wait().unwrap();
        assert_eq!(spawned.child.try_wait().map(drop), Err(Errno::ECHILD));
    }
}
