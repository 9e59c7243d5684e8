//! CronJobs over time: tables of what happens and what is there then.

use super::*;
use crate::testing::{Cluster, at};

/// A minute of the tests' time at which it is 08:00 in UTC.
const EIGHT_S: i64 = 0;

struct World {
    cluster: Cluster,
}

fn key() -> Key {
    Key::new("n", "c")
}

impl World {
    fn of(spec: &Value) -> Self {
        let mut cron = json!({
            "metadata": {"namespace": "n", "name": "c", "creationTimestamp": time(EIGHT_S - 30)},
            "spec": {
                "schedule": "*/5 * * * *",
                "concurrencyPolicy": "Allow",
                "suspend": false,
                "successfulJobsHistoryLimit": 3,
                "failedJobsHistoryLimit": 1,
                "jobTemplate": {
                    "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
                    "spec": {"parallelism": 2},
                },
            },
        });
        nautilus_machinery::patch::merge(&mut cron["spec"], spec);
        let mut cluster = Cluster::default();
        cluster.put(CRON_JOBS, cron);
        Self { cluster }
    }

    fn at(&mut self, seconds: i64) {
        self.cluster.settle(&CronJobs, &key(), at(seconds));
    }

    fn again_in(&self, seconds: i64) -> Option<Duration> {
        self.cluster.plan(&CronJobs, &key(), at(seconds)).again_in
    }

    fn jobs(&self) -> Vec<String> {
        let keys = self.cluster.keys(JOBS, Within::Namespace("n"));
        keys.into_iter().map(|key| key.name).collect()
    }

    fn status(&self, field: &str) -> Value {
        let cron = self.cluster.get(CRON_JOBS, "n", "c");
        cron.expect("it is there")["status"][field].clone()
    }

    fn active(&self) -> Vec<String> {
        let active = self.status("active");
        let names = object::items(&active).filter_map(|own| own["name"].as_str());
        names.map(str::to_owned).collect()
    }

    fn end(&mut self, job: &str, end: &str, seconds: i64) {
        let status = json!({
            "startTime": time(seconds - 1),
            "completionTime": if end == "Complete" { time(seconds) } else { Value::Null },
            "conditions": [{"type": end, "status": "True"}],
        });
        let key = Key::new("n", job);
        self.cluster.merge(JOBS, &key, &json!({"status": status}));
        self.at(seconds);
    }

    fn told(&mut self) -> Vec<String> {
        let events = std::mem::take(&mut self.cluster.events).into_iter();
        let mut told: Vec<String> = events.map(|(why, what)| format!("{why}: {what}")).collect();
        told.dedup();
        told
    }
}

fn time(seconds: i64) -> Value {
    object::time_field(at(seconds))
}

fn name(seconds: i64) -> String {
    format!("c-{}", at(seconds).seconds / 60)
}

#[test]
fn a_job_is_made_when_its_time_comes() {
    let mut world = World::of(&json!({"timeZone": "Asia/Kolkata"}));
    world.at(EIGHT_S - 20);
    assert_eq!(world.jobs(), [""; 0]);
    assert_eq!(
        world.again_in(EIGHT_S - 20),
        Some(Duration::from_millis(20_100))
    );
    world.at(EIGHT_S);
    assert_eq!(
        (world.jobs(), world.active()),
        (vec![name(0)], vec![name(0)])
    );
    assert_eq!(world.status("lastScheduleTime"), time(0));
    let job = world.cluster.get(JOBS, "n", &name(0)).expect("it is there");
    assert_eq!(
        object::annotation(&job, TIME),
        Some("2027-01-15T13:30:00+05:30")
    );
    assert_eq!(
        (object::label(&job, "a"), object::annotation(&job, "c")),
        (Some("b"), Some("d"))
    );
    assert_eq!(job["spec"], json!({"parallelism": 2}));
    assert_eq!(
        object::controller(&job).map(|own| own["kind"].clone()),
        Some(json!("CronJob"))
    );
    assert_eq!(world.again_in(1), Some(Duration::from_millis(299_100)));
    world.end(&name(0), "Complete", 30);
    assert_eq!(
        (world.active().len(), world.status("lastSuccessfulTime")),
        (0, time(30))
    );
    let expected = [
        format!("SuccessfulCreate: Created job {}", name(0)),
        format!(
            "SawCompletedJob: Saw completed job: {}, condition: Complete",
            name(0)
        ),
    ];
    assert_eq!(world.told(), expected);
    let cron = world.cluster.get(CRON_JOBS, "n", "c");
    let job = world.cluster.get(JOBS, "n", &name(0));
    for (kind, own) in [(CRON_JOBS, cron), (JOBS, job)] {
        let concerned = world.cluster.concerned(&CronJobs, kind, own.as_ref(), None);
        assert_eq!(concerned, [key()]);
    }
}

