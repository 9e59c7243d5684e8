//! What the comparison leaves behind: `etcd.json` in the benches' form, `RESULTS.md` for
//! people, `growth.svg`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use crate::growth::{BY_SIZE, row_at};
use crate::plan::{self, Aim, Numbers, median};
use crate::plot::{Line, Panel, draw};

/// Written by hand beside the results: what the profiles show where an aim is missed.
const NOTES: &str = "limits.md";

/// One pair's numbers of both sides; a side that was not run has none.
#[derive(Debug, Clone, Default)]
pub struct Pair {
    /// Ours.
    pub ours: Numbers,
    /// The peer's.
    pub peer: Numbers,
}

/// Opens the section of the other comparison in `RESULTS.md`, which stays when this one's
/// is written anew.
pub const HEADING_API: &str = "# nautilus beside kube-apiserver";

/// The form of every bench.
#[derive(Debug, Serialize)]
pub struct Report {
    bench: &'static str,
    machine: Machine,
    commit: String,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Machine {
    cores: usize,
    memory: u64,
    kernel: String,
    disk: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Row {
    what: String,
    unit: &'static str,
    ours: Option<f64>,
    peer: Option<f64>,
    ratio: Option<f64>,
    #[serde(skip)]
    aim: Option<Aim>,
}

impl Report {
    /// From the pairs' numbers; `data` is where the data lay.
    pub fn new(pairs: &[Pair], growth: &[u64], data: &Path) -> Self {
        let mut report = Self::of("etcd", plan::rows(), pairs, data);
        let costs = growth.iter().flat_map(|keys| {
            BY_SIZE.map(|what| Row::new(&row_at(what, *keys), what.1, None, pairs))
        });
        report.rows.extend(costs.filter(Row::is_measured));
        report
    }

    /// Of `rows`, from the pairs' numbers.
    pub fn of<'a>(
        bench: &'static str,
        rows: impl Iterator<Item = &'a plan::Row>,
        pairs: &[Pair],
        data: &Path,
    ) -> Self {
        let rows = rows.map(|row| Row::new(row.what, row.unit, Some(row.aim), pairs));
        Self {
            bench,
            machine: Machine::read(data),
            commit: commit(),
            rows: rows.filter(Row::is_measured).collect(),
        }
    }

    /// The machine, for people.
    pub fn machine_text(&self) -> String {
        let machine = &self.machine;
        format!(
            "{} cores, {:.0} GiB, Linux {}, {}",
            machine.cores,
            crate::closed_loop::to_f64(machine.memory) / f64::from(1 << 30),
            machine.kernel,
            machine.disk,
        )
    }

    /// The commit that was measured.
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// The JSON.
    ///
    /// # Errors
    /// Never in practice: the form is plain.
    pub fn to_json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Writes the three files into `folder`.
    ///
    /// # Errors
    /// When the folder can't be written.
    pub fn write(&self, folder: &Path, peer: &str) -> anyhow::Result<()> {
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| path.display().to_string())
        };
        write("etcd.json", &self.to_json()?)?;
        let plot = self.plot();
        if let Some(plot) = &plot {
            write("growth.svg", plot)?;
        }
        let notes = std::fs::read_to_string(folder.join(NOTES)).unwrap_or_default();
        let mut text = self.to_markdown(peer, plot.is_some(), &notes);
        let before = std::fs::read_to_string(folder.join("RESULTS.md")).unwrap_or_default();
        if let Some((_, section)) = before.split_once(HEADING_API) {
            let _ = write!(text, "\n{HEADING_API}{section}");
        }
        write("RESULTS.md", &text)
    }

    fn to_markdown(&self, peer: &str, plotted: bool, notes: &str) -> String {
        let mut text = format!(
            "# nautilus beside etcd\n\n\
             Made by `make bench-etcd`; do not edit. Three members each, mutual TLS, on one machine, the same \
             client and disk, one after the other in turn. Each number is the median of the pairs, and the \
             ratio (ours by the peer's) the median of the pairs' ratios. The members and the client share the \
             machine's processors.\n\n\
             {}; {peer}; commit {}.\n\n{}",
            self.machine_text(),
            self.commit,
            table(self, "etcd"),
        );
        if plotted {
            text += "\n## Growth\n\nCost of an operation by the number of keys, 256 B values: put, get and a range \
                     of 100 keys by 64 clients, and one client that counts all keys; and a member's memory for each key.\n\n\
                     ![cost by number of keys](growth.svg)\n\n\
                     | what | unit | keys | nautilus | etcd | ratio |\n|---|---|---:|---:|---:|---:|\n";
            for row in self.rows.iter().filter(|row| row.aim.is_none()) {
                let name = row.what.trim_start_matches("growth_");
                let (what, keys) = name.split_once("_at_").unwrap_or((name, ""));
                let what = what.trim_end_matches(row.unit).trim_end_matches('_');
                let _ = writeln!(
                    text,
                    "| {what} | {} | {keys} | {} | {} | {} |",
                    row.unit,
                    shown(row.ours),
                    shown(row.peer),
                    shown(row.ratio)
                );
            }
        }
        if !notes.is_empty() {
            text += "\n";
            text += notes;
        }
        text
    }

    /// A panel for each thing that is looked at by size.
    fn plot(&self) -> Option<String> {
        let mut panels = Vec::new();
        for (what, unit) in BY_SIZE {
            let prefix = row_at((what, unit), 0);
            let prefix = prefix.trim_end_matches('0');
            let mut ours = Vec::new();
            let mut peer = Vec::new();
            for row in &self.rows {
                let Some(keys) = row
                    .what
                    .strip_prefix(prefix)
                    .and_then(|keys| keys.parse().ok())
                else {
                    continue;
                };
                ours.extend(row.ours.map(|cost| (keys, cost)));
                peer.extend(row.peer.map(|cost| (keys, cost)));
            }
            if !ours.is_empty() || !peer.is_empty() {
                panels.push(Panel {
                    title: format!("{} ({unit})", what.replace('_', " ")),
                    lines: vec![
                        Line {
                            name: "nautilus",
                            color: "#1f6f8b",
                            points: ours,
                        },
                        Line {
                            name: "etcd",
                            color: "#c8553d",
                            points: peer,
                        },
                    ],
                });
            }
        }
        (!panels.is_empty()).then(|| draw(&panels))
    }

    /// The aims that are missed, for the end of a run.
    pub fn missed(&self) -> Vec<String> {
        let missed = self.rows.iter().filter(|row| row.verdict().1 == "missed");
        missed.map(|row| row.what.clone()).collect()
    }
}

