//! The log as a chain of lines: each names the SHA-256 of the line before it, and heads
//! signed by the node's attested key stand between them.
//!
//! The host keeps the file and may do with it what it likes. What it can't do without
//! being noticed: alter, remove, reorder or insert a line before a head, or put another
//! node's or quorum's lines in. What it can do: cut off what came after the last head it
//! shows; compare the last head with a newer one to notice.

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::{hex, unhex};

/// Annotation with a line's place in the chain, from 1.
const SEQUENCE: &str = "audit.nautilus/sequence";
/// Annotation with the SHA-256 of the line before, in hex; zeros for the first.
const PREVIOUS: &str = "audit.nautilus/previous";
/// The kind of a signed head.
const HEAD_KIND: &str = "AuditHead";
/// What its signature is for: nothing else that a node signs begins so.
const LABEL: &[u8] = b"nautilus audit head v1";

/// Where a chain stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// Lines so far.
    pub sequence: u64,
    /// SHA-256 of the last one.
    pub sha256: [u8; 32],
}

/// What a node signs of its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadStatement {
    /// The quorum's identity.
    pub cluster: String,
    /// The node's.
    pub node: u64,
    /// The lines before the head.
    pub head: Head,
    /// When, in milliseconds since the epoch, by the node's clock.
    pub time_ms: u64,
}

impl HeadStatement {
    /// The bytes that are signed: each field with its length before it.
    pub fn to_be_signed(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(192);
        let fields: [&[u8]; 6] = [
            LABEL,
            self.cluster.as_bytes(),
            &self.node.to_be_bytes(),
            &self.head.sequence.to_be_bytes(),
            &self.head.sha256,
            &self.time_ms.to_be_bytes(),
        ];
        for field in fields {
            bytes.extend((field.len() as u64).to_be_bytes());
            bytes.extend_from_slice(field);
        }
        bytes
    }
}

/// A signed head, as a line of the log shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SignedHead {
    /// The quorum's identity.
    pub cluster: String,
    /// The node's.
    pub node: u64,
    /// When, in milliseconds since the epoch.
    pub time_ms: u64,
    /// The key, DER `SubjectPublicKeyInfo` in Base64.
    pub public_key: String,
    /// ECDSA over P-256 and SHA-256, DER in Base64.
    pub signature: String,
    /// The TEE's evidence over the key, in Base64.
    pub evidence: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HeadLine {
    kind: String,
    api_version: String,
    sequence: u64,
    previous: String,
    signed: SignedHead,
}

fn sha256(line: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, line.as_bytes()).as_ref());
    hash
}

impl Head {
    fn after(self, line: &str) -> Self {
        Self {
            sequence: self.sequence + 1,
            sha256: sha256(line),
        }
    }

    /// An event as the next line (without its end), and the chain after it.
    pub(super) fn event(self, mut event: Value) -> (String, Self) {
        if event["annotations"].is_null() {
            event["annotations"] = serde_json::json!({});
        }
        event["annotations"][SEQUENCE] = (self.sequence + 1).to_string().into();
        event["annotations"][PREVIOUS] = hex(&self.sha256).into();
        let line = event.to_string();
        let after = self.after(&line);
        (line, after)
    }

    /// A signed head as the next line, and the chain after it.
    pub(super) fn signed(self, signed: SignedHead) -> (String, Self) {
        let line = HeadLine {
            kind: HEAD_KIND.to_owned(),
            api_version: "audit.nautilus/v1".to_owned(),
            sequence: self.sequence + 1,
            previous: hex(&self.sha256),
            signed,
        };
        let line = serde_json::to_string(&line).unwrap_or_default();
        let after = self.after(&line);
        (line, after)
    }

    /// The chain after a line that is there already; `None` if it is none of a chain's.
    pub(super) fn of_line(line: &str) -> Option<Self> {
        let (sequence, _) = place(&serde_json::from_str(line).ok()?)?;
        Some(Self {
            sequence,
            sha256: sha256(line),
        })
    }
}

/// A line's place and what it says of the one before.
fn place(line: &Value) -> Option<(u64, [u8; 32])> {
    let (sequence, previous) = if line["kind"] == HEAD_KIND {
        (line["sequence"].as_u64()?, line["previous"].as_str()?)
    } else {
        let annotations = &line["annotations"];
        let sequence = annotations[SEQUENCE].as_str()?.parse().ok()?;
        (sequence, annotations[PREVIOUS].as_str()?)
    };
    Some((sequence, unhex(previous)?.try_into().ok()?))
}

