//! Synchronous runs: each result is the one Node's spawnSync gives for the same.

use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::*;
use crate::process::sync::{Options, Outcome, run};

fn piped(command: Command) -> Command {
    Command {
        stdio: vec![Stdio::Pipe; 3],
        ..command
    }
}

fn options() -> Options<'static> {
    Options {
        kill_signal: libc::SIGTERM,
        ..Options::default()
    }
}

/// Runs a program with this on its standard input.
fn run_with(words: &[&str], input: &[u8]) -> Outcome {
    let inputs = vec![Some(input)];
    run(
        piped(command(words)),
        &Options {
            inputs,
            ..options()
        },
    )
}

fn status(outcome: &Outcome) -> Option<Status> {
    outcome.ended.map(|ended| ended.status)
}

fn text(outcome: &Outcome, index: usize) -> &str {
    std::str::from_utf8(outcome.output[index].as_ref().unwrap()).unwrap()
}

#[test]
fn both_outputs_and_the_exit_code_are_told() {
    let outcome = run(piped(shell("echo out; echo err >&2; exit 3")), &options());
    assert_eq!((text(&outcome, 1), text(&outcome, 2)), ("out\n", "err\n"));
    assert_eq!(status(&outcome), Some(Status::Exited(3)));
    assert_eq!((outcome.output[0].as_ref(), outcome.error), (None, None));
    assert!(outcome.pid > 1);
}

#[test]
fn input_of_any_size_goes_through() {
    let input: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
    let outcome = run_with(&["cat"], &input);
    assert_eq!(outcome.output[1].as_deref(), Some(&*input));
    assert_eq!(
        (status(&outcome), outcome.error),
        (Some(Status::Exited(0)), None)
    );
}

#[test]
fn without_input_the_standard_input_is_at_its_end() {
    let outcome = run(piped(command(&["cat"])), &options());
    assert_eq!(status(&outcome), Some(Status::Exited(0)));
}

#[test]
fn a_child_that_does_not_read_its_input_is_a_broken_pipe() {
    let input = vec![0; 3_000_000];
    let outcome = run_with(&["true"], &input);
    assert_eq!(status(&outcome), Some(Status::Exited(0)));
    assert_eq!(outcome.error, Some(Errno::EPIPE));
}

#[test]
fn a_short_input_that_the_child_does_not_read_is_no_error() {
    for _ in 0..50 {
        let outcome = run_with(&["true"], b"unread");
        assert_eq!(status(&outcome), Some(Status::Exited(0)));
        assert_eq!(outcome.error, None);
    }
}

#[test]
fn further_pipes_are_collected_and_ignored_ones_are_not() {
    let stdio = vec![
        Stdio::Ignore,
        Stdio::Ignore,
        Stdio::Ignore,
        Stdio::Pipe,
        Stdio::Pipe,
    ];
    let outcome = run(
        Command {
            stdio,
            ..shell("echo three >&3; echo four >&4")
        },
        &options(),
    );
    assert_eq!(
        (text(&outcome, 3), text(&outcome, 4)),
        ("three\n", "four\n")
    );
    assert!(outcome.output[..3].iter().all(Option::is_none));
}

#[test]
fn a_child_that_takes_too_long_is_killed() {
    let timeout = Some(Duration::from_millis(100));
    let start = Instant::now();
    let outcome = run(
        piped(command(&["sleep", "1000"])),
        &Options {
            timeout,
            ..options()
        },
    );
    assert!(start.elapsed() >= Duration::from_millis(100));
    assert_eq!(status(&outcome), Some(Status::Signaled(libc::SIGTERM)));
    assert_eq!(outcome.error, Some(Errno::ETIMEDOUT));
    assert_eq!(text(&outcome, 1), "");
}

#[test]
fn a_child_that_survives_the_signal_is_waited_for() {
    let timeout = Some(Duration::from_millis(200));
    let script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let outcome = run(
        piped(shell(script)),
        &Options {
            timeout,
            ..options()
        },
    );
    assert_eq!(status(&outcome), Some(Status::Exited(5)));
    assert_eq!(outcome.error, Some(Errno::ETIMEDOUT));
    assert_eq!(text(&outcome, 1), "ready\n");
}

#[test]
fn a_signal_that_is_none_is_reported_and_the_child_killed() {
    let timeout = Some(Duration::from_millis(50));
    let options = Options {
        timeout,
        kill_signal: 500,
        ..options()
    };
    let outcome = run(piped(command(&["sleep", "1000"])), &options);
    assert_eq!(status(&outcome), Some(Status::Signaled(libc::SIGKILL)));
    assert_eq!(outcome.error, Some(Errno::ETIMEDOUT));
}

/// Both outputs count; what was read in one block stays.
#[test]
fn too_much_output_ends_the_child_and_keeps_whole_blocks() {
    let max_buffer = Some(100_000);
    let outcome = run(
        piped(command(&["yes"])),
        &Options {
            max_buffer,
            ..options()
        },
    );
    assert_eq!(outcome.error, Some(Errno::ENOBUFS));
    assert_eq!(status(&outcome), Some(Status::Signaled(libc::SIGTERM)));
    let length = text(&outcome, 1).len();
    assert!(length > 100_000 && length <= 131_072, "{length}");
}

#[test]
fn as_much_output_as_allowed_is_fine() {
    let max_buffer = Some(12);
    let script = shell("printf 123456; printf 123456 >&2");
    let outcome = run(
        piped(script),
        &Options {
            max_buffer,
            ..options()
        },
    );
    assert_eq!(
        (outcome.error, status(&outcome)),
        (None, Some(Status::Exited(0)))
    );
    let script = shell("printf 123456; printf 1234567 >&2");
    let outcome = run(
        piped(script),
        &Options {
            max_buffer,
            ..options()
        },
    );
    assert_eq!(outcome.error, Some(Errno::ENOBUFS));
}

#[test]
fn the_outputs_are_waited_for_after_the_child_has_ended() {
    let outcome = run(piped(shell("(sleep 0.2; echo late) & exit 0")), &options());
    assert_eq!(text(&outcome, 1), "late\n");
}

#[test]
fn a_program_that_does_not_exist_has_neither_number_nor_output() {
    let outcome = run(piped(command(&["/nonexistent"])), &options());
    assert_eq!(outcome.error, Some(Errno::ENOENT));
    assert_eq!((outcome.pid, outcome.output.len()), (0, 0));
    assert!(outcome.ended.is_none());
}

alone! {
    fn runs_leave_nothing_behind() {
        run(command(&["true"]), &options()); // opens what all children share
        let before = open_descriptors();
        let input = vec![0; 300_000];
        for max_buffer in [None, Some(10), Some(1_000_000)] {
            let inputs = vec![Some(&*input)];
            run(piped(command(&["cat"])), &Options { inputs, max_buffer, ..options() });
            run(piped(command(&["/nonexistent"])), &options());
        }
        assert_eq!(open_descriptors(), before);
        assert_eq!(nix::sys::wait::wait(), Err(Errno::ECHILD));
    }
}
