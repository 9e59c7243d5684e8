//! Programs that run beside a test: their lines of output arrive one by one.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use crate::PATIENCE;

/// Lines that may wait to be read; more hold the program up.
const LINES: usize = 100_000;

/// One of the programs that `make e2e-bin` builds (kubectl, worker, informer).
///
/// # Panics
/// When it was not built.
pub fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("NAUTILUS_E2E_BIN").map_or_else(
        || {
            let exe = std::env::current_exe().expect("the test's own path");
            exe.ancestors()
                .nth(3)
                .expect("target directory")
                .join("e2e")
        },
        PathBuf::from,
    );
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{} is missing: run `make e2e-bin`",
        path.display()
    );
    path
}

/// A running program whose standard output is read line by line.
pub struct Streamed {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Streamed {
    /// Starts `command`; its standard error joins the test's.
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let output = child.stdout.take().expect("piped");
        let (sender, lines) = sync_channel(LINES);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            lines,
            seen: Vec::new(),
        }
    }

    /// Waits for a line that `wanted` accepts, and returns it.
    ///
    /// # Panics
    /// When none comes in time, with every line seen so far.
    pub fn wait_for(&mut self, awaited: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if wanted(&line) {
                        return line;
                    }
                }
                Err(cause) => panic!(
                    "waited for {awaited}, but {}; seen so far:\n{}",
                    match cause {
                        RecvTimeoutError::Timeout => "nothing more came",
                        RecvTimeoutError::Disconnected => "the program ended",
                    },
                    self.seen.join("\n")
                ),
            }
        }
    }

    /// Every line so far, and those that still come within `quiet` of each other.
    pub fn drain(&mut self, quiet: Duration) -> &[String] {
        while let Ok(line) = self.lines.recv_timeout(quiet) {
            self.seen.push(line);
        }
        &self.seen
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for it to end by itself.
    pub fn join(&mut self) -> ExitStatus {
        crate::eventually("the program's end", || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            other => Err(format!("{other:?}")),
        })
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
