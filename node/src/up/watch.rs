//! `up` in the foreground: shows what changes until it is interrupted.

use std::time::Duration;

use super::layout::{Layout, Quorum};
use crate::cli::print;
use crate::cli::status::{NodeRow, QuorumStatus, local};
use crate::node::StopSignals;

/// Between two looks at the nodes.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Returns on SIGINT or SIGTERM.
pub(super) async fn until_interrupted(layout: &Layout, quorum: &Quorum) -> anyhow::Result<()> {
    let mut signals = StopSignals::listen()?;
    let mut seen = local(layout, quorum).await;
    loop {
        tokio::select! {
            () = signals.next() => return Ok(()),
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
        let now = local(layout, quorum).await;
        for line in changes(&seen, &now) {
            print(&line);
        }
        seen = now;
    }
}

/// What a person wants to hear of the difference.
fn changes(before: &QuorumStatus, now: &QuorumStatus) -> Vec<String> {
    let changed = |(old, new): (&NodeRow, &NodeRow)| {
        let node = format!("node {}", new.id);
        if old.role != new.role {
            return Some(match (new.role.as_str(), new.pid) {
                ("unreachable", None) => {
                    format!(
                        "{node} has ended (it was {}); `nautilus up` starts it again",
                        old.role
                    )
                }
                ("unreachable", Some(pid)) => {
                    format!(
                        "{node} does not answer (process {pid}; it was {})",
                        old.role
                    )
                }
                ("leader", _) => {
                    format!("{node} leads, in term {}", new.term.unwrap_or_default())
                }
                (role, _) => format!("{node} is now {role}"),
            });
        }
        (old.pid != new.pid && new.pid.is_some()).then(|| {
            format!(
                "{node} was started again (process {})",
                new.pid.unwrap_or_default()
            )
        })
    };
    before
        .nodes
        .iter()
        .zip(&now.nodes)
        .filter_map(changed)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(role: &str, pid: Option<u32>) -> QuorumStatus {
        let row = NodeRow {
            id: 1,
            role: role.into(),
            term: Some(2),
            last_log: None,
            applied: None,
            pid,
            api: String::new(),
            measurement: None,
            tee: None,
        };
        QuorumStatus {
            cluster: "q".into(),
            nodes: vec![row],
        }
    }

    #[test]
    fn the_end_of_a_process_is_told_with_the_remedy() {
        let lines = changes(&status("leader", Some(7)), &status("unreachable", None));
        assert_eq!(
            lines,
            ["node 1 has ended (it was leader); `nautilus up` starts it again"]
        );
    }

    #[test]
    fn a_new_leader_is_told_with_its_term() {
        let lines = changes(&status("follower", Some(7)), &status("leader", Some(7)));
        assert_eq!(lines, ["node 1 leads, in term 2"]);
    }

    #[test]
    fn nothing_new_is_not_told() {
        assert!(changes(&status("leader", Some(7)), &status("leader", Some(7))).is_empty());
    }
}
