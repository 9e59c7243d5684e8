//! The hierarchy of keys, from the quorum's root down.
//!
//! ```text
//! root of a generation        32 random bytes; in enclave memory, on disk sealed by the TEE
//! └ key-encryption keys       HKDF-SHA-256 (RFC 5869) of the root, one a purpose
//!   ├ records                 AES-256 key wrap (RFC 3394) of a directory's data keys
//!   ├ snapshots               the same of a snapshot file's data key
//!   ├ tables                  HMAC-SHA-256 over epoch tables and the store's pointer
//!   └ archives                what leaves the quorum: outlives its root, to open only
//! data keys                   32 random bytes each, drawn where they are used, kept wrapped:
//!                             one a segment of the log, one an incarnation of the store,
//!                             one a snapshot file
//! ```
//! A *generation* is a root and all that hangs from it. A rotation adds the next one,
//! seals everything under it, and destroys those before it. Beside them the quorum has
//! one secret for life, the key of the state's digest: it sums rows, it opens nothing.
//!
//! Invariants
//! - A data key is drawn for one place by one process and never comes back, not even on
//!   a disk that was rolled back: no nonce, and no pair of key and nonce, repeats.
//! - What is drawn is drawn under the current generation; it only grows.
//! - No key leaves this crate but through [`Keyring::to_secrets`],
//!   [`Keyring::archive_key`] and [`RootKey::expose`], which exist to seal keys to a
//!   platform, or to hand them to an attested member.
//! - Secret types have neither `Debug` nor `Serialize`; their memory is locked, in no
//!   dump, and wiped when dropped.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrap as _};
use aws_lc_rs::{hmac, rand};
use nautilus_attest_secret::Secret;
use nautilus_machine::DigestKey;
use parking_lot::RwLock;
use zeroize::Zeroizing;

use crate::cipher::SealKey;

/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = 32;
/// Bytes of a wrapped key.
pub(crate) const WRAPPED_BYTES: usize = KEY_BYTES + 8;
/// Generations held at once: the current one, those that something on a disk still
/// needs, and the next.
pub const GENERATIONS_MAX: usize = 8;
/// Archive keys kept of generations that are gone; the oldest go first.
pub const ARCHIVE_KEYS_MAX: usize = 64;
const SECRETS_VERSION: u8 = 2;

/// Counts roots, from 1.
pub type Generation = u32;

const FIRST_GENERATION: Generation = 1;

/// Why a key was not given or not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No randomness.
    #[error("the operating system gave no random bytes")]
    Random,
    /// It was destroyed, or never came here.
    #[error("the root key of generation {generation} is not held here")]
    Missing {
        /// Which.
        generation: Generation,
    },
    /// Two different roots claim one generation.
    #[error("another root key of generation {generation} is held here already")]
    Conflict {
        /// Which.
        generation: Generation,
    },
    /// A wrapped key that does not unwrap.
    #[error(
        "a data key does not unwrap under generation {generation}: it was changed, or it is of \
         another quorum (another root key)"
    )]
    Unauthentic {
        /// Under which.
        generation: Generation,
    },
    /// [`GENERATIONS_MAX`] are held.
    #[error("{GENERATIONS_MAX} generations of keys are held already: let a rotation end first")]
    TooMany,
    /// Bytes that are no secrets of a quorum.
    #[error("not the secrets of a quorum: {0}")]
    Malformed(&'static str),
}

/// A key in memory that is locked, not dumped, and wiped.
type Key = Secret<KEY_BYTES>;

/// One generation's secret: the same on all members.
pub struct RootKey(Key);

impl RootKey {
    /// Draws a new root key.
    pub fn generate() -> Result<Self, KeyError> {
        draw_key().map(Self)
    }

    /// Takes 32 secret bytes that were unsealed.
    pub fn from_bytes(mut bytes: [u8; KEY_BYTES]) -> Self {
        Self(Key::take(&mut bytes))
    }

