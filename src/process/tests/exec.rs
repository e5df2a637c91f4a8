//! Finding and running the program: what execvp promises, with the child's own environment.

use nix::errno::Errno;

use super::*;
use crate::sys::features;

fn only(entries: &[&str]) -> Environment {
    Environment::Only(entries.join("\0").into())
}

#[test]
fn arguments_arrive_as_they_are() {
    let command = command(&["printf", "<%s>", "a b", "", "ü"]);
    assert_eq!(written(command), "<a b><><ü>");
}

#[test]
fn the_program_is_told_the_name_it_is_given() {
    let mut command = command(&["sh", "-c", "echo $0"]);
    command.arguments = b"other\0-c\0echo $0".into();
    assert_eq!(written(command), "other\n");
}

#[test]
fn an_empty_environment_is_empty() {
    let environment = Environment::Only(Vec::new());
    assert_eq!(
        written(Command {
            environment,
            ..command(&["/usr/bin/env"])
        }),
        ""
    );
}

#[test]
fn an_environment_replaces_ours() {
    let environment = only(&["A=1", "B=x=y", "C="]);
    let text = written(Command {
        environment,
        ..command(&["/usr/bin/env"])
    });
    assert_eq!(text, "A=1\nB=x=y\nC=\n");
}

#[test]
fn our_environment_is_inherited_with_overrides() {
    let overrides = b"BROOD_A=1\0HOME=/nowhere".into();
    let environment = Environment::Inherited { overrides };
    let command = shell("echo $BROOD_A $HOME; env | grep -c ^HOME=; [ -n \"$PATH\" ]");
    assert_eq!(
        written(Command {
            environment,
            ..command
        }),
        "1 /nowhere\n1\n"
    );
}

#[test]
fn the_childs_path_is_searched_not_ours() {
    let scratch = Scratch::new("path");
    scratch.file("bin/brood-tool", 0o755, "#!/bin/sh\necho found\n");
    let path = format!("PATH=/nowhere:{}/bin", scratch.path());
    let environment = only(&[&path]);
    assert_eq!(
        written(Command {
            environment,
            ..command(&["brood-tool"])
        }),
        "found\n"
    );
    assert_eq!(
        spawn(command(&["brood-tool"])).unwrap_err().errno,
        Errno::ENOENT
    );
    let environment = only(&["PATH=/nowhere"]);
    let failed = spawn(Command {
        environment,
        ..command(&["ls"])
    })
    .unwrap_err();
    assert_eq!(failed.errno, Errno::ENOENT);
}

#[test]
fn without_a_path_the_system_directories_are_searched() {
    let environment = only(&["A=1"]);
    assert_eq!(
        written(Command {
            environment,
            ..command(&["printf", "x"])
        }),
        "x"
    );
}

#[test]
fn a_refused_candidate_is_remembered_while_the_search_goes_on() {
    let scratch = Scratch::new("denied");
    scratch.file("a/tool", 0o644, "#!/bin/sh\n");
    scratch.file("b/tool", 0o755, "#!/bin/sh\necho b\n");
    let root = scratch.path();
    let both = only(&[&format!("PATH={root}/a:{root}/b")]);
    assert_eq!(
        written(Command {
            environment: both,
            ..command(&["tool"])
        }),
        "b\n"
    );
    let first = only(&[&format!("PATH={root}/a:{root}/c")]);
    let failed = spawn(Command {
        environment: first,
        ..command(&["tool"])
    })
    .unwrap_err();
    assert_eq!(failed.errno, Errno::EACCES);
}

#[test]
fn a_file_that_is_not_executable_is_refused() {
    let scratch = Scratch::new("mode");
    let file = scratch.file("data", 0o644, "text");
    assert_eq!(spawn(command(&[&file])).unwrap_err().errno, Errno::EACCES);
}

#[test]
fn a_script_without_interpreter_line_is_given_to_the_shell() {
    let scratch = Scratch::new("script");
    let file = scratch.file("script", 0o755, "echo \"$0\" \"$1\" $#\n");
    let text = written(command(&[&file, "an argument", "b"]));
    assert_eq!(text, format!("{file} an argument 2\n"));
}

#[test]
fn arguments_can_be_too_long() {
    let long = "x".repeat(64 << 20);
    assert_eq!(
        spawn(command(&["true", &long])).unwrap_err().errno,
        Errno::E2BIG
    );
}

