//! The development judge: a static file of tokens, read again when it changes.
//!
//! TOML, or JSON when the file's name ends in `.json`:
//! ```toml
//! answers_after_ms = 300      # takes as long as a chain does; absent: answers at once
//!
//! [[token]]
//! token = "the seal token"
//! owner = "0xa1…"             # who owns it
//! node_id = "worker-1"        # the only node it may speak for; absent: any
//! stake_amount = 1000000000   # MIST; 0 when absent
//! expires_at = 1790000000     # Unix seconds; absent: never
//! slashed = false
//! ```
//! Invariants: tokens are kept as keyed hashes only, under a key of this process, so
//! that no comparison's timing tells anything about a token; a file that can't be read
//! or parsed judges every token `Unavailable`, never `Active`.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::{constant_time, hmac, rand};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::judge::{Judgement, TokenJudge, Verdict};
use crate::limits::{self, TOKEN_FILE_LIMIT_BYTES, TOKEN_LIMIT_BYTES};
use crate::token::SealToken;

/// Longest `answers_after_ms`: less than a judge may think.
const DELAY_LIMIT_MS: u64 = 2_000;

/// Judges by a file.
pub struct FileJudge {
    path: PathBuf,
    key: hmac::Key,
    read: Arc<Mutex<Option<FileRead>>>,
}

/// Why a file of tokens can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// It can't be read.
    #[error("the file of tokens {path} can't be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is larger than allowed.
    #[error("the file of tokens {path} is larger than {TOKEN_FILE_LIMIT_BYTES} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Its text is wrong.
    #[error("the file of tokens {path} is wrong: {reason}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What and where, without the line's text, which may hold a token.
        reason: String,
    },
    /// No random key for this process.
    #[error("the system gave no random bytes")]
    Random,
}

/// The file's content at one state of the file.
struct FileRead {
    state: FileState,
    tokens: Arc<Tokens>,
}

/// What the file says.
struct Tokens {
    by_hash: BTreeMap<[u8; 32], TokenFacts>,
    answers_after: Duration,
}

/// What changes when a file is written.
#[derive(PartialEq, Eq, Clone)]
struct FileState {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

struct TokenFacts {
    owner: String,
    node_id: Option<String>,
    stake_amount: u64,
    expires_at: Option<u64>,
    slashed: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenFile {
    #[serde(default)]
    answers_after_ms: u64,
    #[serde(default, rename = "token")]
    tokens: Vec<TokenEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenEntry {
    token: String,
    owner: String,
    #[serde(default)]
    node_id: Option<String>,
    #[serde(default)]
    stake_amount: u64,
    #[serde(default)]
    expires_at: Option<u64>,
    #[serde(default)]
    slashed: bool,
}

impl FileJudge {
    /// Judges by `path`, which must be readable and well formed now.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, TokenFileError> {
        let path = path.into();
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new())
            .map_err(|_| TokenFileError::Random)?;
        let judge = Self {
            path,
            key,
            read: Arc::default(),
        };
        tokens(&judge.path, &judge.key, &judge.read)?;
        Ok(judge)
    }
}

impl TokenJudge for FileJudge {
    fn judge<'a>(&'a self, token: &'a SealToken, node_id: &'a str) -> BoxFuture<'a, Judgement> {
        let (path, key, read) = (self.path.clone(), self.key.clone(), Arc::clone(&self.read));
        Box::pin(async move {
            let presented = keyed_hash(&self.key, token.expose());
            let reading = tokio::task::spawn_blocking(move || tokens(&path, &key, &read));
            let verdict = match reading.await {
                Ok(Ok(tokens)) => {
                    tokio::time::sleep(tokens.answers_after).await;
                    judge_by(&tokens.by_hash, &presented, node_id)
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "no token can be judged");
                    Verdict::Unavailable
                }
                Err(_) => Verdict::Unavailable,
            };
            verdict.into()
        })
    }

    fn node_of<'a>(&'a self, token: &'a SealToken) -> BoxFuture<'a, Option<String>> {
        let (path, key, read) = (self.path.clone(), self.key.clone(), Arc::clone(&self.read));
        Box::pin(async move {
            let presented = keyed_hash(&self.key, token.expose());
            let reading = tokio::task::spawn_blocking(move || tokens(&path, &key, &read));
            let tokens = reading.await.ok()?.ok()?;
            tokens.by_hash.get(&presented)?.node_id.clone()
        })
    }

    /// The file says which node a token speaks for.
    fn speaks_for_many(&self) -> bool {
        true
    }

    /// The file is looked at for every token, so that a change of it holds at once; but not
    /// if it answers as slowly as a chain.
    fn verdict_lifetime(&self) -> Duration {
        match &*self.read.lock() {
            Some(read) if !read.tokens.answers_after.is_zero() => limits::VERDICT_LIFETIME,
            _ => Duration::ZERO,
        }
    }
}

