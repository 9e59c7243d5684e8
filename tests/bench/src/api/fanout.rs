//! A thousand watches of one namespace's objects, and a writer whose every write is an event
//! to each of them.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::closed::{Ask, connect, is_refusal};
use crate::closed_loop::rate;
use crate::drive::{Driver, Endpoint, What, drive};
use crate::http2::Session;

/// Watches.
pub const WATCHES: usize = 1000;
/// Connections of the watches.
const CONNECTIONS: usize = 10;
/// Writes whose events have not all been delivered, at most.
const WRITES_UNDER_WAY: u64 = 4;
/// The writer's token.
const WRITER: u64 = u64::MAX;
/// Where the watched objects are.
const PATH: &str = "/api/v1/namespaces/default/configmaps";

/// Events delivered a second.
///
/// # Errors
/// When a connection fails or the server refuses.
pub async fn events_per_second(
    endpoint: &Endpoint,
    warmup: Duration,
    measured: Duration,
    patience: Duration,
) -> anyhow::Result<f64> {
    let create = Ask {
        method: "PATCH",
        content_type: "application/apply-patch+yaml",
        path: format!("{PATH}/watched?fieldManager=bench&force=true"),
        body: body(0),
    };
    super::closed::ask(endpoint, &create, patience).await?;
    let connections = connect(endpoint, CONNECTIONS + 1).await?;
    let driver = FanOut {
        warmup,
        measured,
        started: vec![false; WATCHES],
        watching: 0,
        writing_since: None,
        writes: 0,
        busy: false,
        events: 0,
        counted: 0,
        refused: None,
        over: false,
    };
    let driver = drive(connections, driver, patience).await?;
    ensure!(
        driver.refused.is_none(),
        "a watch or a write was refused: {}",
        driver.refused.unwrap_or_default()
    );
    Ok(rate(driver.counted, measured))
}

/// An object of about a kilobyte, as an EndpointSlice of some pods is.
fn body(write: u64) -> Vec<u8> {
    let data = "10.0.0.1:8080 ".repeat(60);
    format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"watched","annotations":{{"write":"{write}"}}}},"data":{{"addresses":"{data}"}}}}"#
    )
    .into_bytes()
}

struct FanOut {
    warmup: Duration,
    measured: Duration,
    /// Which watches have shown the object as it was.
    started: Vec<bool>,
    watching: usize,
    writing_since: Option<Instant>,
    writes: u64,
    busy: bool,
    events: u64,
    counted: u64,
    refused: Option<String>,
    over: bool,
}

impl FanOut {
    fn write(&mut self, session: &mut Session) {
        if self.over || self.watching < WATCHES || self.busy {
            return;
        }
        self.writing_since.get_or_insert_with(Instant::now);
        if self.writes < self.events / WATCHES as u64 + WRITES_UNDER_WAY {
            self.writes += 1;
            self.busy = true;
            let write = Ask {
                method: "PATCH",
                content_type: "application/merge-patch+json",
                path: format!("{PATH}/watched"),
                body: format!(
                    r#"{{"metadata":{{"annotations":{{"write":"{}"}}}}}}"#,
                    self.writes
                )
                .into_bytes(),
            };
            session.request(WRITER, &write.request());
        }
    }

    fn watched(&mut self, watch: usize, lines: usize) {
        let mut events = lines as u64;
        if !self.started[watch] && lines > 0 {
            // What was there is no event of a write.
            self.started[watch] = true;
            self.watching += 1;
            events -= 1;
        }
        self.events += events;
        if let Some(since) = self.writing_since {
            let since = since.elapsed();
            if since >= self.warmup && since < self.warmup + self.measured {
                self.counted += events;
            }
        }
    }
}

impl Driver for FanOut {
    const TICK: Option<Duration> = Some(Duration::from_micros(500));

    fn start(&mut self, at: usize, session: &mut Session) {
        if at == CONNECTIONS {
            return;
        }
        let watch = Ask::get(&format!(
            "{PATH}?watch=true&fieldSelector=metadata.name%3Dwatched"
        ));
        for number in (at..WATCHES).step_by(CONNECTIONS) {
            session.request(number as u64, &watch.request());
        }
    }

    fn happened(&mut self, at: usize, session: &mut Session, token: u64, what: What<'_>) {
        match what {
            What::Message(_) => {}
            What::Piece { head, lines, .. } => {
                if is_refusal(head) {
                    self.refused = Some(String::from_utf8_lossy(head).into_owned());
                    self.over = true;
                } else if token != WRITER {
                    self.watched(usize::try_from(token).expect("a watch's number"), lines);
                }
            }
            What::Ended { .. } if token == WRITER => self.busy = false,
            What::Ended { .. } => {
                self.refused.get_or_insert_with(|| "a watch ended".into());
                self.over = true;
            }
        }
        if at == CONNECTIONS {
            self.write(session);
        }
    }

    fn tick(&mut self, at: usize, session: &mut Session) {
        if at == CONNECTIONS {
            self.write(session);
        }
        if let Some(since) = self.writing_since {
            self.over |= since.elapsed() >= self.warmup + self.measured;
        }
    }

    fn finished(&self) -> bool {
        self.over
    }
}
