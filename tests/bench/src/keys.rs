//! Keys, values and the requests on them. Everything random comes from one seeded source,
//! so that both sides are asked the same.

use crate::closed_loop::Work;
use crate::message::{self, path};

/// Bytes that values are cut from; they do not compress.
const POOL_BYTES: usize = 1 << 20;

/// xorshift64*: quick, and good enough to choose keys.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed other than zero.
    pub fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound.max(1)
    }
}

/// Values of one size.
#[derive(Debug, Clone)]
pub struct Values {
    pool: Vec<u8>,
    bytes: usize,
}

impl Values {
    /// Values of `bytes` bytes, at most half the pool.
    pub fn new(bytes: usize) -> Self {
        let mut random = Random::new(0x6e61_7574_696c_7573);
        let words = (0..POOL_BYTES / 8).flat_map(|_| random.draw().to_le_bytes());
        let pool = words.collect();
        assert!(bytes <= POOL_BYTES / 2, "a value of {bytes} bytes");
        Self { pool, bytes }
    }

    /// One of them.
    pub fn pick(&self, random: &mut Random) -> &[u8] {
        let span = u64::try_from(POOL_BYTES - self.bytes).expect("a small number");
        let start = usize::try_from(random.below(span)).expect("a small number");
        &self.pool[start..start + self.bytes]
    }
}

/// The key number `at`: 18 bytes, in the order of the numbers.
pub fn key(at: u64) -> [u8; 18] {
    let mut key = *b"bench/000000000000";
    let mut rest = at;
    for digit in key[6..].iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).expect("a digit");
        rest /= 10;
    }
    key
}

/// The end of all keys of [`key`].
pub const KEYS_END: &[u8] = b"bench0";

/// Puts of random keys among `keys`.
pub struct Puts {
    random: Random,
    values: Values,
    keys: u64,
}

impl Puts {
    /// Values of `bytes` bytes under `keys` keys.
    pub fn new(bytes: usize, keys: u64) -> Self {
        Self {
            random: Random::new(7),
            values: Values::new(bytes),
            keys,
        }
    }
}

impl Work for Puts {
    fn next(&mut self, _client: usize, request: &mut Vec<u8>) -> Option<&'static str> {
        let at = self.random.below(self.keys);
        message::put(request, &key(at), self.values.pick(&mut self.random));
        Some(path::PUT)
    }
}

/// Puts of the keys from `from` to `to`, each once, several in a transaction.
pub struct Fill {
    random: Random,
    values: Values,
    next: u64,
    to: u64,
    together: u64,
}

impl Fill {
    /// Values of `bytes` bytes.
    pub fn new(bytes: usize, from: u64, to: u64) -> Self {
        // Below the smallest window of a stream, and below etcd's 128 operations.
        let together = (40_000 / (bytes as u64 + 64)).clamp(1, 100);
        Self {
            random: Random::new(11),
            values: Values::new(bytes),
            next: from,
            to,
            together,
        }
    }
}

impl Work for Fill {
    fn next(&mut self, _client: usize, request: &mut Vec<u8>) -> Option<&'static str> {
        if self.next >= self.to {
            return None;
        }
        let end = (self.next + self.together).min(self.to);
        let keys: Vec<_> = (self.next..end).map(key).collect();
        self.next = end;
        if let [key] = keys.as_slice() {
            message::put(request, key, self.values.pick(&mut self.random));
            return Some(path::PUT);
        }
        let value = self.values.pick(&mut self.random);
        let pairs = keys.iter().map(|key| (key.as_slice(), value));
        message::put_many(request, pairs);
        Some(path::TXN)
    }
}

/// Linearizable reads of random keys among `keys`.
pub struct Gets {
    random: Random,
    keys: u64,
}

impl Gets {
    /// Of keys that are there.
    pub fn new(keys: u64) -> Self {
        Self {
            random: Random::new(13),
            keys,
        }
    }
}

