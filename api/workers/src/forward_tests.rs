//! Beats in messages, over a leader that answers as it is told to.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use nautilus_machine::solo::SoloKv;
use nautilus_machine::{CallError, Leadership, UnixMillis};
use parking_lot::Mutex;

use super::*;
use crate::message;

/// Acknowledges every worker but `w13`; what it does first is scripted.
#[derive(Default)]
struct Scripted {
    first: Mutex<Vec<Fault>>,
    /// Beats of each message that was answered.
    sizes: Mutex<Vec<usize>>,
    heard: Mutex<BTreeMap<String, usize>>,
}

#[derive(Clone, Copy)]
enum Fault {
    NotLeading,
    Unavailable,
    /// Heard, and the answer lost.
    Silent,
}

impl Scripted {
    fn hear(&self, message: &[u8]) -> LeaderAnswer {
        let Ok(LeaderMessage::Beats(beats)) = message::decode(message) else {
            panic!("only beats are told here");
        };
        self.sizes.lock().push(beats.len());
        let mut heard = self.heard.lock();
        let answers = beats.iter().map(|beat| {
            *heard.entry(beat.node_id.to_owned()).or_default() += 1;
            match beat.node_id {
                "w13" => BeatAnswer::NotOwner,
                _ => BeatAnswer::Acknowledged,
            }
        });
        LeaderAnswer::Beats(answers.collect())
    }
}

impl LeaderChannel for Scripted {
    fn call(&self, bytes: Bytes) -> BoxFuture<'_, Result<Bytes, CallError>> {
        let fault = self.first.lock().pop();
        Box::pin(async move {
            let answer = match fault {
                None => self.hear(&bytes),
                Some(Fault::NotLeading) => LeaderAnswer::NotLeading,
                Some(Fault::Unavailable) => return Err(CallError::Unavailable("cut".into())),
                Some(Fault::Silent) => {
                    self.hear(&bytes);
                    std::future::pending().await
                }
            };
            message::encode(&answer).map_err(CallError::Refused)
        })
    }
}

fn follower() -> Arc<dyn Kv> {
    let kv = SoloKv::new(|| UnixMillis(0));
    kv.set_leadership(Leadership {
        term: 1,
        leader: None,
        is_self: false,
    });
    Arc::new(kv)
}

fn forwarder(first: &[Fault]) -> (Arc<Scripted>, Forwarder) {
    let channel = Arc::new(Scripted::default());
    channel.first.lock().extend(first.iter().rev());
    let forwarder = Forwarder::start(follower(), channel.clone());
    (channel, forwarder)
}

async fn tell(forwarder: &Forwarder, who: usize) -> Result<BeatAnswer, String> {
    let node_id = format!("w{who}");
    let told = forwarder.tell(&node_id, "0xa1".into(), BeatFacts::default());
    told.await.map_err(|refusal| refusal.to_string())
}

#[tokio::test(start_paused = true)]
async fn beats_that_come_together_go_together_and_each_gets_its_own_answer() {
    let (channel, forwarder) = forwarder(&[]);
    let answers = join_all((0..1000).map(|who| tell(&forwarder, who))).await;
    for (who, answer) in answers.into_iter().enumerate() {
        let expected = match who {
            13 => BeatAnswer::NotOwner,
            _ => BeatAnswer::Acknowledged,
        };
        assert_eq!(answer, Ok(expected), "w{who}");
    }
    assert_eq!(*channel.sizes.lock(), [limits::BEATS_PER_MESSAGE, 488]);
}

#[tokio::test(start_paused = true)]
async fn an_election_costs_no_beat() {
    let first = [Fault::NotLeading, Fault::Unavailable, Fault::Silent];
    let (channel, forwarder) = forwarder(&first);
    assert_eq!(tell(&forwarder, 1).await, Ok(BeatAnswer::Acknowledged));
    // Told again after the lost answer: the leader heard it twice, and that is the same.
    assert_eq!(channel.heard.lock().get("w1"), Some(&2));
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_the_queue_fills_and_then_workers_are_asked_to_come_back() {
    let nobody = [Fault::Unavailable; 10_000];
    let (channel, forwarder) = forwarder(&nobody);
    let more = 100;
    let room = limits::BEATS_QUEUE_LIMIT;
    let answers = join_all((0..room + more).map(|who| tell(&forwarder, who))).await;
    let busy = answers
        .iter()
        .filter(|answer| matches!(answer, Err(reason) if reason.contains("wait for the leader")))
        .count();
    assert_eq!(busy, more);
    assert!(answers.iter().all(Result::is_err));
    // Nobody waits any more, so nothing is told any more.
    let rest = channel.first.lock().len();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(channel.first.lock().len(), rest);
}
