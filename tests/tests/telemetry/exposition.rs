//! A strict reader of Prometheus' text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::collections::{BTreeMap, BTreeSet};

/// The kinds of metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Summary,
}

/// What is said about a metric.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) help: Option<String>,
    pub(crate) kind: Option<Kind>,
}

/// A parsed page.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    pub(crate) families: BTreeMap<String, Family>,
    samples: BTreeSet<String>,
    /// Name and labels of every line: none may stand twice.
    series: BTreeSet<String>,
}

impl Exposition {
    /// Reads a page; the error names the line.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut page = Self::default();
        if !text.ends_with('\n') {
            return Err("the last line has no end".into());
        }
        for line in text.lines().filter(|line| !line.is_empty()) {
            let done = match line.strip_prefix("# ") {
                Some(comment) => page.comment(comment),
                None => page.sample(line),
            };
            done.map_err(|reason| format!("{reason}: {line}"))?;
        }
        Ok(page)
    }

    /// Whether a sample of exactly this name is there (`_bucket` and the like included).
    pub(crate) fn has_sample(&self, name: &str) -> bool {
        self.samples.contains(name)
    }

    fn comment(&mut self, comment: &str) -> Result<(), String> {
        let mut words = comment.splitn(3, ' ');
        let (what, name, rest) = (words.next(), words.next(), words.next());
        let name = name.ok_or("no name")?;
        let rest = rest.unwrap_or_default();
        let family = self.families.entry(name.to_owned()).or_default();
        match what {
            Some("HELP") if family.help.is_some() => Err("a second HELP".into()),
            Some("HELP") if rest.is_empty() => Err("an empty HELP".into()),
            Some("HELP") => {
                family.help = Some(rest.to_owned());
                Ok(())
            }
            Some("TYPE") if family.kind.is_some() => Err("a second TYPE".into()),
            Some("TYPE") => {
                family.kind = Some(match rest {
                    "counter" => Kind::Counter,
                    "gauge" => Kind::Gauge,
                    "histogram" => Kind::Histogram,
                    "summary" => Kind::Summary,
                    _ => return Err("an unknown TYPE".into()),
                });
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn sample(&mut self, line: &str) -> Result<(), String> {
        let (series, value) = line.rsplit_once(' ').ok_or("no value")?;
        if !matches!(value, "+Inf" | "-Inf" | "NaN") {
            value.parse::<f64>().map_err(|_| "not a number")?;
        }
        let name = match series.split_once('{') {
            Some((name, labels)) => {
                let labels = labels.strip_suffix('}').ok_or("no end of the labels")?;
                read_labels(labels)?;
                name
            }
            None => series,
        };
        if !is_name(name) {
            return Err("not a metric's name".into());
        }
        if !self.series.insert(series.to_owned()) {
            return Err("the same series twice".into());
        }
        let typed = |name: &str| self.families.get(name).is_some_and(|f| f.kind.is_some());
        let of_family = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|suffix| name.strip_suffix(suffix))
            .any(typed);
        if !typed(name) && !of_family {
            return Err("a sample before its TYPE".into());
        }
        self.samples.insert(name.to_owned());
        Ok(())
    }
}

/// `name="value",..`, where a value may hold `\\`, `\"` and `\n`.
fn read_labels(mut rest: &str) -> Result<(), String> {
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").ok_or("no label")?;
        if !is_name(name) || name.contains(':') {
            return Err("not a label's name".into());
        }
        let mut escaped = false;
        let end = after.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        rest = &after[end.ok_or("no end of a label's value")? + 1..];
        rest = match rest.strip_prefix(',') {
            Some(more) => more,
            None if rest.is_empty() => rest,
            None => return Err("no comma between labels".into()),
        };
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    name.starts_with(plain) && name.chars().all(|c| plain(c) || c.is_ascii_digit())
}

#[test]
fn a_broken_page_is_refused() {
    for (page, reason) in [
        ("# TYPE a gauge\na 1", "the last line has no end"),
        ("a 1\n", "a sample before its TYPE"),
        ("# TYPE a gauge\na one\n", "not a number"),
        ("# TYPE a gauge\na{b=\"c} 1\n", "no end of a label's value"),
        ("# TYPE a gauge\na 1\na 2\n", "the same series twice"),
        ("# TYPE a gauge\n# TYPE a gauge\n", "a second TYPE"),
    ] {
        let refused = Exposition::parse(page).expect_err(page);
        assert!(refused.starts_with(reason), "{page}: {refused}");
    }
}
