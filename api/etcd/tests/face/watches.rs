//! Watch.

use std::time::Duration;

use nautilus_etcd::proto::etcdserverpb as pb;
use nautilus_etcd::proto::etcdserverpb::watch_create_request::FilterType;
use nautilus_etcd::proto::etcdserverpb::watch_request::RequestUnion;
use nautilus_etcd::{EtcdLimits, errors};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::world::{World, bytes, text};

/// A watch stream with both ends in hand.
struct Watching {
    requests: mpsc::Sender<pb::WatchRequest>,
    answers: Streaming<pb::WatchResponse>,
}

impl Watching {
    async fn open(world: &World) -> Self {
        let (requests, inbound) = mpsc::channel(16);
        let answers = world.watches().watch(ReceiverStream::new(inbound)).await;
        Self {
            requests,
            answers: answers.expect("a stream").into_inner(),
        }
    }

    async fn ask(&self, request: RequestUnion) {
        let request = pb::WatchRequest {
            request_union: Some(request),
        };
        self.requests.send(request).await.expect("sent");
    }

    async fn create(&mut self, request: pb::WatchCreateRequest) -> pb::WatchResponse {
        self.ask(RequestUnion::CreateRequest(request)).await;
        let answer = self.next().await;
        assert!(answer.created);
        answer
    }

    async fn next(&mut self) -> pb::WatchResponse {
        self.answers
            .message()
            .await
            .expect("a message")
            .expect("one")
    }

    /// `kind key value` of the next answer's events.
    async fn events(&mut self) -> Vec<String> {
        let answer = self.next().await;
        answer.events.iter().map(describe).collect()
    }
}

fn describe(event: &nautilus_etcd::proto::mvccpb::Event) -> String {
    let kv = event.kv.as_ref().expect("a key");
    let kind = event.r#type().as_str_name();
    let prev = event.prev_kv.as_ref().map(|kv| text(&kv.value));
    let prev = prev.map_or_else(String::new, |value| format!(" was {value}"));
    format!("{kind} {} {}{prev}", text(&kv.key), text(&kv.value))
}

fn watch(key: &str, end: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        key: bytes(key),
        range_end: bytes(end),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_watch_sees_what_comes_after_it_was_created() {
    let world = World::new().await;
    world.put("a", "0").await;
    let mut stream = Watching::open(&world).await;
    let created = stream.create(watch("a", "")).await;
    assert_eq!(
        (created.watch_id, created.header.expect("a header").revision),
        (0, 2)
    );
    world.put("b", "1").await;
    world.put("a", "1").await;
    world.delete("a").await;
    assert_eq!(stream.events().await, ["PUT a 1"]);
    let deleted = stream.next().await;
    assert_eq!(deleted.header.expect("a header").revision, 5);
    assert_eq!(describe(&deleted.events[0]), "DELETE a ");
    assert_eq!(
        deleted.events[0].kv.as_ref().expect("a key").mod_revision,
        5
    );
}

#[tokio::test]
async fn a_watch_from_the_past_sees_it_with_previous_versions() {
    let world = World::new().await;
    world.put("a", "1").await;
    world.put("a", "2").await;
    let mut stream = Watching::open(&world).await;
    let request = pb::WatchCreateRequest {
        start_revision: 2,
        prev_kv: true,
        ..watch("a", "b")
    };
    stream.create(request).await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(stream.events().await);
    }
    assert_eq!(seen, ["PUT a 1", "PUT a 2 was 1"]);
}

#[tokio::test]
async fn a_watch_from_the_future_waits_for_it() {
    let world = World::new().await;
    let mut stream = Watching::open(&world).await;
    let request = pb::WatchCreateRequest {
        start_revision: 3,
        ..watch("a", "")
    };
    stream.create(request).await;
    world.put("a", "too early").await;
    world.put("a", "now").await;
    assert_eq!(stream.events().await, ["PUT a now"]);
}

#[tokio::test]
async fn filters_leave_out_their_kind() {
    let world = World::new().await;
    let mut stream = Watching::open(&world).await;
    for (id, filter) in [(5, FilterType::Noput), (6, FilterType::Nodelete)] {
        let request = pb::WatchCreateRequest {
            watch_id: id,
            filters: vec![filter.into()],
            ..watch("a", "")
        };
        stream.create(request).await;
    }
    world.put("a", "1").await;
    world.delete("a").await;
    let (first, second) = (stream.next().await, stream.next().await);
    assert_eq!(
        (first.watch_id, describe(&first.events[0])),
        (6, "PUT a 1".to_owned())
    );
    assert_eq!(
        (second.watch_id, describe(&second.events[0])),
        (5, "DELETE a ".to_owned())
    );
}