impl Work for Gets {
    fn next(&mut self, _client: usize, request: &mut Vec<u8>) -> Option<&'static str> {
        message::get(request, &key(self.random.below(self.keys)));
        Some(path::RANGE)
    }
}

/// Nine reads to one put.
pub struct Mixed {
    gets: Gets,
    puts: Puts,
}

impl Mixed {
    /// Of `keys` keys with values of `bytes` bytes.
    pub fn new(bytes: usize, keys: u64) -> Self {
        Self {
            gets: Gets::new(keys),
            puts: Puts::new(bytes, keys),
        }
    }
}

impl Work for Mixed {
    fn next(&mut self, client: usize, request: &mut Vec<u8>) -> Option<&'static str> {
        if self.gets.random.below(10) == 0 {
            self.puts.next(client, request)
        } else {
            self.gets.next(client, request)
        }
    }
}

/// Reads of a hundred keys from a random one on.
pub struct Ranges {
    random: Random,
    keys: u64,
}

impl Ranges {
    /// Keys of a range.
    pub const LENGTH: u64 = 100;

    /// Of `keys` keys that are there.
    pub fn new(keys: u64) -> Self {
        Self {
            random: Random::new(17),
            keys,
        }
    }
}

impl Work for Ranges {
    fn next(&mut self, _client: usize, request: &mut Vec<u8>) -> Option<&'static str> {
        let from = self
            .random
            .below(self.keys.saturating_sub(Self::LENGTH).max(1));
        message::range(request, &key(from), KEYS_END, Self::LENGTH);
        Some(path::RANGE)
    }
}

/// Counts of all keys.
pub struct Counts;

impl Work for Counts {
    fn next(&mut self, _client: usize, request: &mut Vec<u8>) -> Option<&'static str> {
        message::count(request, &key(0), KEYS_END);
        Some(path::RANGE)
    }
}

/// Compare-and-swap of few keys by many clients: whoever loses has read the winner's
/// revision and may win the next time.
pub struct Contended {
    random: Random,
    values: Values,
    known: Vec<[u64; Contended::KEYS]>,
    chosen: Vec<usize>,
    /// Transactions that swapped.
    pub swapped: u64,
}

impl Contended {
    /// Keys that all fight for.
    pub const KEYS: usize = 8;

    /// For `clients` clients.
    pub fn new(bytes: usize, clients: usize) -> Self {
        Self {
            random: Random::new(19),
            values: Values::new(bytes),
            known: vec![[0; Self::KEYS]; clients],
            chosen: vec![0; clients],
            swapped: 0,
        }
    }
}

impl Work for Contended {
    fn next(&mut self, client: usize, request: &mut Vec<u8>) -> Option<&'static str> {
        let chosen = usize::try_from(self.random.below(Self::KEYS as u64)).expect("small");
        self.chosen[client] = chosen;
        let name = [b"bench/contended/".as_slice(), &[b'a' + chosen as u8]].concat();
        let value = self.values.pick(&mut self.random);
        message::put_if_unchanged(request, &name, self.known[client][chosen], value);
        Some(path::TXN)
    }

    fn answered(&mut self, client: usize, answer: &[u8]) {
        let (revision, swapped) = message::put_if_unchanged_answer(answer);
        self.known[client][self.chosen[client]] = revision;
        self.swapped += u64::from(swapped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_the_order_of_their_numbers() {
        assert!(key(9) < key(10));
        assert!(key(1_234_567).as_slice() < KEYS_END);
        assert_eq!(&key(42), b"bench/000000000042");
    }

    #[test]
    fn a_fill_puts_every_key_once() {
        let mut fill = Fill::new(256, 3, 1003);
        let mut puts = 0;
        let mut request = Vec::new();
        while fill.next(0, &mut request).is_some() {
            puts += message::occurrences(&request, 2);
            request.clear();
        }
        assert_eq!(puts, 1000);
    }
}