fn judge_by(
    tokens: &BTreeMap<[u8; 32], TokenFacts>,
    presented: &[u8; 32],
    node_id: &str,
) -> Verdict {
    let Some((known, facts)) = tokens.get_key_value(presented) else {
        return Verdict::Unknown;
    };
    if constant_time::verify_slices_are_equal(known, presented).is_err() {
        return Verdict::Unknown;
    }
    if facts.node_id.as_deref().is_some_and(|only| only != node_id) {
        return Verdict::NotOwner;
    }
    if facts.slashed {
        return Verdict::Slashed;
    }
    // The tribunal compares the expiry with its clock.
    Verdict::Active {
        owner: facts.owner.clone(),
        stake_amount: facts.stake_amount,
        expires_at: facts.expires_at,
    }
}

/// The file's tokens, read again if the file changed since.
fn tokens(
    path: &Path,
    key: &hmac::Key,
    read: &Mutex<Option<FileRead>>,
) -> Result<Arc<Tokens>, TokenFileError> {
    let failed = |source| TokenFileError::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let state = state_of(&file.metadata().map_err(failed)?);
    let mut known = read.lock();
    if let Some(known) = &*known
        && known.state == state
    {
        return Ok(Arc::clone(&known.tokens));
    }
    if state.length > TOKEN_FILE_LIMIT_BYTES {
        return Err(TokenFileError::TooLarge {
            path: path.to_owned(),
        });
    }
    let mut text = Zeroizing::new(String::new());
    file.by_ref()
        .take(TOKEN_FILE_LIMIT_BYTES)
        .read_to_string(&mut text)
        .map_err(failed)?;
    let tokens = Arc::new(parse(path, key, &text)?);
    *known = Some(FileRead {
        state,
        tokens: Arc::clone(&tokens),
    });
    Ok(tokens)
}

fn parse(path: &Path, key: &hmac::Key, text: &str) -> Result<Tokens, TokenFileError> {
    let wrong = |reason: String| TokenFileError::Parse {
        path: path.to_owned(),
        reason,
    };
    let is_json = path
        .extension()
        .is_some_and(|extension| extension == "json");
    let file: TokenFile = if is_json {
        serde_json::from_str(text)
            .map_err(|e| wrong(format!("line {} column {}", e.line(), e.column())))?
    } else {
        // `message` names the field; the error's own text would quote the line.
        toml::from_str(text).map_err(|e: toml::de::Error| {
            let line = e
                .span()
                .map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            wrong(format!("line {line}: {}", e.message()))
        })?
    };
    if file.answers_after_ms > DELAY_LIMIT_MS {
        return Err(wrong(format!(
            "answers_after_ms must be at most {DELAY_LIMIT_MS}"
        )));
    }
    let mut tokens = BTreeMap::new();
    for (position, entry) in file.tokens.into_iter().enumerate() {
        let token = Zeroizing::new(entry.token);
        if token.is_empty() || token.len() > TOKEN_LIMIT_BYTES {
            return Err(wrong(format!(
                "token number {}: its length must be 1 to {TOKEN_LIMIT_BYTES} bytes",
                position + 1
            )));
        }
        let facts = TokenFacts {
            owner: entry.owner,
            node_id: entry.node_id,
            stake_amount: entry.stake_amount,
            expires_at: entry.expires_at,
            slashed: entry.slashed,
        };
        if tokens.insert(keyed_hash(key, &token), facts).is_some() {
            return Err(wrong(format!(
                "token number {} stands there twice",
                position + 1
            )));
        }
    }
    Ok(Tokens {
        by_hash: tokens,
        answers_after: Duration::from_millis(file.answers_after_ms),
    })
}

