//! The entry functions of the fuzz targets over mutations of genuine evidence, in a
//! fixed order: no panic, and nothing accepted that reads otherwise.

#[path = "../fuzz/src/lib.rs"]
#[allow(clippy::expect_used, unreachable_pub)]
mod entry;

use nautilus_attest_protocol::Evidence;

/// Mutations of each piece of evidence.
const ROUNDS: u64 = 150;

/// A fixed sequence of numbers (xorshift64*).
struct Sequence(u64);

impl Sequence {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let next = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(next).unwrap_or(0) % limit.max(1)
    }
}

/// Changes, removes, doubles or overwrites some bytes.
fn mutate(bytes: &mut Vec<u8>, sequence: &mut Sequence) {
    for _ in 0..=sequence.below(3) {
        let at = sequence.below(bytes.len());
        let length = sequence.below(64).min(bytes.len() - at);
        match sequence.below(5) {
            0 => bytes[at] ^= 1 << sequence.below(8),
            1 => bytes[at..at + length].fill(0xff),
            2 => drop(bytes.drain(at..at + length)),
            3 => {
                let doubled = bytes[at..at + length].to_vec();
                bytes.splice(at..at, doubled);
            }
            _ => bytes.truncate(at.max(1)),
        }
    }
}

#[test]
fn mutations_of_genuine_evidence_make_nothing_panic() {
    let mut sequence = Sequence(0x9e37_79b9_7f4a_7c15);
    for (kind, path, _, _) in entry::GENUINE {
        let genuine = std::fs::read(entry::fixtures().join(path)).expect(path);
        entry::body(kind, &genuine);
        for _ in 0..ROUNDS {
            let mut mutated = genuine.clone();
            mutate(&mut mutated, &mut sequence);
            entry::body(kind, &mutated);
            let mut encoded = Evidence::new(kind, genuine.clone()).encode();
            mutate(&mut encoded, &mut sequence);
            entry::evidence(&encoded);
        }
    }
}
