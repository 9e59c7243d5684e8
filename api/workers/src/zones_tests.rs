//! Zones by the table, and against what must hold whatever happens.

use std::fmt::Write as _;

use expect_test::expect;
use proptest::prelude::*;

use super::*;

const SECOND_MS: u64 = 1000;

/// Zones of so many workers, the first of each of them silent; named `a0`, `a1`, …
fn zones(sizes: &[(&str, usize, usize)]) -> Zones {
    let mut zones = Zones::default();
    for (name, all, silent) in sizes {
        let zone = zones.name(name);
        for number in 0..*all {
            let standing = if number < *silent {
                Standing::Silent { since_ms: 0 }
            } else {
                Standing::Heard
            };
            zones.enter(&zone, &format!("{name}{number}").into(), standing);
        }
    }
    zones
}

/// Evictions of each zone in so many seconds.
fn evicted(zones: &mut Zones, seconds: u64) -> BTreeMap<String, usize> {
    let mut evicted = BTreeMap::new();
    for second in 0..seconds {
        for worker in zones.tick(second * SECOND_MS).evict {
            let name = worker
                .trim_end_matches(|c: char| c.is_ascii_digit())
                .to_owned();
            let zone = zones.name(&name);
            zones.leave(&zone, &worker, Standing::Silent { since_ms: 0 });
            zones.enter(&zone, &worker, Standing::Evicted);
            *evicted.entry(name).or_default() += 1;
        }
    }
    evicted
}

#[test]
fn a_zone_is_as_disrupted_and_evicts_as_fast_as_the_controller_has_it() {
    let mut table = String::new();
    for (all, silent) in [
        (1, 0),
        (3, 2),
        (4, 3),
        (50, 27),
        (50, 28),
        (51, 28),
        (51, 29),
        (1000, 333),
        (1000, 550),
        (1000, 1000),
    ] {
        // The other zone is heard, so that not everything is silent.
        let mut zones = zones(&[("a", all, silent), ("b", 1, 0)]);
        let disruption = zones.zones["a"].disruption();
        let evicted = evicted(&mut zones, 1000).get("a").copied().unwrap_or(0);
        writeln!(
            table,
            "{silent:>4} of {all:>4} silent: {:<7} {evicted:>3} evicted in 1000 s",
            format!("{disruption:?}")
        )
        .expect("writing to a string");
    }
    expect![[r#"
           0 of    1 silent: Normal    0 evicted in 1000 s
           2 of    3 silent: Normal    2 evicted in 1000 s
           3 of    4 silent: Partial   0 evicted in 1000 s
          27 of   50 silent: Normal   27 evicted in 1000 s
          28 of   50 silent: Partial   0 evicted in 1000 s
          28 of   51 silent: Normal   28 evicted in 1000 s
          29 of   51 silent: Partial  10 evicted in 1000 s
         333 of 1000 silent: Normal  100 evicted in 1000 s
         550 of 1000 silent: Partial  10 evicted in 1000 s
        1000 of 1000 silent: Full    100 evicted in 1000 s
    "#]]
    .assert_eq(&table);
}

#[test]
fn when_every_zone_is_silent_nobody_is_evicted_and_afterwards_not_at_once() {
    let mut zones = zones(&[("a", 3, 3), ("b", 2, 2)]);
    assert!(zones.tick(0).spare_everyone);
    assert!(evicted(&mut zones, 1000).is_empty());
    let (b, b0) = (zones.name("b"), Arc::from("b0"));
    zones.leave(&b, &b0, Standing::Silent { since_ms: 0 });
    zones.enter(&b, &b0, Standing::Heard);
    let again_ms = 1_000_000;
    let orders = zones.tick(again_ms);
    assert!(orders.start_anew && orders.evict.is_empty());
    let next_ms = again_ms + millis(limits::EVICTION_INTERVAL);
    assert!(zones.tick(next_ms - 1).evict.is_empty());
    assert_eq!(zones.tick(next_ms).evict.len(), 2);
}

#[test]
fn who_has_been_silent_longest_goes_first_and_who_was_heard_does_not_go() {
    let mut zones = zones(&[("a", 9, 0)]);
    let a = zones.name("a");
    for (worker, since_ms) in [("x", 30), ("y", 10), ("z", 20)] {
        zones.enter(&a, &worker.into(), Standing::Silent { since_ms });
    }
    zones.leave(&a, &"y".into(), Standing::Silent { since_ms: 10 });
    zones.enter(&a, &"y".into(), Standing::Heard);
    assert_eq!(zones.tick(0).evict, ["z".into()]);
}

#[test]
fn zones_beyond_the_limit_are_one() {
    let mut zones = Zones::default();
    for number in 0..limits::ZONES_LIMIT + 5 {
        let zone = zones.name(&format!("z{number}"));
        zones.enter(&zone, &"w".into(), Standing::Heard);
    }
    assert_eq!(zones.zones.len(), limits::ZONES_LIMIT + 1);
}

proptest! {
    #[test]
    fn evictions_keep_their_distance_and_spare_who_is_heard(
        steps in prop::collection::vec((0..3_usize, 0..20_usize, any::<bool>(), 0..30_u64), 1..200),
    ) {
        let mut zones = zones(&[("a", 20, 0), ("b", 20, 0), ("c", 20, 0)]);
        let mut standings = BTreeMap::new();
        let mut last: BTreeMap<usize, u64> = BTreeMap::new();
        let mut now_ms = 0;
        for (zone, worker, silent, seconds) in steps {
            let name = ["a", "b", "c"][zone];
            let (zone_name, id) = (zones.name(name), Arc::from(format!("{name}{worker}")));
            let before = standings.get(&(zone, worker)).copied().unwrap_or(Standing::Heard);
            let after = match (silent, before) {
                (true, Standing::Heard) => Standing::Silent { since_ms: now_ms },
                (true, before) => before,
                (false, _) => Standing::Heard,
            };
            zones.leave(&zone_name, &id, before);
            zones.enter(&zone_name, &id, after);
            standings.insert((zone, worker), after);
            now_ms += seconds * SECOND_MS;
            for evicted in zones.tick(now_ms).evict {
                let zone = ["a", "b", "c"].iter().position(|name| evicted.starts_with(name)).expect("a zone");
                let worker: usize = evicted[1..].parse().expect("a number");
                let before = standings[&(zone, worker)];
                let is_waiting = matches!(before, Standing::Silent { .. });
                prop_assert!(is_waiting, "{} is {:?}", evicted, before);
                if let Some(last) = last.insert(zone, now_ms) {
                    prop_assert!(now_ms - last >= millis(limits::EVICTION_INTERVAL));
                }
                let name = zones.name(["a", "b", "c"][zone]);
                zones.leave(&name, &evicted, before);
                zones.enter(&name, &evicted, Standing::Evicted);
                standings.insert((zone, worker), Standing::Evicted);
            }
        }
    }
}
