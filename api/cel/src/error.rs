//! What can be wrong with an expression, in the reference's words.

use crate::limits::MAX_ERRORS;

/// One mistake in an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// Characters before it.
    pub(crate) at: usize,
    /// What it is.
    pub(crate) message: String,
}

/// Why a program was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CompileError {
    /// All mistakes, each with its place: `ERROR: <input>:1:5: ...`, as the reference
    /// prints them.
    pub message: String,
    /// Line and column of the first, both counted from 1; none where the program as a
    /// whole is refused.
    pub at: Option<(usize, usize)>,
}

impl CompileError {
    /// A refusal of the program as a whole.
    pub(crate) fn whole(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            at: None,
        }
    }

    /// The mistakes of that source, in the order of their places.
    pub(crate) fn of(source: &str, mut mistakes: Vec<Mistake>) -> Self {
        mistakes.sort_by_key(|mistake| mistake.at);
        let lines: Vec<&str> = source.split('\n').collect();
        let place = |at: usize| -> (usize, usize) {
            let mut left = at;
            for (index, line) in lines.iter().enumerate() {
                let length = line.chars().count();
                if left <= length {
                    return (index, left);
                }
                left -= length + 1;
            }
            (lines.len().saturating_sub(1), left)
        };
        let count = mistakes.len();
        let mut texts: Vec<String> = mistakes
            .iter()
            .take(MAX_ERRORS)
            .map(|mistake| {
                let (line, column) = place(mistake.at);
                display(&mistake.message, line, column, lines.get(line).copied())
            })
            .collect();
        if count > MAX_ERRORS {
            texts.push(format!("{} more errors were truncated", count - MAX_ERRORS));
        }
        let at = mistakes.first().map(|first| {
            let (line, column) = place(first.at);
            (line + 1, column + 1)
        });
        Self {
            message: texts.join("\n"),
            at,
        }
    }
}

fn display(message: &str, line: usize, column: usize, text: Option<&str>) -> String {
    let mut shown = format!("ERROR: <input>:{}:{}: {message}", line + 1, column + 1);
    if let Some(text) = text {
        let text = text.replace('\t', " ");
        let mut mark = String::new();
        let mut characters = text.chars();
        for _ in 0..column {
            match characters.next() {
                Some(wide) if wide.len_utf8() > 1 => mark.push('\u{ff0e}'),
                Some(_) => mark.push('.'),
                None => break,
            }
        }
        match characters.next() {
            Some(wide) if wide.len_utf8() > 1 => mark.push('\u{ff3e}'),
            _ => mark.push('^'),
        }
        shown.push_str(&format!("\n | {text}\n | {mark}"));
    }
    shown
}

/// Why an evaluation gave no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// The expression failed: what it did, as `no such key: a`. `||` and `&&` may pass
    /// over it.
    #[error("{0}")]
    Failed(String),
    /// The budget is spent, or a bound of this crate was met. Nothing passes over it.
    #[error("operation cancelled: actual cost limit exceeded")]
    CostExceeded,
}

impl EvalError {
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    pub(crate) fn no_such_overload() -> Self {
        Self::failed("no such overload")
    }
}
