//! How the process ends: the exit codes scripts can rely on.

use std::fmt;

/// Why a command failed, for the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Anything without a code of its own.
    General,
    /// Wrong arguments or configuration.
    Usage,
    /// The quorum, or enough of it, could not be reached in time.
    Unavailable,
    /// Refused: evidence, identity, credentials or policy.
    Refused,
    /// A running node had to give up (corruption, lost disk, deposed incarnation).
    Fatal,
}

/// The table of `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong arguments or configuration
  3  the quorum can't be reached or is not ready in time
  4  refused: evidence, identity, credentials or policy
  5  a running node had to give up (corruption, full disk, lost incarnation)";

impl Failure {
    /// The exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::General => 1,
            Self::Usage => 2,
            Self::Unavailable => 3,
            Self::Refused => 4,
            Self::Fatal => 5,
        }
    }

    /// The failure an error carries, [`Failure::General`] if none.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        error
            .chain()
            .find_map(|cause| cause.downcast_ref::<Coded>())
            .map_or_else(
                || {
                    error
                        .downcast_ref::<Coded>()
                        .map_or(Self::General, |coded| coded.failure)
                },
                |coded| coded.failure,
            )
    }

    /// An error of this kind.
    pub(crate) fn error(self, message: impl fmt::Display) -> anyhow::Error {
        anyhow::Error::new(Coded {
            failure: self,
            message: message.to_string(),
        })
    }
}

/// An error with a code of its own.
#[derive(Debug)]
struct Coded {
    failure: Failure,
    message: String,
}

impl fmt::Display for Coded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Coded {}

/// Put around an error that the log tells already, in a form that nothing else may
/// stand between.
#[derive(Debug)]
pub(crate) struct Logged;

impl fmt::Display for Logged {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("logged")
    }
}

/// The whole chain of an error on one line, without saying anything twice.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if line.ends_with(&text) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&text);
    }
    line
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_code_survives_the_context_put_around_it() {
        let error = Err::<(), _>(Failure::Refused.error("not in the policy"))
            .context("node 2 can't join")
            .expect_err("an error");
        assert_eq!(Failure::of(&error), Failure::Refused);
        assert_eq!(one_line(&error), "node 2 can't join: not in the policy");
    }

    #[test]
    fn an_error_without_a_code_is_a_plain_failure() {
        assert_eq!(Failure::of(&anyhow::anyhow!("no")).code(), 1);
    }
}
