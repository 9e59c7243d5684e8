//! kubectl by lines, as a user types them.

use crate::Quorum;

/// Runs each line's words; all must succeed. `'` keeps words together.
///
/// # Panics
/// When one fails, with what it printed.
pub fn all(quorum: &Quorum, lines: &str) {
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        run(quorum, line);
    }
}

/// Runs one line, which must succeed, and gives what it printed.
///
/// # Panics
/// When it fails, with what it printed.
pub fn run(quorum: &Quorum, line: &str) -> String {
    let words = words(line);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    quorum.kubectl_ok(&words)
}

/// The words of a line; `'` keeps words together.
pub(crate) fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for letter in line.chars() {
        match letter {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            letter => words.last_mut().expect("one at least").push(letter),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Runs one line, which must print each of `wanted`.
///
/// # Panics
/// When it fails or prints something else.
pub fn contains(quorum: &Quorum, line: &str, wanted: &[&str]) {
    let printed = run(quorum, line);
    for text in wanted {
        assert!(printed.contains(text), "{line}: no {text:?} in\n{printed}");
    }
}

/// Runs one line, which must print `wanted`, blanks around it apart.
///
/// # Panics
/// When it fails or prints something else.
pub fn is(quorum: &Quorum, line: &str, wanted: &str) {
    assert_eq!(run(quorum, line).trim(), wanted, "{line}");
}
