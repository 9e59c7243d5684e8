//! Progress on standard error: a moving line on a terminal, plain lines elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// The movement, one sign a look.
const SPINNER: [char; 4] = ['|', '/', '-', '\\'];
/// Carriage return, and erase to the end of the line (ECMA-48 EL).
const CLEAR: &str = "\r\x1b[K";

/// Shows what a command is at.
pub(crate) struct Progress {
    silent: bool,
    terminal: bool,
    started: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting_for: String,
    turns: usize,
}

impl Progress {
    /// Starts the clock.
    pub(crate) fn start() -> Self {
        Self {
            silent: false,
            terminal: std::io::stderr().is_terminal(),
            started: Instant::now(),
            state: Mutex::default(),
        }
    }

    /// Shows nothing.
    pub(crate) fn silent() -> Self {
        Self {
            silent: true,
            ..Self::start()
        }
    }

    /// A step is done.
    pub(crate) fn say(&self, text: &str) {
        if self.silent {
            return;
        }
        self.state().waiting_for.clear();
        let seconds = self.started.elapsed().as_secs_f64();
        let clear = if self.terminal { CLEAR } else { "" };
        let _ = writeln!(std::io::stderr(), "{clear}{seconds:6.1}s  {text}");
    }

    /// A step is under way; may be called at every look.
    pub(crate) fn wait(&self, text: &str) {
        if self.silent {
            return;
        }
        let mut state = self.state();
        let news = state.waiting_for != text;
        if news {
            text.clone_into(&mut state.waiting_for);
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let mut out = std::io::stderr();
        if self.terminal {
            let sign = SPINNER[state.turns % SPINNER.len()];
            state.turns += 1;
            let _ = write!(out, "{CLEAR}{seconds:6.1}s {sign} {text}");
            let _ = out.flush();
        } else if news {
            let _ = writeln!(out, "{seconds:6.1}s  {text} ..");
        }
    }

    /// Leaves a clean line.
    pub(crate) fn end(&self) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "{CLEAR}");
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
