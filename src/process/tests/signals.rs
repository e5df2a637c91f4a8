//! Signals around a spawn: the child begins with a clean slate, the parent notices nothing.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction};

use super::*;
use crate::sys::features;

static PARENT: AtomicU32 = AtomicU32::new(0);
static CAUGHT: AtomicU32 = AtomicU32::new(0);
static ELSEWHERE: AtomicBool = AtomicBool::new(false);

/// In a child that shares our memory this would be seen by us.
extern "C" fn count(_: i32) {
    let pid = unsafe { libc::syscall(libc::SYS_getpid) } as u32;
    CAUGHT.fetch_add(1, Ordering::Relaxed);
    if pid != PARENT.load(Ordering::Relaxed) {
        ELSEWHERE.store(true, Ordering::Relaxed);
    }
}

fn catch(signal: Signal) {
    PARENT.store(std::process::id(), Ordering::Relaxed);
    let action = SigAction::new(
        SigHandler::Handler(count),
        SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    unsafe { sigaction(signal, &action) }.unwrap();
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap()
}

alone! {
    fn a_child_starts_with_default_dispositions_and_an_empty_mask() {
        catch(Signal::SIGUSR1);
        for signal in [libc::SIGPIPE, libc::SIGHUP, libc::SIGCHLD, libc::SIGTTOU, 40, 64] {
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
        SigSet::all().thread_set_mask().unwrap();
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
        for _ in 0..2 {
            let status = written(command(&["cat", "/proc/self/status"]));
            for name in ["SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd"] {
                assert_eq!(field(&status, name), "0000000000000000", "{name}");
            }
            features::CLONE3.write_off();
        }
    }
}

alone! {
    fn the_parents_mask_and_dispositions_are_as_before() {
        catch(Signal::SIGUSR1);
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGUSR2);
        mask.thread_set_mask().unwrap();
        let ours = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            ["SigBlk", "SigIgn", "SigCgt"].map(|name| field(&status, name).to_owned())
        };
        let before = ours();
        written(command(&["true"]));
        spawn(command(&["/nonexistent"])).unwrap_err();
        assert_eq!(ours(), before);
    }
}

alone! {
    fn a_storm_of_signals_reaches_the_parent_only() {
        catch(Signal::SIGUSR1);
        catch(Signal::SIGALRM);
        let done = AtomicBool::new(false);
        let storm = || {
            SigSet::all().thread_block().unwrap();
            while !done.load(Ordering::Relaxed) {
                nix::sys::signal::kill(nix::unistd::getpid(), Signal::SIGUSR1).unwrap();
                // To the whole group, children between clone and exec included, but for the
                // harness: it is in a session of its own (below).
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(0), Signal::SIGALRM).unwrap();
                std::thread::yield_now();
            }
        };
        nix::unistd::setsid().unwrap_or(nix::unistd::getpid());
        std::thread::scope(|scope| {
            scope.spawn(storm);
            for _ in 0..200 {
                // A child that got the signal before its exec dies of it, as it does after.
                let mut child = spawn(command(&["true"])).unwrap().child;
                let status = child.wait().unwrap().status;
                let killed = Status::Signaled(libc::SIGALRM);
                assert!(status == Status::Exited(0) || status == killed, "{status:?}");
            }
            done.store(true, Ordering::Relaxed);
        });
        assert!(CAUGHT.load(Ordering::Relaxed) > 200);
        assert!(!ELSEWHERE.load(Ordering::Relaxed));
    }
}

alone! {
    /// 32 and 33 belong to libc, whose own functions refuse to block them.
    fn libcs_private_signals_are_blocked_around_the_clone() {
        PARENT.store(std::process::id(), Ordering::Relaxed);
        // The kernel's own structure: handler, flags, restorer, mask.
        let mut action = [0u64; 4];
        let mut old = [0u64; 4];
        unsafe {
            // Takes flags and restorer from an action libc has installed.
            catch(Signal::SIGUSR1);
            libc::syscall(libc::SYS_rt_sigaction, libc::SIGUSR1, 0, &mut action, 8);
            libc::syscall(libc::SYS_rt_sigaction, 33, &action, &mut old, 8);
        }
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let target = nix::unistd::gettid().as_raw();
            let done = &done;
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let pid = std::process::id();
                    unsafe { libc::syscall(libc::SYS_tgkill, pid, target, 33) };
                    // Without a pause the other thread does nothing but handle signals.
                    std::thread::sleep(std::time::Duration::from_micros(100));
                }
            });
            for _ in 0..100 {
                let mut child = spawn(command(&["true"])).unwrap().child;
                assert_eq!(child.wait().unwrap().status, Status::Exited(0));
            }
            done.store(true, Ordering::Relaxed);
        });
        assert!(CAUGHT.load(Ordering::Relaxed) > 0);
        assert!(!ELSEWHERE.load(Ordering::Relaxed));
        let mut mask = SigSet::empty();
        nix::sys::signal::pthread_sigmask(SigmaskHow::SIG_SETMASK, None, Some(&mut mask)).unwrap();
        assert_eq!(mask, SigSet::empty());
    }
}