impl Row {
    fn new(what: &str, unit: &'static str, aim: Option<Aim>, pairs: &[Pair]) -> Self {
        let of = |side: fn(&Pair) -> &Numbers| -> Vec<f64> {
            pairs
                .iter()
                .filter_map(|pair| side(pair).0.get(what).copied())
                .collect()
        };
        let ratios: Vec<f64> = pairs
            .iter()
            .filter_map(|pair| Some(pair.ours.0.get(what)? / pair.peer.0.get(what)?))
            .collect();
        Self {
            what: what.to_owned(),
            unit,
            ours: median(&of(|pair| &pair.ours)).map(rounded),
            peer: median(&of(|pair| &pair.peer)).map(rounded),
            ratio: median(&ratios).map(rounded),
            aim,
        }
    }

    fn is_measured(&self) -> bool {
        self.ours.is_some() || self.peer.is_some()
    }

    /// The aim in words, and whether it is met.
    fn verdict(&self) -> (String, &'static str) {
        let judge = |number: Option<f64>, met: &dyn Fn(f64) -> bool| match number {
            Some(number) if met(number) => "met",
            Some(_) => "missed",
            None => "",
        };
        match self.aim {
            Some(Aim::AtLeast(times)) => (
                format!("at least {times}x"),
                judge(self.ratio, &|ratio| ratio >= times),
            ),
            Some(Aim::AtMost(times)) => (
                format!("at most {times}x"),
                judge(self.ratio, &|ratio| ratio <= times),
            ),
            Some(Aim::OursAtMost(bound)) => (
                format!("at most {bound}"),
                judge(self.ours, &|ours| ours <= bound),
            ),
            Some(Aim::More) => ("more is better".to_owned(), ""),
            Some(Aim::Less) => ("less is better".to_owned(), ""),
            None => (String::new(), ""),
        }
    }
}