    /// The 32 bytes, to be sealed or handed to an attested member.
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        self.0.expose()
    }

    /// Names the root without telling anything of it.
    pub fn fingerprint(&self) -> [u8; KEY_BYTES] {
        *self.derive(b"nautilus root fingerprint v1").expose()
    }

    fn derive(&self, label: &[u8]) -> Key {
        let prk = Salt::new(HKDF_SHA256, &[]).extract(self.expose());
        let filled = Key::try_fill(|bytes| {
            prk.expand(&[label], ThirtyTwo)
                .and_then(|okm| okm.fill(bytes))
        });
        filled.unwrap_or_else(|_| panic!("HKDF refused a key of 32 bytes"))
    }
}

/// What a wrapped data key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Records,
    Snapshots,
}

impl Purpose {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Records => b"nautilus kek records v1",
            Self::Snapshots => b"nautilus kek snapshots v1",
        }
    }
}

/// A data key as it stands on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WrappedKey {
    pub(crate) generation: Generation,
    pub(crate) bytes: [u8; WRAPPED_BYTES],
}

/// The quorum's keys in this process; clones share them.
#[derive(Clone)]
pub struct Keyring {
    ring: Arc<RwLock<Ring>>,
}

struct Ring {
    digest: Key,
    current: Generation,
    roots: BTreeMap<Generation, RootKey>,
    /// Of generations whose root is gone.
    archives: BTreeMap<Generation, Key>,
    /// The newest generation that was asked for and is not held.
    missed: Option<Generation>,
}

impl Keyring {
    /// The keyring of a new quorum, or of a test: this root is its first generation.
    pub fn new(root: RootKey) -> Self {
        Self::over(Ring {
            digest: root.derive(b"nautilus digest v1"),
            current: FIRST_GENERATION,
            roots: BTreeMap::from([(FIRST_GENERATION, root)]),
            archives: BTreeMap::new(),
            missed: None,
        })
    }

    fn over(ring: Ring) -> Self {
        Self {
            ring: Arc::new(RwLock::new(ring)),
        }
    }

    /// Takes what [`Self::to_secrets`] gave.
    pub fn from_secrets(secrets: &[u8]) -> Result<Self, KeyError> {
        read_secrets(secrets).map(Self::over)
    }

    /// Everything, to be sealed to the platform or handed to an attested member:
    /// version u8 ‖ digest key ‖ current u32 BE ‖ twice (count u8 ‖ count × (generation
    /// u32 BE ‖ key)): roots, then archive keys.
    pub fn to_secrets(&self) -> Zeroizing<Vec<u8>> {
        let ring = self.ring.read();
        let keys = ring.roots.len() + ring.archives.len();
        // Of the whole length at once: a vector that grows leaves copies behind.
        let length = 1 + KEY_BYTES + 4 + 2 + keys * (4 + KEY_BYTES);
        let mut secrets = Zeroizing::new(Vec::with_capacity(length));
        secrets.push(SECRETS_VERSION);
        secrets.extend_from_slice(ring.digest.expose());
        secrets.extend_from_slice(&ring.current.to_be_bytes());
        let roots = ring.roots.iter().map(|(number, root)| (number, &root.0));
        write_keys(&mut secrets, roots);
        write_keys(&mut secrets, ring.archives.iter());
        debug_assert_eq!(secrets.len(), length);
        secrets
    }

    /// The key of the state's digest: the same on all members, for the quorum's life.
    pub fn digest_key(&self) -> DigestKey {
        DigestKey::new(self.ring.read().digest.expose())
    }

    /// The generation under which everything new is sealed.
    pub fn current(&self) -> Generation {
        self.ring.read().current
    }

    /// The generations held, in order.
    pub fn generations(&self) -> Vec<Generation> {
        self.ring.read().roots.keys().copied().collect()
    }

    /// Names a generation's root, if it is held.
    pub fn fingerprint(&self, generation: Generation) -> Option<[u8; KEY_BYTES]> {
        let ring = self.ring.read();
        ring.roots.get(&generation).map(RootKey::fingerprint)
    }

    /// The newest generation that something here was sealed under and that is not held.
    pub fn missed(&self) -> Option<Generation> {
        self.ring.read().missed
    }

