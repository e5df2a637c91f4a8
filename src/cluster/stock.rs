//! The messages by which a primary gives a connection to a worker that runs Node's own cluster
//! (`NODE_CLUSTER` with `newconn`), and the worker's answer, in both serializations. Pure.
//!
//! The dispatcher's messages carry negative numbers: the primary's JavaScript counts upwards from
//! zero, so an answer tells by itself whose it is.

use std::borrow::Cow;
use std::io::Write;

use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::ipc::{Framing, V8Reader, V8Writer};

/// A worker's answer to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The number the connection was sent with; negative.
    pub number: i32,
    /// Whether the worker serves it. Else it is the primary's again.
    pub accepted: bool,
}

/// The `NODE_HANDLE` message that carries a connection for the server known as `key`.
pub fn new_connection(framing: Framing, key: &str, number: i32) -> Vec<u8> {
    match framing {
        Framing::JsonLines => new_connection_json(key, number),
        Framing::Advanced => new_connection_advanced(key, number),
    }
}

fn new_connection_json(key: &str, number: i32) -> Vec<u8> {
    let mut text = Vec::with_capacity(128 + key.len());
    text.extend_from_slice(
        br#"{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTER","act":"newconn","key":"#,
    );
    // Neither a string nor a vector can fail.
    let _ = serde_json::to_writer(&mut text, key);
    let _ = write!(text, r#","seq":{number}}}}}"#);
    text
}

fn new_connection_advanced(key: &str, number: i32) -> Vec<u8> {
    let mut value = V8Writer::new();
    value.begin_object();
    value.string("cmd").string("NODE_HANDLE");
    value.string("type").string("net.Native");
    value.string("msg").begin_object();
    value.string("cmd").string("NODE_CLUSTER");
    value.string("act").string("newconn");
    value.string("key").string(key);
    value.string("seq").integer(number);
    value.end_object(4);
    value.end_object(3);
    value.into_bytes()
}

/// The answer to one of the dispatcher's messages that this payload is, if any.
pub fn reply(framing: Framing, payload: &[u8]) -> Option<Reply> {
    match framing {
        Framing::JsonLines => reply_json(payload),
        Framing::Advanced => reply_advanced(payload),
    }
}

fn reply_json(payload: &[u8]) -> Option<Reply> {
    // What any answer of ours contains, as JSON.stringify writes it.
    memmem::find(payload, br#""ack":-"#)?;
    let answer: Answer = serde_json::from_slice(payload).ok()?;
    (answer.cmd == "NODE_CLUSTER").then_some(Reply {
        number: number(answer.ack)?,
        accepted: answer.accepted.is_some_and(|value| value.get() == "true"),
    })
}

/// What is read of an answer in JSON.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    cmd: Cow<'a, str>,
    ack: i64,
    /// Anything but true is a refusal.
    #[serde(borrow)]
    accepted: Option<&'a RawValue>,
}

fn reply_advanced(payload: &[u8]) -> Option<Reply> {
    let mut value = V8Reader::new(payload)?;
    let (mut is_ours, mut ack, mut accepted) = (false, None, false);
    value.begin_object()?;
    while let Some(name) = value.name() {
        match &*name.as_str() {
            "cmd" => is_ours = value.string()?.is("NODE_CLUSTER"),
            "ack" => ack = Some(value.integer()?),
            "accepted" => accepted = value.boolean()?,
            _ => drop(value.integer()?),
        }
    }
    let number = number(i64::from(ack?))?;
    is_ours.then_some(Reply { number, accepted })
}

/// A number of the dispatcher's.
fn number(ack: i64) -> Option<i32> {
    i32::try_from(ack).ok().filter(|&number| number < 0)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn answers_in_both_serializations_are_recognised() {
        let json = br#"{"cmd":"NODE_CLUSTER","ack":-7,"accepted":true,"seq":3}"#;
        let advanced =
            b"\xff\x0fo\"\x03cmd\"\x0cNODE_CLUSTER\"\x03ackI\x0d\"\x08acceptedT\"\x03seqI\x06{\x04";
        let answer = Some(Reply {
            number: -7,
            accepted: true,
        });
        assert_eq!(reply(Framing::JsonLines, json), answer);
        assert_eq!(reply(Framing::Advanced, advanced), answer);
    }

    #[test]
    fn answers_to_javascript_and_messages_of_the_user_are_not_ours() {
        for line in [
            &br#"{"cmd":"NODE_CLUSTER","ack":7,"accepted":true,"seq":3}"#[..],
            br#"{"cmd":"NODE_CLUSTER","act":"online","seq":0}"#,
            br#"{"text":"\"ack\":-1"}"#,
            br#"{"cmd":"OTHER","ack":-7,"accepted":true}"#,
            br#"{"cmd":"NODE_CLUSTER","ack":-1e99}"#,
            br#"["ack":-"#,
        ] {
            assert_eq!(reply(Framing::JsonLines, line), None);
        }
        let mut user = V8Writer::new();
        user.begin_object().string("ack").integer(-7).end_object(1);
        assert_eq!(reply(Framing::Advanced, &user.into_bytes()), None);
    }

    #[test]
    fn a_refusal_is_an_answer_without_acceptance() {
        let refusal = Some(Reply {
            number: -2,
            accepted: false,
        });
        for line in [
            &br#"{"cmd":"NODE_CLUSTER","ack":-2,"accepted":false,"seq":3}"#[..],
            br#"{"cmd":"NODE_CLUSTER","ack":-2,"accepted":"yes","seq":3}"#,
            br#"{"cmd":"NODE_CLUSTER","ack":-2}"#,
            br#"{"cmd":"NODE_CLUSTER","accepted":null,"ack":-2}"#,
            br#"{"cmd":"NODE_CLUSTER","accepted":[true,{"a":[1.5]}],"ack":-2}"#,
            br#"{"cmd":"NODE_CLUSTER","accepted":{"true":true,"n":-1},"ack":-2}"#,
            br#"{"\u0063md":"NODE_CLUSTE\u0052","ack":-2}"#,
        ] {
            assert_eq!(reply(Framing::JsonLines, line), refusal);
        }
    }

    #[test]
    fn any_key_becomes_valid_json() {
        let key = "a\"\n\u{1f600}:80:4:undefined:0";
        let message = new_connection(Framing::JsonLines, key, -3);
        let value: Value = serde_json::from_slice(&message).unwrap();
        assert_eq!(value["msg"]["key"], key);
        assert_eq!(value["msg"]["seq"], -3);
        assert!(!message.contains(&b'\n'));
    }
}