fn keyed_hash(key: &hmac::Key, token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(hmac::sign(key, token.as_bytes()).as_ref());
    hash
}

fn state_of(metadata: &std::fs::Metadata) -> FileState {
    use std::os::unix::fs::MetadataExt as _;
    FileState {
        modified: metadata.modified().ok(),
        length: metadata.len(),
        inode: metadata.ino(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = r#"
        [[token]]
        token = "seal-1"
        owner = "0xa1"
        node_id = "worker-1"
        stake_amount = 5

        [[token]]
        token = "seal-2"
        owner = "0xb2"
        slashed = true
    "#;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder for the test")
    }

    async fn verdict(judge: &FileJudge, token: &str, node_id: &str) -> Verdict {
        judge
            .judge(&SealToken::new(token.into()).expect("short"), node_id)
            .await
            .verdict
    }

    #[tokio::test]
    async fn a_token_speaks_for_its_node_alone() {
        let folder = folder();
        let path = folder.path().join("tokens.toml");
        std::fs::write(&path, TOML).expect("written");
        let judge = FileJudge::open(&path).expect("well formed");
        let active = Verdict::Active {
            owner: "0xa1".into(),
            stake_amount: 5,
            expires_at: None,
        };
        assert_eq!(verdict(&judge, "seal-1", "worker-1").await, active);
        assert_eq!(
            verdict(&judge, "seal-1", "worker-2").await,
            Verdict::NotOwner
        );
        assert_eq!(
            verdict(&judge, "seal-2", "worker-2").await,
            Verdict::Slashed
        );
        assert_eq!(
            verdict(&judge, "seal-3", "worker-1").await,
            Verdict::Unknown
        );
    }

    #[tokio::test]
    async fn a_token_taken_out_of_the_file_is_unknown_at_once() {
        let folder = folder();
        let path = folder.path().join("tokens.json");
        std::fs::write(
            &path,
            r#"{"token": [{"token": "seal-1", "owner": "0xa1"}]}"#,
        )
        .expect("written");
        let judge = FileJudge::open(&path).expect("well formed");
        assert!(matches!(
            verdict(&judge, "seal-1", "any").await,
            Verdict::Active { .. }
        ));
        std::fs::write(&path, r#"{"token": []}"#).expect("written");
        assert_eq!(verdict(&judge, "seal-1", "any").await, Verdict::Unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_may_answer_as_slowly_as_a_chain_and_is_then_remembered_like_one() {
        let folder = folder();
        let path = folder.path().join("tokens.toml");
        std::fs::write(&path, format!("answers_after_ms = 300\n{TOML}")).expect("written");
        let judge = FileJudge::open(&path).expect("well formed");
        let asked = tokio::time::Instant::now();
        assert_eq!(verdict(&judge, "seal-3", "w").await, Verdict::Unknown);
        assert!(asked.elapsed() >= Duration::from_millis(300));
        assert_eq!(judge.verdict_lifetime(), limits::VERDICT_LIFETIME);
        std::fs::write(&path, "answers_after_ms = 60000\n").expect("written");
        let error = FileJudge::open(&path).err().expect("refused").to_string();
        assert!(
            error.contains("answers_after_ms must be at most"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_broken_file_makes_nobody_active_and_its_error_quotes_no_token() {
        let folder = folder();
        let path = folder.path().join("tokens.toml");
        std::fs::write(&path, TOML).expect("written");
        let judge = FileJudge::open(&path).expect("well formed");
        std::fs::write(&path, "[[token]]\ntoken = \"planted-secret\" owner = 3\n")
            .expect("written");
        assert_eq!(
            verdict(&judge, "seal-1", "worker-1").await,
            Verdict::Unavailable
        );
        let error = FileJudge::open(&path).err().expect("refused").to_string();
        assert!(
            error.contains("line 2") && !error.contains("planted-secret"),
            "{error}"
        );
    }
}
