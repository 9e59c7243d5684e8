//! What publishing and reading cost: `cargo test --release -p nautilus-consensus --lib
//! fan_out -- --ignored --nocapture`.

use std::time::Duration;

use futures_util::FutureExt;
use nautilus_machine::{Command, KeyRange, WatchGroup};

use super::world::{World, put, request, txn};
use crate::hub::HubLimits;
use crate::hub::group::Group;

/// Entries in one published batch.
const BATCH: usize = 64;

struct Cost {
    publish: Duration,
    read: Duration,
    events: usize,
    delivered: usize,
}

/// This thread's time on a processor, whatever else runs on the machine.
fn busy() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("on Linux");
    let nanos = text.split_whitespace().next().expect("a number");
    Duration::from_nanos(nanos.parse().expect("a number"))
}

fn fan_out(groups: usize, watchers: usize, events: usize, key: impl Fn(usize) -> String) -> Cost {
    let mut world = World::new(HubLimits::default());
    let mut groups: Vec<Group> = (0..groups).map(|_| world.group()).collect();
    for watcher in 0..watchers {
        let at = watcher % groups.len();
        let range = KeyRange::single(key(watcher));
        let id = i64::try_from(watcher).expect("small");
        groups[at].add(id, request(range, None)).expect("added");
    }
    let mut cost = Cost {
        publish: Duration::ZERO,
        read: Duration::ZERO,
        events,
        delivered: 0,
    };
    for start in (0..events).step_by(BATCH) {
        let commands: Vec<Command> = (start..start + BATCH)
            .map(|at| txn(vec![put(&key(at % watchers))]))
            .collect();
        let applied = world.apply_only(commands);
        let began = busy();
        world.hub.publish(applied);
        cost.publish += busy() - began;
        let began = busy();
        for group in &mut groups {
            while let Some(message) = group.next().now_or_never() {
                cost.delivered += message.result.expect("events").len();
            }
        }
        cost.read += busy() - began;
    }
    cost
}

#[test]
#[ignore = "a measurement"]
fn fan_out_costs() {
    let one = |_: usize| "registry/one".to_owned();
    let distinct = |at: usize| format!("registry/{at:08}");
    let runs = [
        (
            "1,000 of one key in 10 groups",
            fan_out(10, 1_000, 16_000, one),
        ),
        (
            "1,000 of one key in 1,000 groups",
            fan_out(1_000, 1_000, 4_000, one),
        ),
        (
            "10,000 of distinct keys in 10 groups",
            fan_out(10, 10_000, 160_000, distinct),
        ),
        (
            "10,000 of distinct keys in 100 groups",
            fan_out(100, 10_000, 160_000, distinct),
        ),
    ];
    for (name, cost) in runs {
        let per = |time: Duration, count: usize| time.as_nanos() as f64 / count.max(1) as f64;
        println!(
            "{name}: publish {:.0} ns per event, {:.1} ns per delivery; read {:.1} ns per delivery; {} deliveries",
            per(cost.publish, cost.events),
            per(cost.publish, cost.delivered),
            per(cost.read, cost.delivered),
            cost.delivered,
        );
    }
}
