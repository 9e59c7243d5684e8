//! Processes that outlive the command that starts them.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

use super::layout::ProcessFiles;
use crate::data_dir::write_durably;

/// Between two looks at a process that is to end.
const POLL: Duration = Duration::from_millis(20);
/// Lines of a log shown when its process failed.
const TAIL_LINES: usize = 15;
/// Settings that differ between the nodes of one machine: what is in the environment
/// must not override each node's own file.
const PER_NODE: [&str; 13] = [
    "NAUTILUS_CONFIG",
    "NAUTILUS_CLUSTER_ID",
    "NAUTILUS_NODE_ID",
    "NAUTILUS_DATA_DIR",
    "NAUTILUS_BOOTSTRAP",
    "NAUTILUS_JOIN_ADDRESSES",
    "NAUTILUS_PEER_LISTEN",
    "NAUTILUS_PEER_ADVERTISE",
    "NAUTILUS_API_LISTEN",
    "NAUTILUS_API_ADVERTISE",
    "NAUTILUS_ATTESTATION_SIMULATED_ROOT",
    "NAUTILUS_ATTESTATION_PLATFORM_SECRET",
    "NAUTILUS_DIR",
];

/// What the allocator is told. Huge pages make its memory a quarter larger: a page of two
/// mebibytes stays whole for the last object in it.
const ALLOCATOR: [(&str, &str); 1] = [("MIMALLOC_ALLOW_THP", "0")];

/// Starts this binary with `arguments` in a session of its own, its output appended
/// to the log, and notes its process id.
pub(crate) fn start(files: &ProcessFiles, arguments: &[&std::ffi::OsStr]) -> anyhow::Result<u32> {
    let binary = std::env::current_exe().context("find the running binary")?;
    start_binary(&binary, files, arguments)
}

/// The same with another build.
pub(crate) fn start_binary(
    binary: &Path,
    files: &ProcessFiles,
    arguments: &[&std::ffi::OsStr],
) -> anyhow::Result<u32> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(files.folder())
        .with_context(|| files.folder().display().to_string())?;
    let path = files.log();
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| path.display().to_string())?;
    let mut command = Command::new(binary);
    command
        .args(arguments)
        .arg("--own-session")
        .envs(ALLOCATOR)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    for name in PER_NODE {
        command.env_remove(name);
    }
    let mut child = command
        .spawn()
        .with_context(|| format!("start {}", binary.display()))?;
    let pid = child.id();
    // Reaps the child if it ends before us, so that its id is seen to be free.
    std::thread::spawn(move || child.wait());
    write_durably(&files.pid(), format!("{pid}\n").as_bytes(), 0o644)
        .with_context(|| files.pid().display().to_string())?;
    Ok(pid)
}

/// The process of these files, if it runs.
pub(crate) fn running(files: &ProcessFiles) -> Option<u32> {
    let pid: u32 = std::fs::read_to_string(files.pid())
        .ok()?
        .trim()
        .parse()
        .ok()?;
    is_ours(pid, files.folder()).then_some(pid)
}

/// Whether `pid` is a live process that was started for `folder` (its number may have
/// been given to somebody else since).
fn is_ours(pid: u32, folder: &Path) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    let ended = stat
        .rsplit(')')
        .next()
        .is_some_and(|rest| matches!(rest.trim_start().chars().next(), Some('Z' | 'X')));
    let Ok(arguments) = std::fs::read(format!("/proc/{pid}/cmdline")) else {
        return false;
    };
    let folder = folder.as_os_str().as_encoded_bytes();
    !ended
        && arguments
            .split(|&byte| byte == 0)
            .any(|argument| argument.starts_with(folder))
}

/// Sends a signal to the process of these files, if it runs.
pub(crate) fn signal(files: &ProcessFiles, signal: Signal) -> Option<u32> {
    let pid = running(files)?;
    let target = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
    kill_process(target, signal).ok().map(|()| pid)
}

/// Waits until the process of these files has ended; `false` when the time is over.
pub(crate) async fn ended(files: &ProcessFiles, within: Duration) -> bool {
    let deadline = Instant::now() + within;
    while running(files).is_some() {
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
    true
}

/// The last lines of a process's log, for an error's text.
pub(crate) fn log_tail(files: &ProcessFiles) -> String {
    let text = std::fs::read_to_string(files.log()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_another_folder_is_not_ours() {
        assert!(!is_ours(std::process::id(), Path::new("/nowhere/node-1")));
    }
}