impl Machine {
    fn read(data: &Path) -> Self {
        let uname = rustix::system::uname();
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory: memory_bytes().unwrap_or(0),
            kernel: uname.release().to_string_lossy().into_owned(),
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

/// Device and type of the mount that holds `path`, by proc_pid_mounts(5).
fn disk(path: &Path) -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let fitting = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (device, point, kind) = (fields.next()?, fields.next()?, fields.next()?);
        path.starts_with(point)
            .then(|| (point.len(), format!("{device} {kind}")))
    });
    fitting
        .max_by_key(|(length, _)| *length)
        .map(|(_, text)| text)
}

fn commit() -> String {
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

/// The rows that have an aim, beside `peer`, as a table.
pub fn table(report: &Report, peer: &str) -> String {
    let mut text = format!(
        "| row | unit | nautilus | {peer} | ratio | aim | |\n|---|---|---:|---:|---:|---|---|\n"
    );
    for row in report.rows.iter().filter(|row| row.aim.is_some()) {
        let (aim, verdict) = row.verdict();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {aim} | {verdict} |",
            row.what,
            row.unit,
            shown(row.ours),
            shown(row.peer),
            shown(row.ratio)
        );
    }
    text
}

/// To four digits that tell something.
fn rounded(number: f64) -> f64 {
    if number == 0.0 || !number.is_finite() {
        return number;
    }
    let digits = 3.0 - number.abs().log10().floor();
    if digits <= 0.0 {
        return number.round();
    }
    let scale = 10_f64.powf(digits);
    (number * scale).round() / scale
}

fn shown(number: Option<f64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

/// Every size at which a cost of `pairs` was measured.
pub fn sizes(pairs: &[Pair]) -> Vec<u64> {
    let all: BTreeMap<_, _> = pairs
        .iter()
        .flat_map(|pair| pair.ours.0.iter().chain(&pair.peer.0))
        .collect();
    let sizes: BTreeSet<u64> = all
        .keys()
        .filter_map(|what| what.rsplit_once("_us_at_")?.1.parse().ok())
        .collect();
    sizes.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(what: &str, ours: f64, peer: f64) -> Pair {
        let mut pair = Pair::default();
        pair.ours.add(what, ours);
        pair.peer.add(what, peer);
        pair
    }

    #[test]
    fn the_ratio_is_the_median_of_the_pairs_ratios() {
        let what = "put_256b_c64_per_s";
        let pairs = [
            pair(what, 10.0, 10.0),
            pair(what, 40.0, 10.0),
            pair(what, 90.0, 45.0),
        ];
        let report = Report::new(&pairs, &[], Path::new("/"));
        let row = &report.rows[0];
        assert_eq!(
            (row.ratio, row.ours, row.peer),
            (Some(2.0), Some(40.0), Some(10.0))
        );
        assert_eq!(row.verdict().1, "met");
    }

    #[test]
    fn a_gap_must_be_smaller() {
        let pairs = [pair("failover_gap_ms", 500.0, 1500.0)];
        let report = Report::new(&pairs, &[], Path::new("/"));
        assert_eq!(report.missed(), ["failover_gap_ms"]);
    }

    #[test]
    fn a_side_that_did_not_run_is_null() {
        let mut alone = Pair::default();
        alone.peer.add("failover_gap_ms", 1500.0);
        let report = Report::new(&[alone], &[], Path::new("/"));
        let json: serde_json::Value =
            serde_json::from_str(&report.to_json().expect("plain")).expect("JSON");
        assert_eq!(
            json["rows"][0],
            serde_json::json!({"what": "failover_gap_ms", "unit": "ms", "ours": null, "peer": 1500.0, "ratio": null})
        );
    }
}