#[test]
fn a_lost_leader_makes_no_job_twice() {
    let most = 4;
    for done in 0..most {
        let mut world = World::of(&json!({"concurrencyPolicy": "Replace"}));
        world.at(EIGHT_S);
        let plan = world.cluster.plan(&CronJobs, &key(), at(300));
        assert!(plan.writes().count() <= most);
        for write in plan.writes().take(done) {
            world.cluster.write(write);
        }
        world.at(301);
        assert_eq!(
            (world.jobs(), world.active()),
            (vec![name(300)], vec![name(300)]),
            "{done}"
        );
        // It is not made anew once it is gone.
        world.cluster.remove(JOBS, &Key::new("n", name(300)));
        world.at(302);
        assert_eq!((world.jobs(), world.active()), (vec![], vec![]), "{done}");
    }
}

#[test]
fn jobs_of_two_times_are_as_the_policy_says() {
    for (policy, jobs, active, told) in [
        (
            "Allow",
            vec![name(0), name(300)],
            vec![name(0), name(300)],
            "SuccessfulCreate",
        ),
        ("Forbid", vec![name(0)], vec![name(0)], "JobAlreadyActive"),
        (
            "Replace",
            vec![name(300)],
            vec![name(300)],
            "SuccessfulDelete",
        ),
    ] {
        let mut world = World::of(&json!({"concurrencyPolicy": policy}));
        world.at(EIGHT_S);
        world.told();
        for _ in 0..2 {
            let plan = world.cluster.plan(&CronJobs, &key(), at(300));
            world.cluster.carry_out(&plan);
        }
        assert_eq!((world.jobs(), world.active()), (jobs, active), "{policy}");
        assert!(world.told()[0].starts_with(told), "{policy}");
    }
}

#[test]
fn times_that_were_missed_are_made_up_for_once_and_within_the_deadline() {
    for (spec, now_s, made_s, told) in [
        (
            json!({}),
            1_000,
            Some(900),
            "SuccessfulCreate: Created job ",
        ),
        (
            json!({}),
            40_000,
            Some(39_900),
            "TooManyMissedTimes: too many missed start times. ",
        ),
        (
            json!({"startingDeadlineSeconds": 120}),
            400,
            Some(300),
            "SuccessfulCreate: ",
        ),
        (json!({"startingDeadlineSeconds": 60}), 400, None, ""),
        (
            json!({"schedule": "@every 7m"}),
            1_000,
            Some(810),
            "SuccessfulCreate: ",
        ),
        (json!({"suspend": true}), 1_000, None, ""),
        (
            json!({"schedule": "x"}),
            1_000,
            None,
            "UnparseableSchedule: unparseable schedule: \"x\" : ",
        ),
        (
            json!({"schedule": "0 0 31 2 *"}),
            1_000,
            None,
            "InvalidSchedule: invalid schedule: 0 0 31 2 * : ",
        ),
        (
            json!({"timeZone": "Mars/Olympus"}),
            1_000,
            None,
            "UnknownTimeZone: invalid timeZone: \"Mars/Olympus\": unknown time zone Mars/Olympus",
        ),
    ] {
        let mut world = World::of(&spec);
        let plan = world.cluster.plan(&CronJobs, &key(), at(now_s));
        world.cluster.carry_out(&plan);
        let expected: Vec<String> = made_s.map(name).into_iter().collect();
        assert_eq!(world.jobs(), expected, "{spec}");
        let events = world.told();
        let first = events.first().map_or("", String::as_str);
        assert!(
            first.starts_with(told) && (first.is_empty() == told.is_empty()),
            "{spec} {first}"
        );
    }
}

#[test]
fn no_more_ended_jobs_are_kept_than_wanted() {
    let mut world = World::of(&json!({"successfulJobsHistoryLimit": 1}));
    for (nth, end) in ["Complete", "Failed", "Complete", "Failed"]
        .iter()
        .enumerate()
    {
        let due = 300 * i64::try_from(nth).unwrap();
        world.at(due);
        world.end(&name(due), end, due + 10);
    }
    assert_eq!(world.jobs(), [name(600), name(900)]);
    assert_eq!(world.status("lastSuccessfulTime"), time(610));
}

#[test]
fn the_status_says_what_is_there() {
    let mut world = World::of(&json!({"suspend": true}));
    let cron = world.cluster.get(CRON_JOBS, "n", "c").expect("it is there");
    let owners = json!([object::controller_reference(CRON_JOBS, &cron)]);
    let strange = json!({"namespace": "n", "name": "by-hand", "ownerReferences": owners});
    world.cluster.put(JOBS, json!({"metadata": strange}));
    let gone = json!([{"name": "gone", "namespace": "n", "uid": "9"}]);
    world
        .cluster
        .merge(CRON_JOBS, &key(), &json!({"status": {"active": gone}}));
    let plan = world.cluster.plan(&CronJobs, &key(), at(1));
    world.cluster.carry_out(&plan);
    assert_eq!((world.active().len(), plan.again_in), (0, None));
    let expected = [
        "UnexpectedJob: Saw a job that the controller did not create or forgot: by-hand",
        "MissingJob: Active job went missing: gone",
    ];
    assert_eq!(world.told(), expected);
}
