//! Records the Events of plans as objects: equal ones are counted in one object, and who
//! speaks too often about one object is not heard for a while.
//!
//! Source: client-go's event correlator, whose bounds these are; KEP-383 for the limits of
//! the kind.
//!
//! Invariants
//! - Recording waits for nobody: what does not fit into the queue is counted as dropped.
//! - What is remembered is bounded, and forgotten at the end of a term.

use std::collections::BTreeMap;
use std::sync::Arc;

use nautilus_machinery::timestamp::{self, Instant};
use nautilus_planner::kind::Kind;
use nautilus_planner::object;
use nautilus_planner::plan::{Event, Write};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::port::Api;

/// Events that wait to be recorded.
const MAX_WAITING: usize = 4_096;
/// Events that are remembered, so that the next equal one is counted with them.
const MAX_REMEMBERED: usize = 4_096;
/// Events about one object from one source that are recorded without a pause.
const BURST: f64 = 25.0;
/// One more is recorded after each of these, in seconds.
const REFILL_S: f64 = 300.0;
/// Bytes of a message.
const MAX_MESSAGE_BYTES: usize = 1_024;
/// Events recorded together.
const AT_ONCE: usize = 16;

/// `v1` Event.
pub(crate) const EVENTS: Kind = Kind {
    group: "",
    version: "v1",
    plural: "events",
    kind: "Event",
    namespaced: true,
};

/// Who writes, and who is named in Events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// The service account.
    pub account: &'static str,
    /// `source.component` of its Events.
    pub component: Arc<str>,
}

/// Takes events. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    waiting: mpsc::Sender<(Author, Event)>,
    dropped: metrics::Counter,
}

impl Recorder {
    pub(crate) fn start(api: Arc<dyn Api>, tasks: &mut JoinSet<()>) -> Self {
        let (waiting, taken) = mpsc::channel(MAX_WAITING);
        tasks.spawn(record(api, taken));
        Self {
            waiting,
            dropped: metrics::counter!("nautilus_events_dropped_total"),
        }
    }

    /// Records an event of `author`'s, if it can be.
    pub fn record(&self, author: &Author, event: Event) {
        if self.waiting.try_send((author.clone(), event)).is_err() {
            self.dropped.increment(1);
        }
    }
}

async fn record(api: Arc<dyn Api>, mut taken: mpsc::Receiver<(Author, Event)>) {
    let mut memory = Memory::default();
    let mut under_way = JoinSet::new();
    while let Some((author, event)) = taken.recv().await {
        let Some((id, write)) = memory.write(&author.component, &event, api.now()) else {
            continue;
        };
        // What is patched was created: its turn has come and gone.
        let is_new = matches!(write, Write::Create { .. });
        while under_way.len() >= AT_ONCE || (!is_new && !under_way.is_empty()) {
            if let Some(Ok(Some(lost))) = under_way.join_next().await {
                memory.forget(&lost);
            }
        }
        let api = api.clone();
        under_way.spawn(async move {
            let outcome = api.write(author.account, &write).await;
            outcome.is_err().then_some(id)
        });
    }
}

/// What makes two events equal.
type Id = (String, String, String);

struct Known {
    name: String,
    namespace: String,
    uid: String,
    count: u64,
    used: u64,
}

/// What was said lately.
#[derive(Default)]
struct Memory {
    known: BTreeMap<Id, Known>,
    /// Room that is left for a source and an object, as of a time in seconds.
    room: BTreeMap<(String, String), (f64, i64)>,
    /// Counts every event: the order in which memories are forgotten, and unequal names.
    uses: u64,
}

