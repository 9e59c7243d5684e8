//! A file of sealed pieces, written beside an engine and of no use with another one.
//!
//! magic (8 bytes) ‖ the file's own number (16 random bytes) ‖ pieces. A piece is
//! length u32 BE ‖ record sealed by the engine's envelope, bound to the file's number and
//! to the piece's place in the file.
//!
//! Invariants
//! - A piece is given only after it authenticated, at its place; pieces cannot be
//!   swapped, doubled, or taken from another file or another engine. Whether the last
//!   one is there is for the pieces themselves to say.
//! - The file gets its name when it is whole and synced.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use aws_lc_rs::rand;

use crate::envelope::{Aad, Envelope, Kind, SEAL_OVERHEAD_BYTES};
use crate::files;

/// Bytes of a piece, before it is sealed, that are believed.
const PIECE_BYTES_MAX: usize = 4 << 20;
const MAGIC: &[u8; 8] = b"NAUTIDX1";
const NUMBER_BYTES: usize = 16;
const READ_BYTES: usize = 1 << 20;

/// Writes a file of pieces in place of the one that is there, durably; gives its length.
pub(crate) fn write(
    path: &Path,
    envelope: &Envelope,
    pieces: impl Iterator<Item = Vec<u8>>,
) -> io::Result<u64> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    let mut file_number = [0; NUMBER_BYTES];
    rand::fill(&mut file_number).map_err(|_| io::Error::other("no random bytes"))?;
    file.write_all(MAGIC)?;
    file.write_all(&file_number)?;
    let mut size_bytes = (MAGIC.len() + NUMBER_BYTES) as u64;
    let mut frame = Vec::new();
    for (place, piece) in (0u64..).zip(pieces) {
        if piece.len() > PIECE_BYTES_MAX {
            return Err(io::Error::other("a piece is too large"));
        }
        let length = u32::try_from(piece.len() + SEAL_OVERHEAD_BYTES).map_err(io::Error::other)?;
        frame.clear();
        frame.extend_from_slice(&length.to_be_bytes());
        envelope.seal_into(aad(&position(&file_number, place)), &piece, &mut frame);
        file.write_all(&frame)?;
        size_bytes += frame.len() as u64;
    }
    file.sync_all()?;
    drop(file);
    fs::rename(&beside, path)?;
    files::sync_parent(path)?;
    Ok(size_bytes)
}

/// Reads a file of pieces, in order. An error is text for the log: whoever reads has
/// another way.
pub(crate) fn read(
    path: &Path,
    envelope: &Envelope,
    visit: &mut dyn FnMut(&[u8]) -> Result<(), String>,
) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    let file = File::open(path).map_err(text)?;
    let mut file = BufReader::with_capacity(READ_BYTES, file);
    let mut magic = [0; MAGIC.len()];
    file.read_exact(&mut magic).map_err(text)?;
    if magic != *MAGIC {
        return Err("it is not a file that this program knows".to_owned());
    }
    let mut file_number = [0; NUMBER_BYTES];
    file.read_exact(&mut file_number).map_err(text)?;
    let (mut sealed, mut piece) = (Vec::new(), Vec::new());
    for place in 0u64.. {
        let mut length = [0; 4];
        if file.read(&mut length[..1]).map_err(text)? == 0 {
            break;
        }
        file.read_exact(&mut length[1..]).map_err(text)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > PIECE_BYTES_MAX + SEAL_OVERHEAD_BYTES {
            return Err(format!("piece {place} is longer than any can be"));
        }
        sealed.resize(length, 0);
        file.read_exact(&mut sealed).map_err(text)?;
        envelope
            .open_into(aad(&position(&file_number, place)), &sealed, &mut piece)
            .map_err(|error| error.to_string())?;
        visit(&piece)?;
    }
    Ok(())
}

fn position(file_number: &[u8; NUMBER_BYTES], place: u64) -> [u8; NUMBER_BYTES + 8] {
    let mut position = [0; NUMBER_BYTES + 8];
    position[..NUMBER_BYTES].copy_from_slice(file_number);
    position[NUMBER_BYTES..].copy_from_slice(&place.to_be_bytes());
    position
}

fn aad(position: &[u8]) -> Aad<'_> {
    Aad {
        kind: Kind::IndexPiece,
        position,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::keys::{Keyring, RootKey};

    fn read_all(path: &Path, envelope: &Envelope) -> Result<Vec<Vec<u8>>, String> {
        let mut pieces = Vec::new();
        read(path, envelope, &mut |piece| {
            pieces.push(piece.to_vec());
            Ok(())
        })?;
        Ok(pieces)
    }

    #[test]
    fn pieces_come_back_in_order_and_no_changed_or_moved_one_is_given() {
        let home = TempDir::new().unwrap();
        let keyring = Keyring::new(RootKey::from_bytes([7; 32]));
        let envelope = Envelope::open_dir(home.path(), &keyring).unwrap();
        let path = home.path().join("index");
        let pieces: Vec<Vec<u8>> = (1..5u8).map(|n| vec![n; 100]).collect();
        write(&path, &envelope, pieces.clone().into_iter()).unwrap();
        assert_eq!(read_all(&path, &envelope).unwrap(), pieces);

        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            fs::write(&path, &changed).unwrap();
            assert!(read_all(&path, &envelope).is_err(), "byte {at}");
        }
        let frame = 4 + 100 + SEAL_OVERHEAD_BYTES;
        let (head, frames) = whole.split_at(MAGIC.len() + NUMBER_BYTES);
        let mut swapped = head.to_vec();
        swapped.extend_from_slice(&frames[frame..2 * frame]);
        swapped.extend_from_slice(&frames[..frame]);
        swapped.extend_from_slice(&frames[2 * frame..]);
        fs::write(&path, &swapped).unwrap();
        assert!(read_all(&path, &envelope).is_err(), "swapped");
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(read_all(&path, &envelope).is_err(), "cut");
    }

    #[test]
    fn pieces_of_one_engine_are_of_no_use_in_another() {
        let (one, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let keyring = Keyring::new(RootKey::from_bytes([7; 32]));
        let path = one.path().join("index");
        let envelope = Envelope::open_dir(one.path(), &keyring).unwrap();
        write(&path, &envelope, [vec![1; 10]].into_iter()).unwrap();
        let envelope = Envelope::open_dir(other.path(), &keyring).unwrap();
        assert!(read_all(&path, &envelope).is_err());
    }
}
