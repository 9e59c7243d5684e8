//! Archives that were touched, and keys that are not theirs.

use nautilus_backup::{Archive, BackupError, Opener, QuorumKey, Signing};

use crate::world::{archive, key, operator, quorum, read, records};

#[test]
fn a_flipped_bit_anywhere_is_found_by_the_reader_and_by_the_signature() {
    let small = [key("a", b"1", 2), key("b", b"2", 3)];
    let (whole, _) = archive(&small, &[]);
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        assert!(
            read(&changed, &Opener::Quorum(quorum())).is_err(),
            "byte {at} of {}",
            whole.len()
        );
        let verified = Archive::open(&changed[..]).and_then(|found| found.verify(&mut |_| {}));
        assert!(verified.is_err(), "byte {at} of {}", whole.len());
    }
}

#[test]
fn a_cut_archive_is_refused_wherever_it_is_cut() {
    let (whole, _) = archive(&[key("a", b"1", 2)], &[]);
    for length in 0..whole.len() {
        let cut = &whole[..length];
        assert!(read(cut, &Opener::Quorum(quorum())).is_err(), "at {length}");
        let verified = Archive::open(cut).and_then(|found| found.verify(&mut |_| {}));
        assert!(
            matches!(verified, Err(BackupError::Truncated(_))),
            "at {length}: {verified:?}"
        );
    }
}

#[test]
fn bytes_after_the_end_are_refused() {
    let (mut whole, _) = archive(&[key("a", b"1", 2)], &[]);
    whole.push(0);
    assert!(read(&whole, &Opener::Quorum(quorum())).is_err());
}

#[test]
fn what_etcdctl_adds_is_accepted_and_checked() {
    use aws_lc_rs::digest::{SHA256, digest};
    let (mut whole, _) = archive(&[key("a", b"1", 2)], &[]);
    whole.resize(whole.len().next_multiple_of(512), 0);
    let hash = digest(&SHA256, &whole);
    whole.extend_from_slice(hash.as_ref());
    read(&whole, &Opener::Quorum(quorum())).unwrap();
    let verified = Archive::open(&whole[..])
        .unwrap()
        .verify(&mut |_| {})
        .unwrap();
    assert_eq!(verified.size_bytes, whole.len() as u64);
    *whole.last_mut().unwrap() ^= 1;
    assert!(read(&whole, &Opener::Quorum(quorum())).is_err());
}

#[test]
fn another_quorum_does_not_open_it() {
    let (whole, _) = archive(&records(), &[]);
    let other = Opener::Quorum(QuorumKey::from_root(&[8; 32]));
    let error = read(&whole, &other).unwrap_err();
    assert!(matches!(error, BackupError::WrongKey { .. }), "{error}");
}

#[test]
fn another_operator_does_not_open_it_and_is_told_who_does() {
    let (_, recipient) = operator();
    let (stranger, _) = operator();
    let (whole, _) = archive(&records(), std::slice::from_ref(&recipient));
    let error = read(&whole, &Opener::Operator(stranger)).unwrap_err();
    assert!(
        error.to_string().contains(&recipient.to_string()),
        "{error}"
    );
    // It was not sealed to the quorum.
    assert!(read(&whole, &Opener::Quorum(quorum())).is_err());
}

#[test]
fn an_archive_made_by_somebody_else_for_the_same_operator_is_told_apart() {
    let (_, recipient) = operator();
    let (whole, _) = archive(&[key("a", b"1", 2)], &[recipient]);
    let found = Archive::open(&whole[..]).unwrap();
    let expected = quorum().signing().unwrap().public();
    assert!(found.expect_signer(&expected).is_ok());
    let other = Signing::ephemeral().unwrap().public();
    assert!(matches!(
        found.expect_signer(&other),
        Err(BackupError::OtherSigner { .. })
    ));
}

#[test]
fn frames_of_another_archive_do_not_fit() {
    let (one, _) = archive(&[key("a", b"1", 2)], &[]);
    let (two, _) = archive(&[key("a", b"1", 2)], &[]);
    assert_eq!(one.len(), two.len());
    let frames = one.len() - 150;
    let mixed = [&one[..frames], &two[frames..]].concat();
    assert!(read(&mixed, &Opener::Quorum(quorum())).is_err());
}