impl Memory {
    /// What is to be written for an event; nothing for one too many.
    fn write(&mut self, source: &str, event: &Event, now: Instant) -> Option<(Id, Write)> {
        if !self.has_room(source, event, now) {
            return None;
        }
        self.uses += 1;
        let id = (
            source.to_owned(),
            event.regarding["uid"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
                + event.regarding["fieldPath"].as_str().unwrap_or_default(),
            format!("{}{}", event.reason, event.message),
        );
        let at = timestamp::format_seconds(now.seconds);
        if let Some(known) = self.known.get_mut(&id) {
            known.count += 1;
            known.used = self.uses;
            let write = Write::Patch {
                kind: EVENTS,
                subresource: None,
                namespace: known.namespace.clone(),
                name: known.name.clone(),
                uid: known.uid.clone(),
                patch: json!({"count": known.count, "lastTimestamp": at}),
            };
            return Some((id, write));
        }
        let about = event.regarding["name"].as_str().unwrap_or_default();
        let namespace = match event.regarding["namespace"].as_str() {
            None | Some("") => "default",
            Some(namespace) => namespace,
        };
        let nanoseconds = i128::from(now.seconds) * 1_000_000_000 + i128::from(now.nanoseconds);
        let name = format!("{about}.{:x}", nanoseconds + i128::from(self.uses));
        let mut message = event.message.clone();
        if message.len() > MAX_MESSAGE_BYTES {
            let end = (0..=MAX_MESSAGE_BYTES - 4).rev();
            let end = end.into_iter().find(|at| message.is_char_boundary(*at));
            message.truncate(end.unwrap_or(0));
            message.push_str(" ...");
        }
        let object = json!({
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": event.regarding,
            "type": if event.warning { "Warning" } else { "Normal" },
            "reason": event.reason,
            "message": message,
            "source": {"component": source},
            "reportingComponent": source,
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        });
        if self.known.len() >= MAX_REMEMBERED {
            self.forget_half();
        }
        let known = Known {
            name,
            namespace: namespace.to_owned(),
            uid: String::new(),
            count: 1,
            used: self.uses,
        };
        self.known.insert(id.clone(), known);
        Some((id, Write::create(EVENTS, object)))
    }

    fn has_room(&mut self, source: &str, event: &Event, now: Instant) -> bool {
        if self.room.len() >= MAX_REMEMBERED {
            self.room.clear();
        }
        let about = object_text(&event.regarding);
        let room = self.room.entry((source.to_owned(), about));
        let (left, since) = room.or_insert((BURST, now.seconds));
        let refilled = now.seconds.saturating_sub(*since).max(0) as f64 / REFILL_S;
        *left = (*left + refilled).min(BURST);
        *since = now.seconds;
        if *left < 1.0 {
            return false;
        }
        *left -= 1.0;
        true
    }

    fn forget(&mut self, id: &Id) {
        self.known.remove(id);
    }

    fn forget_half(&mut self) {
        let mut used: Vec<u64> = self.known.values().map(|own| own.used).collect();
        used.sort_unstable();
        let middle = used.get(used.len() / 2).copied().unwrap_or_default();
        self.known.retain(|_, own| own.used > middle);
    }
}

fn object_text(regarding: &Value) -> String {
    let text = |field: &str| regarding[field].as_str().unwrap_or_default();
    match text("uid") {
        "" => format!(
            "{} {}/{}",
            text("kind"),
            object::namespace(regarding),
            text("name")
        ),
        uid => uid.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(uid: &str, message: &str) -> Event {
        Event {
            regarding: json!({"kind": "Pod", "namespace": "n", "name": "a", "uid": uid}),
            warning: false,
            reason: "Scheduled",
            message: message.to_owned(),
        }
    }

    fn at(seconds: i64) -> Instant {
        Instant {
            seconds,
            nanoseconds: 0,
        }
    }

    #[test]
    fn equal_events_are_counted_in_one_object() {
        let mut memory = Memory::default();
        let mut write = |uid: &str, message: &str, seconds: i64| {
            let written = memory.write("s", &event(uid, message), at(seconds));
            written.expect("there is room").1
        };
        let Write::Create { object, .. } = write("1", "x", 1) else {
            panic!("a first event is an object");
        };
        assert_eq!(object["count"], 1);
        assert_eq!(object["metadata"]["namespace"], "n");
        let Write::Patch { name, patch, .. } = write("1", "x", 9) else {
            panic!("the second is counted");
        };
        assert_eq!(object["metadata"]["name"], name);
        assert_eq!(
            patch,
            json!({"count": 2, "lastTimestamp": "1970-01-01T00:00:09Z"})
        );
        for (uid, message) in [("2", "x"), ("1", "y")] {
            let other = write(uid, message, 9);
            assert!(matches!(other, Write::Create { .. }), "{uid} {message}");
        }
    }

    #[test]
    fn who_speaks_too_often_of_one_object_is_heard_again_after_a_while() {
        let mut memory = Memory::default();
        let mut heard = |uid: &str, seconds: i64| {
            (0..100)
                .filter(|at_all| {
                    let event = event(uid, &at_all.to_string());
                    memory.write("s", &event, at(seconds)).is_some()
                })
                .count()
        };
        assert_eq!(heard("1", 0), 25);
        assert_eq!(heard("1", 299), 0);
        assert_eq!(heard("1", 301), 1);
        assert_eq!(heard("2", 301), 25);
    }

    #[test]
    fn memory_and_messages_are_bounded() {
        let mut memory = Memory::default();
        for number in 0..2 * MAX_REMEMBERED {
            memory.write("s", &event(&number.to_string(), "x"), at(0));
        }
        assert!(memory.known.len() <= MAX_REMEMBERED);
        assert!(memory.room.len() <= MAX_REMEMBERED);
        let long = "é".repeat(MAX_MESSAGE_BYTES);
        let Some((_, Write::Create { object, .. })) = memory.write("s", &event("1", &long), at(9))
        else {
            panic!("it is recorded");
        };
        let message = object["message"].as_str().expect("a text");
        assert!(message.len() <= MAX_MESSAGE_BYTES && message.ends_with("é ..."));
    }
}
