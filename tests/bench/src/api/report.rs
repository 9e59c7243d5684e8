//! What the comparison with kube-apiserver leaves behind: `apiserver.json` in the benches'
//! form, and its section of `RESULTS.md`.

use std::path::Path;

use anyhow::Context as _;

use super::rows::ROWS;
use crate::report::{HEADING_API, Pair, Report, table};

/// Written by hand beside the results: what limits where an aim is missed.
const NOTES: &str = "apiserver-limits.md";

/// Writes both into `folder`; `peer` is the peer's version.
///
/// # Errors
/// When the folder can't be written.
pub fn write(report: &Report, folder: &Path, peer: &str) -> anyhow::Result<()> {
    let put = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())
    };
    put("apiserver.json", &report.to_json()?)?;
    let results = std::fs::read_to_string(folder.join("RESULTS.md")).unwrap_or_default();
    let before = results.split(HEADING_API).next().unwrap_or_default();
    let notes = std::fs::read_to_string(folder.join(NOTES)).unwrap_or_default();
    put(
        "RESULTS.md",
        &format!("{}\n\n{}{notes}", before.trim_end(), section(report, peer)),
    )
}

/// Of the pairs' numbers.
pub fn report(pairs: &[Pair], data: &Path) -> Report {
    Report::of("apiserver", ROWS.iter(), pairs, data)
}

fn section(report: &Report, peer: &str) -> String {
    format!(
        "{HEADING_API}\n\n\
         Made by `make bench-apiserver`; do not edit. An unmodified kube-apiserver over three etcd members, and a \
         quorum of three nodes of which the leader serves the load; mutual TLS and an administrator's client \
         certificate, HTTP/2, JSON, the same client and disk, one after the other in turn, all on one machine. 64 \
         clients (4 that list), 10,000 pods of 2.6 KB before a status and managed fields. `create` makes them; `get` \
         and `status_patch` pick one at random; `apply` applies one of 500 deployments, changed each time; `mixed` is \
         offered at the highest rate that is held, up to 10,000 requests a second: 74 % reads of a pod, 10 % reports of \
         a status, 10 % renewals of a lease, 5 % creates, 1 % lists of a node's pods, each timed from when it was due. \
         Memory is resident, of the one server process that is measured (ours holds the store too), while an informer \
         watches; `_all_` is that of all processes of a side. Each number is the median of the pairs, and the ratio \
         (ours by the peer's) the median of the pairs' ratios.\n\n\
         {}; {peer}; commit {}.\n\n{}\n",
        report.machine_text(),
        report.commit(),
        table(report, "kube-apiserver"),
    )
}
