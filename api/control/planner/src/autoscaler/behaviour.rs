//! How fast replicas may change: windows of stabilisation, policies of rates, bounds.

use nautilus_machinery::timestamp::Instant;
use serde_json::Value;

use super::memory::{Memory, Record};
use crate::object;

/// The window of stabilisation towards less, where none is given.
const DOWN_WINDOW_S: i64 = 300;
/// Without behaviour, replicas at most double, or go up to this many.
const FREE_REPLICAS: i64 = 4;

/// What was asked for, and what comes of it.
pub(super) struct Asked {
    pub(super) current: i64,
    pub(super) desired: i64,
    pub(super) least: i64,
    pub(super) most: i64,
}

/// Replicas, and the conditions that say why: reason and message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Allowed {
    pub(super) replicas: i64,
    /// `AbleToScale`, which is true.
    pub(super) able: (&'static str, &'static str),
    /// `ScalingLimited`, and whether it is true.
    pub(super) limited: (bool, &'static str, &'static str),
}

const READY: (&str, &str) = ("ReadyForNewScale", "recommended size matches current size");
const UP_STABILIZED: (&str, &str) = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent \
     recommendation",
);
const DOWN_STABILIZED: (&str, &str) = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent \
     recommendation",
);
const WITHIN: (&str, &str) = (
    "DesiredWithinRange",
    "the desired count is within the acceptable range",
);
const TOO_FEW: (&str, &str) = (
    "TooFewReplicas",
    "the desired replica count is less than the minimum replica count",
);
const TOO_MANY: (&str, &str) = (
    "TooManyReplicas",
    "the desired replica count is more than the maximum replica count",
);
const TOO_FAST_UP: (&str, &str) = (
    "ScaleUpLimit",
    "the desired replica count is increasing faster than the maximum scale rate",
);
const TOO_FAST_DOWN: (&str, &str) = (
    "ScaleDownLimit",
    "the desired replica count is decreasing faster than the maximum scale rate",
);

/// Remembers what is asked for, and says how far that may be followed at `now`.
pub(super) fn allow(
    behaviour: &Value,
    asked: &Asked,
    memory: &mut Memory,
    now: Instant,
) -> Allowed {
    let (stable, able) = match behaviour.is_object() {
        true => stabilized(behaviour, asked, memory, now),
        false => {
            let recent = memory.recommendations.within(now, DOWN_WINDOW_S);
            (recent.fold(asked.desired, i64::max), DOWN_STABILIZED)
        }
    };
    memory.recommend(now, asked.desired);
    let able = if stable == asked.desired { READY } else { able };
    let (replicas, limited) = match behaviour.is_object() {
        true => at_rate(behaviour, asked, stable, memory, now),
        false => bounded(asked, stable),
    };
    Allowed {
        replicas,
        able,
        limited: (replicas != stable, limited.0, limited.1),
    }
}

/// The nearest to what is there that lies between the lowest and the highest recent
/// recommendation.
fn stabilized(
    behaviour: &Value,
    asked: &Asked,
    memory: &Memory,
    now: Instant,
) -> (i64, (&'static str, &'static str)) {
    let window = |rules: &Value, default: i64| {
        let seconds = rules["stabilizationWindowSeconds"].as_i64();
        memory
            .recommendations
            .within(now, seconds.unwrap_or(default))
    };
    let lowest = window(&behaviour["scaleUp"], 0).fold(asked.desired, i64::min);
    let highest = window(&behaviour["scaleDown"], DOWN_WINDOW_S).fold(asked.desired, i64::max);
    let able = match asked.desired >= asked.current {
        true => UP_STABILIZED,
        false => DOWN_STABILIZED,
    };
    (asked.current.max(lowest).min(highest), able)
}

fn bounded(asked: &Asked, desired: i64) -> (i64, (&'static str, &'static str)) {
    let rate = asked.current.saturating_mul(2).max(FREE_REPLICAS);
    let (most, why) = match asked.most > rate {
        true => (rate, TOO_FAST_UP),
        false => (asked.most, TOO_MANY),
    };
    match desired {
        _ if desired < asked.least => (asked.least, TOO_FEW),
        _ if desired > most => (most, why),
        _ => (desired, WITHIN),
    }
}