#[tokio::test]
async fn one_stream_carries_many_watches_with_ids_of_their_own() {
    let world = World::new().await;
    let mut stream = Watching::open(&world).await;
    let chosen = pb::WatchCreateRequest {
        watch_id: 1,
        ..watch("a", "")
    };
    assert_eq!(stream.create(chosen.clone()).await.watch_id, 1);
    assert_eq!(stream.create(watch("a", "")).await.watch_id, 0);
    assert_eq!(stream.create(watch("b", "")).await.watch_id, 2);
    let duplicate = stream.create(chosen).await;
    assert!(duplicate.canceled);
    assert_eq!(duplicate.watch_id, -1);
    assert_eq!(
        duplicate.cancel_reason,
        "mvcc: duplicate watch ID provided on the WatchStream"
    );
    world.put("a", "1").await;
    let mut ids = [stream.next().await.watch_id, stream.next().await.watch_id];
    ids.sort_unstable();
    assert_eq!(ids, [0, 1]);
}

#[tokio::test]
async fn a_cancelled_watch_is_silent() {
    let world = World::new().await;
    let mut stream = Watching::open(&world).await;
    stream.create(watch("a", "")).await;
    stream.create(watch("z", "")).await;
    let cancel = pb::WatchCancelRequest { watch_id: 0 };
    stream.ask(RequestUnion::CancelRequest(cancel)).await;
    let canceled = stream.next().await;
    assert!(canceled.canceled);
    assert_eq!((canceled.watch_id, canceled.compact_revision), (0, 0));
    world.put("a", "1").await;
    world.put("z", "1").await;
    assert_eq!(stream.events().await, ["PUT z 1"]);
}

#[tokio::test]
async fn a_compacted_start_ends_the_watch_and_says_where_to_begin() {
    let world = World::new().await;
    for value in ["1", "2", "3"] {
        world.put("a", value).await;
    }
    let compact = pb::CompactionRequest {
        revision: 4,
        physical: false,
    };
    world.kv().compact(compact).await.expect("a compaction");
    let mut stream = Watching::open(&world).await;
    let request = pb::WatchCreateRequest {
        start_revision: 2,
        ..watch("a", "")
    };
    let created = stream.create(request).await;
    assert!(!created.canceled);
    let ended = stream.next().await;
    assert!(ended.canceled);
    assert_eq!(ended.compact_revision, 4);
    assert_eq!(ended.cancel_reason, errors::COMPACTED.message);
}

#[tokio::test]
async fn progress_is_told_when_asked_and_never_ahead_of_events() {
    let world = World::new().await;
    let mut stream = Watching::open(&world).await;
    stream.create(watch("a", "")).await;
    let revision = world.put("a", "1").await;
    let request = pb::WatchProgressRequest {};
    stream.ask(RequestUnion::ProgressRequest(request)).await;
    let mut seen = false;
    loop {
        let answer = stream.next().await;
        seen |= !answer.events.is_empty();
        if answer.watch_id == -1 {
            let told = answer.header.expect("a header").revision;
            assert!(told < revision || seen);
            assert!(!answer.created && !answer.canceled && answer.events.is_empty());
            break;
        }
    }
}

#[tokio::test]
async fn quiet_watches_that_asked_are_told_their_progress() {
    let limits = EtcdLimits {
        watch_progress_interval: Duration::from_millis(100),
        ..EtcdLimits::default()
    };
    let world = World::with(limits).await;
    let mut stream = Watching::open(&world).await;
    let request = pb::WatchCreateRequest {
        progress_notify: true,
        ..watch("a", "")
    };
    stream.create(request).await;
    let revision = world.put("elsewhere", "1").await;
    loop {
        let answer = stream.next().await;
        assert!(answer.events.is_empty());
        assert_eq!(answer.watch_id, 0);
        if answer.header.expect("a header").revision == revision {
            break;
        }
    }
}

#[tokio::test]
async fn an_empty_range_is_refused() {
    let world = World::new().await;
    let mut stream = Watching::open(&world).await;
    let refused = stream.create(watch("b", "a")).await;
    assert!(refused.canceled);
    assert_eq!(refused.cancel_reason, "mvcc: watcher range is empty");
}

#[tokio::test]
async fn a_large_answer_comes_in_fragments_when_asked() {
    let limits = EtcdLimits {
        max_request_bytes: 1_500_000,
        ..EtcdLimits::default()
    };
    let world = World::with(limits).await;
    let value = "x".repeat(400_000);
    let mut stream = Watching::open(&world).await;
    use nautilus_machine::{Command, Operation, Proposal, Put, Txn};
    let request = pb::WatchCreateRequest {
        fragment: true,
        ..watch("k", "l")
    };
    stream.create(request).await;
    let puts = (0..8).map(|at| Operation::Put(Put::new(format!("k{at}"), value.clone())));
    let txn = Txn {
        then: puts.collect(),
        ..Txn::default()
    };
    world
        .solo
        .apply(Proposal::new(Command::Txn(txn)))
        .expect("a large transaction");
    let mut keys = Vec::new();
    let mut fragments = 0;
    loop {
        let answer = stream.next().await;
        keys.extend(
            answer
                .events
                .iter()
                .map(|event| text(&event.kv.as_ref().expect("a key").key)),
        );
        fragments += 1;
        if !answer.fragment {
            break;
        }
    }
    assert!(fragments > 1);
    assert_eq!(keys, ["k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7"]);
}