/// Why a log is not what a node wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// No JSON, or without its place in the chain.
    #[error("line {0} is no line of an audit log")]
    Malformed(usize),
    /// A line is missing before it, or it was moved.
    #[error(
        "before line {line} something is missing or was moved: it is number {found}, expected was {expected}"
    )]
    Gap {
        /// The line of the file, from 1.
        line: usize,
        /// Its place in the chain.
        found: u64,
        /// The place it should have.
        expected: u64,
    },
    /// The line before was altered.
    #[error("line {0} was altered, or replaced: the line after it names another")]
    Altered(usize),
    /// A head's signature.
    #[error("the signed head in line {line} does not hold: {why}")]
    Head {
        /// The line of the file, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
}

/// What a log that holds says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verified {
    /// Places of the first and the last line.
    pub first: u64,
    /// See `first`.
    pub last: u64,
    /// Signed heads.
    pub heads: usize,
    /// Lines after the last signed head: only the chain speaks for them.
    pub unsigned: u64,
    /// Who signed last.
    pub signer: Option<HeadStatement>,
}

/// Checks lines of one log, in order; those of rotated files before those of newer ones.
/// `check` judges a signed head: its evidence and its signature.
pub fn verify<'a>(
    lines: impl Iterator<Item = &'a str>,
    check: &dyn Fn(&SignedHead, &HeadStatement) -> Result<(), String>,
) -> Result<Verified, ChainError> {
    let mut verified = Verified::default();
    let mut head: Option<Head> = None;
    for (at, line) in lines.enumerate() {
        let malformed = || ChainError::Malformed(at + 1);
        let value: Value = serde_json::from_str(line).map_err(|_| malformed())?;
        let (sequence, previous) = place(&value).ok_or_else(malformed)?;
        match head {
            None => verified.first = sequence,
            Some(head) if sequence != head.sequence + 1 => {
                return Err(ChainError::Gap {
                    line: at + 1,
                    found: sequence,
                    expected: head.sequence + 1,
                });
            }
            Some(head) if previous != head.sha256 => return Err(ChainError::Altered(at)),
            Some(_) => {}
        }
        verified.unsigned += 1;
        if value["kind"] == HEAD_KIND {
            let line: HeadLine = serde_json::from_value(value).map_err(|_| malformed())?;
            let statement = HeadStatement {
                cluster: line.signed.cluster.clone(),
                node: line.signed.node,
                head: Head {
                    sequence: sequence.saturating_sub(1),
                    sha256: previous,
                },
                time_ms: line.signed.time_ms,
            };
            let refused = |why: String| ChainError::Head { line: at + 1, why };
            if let Some(before) = &verified.signer
                && (&before.cluster, before.node) != (&statement.cluster, statement.node)
            {
                return Err(refused("it is another node's or quorum's".to_owned()));
            }
            check(&line.signed, &statement).map_err(refused)?;
            verified.heads += 1;
            verified.unsigned = 0;
            verified.signer = Some(statement);
        }
        head = Some(Head {
            sequence,
            sha256: sha256(line),
        });
        verified.last = sequence;
    }
    Ok(verified)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn log() -> Vec<String> {
        let mut head = Head::default();
        let mut lines = Vec::new();
        for n in 0..6 {
            let (line, after) = if n == 4 {
                head.signed(SignedHead {
                    cluster: "c".into(),
                    node: 1,
                    time_ms: 5,
                    public_key: String::new(),
                    signature: hex(&head.sha256),
                    evidence: String::new(),
                })
            } else {
                head.event(json!({ "kind": "Event", "n": n }))
            };
            assert_eq!(Head::of_line(&line), Some(after));
            lines.push(line);
            head = after;
        }
        lines
    }

    fn judge(lines: &[String]) -> Result<Verified, ChainError> {
        verify(
            lines.iter().map(String::as_str),
            &|signed, statement| match signed.signature == hex(&statement.head.sha256) {
                true => Ok(()),
                false => Err("not signed".to_owned()),
            },
        )
    }

    #[test]
    fn every_gap_and_every_change_shows() {
        let whole = log();
        let verified = judge(&whole).expect("it holds");
        assert_eq!((verified.first, verified.last, verified.heads), (1, 6, 1));
        assert_eq!(verified.unsigned, 1);
        for at in 1..whole.len() - 1 {
            let mut lines = whole.clone();
            lines.remove(at);
            assert!(matches!(judge(&lines), Err(ChainError::Gap { .. })), "{at}");
        }
        for at in 0..whole.len() - 1 {
            let mut lines = whole.clone();
            lines[at] = lines[at].replace("\"kind\"", " \"kind\"");
            assert_eq!(judge(&lines), Err(ChainError::Altered(at + 1)));
        }
        // A chain made anew up to a head that is kept does not lead to it.
        let mut lines = whole.clone();
        let (first, _) = Head::default().event(json!({ "kind": "Event", "n": 9 }));
        lines[0] = first;
        assert_eq!(judge(&lines), Err(ChainError::Altered(1)));
        // A part from the middle holds by itself.
        assert_eq!(judge(&whole[2..]).expect("a part").first, 3);
    }
}
