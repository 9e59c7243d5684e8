//! An endorsement as the store keeps it.

use nautilus_machine::{
    Command, Compare, Kv, Operation, Outcome, Proposal, Put, RangeRequest, Revision, Txn,
    types::KeyRange,
};
use serde::{Deserialize, Serialize};

/// Where endorsements stand in the key space. No face for clients serves this prefix.
pub(super) const PREFIX: &str = "/nautilus/endorsements/";
/// Bytes of one endorsement. The largest of Intel have some 30 KiB.
pub(crate) const MAX_ENDORSEMENT_BYTES: usize = 256 * 1024;
/// Endorsements of one quorum, wanted ones included: a few for each platform.
pub(super) const MAX_ROWS: u64 = 1024;
/// The form of a row.
const VERSION: u8 = 1;
/// Attempts against concurrent writers of the same row.
const ATTEMPTS: u32 = 8;

/// A row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    /// The endorsement; empty while it is only wanted.
    pub(super) bytes: Vec<u8>,
    /// When it was fetched or imported, in milliseconds since the epoch.
    pub(super) fetched_at_ms: u64,
    /// From when on it says it holds.
    pub(super) issued_at_ms: u64,
    /// Until when.
    pub(super) expires_at_ms: u64,
    /// Whether the vendor's signature was checked up to its root.
    pub(super) is_checked: bool,
    /// Whence: a URL, or `imported by USER`.
    pub(super) source: String,
}

impl Row {
    /// A row that says what a verifier missed.
    pub(super) fn wanted() -> Self {
        Self {
            bytes: Vec::new(),
            fetched_at_ms: 0,
            issued_at_ms: 0,
            expires_at_ms: 0,
            is_checked: false,
            source: String::new(),
        }
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, RowError> {
        postcard::to_extend(self, vec![VERSION]).map_err(|error| RowError::Form(error.to_string()))
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        match bytes.split_first() {
            Some((&VERSION, row)) => {
                postcard::from_bytes(row).map_err(|error| RowError::Form(error.to_string()))
            }
            Some((version, _)) => Err(RowError::Form(format!("it has version {version}"))),
            None => Err(RowError::Form("it is empty".to_owned())),
        }
    }
}

/// Why a row was not read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum RowError {
    /// It is not of a form this build knows.
    #[error("the row of an endorsement can't be read: {0}; a newer build may have written it")]
    Form(String),
    /// The quorum did not answer, or refused.
    #[error("the store did not take the endorsement: {0}")]
    Store(String),
    /// What is there is newer.
    #[error(
        "{name} is older than the one that is there: it was issued at {issued_at_ms} ms, that one at {present_ms} ms (since 1970)"
    )]
    Older {
        /// Which.
        name: String,
        /// When the refused one was issued.
        issued_at_ms: u64,
        /// When the present one was.
        present_ms: u64,
    },
    /// No place for another.
    #[error("the quorum keeps {MAX_ROWS} endorsements, its limit; {name} finds no place")]
    Full {
        /// Which.
        name: String,
    },
}

/// The key of an endorsement's row.
pub(super) fn key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// All rows as this node has applied them, and the store's revision.
pub(super) fn read_all(kv: &dyn Kv) -> Result<(Vec<(String, Row)>, Revision), RowError> {
    let mut request = RangeRequest::newest(KeyRange::prefix(PREFIX));
    request.limit = Some(MAX_ROWS);
    let answer = kv
        .range(&request)
        .map_err(|error| RowError::Store(error.to_string()))?;
    let mut rows = Vec::new();
    for kv in &answer.kvs {
        if let Some(name) = name_of(&kv.key) {
            rows.push((name, Row::decode(&kv.value)?));
        }
    }
    Ok((rows, answer.revision))
}

/// The name in a row's key.
pub(super) fn name_of(key: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(key).ok()?.strip_prefix(PREFIX)?;
    Some(name.to_owned())
}

/// Writes a row unless what is there is newer. Equal content is written too: it was
/// fetched later. A wanted row is written only where there is none.
pub(super) async fn write(kv: &dyn Kv, name: &str, row: &Row) -> Result<(), RowError> {
    let store = |error: String| RowError::Store(error);
    for _ in 0..ATTEMPTS {
        kv.read_barrier()
            .await
            .map_err(|error| store(error.to_string()))?;
        let request = RangeRequest::newest(KeyRange::single(key(name)));
        let answer = kv
            .range(&request)
            .map_err(|error| store(error.to_string()))?;
        let mut seen = 0;
        if let Some(present) = answer.kvs.first() {
            seen = present.mod_revision;
            let present = Row::decode(&present.value)?;
            if row.is_wanted() {
                return Ok(());
            }
            if !present.is_wanted() && row.issued_at_ms < present.issued_at_ms {
                return Err(RowError::Older {
                    name: name.to_owned(),
                    issued_at_ms: row.issued_at_ms,
                    present_ms: present.issued_at_ms,
                });
            }
        } else {
            let mut request = RangeRequest::newest(KeyRange::prefix(PREFIX));
            request.count_only = true;
            let answer = kv
                .range(&request)
                .map_err(|error| store(error.to_string()))?;
            if answer.count >= MAX_ROWS {
                return Err(RowError::Full {
                    name: name.to_owned(),
                });
            }
        }
        let proposal = Proposal::new(Command::Txn(Txn {
            compare: vec![Compare::mod_revision(key(name), seen)],
            then: vec![Operation::Put(Put::new(key(name), row.encode()?))],
            otherwise: Vec::new(),
        }));
        let applied = kv
            .propose(proposal)
            .await
            .map_err(|error| store(error.to_string()))?;
        match applied.outcome {
            Outcome::Txn {
                succeeded: true, ..
            } => return Ok(()),
            Outcome::Txn { .. } => {}
            other => return Err(store(format!("{other:?}"))),
        }
    }
    Err(store("others write the same row".to_owned()))
}

#[cfg(test)]
mod tests {
    use nautilus_machine::UnixMillis;
    use nautilus_machine::solo::SoloKv;

    use super::*;

    fn row(issued_at_ms: u64) -> Row {
        Row {
            bytes: vec![1, 2, 3],
            fetched_at_ms: 5,
            issued_at_ms,
            expires_at_ms: 9,
            is_checked: true,
            source: "here".to_owned(),
        }
    }

    #[test]
    fn a_row_of_another_version_is_refused_by_name() {
        let mut bytes = row(1).encode().expect("written");
        assert_eq!(Row::decode(&bytes).expect("read"), row(1));
        bytes[0] = 9;
        let error = Row::decode(&bytes).expect_err("refused").to_string();
        assert!(error.contains("version 9"), "{error}");
        assert!(Row::decode(&[]).is_err());
    }

    #[tokio::test]
    async fn an_older_endorsement_replaces_nothing() {
        let kv = SoloKv::new(|| UnixMillis(1));
        write(&kv, "amd/crl/milan", &Row::wanted())
            .await
            .expect("wanted");
        write(&kv, "amd/crl/milan", &row(20))
            .await
            .expect("the first");
        let error = write(&kv, "amd/crl/milan", &row(19))
            .await
            .expect_err("older");
        assert!(matches!(error, RowError::Older { .. }), "{error}");
        // A miss that was noted late takes nothing away.
        write(&kv, "amd/crl/milan", &Row::wanted())
            .await
            .expect("no matter");
        let (rows, _) = read_all(&kv).expect("rows");
        assert_eq!(rows, [("amd/crl/milan".to_owned(), row(20))]);
        write(&kv, "amd/crl/milan", &row(21)).await.expect("newer");
    }
}
