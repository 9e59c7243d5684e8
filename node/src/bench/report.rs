//! What a bench prints: one object, the same form for every bench.

use std::path::Path;

use serde::Serialize;

use super::workers::Size;
use crate::cli::status::table;
use crate::exit::Failure;

/// Rows that must be zero, and what is said when they are not.
const BROKEN: [(&str, &str); 2] = [
    ("acknowledged_missing", "acknowledged writes are missing"),
    (
        "wrongly_not_ready",
        "workers were not ready though they beat",
    ),
];

/// The form others rely on.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    /// The bench's name.
    bench: &'static str,
    /// Where it ran.
    machine: MachineFacts,
    /// The source's commit, or `unknown`.
    commit: String,
    /// The numbers.
    rows: Vec<Row>,
    /// The same for several sizes of what is measured.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    growth: Vec<Size>,
}

/// Where a bench ran.
#[derive(Debug, Clone, Serialize)]
struct MachineFacts {
    /// Processors.
    cores: usize,
    /// Memory in bytes.
    memory: u64,
    /// The kernel's release.
    kernel: String,
    /// The file system's device and type under the data.
    disk: String,
}

/// One number.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// In which unit.
    pub(crate) unit: &'static str,
    /// Our number.
    #[serde(serialize_with = "shortest")]
    pub(crate) ours: f64,
    /// A peer's number of the same run.
    pub(crate) peer: Option<f64>,
    /// Ours by the peer's.
    pub(crate) ratio: Option<f64>,
}

impl Row {
    /// A number without a peer, to three digits after the point.
    pub(crate) fn new(what: impl Into<String>, unit: &'static str, ours: f64) -> Self {
        let ours = (ours * 1000.0).round() / 1000.0;
        Self {
            what: what.into(),
            unit,
            ours,
            peer: None,
            ratio: None,
        }
    }

    /// The same beside a peer's number.
    pub(crate) fn beside(self, peer: Option<f64>) -> Self {
        let peer = peer.map(|number| Self::new("", "", number).ours);
        let ratio = peer.filter(|number| *number > 0.0);
        Self {
            peer,
            ratio: ratio.map(|number| Self::new("", "", self.ours / number).ours),
            ..self
        }
    }
}

/// Whole numbers without a point.
fn shortest<S: serde::Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    let text = number.to_string();
    match text.parse::<u64>() {
        Ok(whole) => serializer.serialize_u64(whole),
        Err(_) => serializer.serialize_f64(*number),
    }
}

impl Report {
    /// A bench's report.
    pub(crate) fn new(bench: &'static str, data: &Path, rows: Vec<Row>) -> Self {
        Self {
            bench,
            machine: MachineFacts::read(data),
            commit: commit(),
            rows,
            growth: Vec::new(),
        }
    }

    /// The same with several sizes.
    pub(crate) fn with_growth(self, growth: Vec<Size>) -> Self {
        Self { growth, ..self }
    }

    /// The table for people.
    pub(crate) fn to_table(&self) -> String {
        let number = |number: Option<f64>| number.map_or_else(String::new, |own| own.to_string());
        let compares = self.rows.iter().any(|row| row.peer.is_some());
        let rows = self.rows.iter().map(|row| {
            let mut cells = vec![row.what.clone(), row.ours.to_string(), row.unit.to_owned()];
            if compares {
                cells.extend([number(row.peer), number(row.ratio)]);
            }
            cells
        });
        let heads = ["WHAT", "OURS", "UNIT", "PEER", "RATIO"];
        let heads = &heads[..if compares { 5 } else { 3 }];
        format!(
            "{} on {} cores, {} ({}), commit {}\n\n{}",
            self.bench,
            self.machine.cores,
            self.machine.kernel,
            self.machine.disk,
            self.commit,
            table(heads, rows)
        )
    }

    /// Fails when the numbers say that a promise was broken.
    pub(crate) fn verdict(&self) -> anyhow::Result<()> {
        let broken = BROKEN.iter().find_map(|(what, promise)| {
            let sizes = self.growth.iter().flat_map(Size::rows);
            let mut rows = self.rows.iter().chain(sizes);
            let row = rows.find(|row| row.what == *what && row.ours > 0.0)?;
            Some(format!("{} {promise}", row.ours))
        });
        match broken {
            Some(broken) => Err(Failure::General.error(broken)),
            None => Ok(()),
        }
    }
}

impl MachineFacts {
    fn read(data: &Path) -> Self {
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory: memory_bytes().unwrap_or(0),
            kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            disk: disk(data).unwrap_or_else(|| "unknown".to_owned()),
        }
    }
}

/// `MemTotal` of proc_meminfo(5), which counts in KiB.
fn memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Device and type of the mount that holds `path` or its nearest parent, by
/// proc_pid_mounts(5).
fn disk(path: &Path) -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (device, point, kind) = (fields.next()?, fields.next()?, fields.next()?);
            path.starts_with(point)
                .then(|| (point.len(), format!("{device} {kind}")))
        })
        .max_by_key(|(length, _)| *length)
        .map(|(_, text)| text)
}

/// The commit this binary was built from, as far as it can be told.
fn commit() -> String {
    if let Some(commit) = option_env!("NAUTILUS_GIT_COMMIT") {
        return commit.to_owned();
    }
    let output = std::process::Command::new("git")
        .args(["rev-parse", "HEAD"])
        .output();
    match output {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_without_a_peer_has_nulls() {
        let row = serde_json::to_string(&Row::new("gap_ms_max", "ms", 1.23456)).expect("plain");
        assert_eq!(
            row,
            r#"{"what":"gap_ms_max","unit":"ms","ours":1.235,"peer":null,"ratio":null}"#
        );
    }

    #[test]
    fn a_row_beside_a_peer_says_by_how_much() {
        let row = Row::new("binds_per_s", "1/s", 900.0);
        assert_eq!(row.clone().beside(None), row);
        let row = row.beside(Some(200.0));
        assert_eq!((row.peer, row.ratio), (Some(200.0), Some(4.5)));
        let report = Report::new("scheduler", Path::new("/"), vec![row]);
        assert!(report.to_table().contains("RATIO"));
    }

    #[test]
    fn a_count_is_a_whole_number() {
        let row = serde_json::to_value(Row::new("acknowledged", "writes", 17.0)).expect("plain");
        assert_eq!(row["ours"].to_string(), "17");
    }

    #[test]
    fn a_broken_promise_fails_the_bench() {
        for (what, _) in BROKEN {
            let report = |number| {
                let rows = vec![Row::new(what, "", number)];
                Report::new("failover", Path::new("/"), rows)
            };
            report(1.0).verdict().expect_err("one is too many");
            report(0.0).verdict().expect("none");
            // Whichever size broke it.
            let sizes = [0.0, 1.0].map(|number| Size::new(1, vec![Row::new(what, "", number)]));
            let grown = report(0.0).with_growth(sizes.into());
            grown.verdict().expect_err("one is too many");
        }
    }
}