fn at_rate(
    behaviour: &Value,
    asked: &Asked,
    desired: i64,
    memory: &Memory,
    now: Instant,
) -> (i64, (&'static str, &'static str)) {
    let current = asked.current;
    if desired > current {
        let rate = limit(&behaviour["scaleUp"], Way::Up, current, memory, now).max(current);
        let (most, why) = match asked.most > rate {
            true => (rate, TOO_FAST_UP),
            false => (asked.most, TOO_MANY),
        };
        if desired > most {
            return (most, why);
        }
    } else if desired < current {
        let rate = limit(&behaviour["scaleDown"], Way::Down, current, memory, now).min(current);
        let (least, why) = match asked.least < rate {
            true => (rate, TOO_FAST_DOWN),
            false => (asked.least, TOO_FEW),
        };
        if desired < least {
            return (least, why);
        }
    }
    (desired, WITHIN)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// The replicas that the policies of one way allow, of which the one that allows most
/// counts, or least if so selected.
fn limit(rules: &Value, way: Way, current: i64, memory: &Memory, now: Instant) -> i64 {
    let selected = rules["selectPolicy"].as_str();
    if selected == Some("Disabled") {
        return current;
    }
    let changed = |record: &Record, seconds: i64| record.within(now, seconds).sum::<i64>();
    let proposed = object::items(&rules["policies"]).filter_map(|policy| {
        let period_s = policy["periodSeconds"].as_i64()?;
        let value = policy["value"].as_i64()?;
        let begin = current - changed(&memory.added, period_s) + changed(&memory.removed, period_s);
        // Up is rounded up, so that few replicas become more at all; down is rounded down.
        let part = |hundredths: i64| begin.saturating_mul(hundredths);
        Some(match (policy["type"].as_str()?, way) {
            ("Pods", Way::Up) => begin + value,
            ("Pods", Way::Down) => begin - value,
            ("Percent", Way::Up) => -(-part(100 + value)).div_euclid(100),
            ("Percent", Way::Down) => part(100 - value) / 100,
            _ => return None,
        })
    });
    let is_highest = (way == Way::Up) != (selected == Some("Min"));
    let limit = match is_highest {
        true => proposed.max(),
        false => proposed.min(),
    };
    limit.unwrap_or(current)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;
    use serde_json::json;

    fn asked(current: i64, desired: i64) -> Asked {
        Asked {
            current,
            desired,
            least: 2,
            most: 50,
        }
    }

    fn shown(allowed: &Allowed) -> (i64, &str, bool, &str) {
        (
            allowed.replicas,
            allowed.able.0,
            allowed.limited.0,
            allowed.limited.1,
        )
    }

    #[test]
    fn without_behaviour_replicas_double_at_most_and_wait_before_they_are_less() {
        let mut memory = Memory::default();
        for (now_s, current, desired, expected) in [
            (0, 3, 20, (6, "ReadyForNewScale", true, "ScaleUpLimit")),
            (15, 1, 20, (4, "ReadyForNewScale", true, "ScaleUpLimit")),
            (
                30,
                40,
                60,
                (50, "ReadyForNewScale", true, "TooManyReplicas"),
            ),
            (
                45,
                50,
                5,
                (50, "ScaleDownStabilized", true, "TooManyReplicas"),
            ),
            (
                329,
                50,
                5,
                (50, "ScaleDownStabilized", true, "TooManyReplicas"),
            ),
            (
                330,
                50,
                7,
                (7, "ReadyForNewScale", false, "DesiredWithinRange"),
            ),
            (
                331,
                7,
                1,
                (7, "ScaleDownStabilized", false, "DesiredWithinRange"),
            ),
            (631, 7, 1, (2, "ReadyForNewScale", true, "TooFewReplicas")),
        ] {
            let allowed = allow(
                &Value::Null,
                &asked(current, desired),
                &mut memory,
                at(now_s),
            );
            assert_eq!(shown(&allowed), expected, "{now_s}");
        }
    }

    #[test]
    fn behaviour_says_how_fast() {
        let policy = |kind: &str, value: i64, period_s: i64| json!({"type": kind, "value": value, "periodSeconds": period_s});
        let policies = json!([policy("Pods", 3, 60), policy("Percent", 50, 60)]);
        let rules = |select: &str| {
            json!({
                "stabilizationWindowSeconds": 0, "selectPolicy": select, "policies": policies,
            })
        };
        for (select, current, desired, expected) in [
            (
                "Max",
                10,
                40,
                (15, "ReadyForNewScale", true, "ScaleUpLimit"),
            ),
            (
                "Min",
                10,
                40,
                (13, "ReadyForNewScale", true, "ScaleUpLimit"),
            ),
            ("Max", 3, 40, (6, "ReadyForNewScale", true, "ScaleUpLimit")),
            ("Min", 3, 40, (5, "ReadyForNewScale", true, "ScaleUpLimit")),
            (
                "Disabled",
                10,
                40,
                (10, "ReadyForNewScale", true, "ScaleUpLimit"),
            ),
            (
                "Max",
                10,
                12,
                (12, "ReadyForNewScale", false, "DesiredWithinRange"),
            ),
            (
                "Max",
                49,
                60,
                (50, "ReadyForNewScale", true, "TooManyReplicas"),
            ),
            (
                "Max",
                11,
                1,
                (5, "ReadyForNewScale", true, "ScaleDownLimit"),
            ),
            (
                "Min",
                11,
                1,
                (8, "ReadyForNewScale", true, "ScaleDownLimit"),
            ),
            (
                "Disabled",
                11,
                1,
                (11, "ReadyForNewScale", true, "ScaleDownLimit"),
            ),
            ("Max", 4, 1, (2, "ReadyForNewScale", true, "TooFewReplicas")),
        ] {
            let behaviour = json!({"scaleUp": rules(select), "scaleDown": rules(select)});
            let mut memory = Memory::default();
            let allowed = allow(&behaviour, &asked(current, desired), &mut memory, at(0));
            assert_eq!(shown(&allowed), expected, "{select} {current} {desired}");
        }
    }

    #[test]
    fn what_changed_within_a_period_counts() {
        let behaviour = json!({"scaleUp": {
            "stabilizationWindowSeconds": 0,
            "selectPolicy": "Max",
            "policies": [{"type": "Pods", "value": 4, "periodSeconds": 60}],
        }});
        let mut memory = Memory::default();
        memory.change(at(0), 10, 13, "up");
        memory.change(at(50), 13, 11, "down");
        for (now_s, expected) in [(55, 14), (60, 17), (111, 15)] {
            let allowed = allow(&behaviour, &asked(11, 40), &mut memory, at(now_s));
            assert_eq!(allowed.replicas, expected, "{now_s}");
        }
        assert_eq!([memory.take_back(), memory.take_back()], ["down", ""]);
        let allowed = allow(&behaviour, &asked(11, 40), &mut memory, at(55));
        assert_eq!(allowed.replicas, 12);
    }

    #[test]
    fn windows_hold_replicas_between_recent_recommendations() {
        let window = |seconds: i64| {
            json!({
                "stabilizationWindowSeconds": seconds,
                "policies": [{"type": "Percent", "value": 900, "periodSeconds": 15}],
            })
        };
        let behaviour = json!({"scaleUp": window(60), "scaleDown": window(120)});
        let mut memory = Memory::default();
        for (now_s, current, desired, expected) in [
            (0, 10, 12, (12, "ReadyForNewScale")),
            (10, 12, 20, (12, "ScaleUpStabilized")),
            (50, 12, 15, (12, "ScaleUpStabilized")),
            (60, 12, 20, (15, "ScaleUpStabilized")),
            (70, 15, 8, (15, "ScaleDownStabilized")),
            (200, 15, 8, (8, "ReadyForNewScale")),
        ] {
            let allowed = allow(&behaviour, &asked(current, desired), &mut memory, at(now_s));
            assert_eq!((allowed.replicas, allowed.able.0), expected, "{now_s}");
        }
    }
}
