//! Scheduled archives, to a directory and to a store that speaks S3.

#![allow(clippy::unwrap_used)]

mod bucket;

use std::sync::Arc;
use std::time::Duration;

use nautilus_backup::{
    Archive, Audience, Destination, Identity, Opener, Plan, QuorumKey, S3Credentials, S3Settings,
    Source, Stored, archive_name, lease_table, run_schedule,
};
use nautilus_machine::solo::SoloKv;
use nautilus_machine::{Command, Leadership, Operation, Proposal, Put, Txn, UnixMillis};
use tokio_util::sync::CancellationToken;

/// Far longer than any of it takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn source(keys: usize) -> (SoloKv, Source) {
    let kv = SoloKv::new(|| UnixMillis(1));
    for n in 0..keys {
        let txn = Txn {
            then: vec![Operation::Put(Put::new(
                format!("key/{n:05}"),
                vec![b'v'; 1_000],
            ))],
            ..Txn::default()
        };
        kv.apply(Proposal::new(Command::Txn(txn))).unwrap();
    }
    let source = Source {
        kv: Arc::new(kv.clone()),
        leases: lease_table(Arc::new(kv.clone())),
        quorum: Arc::new(|| QuorumKey::from_root(&[7; 32])),
        cluster: "alpha".into(),
    };
    (kv, source)
}

fn plan(destination: &Destination) -> Plan {
    Plan {
        destination: destination.clone(),
        interval: Duration::from_millis(20),
        keep: 3,
        max_age: None,
        audience: Audience::default(),
    }
}

/// Runs a schedule until `enough` says so of what is kept.
async fn run_until(source: Source, plan: Plan, enough: impl Fn(&[Stored]) -> bool) -> Vec<Stored> {
    let stop = CancellationToken::new();
    let destination = plan.destination.clone();
    let running = tokio::spawn(run_schedule(source, plan, stop.clone()));
    let kept = tokio::time::timeout(PATIENCE, async {
        loop {
            let kept = destination.list("alpha").await.unwrap();
            if enough(&kept) {
                return kept;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let kept = kept.await.expect("it happens");
    stop.cancel();
    running.await.unwrap();
    kept
}

#[tokio::test]
async fn a_directory_keeps_the_newest_and_leaves_others_files_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made").to_str().unwrap().to_owned();
    let destination = Destination::parse(&path, &S3Settings::default()).unwrap();
    let foreign = folder.path().join("made").join(archive_name("beta", 1, 1));
    std::fs::write(&foreign, "another quorum's").unwrap();
    let (_, source) = source(100);
    let oldest = archive_name("alpha", 1, 1);
    std::fs::write(folder.path().join("made").join(&oldest), "old").unwrap();

    let gone = |kept: &[Stored]| kept.len() >= 3 && kept.iter().all(|one| one.name != oldest);
    let kept = run_until(source, plan(&destination), gone).await;
    assert!(kept.len() <= 4, "{kept:?}");
    assert!(foreign.exists());
}

#[tokio::test]
async fn nobody_but_the_leader_makes_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    let destination = Destination::parse(&path, &S3Settings::default()).unwrap();
    let (kv, source) = source(1);
    kv.set_leadership(Leadership {
        term: 2,
        ..Leadership::default()
    });
    let stop = CancellationToken::new();
    let running = tokio::spawn(run_schedule(source, plan(&destination), stop.clone()));
    tokio::time::sleep(Duration::from_millis(200)).await;
    stop.cancel();
    running.await.unwrap();
    assert!(destination.list("alpha").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_bucket_keeps_them_and_gives_them_back_to_their_recipient() {
    let bucket = bucket::Bucket::start().await;
    let credentials = "aws_access_key_id = tester\naws_secret_access_key = made-up\n";
    let settings = S3Settings {
        credentials: Some(S3Credentials::from_text(credentials).unwrap()),
        endpoint: Some(bucket.endpoint()),
        region: Some("us-east-1".into()),
        authorities: None,
    };
    let destination = Destination::parse("s3://backups/nautilus", &settings).unwrap();
    // More than two parts of an upload.
    let (_, source) = source(20_000);
    let identity = Identity::generate().unwrap();
    let plan = Plan {
        audience: Audience {
            recipients: vec![identity.recipient().unwrap()],
        },
        interval: Duration::from_secs(3_600),
        ..plan(&destination)
    };
    let kept = run_until(source, plan, |kept| !kept.is_empty()).await;
    assert_eq!(kept.len(), 1);
    assert!(bucket.uploads_completed() >= 1 && bucket.every_request_was_signed());

    let reader = destination.read(&kept[0].name).await.unwrap();
    let found = tokio::task::spawn_blocking(move || {
        let mut records = Archive::open(reader)?.unseal(&Opener::Operator(identity))?;
        while records.next_record()?.is_some() {}
        Ok::<_, nautilus_backup::BackupError>(records.summary().map(|summary| summary.keys))
    });
    assert_eq!(found.await.unwrap().unwrap(), Some(20_000));
    destination.remove(&kept[0].name).await.unwrap();
    assert!(destination.list("alpha").await.unwrap().is_empty());
}

#[tokio::test]
async fn an_archive_that_was_changed_where_it_is_kept_does_not_verify() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    let destination = Destination::parse(&path, &S3Settings::default()).unwrap();
    let (_, source) = source(10);
    let mut archive = source.archive(Audience::default()).await.unwrap();
    destination.put("one", &mut archive.pieces).await.unwrap();
    destination.verify("one", &archive.signer).await.unwrap();
    let file = folder.path().join("one");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert!(destination.verify("one", &archive.signer).await.is_err());
}
