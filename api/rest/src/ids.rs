//! Random identities and the clock: the only file that asks for either.

use std::time::{SystemTime, UNIX_EPOCH};

use nautilus_machinery::timestamp::Instant;

/// Letters of generated names: no vowels, no digits that look like letters.
const NAME_LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// Length of a generated suffix, as the reference has it.
const SUFFIX_LENGTH: usize = 5;

/// Random bytes from the process's generator. A generator that fails leaves no way
/// to go on safely.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0_u8; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system's random generator answers");
    bytes
}

/// A random (version 4) UUID.
pub(crate) fn uuid() -> String {
    let mut bytes = random::<16>();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let text = hex(&bytes);
    format!(
        "{}-{}-{}-{}-{}",
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..]
    )
}

/// Five letters to end a generated name with.
pub(crate) fn name_suffix() -> String {
    random::<SUFFIX_LENGTH>()
        .iter()
        .map(|byte| char::from(NAME_LETTERS[usize::from(*byte) % NAME_LETTERS.len()]))
        .collect()
}

/// A number below `limit`, for jitter.
pub(crate) fn below(limit: u64) -> u64 {
    u64::from_le_bytes(random::<8>()) % limit.max(1)
}

/// Seconds since the Unix epoch.
pub(crate) fn now_unix_s() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|elapsed| i64::try_from(elapsed.as_secs()).ok())
        .unwrap_or_default()
}

/// Now.
pub(crate) fn now() -> Instant {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = since.unwrap_or_default();
    Instant {
        seconds: i64::try_from(since.as_secs()).unwrap_or_default(),
        nanoseconds: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
    }
}

/// Now, RFC 3339 in whole seconds, as object metadata has it.
pub(crate) fn now_rfc3339() -> String {
    rfc3339(now_unix_s())
}

/// A time in Unix seconds, in the same form.
pub(crate) fn rfc3339(unix_s: i64) -> String {
    jiff::Timestamp::from_second(unix_s)
        .map(|time| time.to_string())
        .unwrap_or_else(|_| "1970-01-01T00:00:00Z".into())
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Bytes of a hex text of either case.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}
