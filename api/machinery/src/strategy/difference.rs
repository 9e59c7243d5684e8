//! Two texts as a unified difference of their lines, with three lines around each
//! change: how the reference shows what an update may not change.
//!
//! Invariant: the work is bounded by [`MAX_CELLS`]; past it the whole middle is one change.

use std::fmt::Write as _;

const CONTEXT: usize = 3;
/// Most pairs of lines compared for one run of equal lines.
const MAX_CELLS: usize = 4_000_000;
/// Runs of equal lines are looked for to this depth.
const MAX_DEPTH: usize = 64;

/// A run of lines that stand in both: where it begins in each, and its length.
type Match = (usize, usize, usize);

/// The difference, empty if there is none.
pub(crate) fn unified(old: &str, new: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (old.split('\n').collect(), new.split('\n').collect());
    let mut matches = Vec::new();
    find(&a, &b, (0, a.len()), (0, b.len()), MAX_DEPTH, &mut matches);
    matches.push((a.len(), b.len(), 0));
    let mut changes = Vec::new();
    let (mut at_a, mut at_b) = (0, 0);
    for (start_a, start_b, length) in matches {
        if start_a > at_a || start_b > at_b {
            changes.push((at_a, start_a, at_b, start_b));
        }
        (at_a, at_b) = (start_a + length, start_b + length);
    }
    let mut text = String::new();
    let mut from = 0;
    while from < changes.len() {
        let mut to = from + 1;
        while to < changes.len() && changes[to].0 - changes[to - 1].1 <= 2 * CONTEXT {
            to += 1;
        }
        hunk(&a, &b, &changes[from..to], &mut text);
        from = to;
    }
    text
}

fn hunk(a: &[&str], b: &[&str], changes: &[(usize, usize, usize, usize)], text: &mut String) {
    let (Some(first), Some(last)) = (changes.first(), changes.last()) else {
        return;
    };
    let before = CONTEXT.min(first.0).min(first.2);
    let after = CONTEXT.min(a.len() - last.1);
    let range = |start: usize, end: usize| match end - start {
        1 => format!("{}", start + 1),
        0 => format!("{start},0"),
        length => format!("{},{length}", start + 1),
    };
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "@@ -{} +{} @@",
        range(first.0 - before, last.1 + after),
        range(first.2 - before, last.3 + after)
    );
    let mut line = |mark: char, own: &str| {
        let _ = writeln!(text, "{mark}{own}");
    };
    let mut at = first.0 - before;
    for (start_a, end_a, start_b, end_b) in changes {
        a[at..*start_a].iter().for_each(|own| line(' ', own));
        a[*start_a..*end_a].iter().for_each(|own| line('-', own));
        b[*start_b..*end_b].iter().for_each(|own| line('+', own));
        at = *end_a;
    }
    a[at..last.1 + after].iter().for_each(|own| line(' ', own));
}

/// All runs of equal lines, in order: the longest, and those on both sides of it.
fn find(
    a: &[&str],
    b: &[&str],
    (low_a, high_a): (usize, usize),
    (low_b, high_b): (usize, usize),
    depth: usize,
    matches: &mut Vec<Match>,
) {
    if depth == 0 || low_a >= high_a || low_b >= high_b {
        return;
    }
    let Some((start_a, start_b, length)) = longest(a, b, (low_a, high_a), (low_b, high_b)) else {
        return;
    };
    find(a, b, (low_a, start_a), (low_b, start_b), depth - 1, matches);
    match matches.last_mut() {
        Some(last) if last.0 + last.2 == start_a && last.1 + last.2 == start_b => last.2 += length,
        _ => matches.push((start_a, start_b, length)),
    }
    let (end_a, end_b) = (start_a + length, start_b + length);
    find(a, b, (end_a, high_a), (end_b, high_b), depth - 1, matches);
}

fn longest(
    a: &[&str],
    b: &[&str],
    (low_a, high_a): (usize, usize),
    (low_b, high_b): (usize, usize),
) -> Option<Match> {
    let common = |at: usize| a[low_a + at] == b[low_b + at];
    let size = (high_a - low_a).min(high_b - low_b);
    let prefix = (0..size).take_while(|at| common(*at)).count();
    if (high_a - low_a) * (high_b - low_b) > MAX_CELLS {
        return (prefix > 0).then_some((low_a, low_b, prefix));
    }
    let mut best = (low_a, low_b, 0);
    let mut previous = vec![0usize; high_b - low_b + 1];
    for (at_a, own) in a.iter().enumerate().take(high_a).skip(low_a) {
        let mut current = vec![0usize; high_b - low_b + 1];
        for at_b in low_b..high_b {
            if *own == b[at_b] {
                let length = previous[at_b - low_b] + 1;
                current[at_b - low_b + 1] = length;
                if length > best.2 {
                    best = (at_a + 1 - length, at_b + 1 - length, length);
                }
            }
        }
        previous = current;
    }
    (best.2 > 0).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_line_stands_between_three_others() {
        assert_eq!(
            unified("1\n2\n3\n4\n5\n6\n7\n8\n9", "1\n2\n3\n4\nx\n6\n7\n8\n9"),
            "@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+x\n 6\n 7\n 8\n"
        );
    }

    #[test]
    fn far_changes_stand_apart() {
        let old: Vec<String> = (0..30).map(|line| line.to_string()).collect();
        let mut new = old.clone();
        new[2] = "a".to_owned();
        new.remove(25);
        let text = unified(&old.join("\n"), &new.join("\n"));
        assert_eq!(text.matches("@@ -").count(), 2, "{text}");
        assert_eq!(unified("a", "a"), "");
    }
}
