//! Versions in the order in which clients prefer them: stable before beta before alpha,
//! newer before older, others after those, by name.

use std::cmp::Ordering;

#[derive(PartialEq, Eq)]
struct Parsed {
    /// 2: stable, 1: beta, 0: alpha.
    stage: u8,
    major: u64,
    minor: u64,
}

fn parse(version: &str) -> Option<Parsed> {
    let rest = version.strip_prefix('v')?;
    let number = |text: &str| -> Option<u64> {
        let good = !text.is_empty()
            && !text.starts_with('0')
            && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| good)
    };
    for (stage, word) in [(1, "beta"), (0, "alpha")] {
        if let Some((major, minor)) = rest.split_once(word) {
            return Some(Parsed {
                stage,
                major: number(major)?,
                minor: number(minor)?,
            });
        }
    }
    Some(Parsed {
        stage: 2,
        major: number(rest)?,
        minor: 0,
    })
}

/// The order; the preferred version is less.
pub fn compare(left: &str, right: &str) -> Ordering {
    match (parse(left), parse(right)) {
        (Some(a), Some(b)) => (b.stage, b.major, b.minor).cmp(&(a.stage, a.major, a.minor)),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => left.cmp(right),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn stable_versions_come_first() {
        let mut versions = [
            "foo1",
            "v1alpha1",
            "v10",
            "v2",
            "v1beta2",
            "v1beta1",
            "foo10",
            "v11alpha2",
        ];
        versions.sort_by(|left, right| super::compare(left, right));
        assert_eq!(
            versions,
            [
                "v10",
                "v2",
                "v1beta2",
                "v1beta1",
                "v11alpha2",
                "v1alpha1",
                "foo1",
                "foo10"
            ]
        );
    }
}