    /// Takes a generation's root. Nothing is sealed under it before [`Self::advance`].
    pub fn add(&self, generation: Generation, root: RootKey) -> Result<(), KeyError> {
        let mut ring = self.ring.write();
        if let Some(held) = ring.roots.get(&generation) {
            let same = held.fingerprint() == root.fingerprint();
            return same.then_some(()).ok_or(KeyError::Conflict { generation });
        }
        if ring.roots.len() >= GENERATIONS_MAX {
            return Err(KeyError::TooMany);
        }
        ring.roots.insert(generation, root);
        ring.missed = ring.missed.filter(|missed| *missed != generation);
        Ok(())
    }

    /// Takes the roots that are wanted, and all archive keys, of what another member
    /// holds; whether there were any. Its word on what is current does not count.
    pub fn add_from(
        &self,
        secrets: &[u8],
        wanted: &dyn Fn(Generation, &[u8; KEY_BYTES]) -> bool,
    ) -> Result<bool, KeyError> {
        let theirs = read_secrets(secrets)?;
        let mut added = false;
        for (generation, root) in theirs.roots {
            if self.fingerprint(generation).is_none() && wanted(generation, &root.fingerprint()) {
                self.add(generation, root)?;
                added = true;
            }
        }
        let mut ring = self.ring.write();
        for (generation, key) in theirs.archives {
            ring.archives.entry(generation).or_insert(key);
        }
        trim(&mut ring.archives);
        Ok(added)
    }

    /// Everything new is sealed under `generation` from here on.
    pub fn advance(&self, generation: Generation) -> Result<(), KeyError> {
        let mut ring = self.ring.write();
        if !ring.roots.contains_key(&generation) {
            return Err(KeyError::Missing { generation });
        }
        assert!(
            generation >= ring.current,
            "the current generation never goes back"
        );
        ring.current = generation;
        Ok(())
    }

    /// Takes back a root that nothing was sealed under.
    pub fn withdraw(&self, generation: Generation) {
        let mut ring = self.ring.write();
        assert!(
            generation > ring.current,
            "a generation in use is not withdrawn"
        );
        ring.roots.remove(&generation);
    }

    /// Destroys every root before the current generation; whether there was any. Its
    /// archive key stays, to open. The caller has made sure that nothing needs them.
    pub fn destroy_old(&self) -> bool {
        let mut ring = self.ring.write();
        let kept = ring.current;
        let mut roots = std::mem::take(&mut ring.roots);
        ring.roots = roots.split_off(&kept);
        for (generation, root) in &roots {
            ring.archives.insert(*generation, archive_key(root));
        }
        trim(&mut ring.archives);
        !roots.is_empty()
    }

    /// The key of archives of a generation: those held, and those kept of destroyed ones.
    pub fn archive_key(&self, generation: Generation) -> Option<Secret<KEY_BYTES>> {
        let ring = self.ring.read();
        let held = ring.roots.get(&generation).map(archive_key);
        let kept = || Key::from_slice(ring.archives.get(&generation)?.expose());
        held.or_else(kept)
    }

    /// The generations of which an archive key is there, newest first.
    pub fn archive_generations(&self) -> Vec<Generation> {
        let ring = self.ring.read();
        let mut all: Vec<_> = ring.roots.keys().chain(ring.archives.keys()).collect();
        all.sort_unstable_by(|one, other| other.cmp(one));
        all.dedup();
        all.into_iter().copied().collect()
    }

    /// A new data key of the current generation.
    pub(crate) fn draw(&self, purpose: Purpose) -> Result<(WrappedKey, SealKey), KeyError> {
        let key = draw_key()?;
        let ring = self.ring.read();
        let generation = ring.current;
        let root = ring
            .roots
            .get(&generation)
            .ok_or(KeyError::Missing { generation })?;
        let mut bytes = [0; WRAPPED_BYTES];
        let wrapped = kek(root, purpose).wrap(key.expose(), &mut bytes);
        assert!(wrapped.is_ok(), "key wrap refused a key of 32 bytes");
        Ok((WrappedKey { generation, bytes }, seal_key(&key)))
    }

    /// A data key that is on disk.
    pub(crate) fn unwrap(
        &self,
        purpose: Purpose,
        wrapped: &WrappedKey,
    ) -> Result<SealKey, KeyError> {
        let generation = wrapped.generation;
        let key = self.with_root(generation, |root| {
            let kek = kek(root, purpose);
            Key::try_fill(|key| kek.unwrap(&wrapped.bytes, key).map(|_| ()))
        })?;
        let key = key.map_err(|_| KeyError::Unauthentic { generation })?;
        Ok(seal_key(&key))
    }