#[test]
fn the_working_directory_is_the_childs_only() {
    let before = std::env::current_dir().unwrap();
    let directory = Some(b"/usr/bin".into());
    assert_eq!(
        written(Command {
            directory,
            ..command(&["pwd"])
        }),
        "/usr/bin\n"
    );
    assert_eq!(std::env::current_dir().unwrap(), before);
}

#[test]
fn a_relative_path_starts_in_the_childs_directory() {
    let scratch = Scratch::new("relative");
    scratch.file("here", 0o755, "#!/bin/sh\necho here\n");
    let directory = Some(scratch.path().into());
    assert_eq!(
        written(Command {
            directory,
            ..command(&["./here"])
        }),
        "here\n"
    );
}

#[test]
fn a_missing_working_directory_looks_like_a_missing_program() {
    let directory = Some(b"/nonexistent".into());
    let failed = spawn(Command {
        directory,
        ..command(&["true"])
    })
    .unwrap_err();
    assert_eq!(failed.errno, Errno::ENOENT);
}

#[test]
fn a_detached_child_leads_a_session_of_its_own() {
    let ids = "read pid name state parent group session rest < /proc/self/stat; ";
    let script = format!("{ids} echo $group $session $$");
    let script = script.replace("/proc/self", "/proc/$$");
    let text = written(Command {
        detached: true,
        ..shell(&script)
    });
    let numbers: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(numbers[0], numbers[2]);
    assert_eq!(numbers[1], numbers[2]);
    let text = written(shell(&script));
    let session = nix::unistd::getsid(None).unwrap().to_string();
    assert_eq!(text.split_whitespace().nth(1), Some(&*session));
}

alone! {
    fn a_kernel_without_clone_pidfd_is_served_too() {
        features::CLONE3.write_off();
        assert_eq!(written(command(&["echo", "hello"])), "hello\n");
        features::CLONE_PIDFD.write_off();
        features::WAIT_PIDFD.write_off();
        assert_eq!(written(command(&["echo", "hello"])), "hello\n");
        assert_eq!(spawn(command(&["/nonexistent"])).unwrap_err().errno, Errno::ENOENT);
        let child = spawn(command(&["sleep", "1000"])).unwrap().child;
        child.signal(libc::SIGTERM).unwrap();
    }
}

alone! {
    fn many_threads_can_spawn_at_once() {
        spawn_from_many_threads();
        assert_eq!(nix::sys::wait::wait(), Err(Errno::ECHILD));
    }
}

alone! {
    /// The point of sharing the memory. A copying fork takes some ten milliseconds here.
    fn a_large_parent_spawns_as_fast_as_a_small_one() {
        let best = || {
            let times = (0..60)
                .map(|_| {
                    let start = std::time::Instant::now();
                    let mut spawned = spawn(command(&["true"])).unwrap();
                    let time = start.elapsed();
                    spawned.child.wait().unwrap();
                    time
                });
            times.min().unwrap()
        };
        let small = best();
        let memory = vec![1u8; 1 << 30];
        let large = best();
        assert_eq!(memory[memory.len() / 2], 1);
        assert!(large < small * 3, "{small:?} and {large:?} with 1 GiB");
    }
}

alone! {
    fn credentials_change_in_the_child_and_the_parent_stays_dumpable() {
        if !is_root() {
            return;
        }
        let script = "id -u; id -g; id -G; grep -c . /proc/self/environ";
        let text = written(Command { uid: Some(65534), gid: Some(65534), ..shell(script) });
        assert!(text.starts_with("65534\n65534\n65534\n"), "{text}");
        let text = written(Command { gid: Some(1), ..shell("id -u; id -g; id -G") });
        assert_eq!(text, "0\n1\n1\n");
        assert_eq!(unsafe { libc::prctl(libc::PR_GET_DUMPABLE) }, 1);
        let failed = spawn(Command { uid: Some(1), ..command(&["/nonexistent"]) }).unwrap_err();
        assert_eq!(failed.errno, Errno::ENOENT);
        assert_eq!(nix::sys::wait::wait(), Err(Errno::ECHILD));
    }
}

alone! {
    fn credentials_that_may_not_be_taken_are_refused() {
        if !is_root() {
            return;
        }
        nix::unistd::setresuid(65534.into(), 65534.into(), 65534.into()).unwrap();
        let failed = spawn(Command { uid: Some(0), ..command(&["true"]) }).unwrap_err();
        assert_eq!(failed.errno, Errno::EPERM);
        let failed = spawn(Command { gid: Some(0), ..command(&["true"]) });
        // Our group may still be root's, which then is no change.
        assert!(failed.is_ok() || failed.unwrap_err().errno == Errno::EPERM);
    }
}
