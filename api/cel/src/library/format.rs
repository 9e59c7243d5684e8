//! Named formats: what names and other texts must look like.

use nautilus_machinery::timestamp;
use nautilus_machinery::validation::{self, NameRule};

use super::{Context, ONE, Outcome, Row, arg, text};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::value::{Opaque, Value};

/// The row of a format's own name.
macro_rules! constant {
    ($name:literal) => {
        (
            concat!("format.", $name),
            "() -> NamedFormat",
            ONE,
            |_, _| constant($name),
        )
    };
}

pub(super) const ROWS: &[Row] = &[
    (
        "validate",
        "NamedFormat.(string) -> optional(list(string))",
        Cost::NamedFormat,
        validate,
    ),
    (
        "format.named",
        "(string) -> optional(NamedFormat)",
        ONE,
        named,
    ),
    constant!("dns1123Label"),
    constant!("dns1123Subdomain"),
    constant!("dns1035Label"),
    constant!("qualifiedName"),
    constant!("dns1123LabelPrefix"),
    constant!("dns1123SubdomainPrefix"),
    constant!("dns1035LabelPrefix"),
    constant!("labelValue"),
    constant!("uri"),
    constant!("uuid"),
    constant!("byte"),
    constant!("date"),
    constant!("datetime"),
];

/// A format with a name.
#[derive(Debug)]
pub struct NamedFormat {
    /// As expressions call it.
    pub(crate) name: &'static str,
    /// Characters of the pattern that its cost is computed from.
    pub(crate) pattern: u64,
    check: fn(&str) -> Vec<String>,
}

const FORMATS: &[NamedFormat] = &[
    NamedFormat {
        name: "dns1123Label",
        pattern: 30,
        check: |text| NameRule::DnsLabel.check(text, false),
    },
    NamedFormat {
        name: "dns1123Subdomain",
        pattern: 60,
        check: |text| NameRule::DnsSubdomain.check(text, false),
    },
    NamedFormat {
        name: "dns1035Label",
        pattern: 30,
        check: validation::dns_1035_label,
    },
    NamedFormat {
        name: "qualifiedName",
        pattern: 60,
        check: validation::qualified_name,
    },
    NamedFormat {
        name: "dns1123LabelPrefix",
        pattern: 30,
        check: |text| NameRule::DnsLabel.check(text, true),
    },
    NamedFormat {
        name: "dns1123SubdomainPrefix",
        pattern: 60,
        check: |text| NameRule::DnsSubdomain.check(text, true),
    },
    NamedFormat {
        name: "dns1035LabelPrefix",
        pattern: 30,
        check: |text| NameRule::Dns1035Label.check(text, true),
    },
    NamedFormat {
        name: "labelValue",
        pattern: 40,
        check: validation::label_value,
    },
    NamedFormat {
        name: "uri",
        pattern: 1_000,
        check: |text| super::url::read(text).err().into_iter().collect(),
    },
    NamedFormat {
        name: "uuid",
        pattern: 90,
        check: |text| wrong_unless(is_uuid(text), "does not match the UUID format"),
    },
    NamedFormat {
        name: "byte",
        pattern: 100,
        check: |text| wrong_unless(super::base64::decode(text).is_some(), "invalid base64"),
    },
    NamedFormat {
        name: "date",
        pattern: 70,
        check: |text| {
            let good = timestamp::parse(&format!("{text}T00:00:00Z")).is_some();
            wrong_unless(good, "invalid date")
        },
    },
    NamedFormat {
        name: "datetime",
        pattern: 70,
        check: |text| wrong_unless(timestamp::parse(text).is_some(), "invalid datetime"),
    },
];

fn wrong_unless(good: bool, message: &str) -> Vec<String> {
    if good {
        Vec::new()
    } else {
        vec![message.to_owned()]
    }
}

fn is_uuid(text: &str) -> bool {
    let digits: Vec<&str> = text.split('-').collect();
    let hex = |part: &&str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    match digits[..] {
        [all] => all.len() == 32 && hex(&all),
        [a, b, c, d, e] => {
            [a.len(), b.len(), c.len(), d.len(), e.len()] == [8, 4, 4, 4, 12]
                && digits.iter().all(hex)
        }
        _ => false,
    }
}

fn find(name: &str) -> Option<&'static NamedFormat> {
    FORMATS.iter().find(|format| format.name == name)
}

fn constant<'a>(name: &str) -> Outcome<'a> {
    find(name)
        .map(|format| Value::Opaque(Opaque::Format(format)))
        .ok_or_else(EvalError::no_such_overload)
}

fn named<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(match find(text(args, 0)?) {
        Some(format) => Value::some(Value::Opaque(Opaque::Format(format))),
        None => Value::none(),
    })
}

fn validate<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    let Value::Opaque(Opaque::Format(format)) = arg(args, 0)? else {
        return Err(EvalError::no_such_overload());
    };
    let wrong = (format.check)(text(args, 1)?);
    if wrong.is_empty() {
        return Ok(Value::none());
    }
    Ok(Value::some(Value::list(
        wrong.into_iter().map(Value::text).collect(),
    )))
}