    /// The key that authenticates epoch tables and pointer files of a generation.
    pub(crate) fn table_key(&self, generation: Generation) -> Result<hmac::Key, KeyError> {
        self.with_root(generation, |root| {
            let key = root.derive(b"nautilus kek tables v1");
            hmac::Key::new(hmac::HMAC_SHA256, key.expose())
        })
    }

    fn with_root<T>(
        &self,
        generation: Generation,
        job: impl FnOnce(&RootKey) -> T,
    ) -> Result<T, KeyError> {
        let ring = self.ring.read();
        if let Some(root) = ring.roots.get(&generation) {
            return Ok(job(root));
        }
        drop(ring);
        let mut ring = self.ring.write();
        ring.missed = ring.missed.max(Some(generation));
        Err(KeyError::Missing { generation })
    }
}

fn kek(root: &RootKey, purpose: Purpose) -> AesKek {
    let key = root.derive(purpose.label());
    AesKek::new(&AES_256, key.expose()).unwrap_or_else(|_| panic!("AES refused a key of 32 bytes"))
}

fn archive_key(root: &RootKey) -> Key {
    root.derive(b"nautilus kek archives v1")
}

fn seal_key(key: &Key) -> SealKey {
    let key = UnboundKey::new(&AES_256_GCM, key.expose());
    SealKey::new(key.unwrap_or_else(|_| panic!("AES-GCM refused a key of 32 bytes")))
}

fn draw_key() -> Result<Key, KeyError> {
    Key::try_fill(|bytes| rand::fill(bytes).map_err(|_| KeyError::Random))
}

fn trim(archives: &mut Keys) {
    while archives.len() > ARCHIVE_KEYS_MAX {
        archives.pop_first();
    }
}

fn write_keys<'a>(
    secrets: &mut Vec<u8>,
    keys: impl ExactSizeIterator<Item = (&'a Generation, &'a Key)>,
) {
    let count = u8::try_from(keys.len()).unwrap_or_else(|_| panic!("more keys than are kept"));
    secrets.push(count);
    for (generation, key) in keys {
        secrets.extend_from_slice(&generation.to_be_bytes());
        secrets.extend_from_slice(key.expose());
    }
}

fn read_secrets(secrets: &[u8]) -> Result<Ring, KeyError> {
    let cut = || KeyError::Malformed("they are cut short");
    let (version, rest) = secrets.split_first().ok_or_else(cut)?;
    if *version != SECRETS_VERSION {
        return Err(KeyError::Malformed(
            "their version is not known to this program",
        ));
    }
    let (digest, rest) = rest.split_first_chunk::<KEY_BYTES>().ok_or_else(cut)?;
    let (current, mut rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
    let current = Generation::from_be_bytes(*current);
    let roots = read_keys(&mut rest, GENERATIONS_MAX).ok_or_else(cut)?;
    let archives = read_keys(&mut rest, ARCHIVE_KEYS_MAX).ok_or_else(cut)?;
    if !rest.is_empty() {
        return Err(KeyError::Malformed("they go on after their end"));
    }
    if !roots.contains_key(&current) {
        return Err(KeyError::Missing {
            generation: current,
        });
    }
    Ok(Ring {
        digest: Key::from_slice(digest).ok_or_else(cut)?,
        current,
        roots: roots
            .into_iter()
            .map(|(n, key)| (n, RootKey(key)))
            .collect(),
        archives,
        missed: None,
    })
}

type Keys = BTreeMap<Generation, Key>;

fn read_keys(rest: &mut &[u8], limit: usize) -> Option<Keys> {
    let (count, mut after) = rest.split_first()?;
    let count = usize::from(*count);
    if count > limit {
        return None;
    }
    let mut keys = Keys::new();
    for _ in 0..count {
        let (generation, tail) = after.split_first_chunk::<4>()?;
        let (key, tail) = tail.split_first_chunk::<KEY_BYTES>()?;
        keys.insert(
            Generation::from_be_bytes(*generation),
            Key::from_slice(key)?,
        );
        after = tail;
    }
    *rest = after;
    Some(keys)
}

struct ThirtyTwo;

impl KeyType for ThirtyTwo {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ring() -> Keyring {
        Keyring::new(RootKey::from_bytes([7; 32]))
    }

    #[test]
    fn secrets_come_back_whole_and_no_cut_ones_are_taken() {
        let ring = ring();
        ring.add(2, RootKey::from_bytes([8; 32])).unwrap();
        ring.advance(2).unwrap();
        assert!(ring.destroy_old());
        ring.add(3, RootKey::from_bytes([9; 32])).unwrap();
        let secrets = ring.to_secrets();
        let again = Keyring::from_secrets(&secrets).unwrap();
        assert_eq!(again.to_secrets(), secrets);
        assert_eq!((again.current(), again.generations()), (2, vec![2, 3]));
        assert_eq!(again.archive_generations(), [3, 2, 1]);
        for length in 0..secrets.len() {
            assert!(
                Keyring::from_secrets(&secrets[..length]).is_err(),
                "{length}"
            );
        }
    }

    #[test]
    fn a_destroyed_root_unwraps_nothing_and_leaves_its_archive_key() {
        let ring = ring();
        let (old, _) = ring.draw(Purpose::Records).unwrap();
        let archive = ring.archive_key(1).unwrap();
        ring.add(2, RootKey::from_bytes([8; 32])).unwrap();
        ring.advance(2).unwrap();
        assert!(ring.unwrap(Purpose::Records, &old).is_ok());
        assert!(ring.destroy_old() && !ring.destroy_old());
        let missing = KeyError::Missing { generation: 1 };
        assert_eq!(ring.unwrap(Purpose::Records, &old).err(), Some(missing));
        assert_eq!(ring.missed(), Some(1));
        assert_eq!(ring.archive_key(1).unwrap().expose(), archive.expose());
        assert_ne!(ring.archive_key(2).unwrap().expose(), archive.expose());
    }

    #[test]
    fn a_data_key_unwraps_for_its_purpose_and_generation_only() {
        let ring = ring();
        ring.add(2, RootKey::from_bytes([8; 32])).unwrap();
        let (key, _) = ring.draw(Purpose::Records).unwrap();
        assert!(ring.unwrap(Purpose::Records, &key).is_ok());
        assert!(ring.unwrap(Purpose::Snapshots, &key).is_err());
        let other = WrappedKey {
            generation: 2,
            ..key
        };
        assert!(ring.unwrap(Purpose::Records, &other).is_err());
        for bit in 0..WRAPPED_BYTES * 8 {
            let mut changed = key;
            changed.bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(
                ring.unwrap(Purpose::Records, &changed).is_err(),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn a_second_root_of_one_generation_is_refused() {
        let ring = ring();
        assert_eq!(ring.add(1, RootKey::from_bytes([7; 32])), Ok(()));
        let conflict = Err(KeyError::Conflict { generation: 1 });
        assert_eq!(ring.add(1, RootKey::from_bytes([8; 32])), conflict);
        let other = Keyring::new(RootKey::from_bytes([8; 32]));
        other.add(4, RootKey::from_bytes([4; 32])).unwrap();
        let theirs = other.to_secrets();
        assert_eq!(ring.add_from(&theirs, &|_, _| false), Ok(false));
        let four = RootKey::from_bytes([4; 32]).fingerprint();
        let wanted = |generation, fingerprint: &[u8; 32]| generation == 4 && *fingerprint == four;
        assert_eq!(ring.add_from(&theirs, &wanted), Ok(true));
        assert_eq!(ring.add_from(&theirs, &wanted), Ok(false));
        assert_eq!((ring.current(), ring.generations()), (1, vec![1, 4]));
    }

    #[test]
    fn the_digest_key_outlives_every_root() {
        let ring = ring();
        let before = ring.to_secrets()[1..33].to_vec();
        ring.add(2, RootKey::from_bytes([8; 32])).unwrap();
        ring.advance(2).unwrap();
        ring.destroy_old();
        assert_eq!(ring.to_secrets()[1..33].to_vec(), before);
    }
}
