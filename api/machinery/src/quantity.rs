//! Quantities (`500m`, `1Gi`, `1e3`): parsing, the form that a typed server
//! writes back, comparison.
//!
//! Source: `k8s.io/apimachinery/pkg/api/resource`: values are kept to the
//! nanounit, rounded up away from zero; binary ones are capped at 2^63-1 units; a
//! text that is canonical already is kept as it is. Decimal values are capped at
//! [`CAP_UNITS`] here, where the reference has no limit.

use std::cmp::Ordering;

use serde_json::Value;

/// What a text must be to be a quantity; the reference's message.
pub const PATTERN_MESSAGE: &str = "quantities must match the regular expression \
'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
const SUFFIX_MESSAGE: &str = "unable to parse quantity's suffix";

const NANO: i128 = 1_000_000_000;
/// Largest magnitude of a decimal quantity, in units.
pub const CAP_UNITS: i128 = 150_000_000_000_000_000_000_000_000_000;
const CAP: i128 = CAP_UNITS * NANO;
const BINARY_CAP: i128 = (i64::MAX as i128) * NANO;
/// Digits that surely fit 64 bits.
const MAX_FAST_DIGITS: usize = 18;
/// Longest text looked at, in bytes: longer ones have more digits than any
/// quantity can mean.
const MAX_BYTES: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Binary,
    Decimal,
    Exponent,
}

/// A parsed quantity.
#[derive(Debug, Clone)]
pub struct Quantity {
    nanounits: i128,
    format: Format,
    /// The text it was read from, where that is how it is written.
    text: Option<String>,
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanounits == other.nanounits
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanounits.cmp(&other.nanounits)
    }
}

impl Quantity {
    /// The quantity of an object's field, which is a text or a number; `None`: it is none.
    pub fn of_json(field: &Value) -> Option<Self> {
        let read = match field {
            Value::String(text) => Self::parse(text),
            Value::Number(number) => Self::parse(&number.to_string()),
            _ => return None,
        };
        read.ok()
    }

    /// Reads a quantity; the error is the reference's message.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() || text.len() > MAX_BYTES {
            return Err(PATTERN_MESSAGE);
        }
        let (negative, rest) = match text.as_bytes()[0] {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (whole, rest) = split_while(rest, |byte| byte.is_ascii_digit());
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => split_while(rest, |byte| byte.is_ascii_digit()),
            None => ("", rest),
        };
        let (_, rest) = split_while(suffix, |byte| b"eEinumkKMGTP".contains(&byte));
        let rest = rest.strip_prefix(['+', '-']).unwrap_or(rest);
        if !rest.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(PATTERN_MESSAGE);
        }
        let (format, base2, exponent) = suffix_scale(suffix).ok_or(SUFFIX_MESSAGE)?;
        let cap = if format == Format::Binary {
            BINARY_CAP
        } else {
            CAP
        };
        let magnitude = scale(whole, fraction, base2, exponent).min(cap);
        let nanounits = if negative { -magnitude } else { magnitude };
        let kept = is_written_so(format, whole, fraction, base2, exponent);
        Ok(Self {
            nanounits,
            format,
            text: kept.then(|| text.to_owned()),
        })
    }

    /// Whether it is below zero.
    pub fn is_negative(&self) -> bool {
        self.nanounits < 0
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.nanounits == 0
    }

    /// Whether it is a whole number of units.
    pub fn is_integer(&self) -> bool {
        self.nanounits % NANO == 0
    }

    /// Its value, in nanounits.
    pub fn nanounits(&self) -> i128 {
        self.nanounits
    }

    /// A whole number, as objects are counted.
    pub fn of_count(count: u64) -> Self {
        Self {
            nanounits: i128::from(count).saturating_mul(NANO).min(CAP),
            format: Format::Decimal,
            text: None,
        }
    }

    /// The sum, in the form of the first unless that is zero.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            nanounits: (self.nanounits + other.nanounits).clamp(-CAP, CAP),
            format: if self.is_zero() { other } else { self }.format,
            text: None,
        }
    }

    /// The difference, in the form of the first unless that is zero.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self {
            nanounits: (self.nanounits - other.nanounits).clamp(-CAP, CAP),
            format: if self.is_zero() { other } else { self }.format,
            text: None,
        }
    }

    /// So many nanounits, in the form of this one.
    #[must_use]
    pub fn with_nanounits(&self, nanounits: i128) -> Self {
        Self {
            nanounits: nanounits.clamp(-CAP, CAP),
            format: self.format,
            text: None,
        }
    }

    /// The number of units for ratios and metrics; not exact.
    pub fn as_f64(&self) -> f64 {
        // Magnitudes are within 2^97 nanounits: the nearest double will do.
        #[allow(clippy::cast_precision_loss)]
        let nanounits = self.nanounits as f64;
        nanounits / 1e9
    }

    /// Whether it is a whole number of another, in whole units; of none if that is below one.
    pub fn is_multiple_of(&self, other: &Self) -> bool {
        other.nanounits >= NANO && other.is_integer() && self.units_up() % other.units_up() == 0
    }

    /// Whole units, rounded up.
    pub fn units_up(&self) -> i128 {
        self.nanounits.div_euclid(NANO) + i128::from(self.nanounits.rem_euclid(NANO) != 0)
    }

    /// Rounded up to the thousandth, as resource lists are.
    #[must_use]
    pub fn rounded_up_to_milli(self) -> Self {
        let step = NANO / 1000;
        let whole = self.nanounits / step;
        let nanounits = match self.nanounits % step {
            0 => self.nanounits,
            rest if rest > 0 => (whole + 1) * step,
            _ => (whole - 1) * step,
        };
        if nanounits == self.nanounits {
            return self;
        }
        Self {
            nanounits,
            format: self.format,
            text: None,
        }
    }

    /// The form it is written in.
    pub fn canonical(&self) -> String {
        if let Some(text) = &self.text {
            return text.clone();
        }
        if self.nanounits == 0 {
            return "0".to_owned();
        }
        if self.format == Format::Binary && self.nanounits.abs() >= 1024 * NANO && self.is_integer()
        {
            let mut units = self.nanounits / NANO;
            let mut step = 0;
            while units % 1024 == 0 && step < 6 {
                units /= 1024;
                step += 1;
            }
            return format!("{units}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][step]);
        }
        let mut mantissa = self.nanounits;
        let mut exponent: i32 = -9;
        while mantissa % 1000 == 0 && (exponent < 18 || self.format == Format::Exponent) {
            mantissa /= 1000;
            exponent += 3;
        }
        if self.format == Format::Exponent {
            if exponent == 0 {
                return mantissa.to_string();
            }
            return format!("{mantissa}e{exponent}");
        }
        let suffix = match exponent {
            -9 => "n",
            -6 => "u",
            -3 => "m",
            3 => "k",
            6 => "M",
            9 => "G",
            12 => "T",
            15 => "P",
            18 => "E",
            _ => "",
        };
        format!("{mantissa}{suffix}")
    }
}

fn split_while(text: &str, wanted: impl Fn(u8) -> bool) -> (&str, &str) {
    let end = text
        .bytes()
        .position(|byte| !wanted(byte))
        .unwrap_or(text.len());
    // Only bytes of ASCII are wanted, so that the end is a character's boundary.
    text.split_at(end)
}

/// Whether the reference keeps the text: small enough for its short way, with a
/// suffix of a step of three (or ten bits) and no factor that another suffix
/// would take up.
fn is_written_so(format: Format, whole: &str, fraction: &str, base2: u32, exponent: i32) -> bool {
    let significant = whole.trim_start_matches('0');
    let digits = format!(
        "{}{fraction}",
        if significant.is_empty() {
            "0"
        } else {
            significant
        }
    );
    let places = i32::try_from(fraction.len()).unwrap_or(i32::MAX);
    if format == Format::Binary {
        let bits = usize::try_from(base2)
            .unwrap_or(usize::MAX)
            .saturating_mul(3)
            / 10;
        let fits = fraction.is_empty() && digits.len() + bits < MAX_FAST_DIGITS - 3;
        return fits && digits.parse::<i64>().is_ok_and(|value| value % 8 != 0);
    }
    let scale = exponent - places;
    digits.len() <= MAX_FAST_DIGITS
        && scale >= -9
        && scale % 3 == 0
        && !digits.ends_with("000")
        && !digits.starts_with('0')
}

fn suffix_scale(suffix: &str) -> Option<(Format, u32, i32)> {
    let scaled = match suffix {
        "" => (Format::Decimal, 0, 0),
        "Ki" => (Format::Binary, 10, 0),
        "Mi" => (Format::Binary, 20, 0),
        "Gi" => (Format::Binary, 30, 0),
        "Ti" => (Format::Binary, 40, 0),
        "Pi" => (Format::Binary, 50, 0),
        "Ei" => (Format::Binary, 60, 0),
        "n" => (Format::Decimal, 0, -9),
        "u" => (Format::Decimal, 0, -6),
        "m" => (Format::Decimal, 0, -3),
        "k" => (Format::Decimal, 0, 3),
        "M" => (Format::Decimal, 0, 6),
        "G" => (Format::Decimal, 0, 9),
        "T" => (Format::Decimal, 0, 12),
        "P" => (Format::Decimal, 0, 15),
        "E" => (Format::Decimal, 0, 18),
        other => {
            let exponent = other.strip_prefix(['e', 'E'])?;
            (
                Format::Exponent,
                0,
                exponent.parse::<i32>().ok()?.clamp(-1000, 1000),
            )
        }
    };
    Some(scaled)
}

/// `whole.fraction * 2^base2 * 10^exponent`, in nanounits, rounded up, capped.
fn scale(whole: &str, fraction: &str, base2: u32, exponent: i32) -> i128 {
    let mut value: i128 = 0;
    let mut lost = false;
    let mut decimals: i32 = 0;
    for (at, digit) in whole.bytes().chain(fraction.bytes()).enumerate() {
        if value > CAP / 100 {
            if at < whole.len() {
                decimals -= 1;
            }
            lost |= digit != b'0';
            continue;
        }
        value = value * 10 + i128::from(digit - b'0');
        if at >= whole.len() {
            decimals += 1;
        }
    }
    if value == 0 {
        return 0;
    }
    let mut shift = exponent - decimals + 9;
    value = match value.checked_mul(1i128 << base2) {
        Some(value) => value,
        None if shift >= 0 => return CAP,
        None => {
            while shift < 0 && value > i128::from(i64::MAX) {
                lost |= value % 10 != 0;
                value /= 10;
                shift += 1;
            }
            match value.checked_mul(1i128 << base2) {
                Some(value) => value,
                None => return CAP,
            }
        }
    };
    while shift > 0 {
        if value > CAP / 10 {
            return CAP;
        }
        value *= 10;
        shift -= 1;
    }
    while shift < 0 && value > 0 {
        lost |= value % 10 != 0;
        value /= 10;
        shift += 1;
    }
    if lost { value + 1 } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        Quantity::parse(text).map_or_else(str::to_owned, |q| q.canonical())
    }

    #[test]
    fn the_canonical_form_is_the_reference_s() {
        for (text, expected) in [
            ("0", "0"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1024Ki", "1Mi"),
            ("1.5Gi", "1536Mi"),
            ("512Ki", "512Ki"),
            ("100", "100"),
            ("1000", "1k"),
            ("1e3", "1e3"),
            ("1E3", "1E3"),
            ("0.1Ki", "102400m"),
            ("-1.25", "-1250m"),
            ("1n", "1n"),
            ("200000000000Ei", "9223372036854775807"),
            ("0.1n", "1n"),
            ("1000Ki", "1000Ki"),
            ("+5", "+5"),
            ("5.", "5."),
            (".5", "500m"),
        ] {
            assert_eq!(canonical(text), expected, "{text}");
        }
    }

    #[test]
    fn nonsense_gets_the_reference_s_message() {
        assert_eq!(Quantity::parse("abc"), Err(PATTERN_MESSAGE));
        assert_eq!(Quantity::parse("1.2.3"), Err(PATTERN_MESSAGE));
        assert_eq!(Quantity::parse("é"), Err(PATTERN_MESSAGE));
        assert_eq!(Quantity::parse("1KiKi"), Err(SUFFIX_MESSAGE));
        assert_eq!(Quantity::parse(""), Err(PATTERN_MESSAGE));
    }

    #[test]
    fn comparison_is_by_value() {
        assert_eq!(Quantity::parse("1"), Quantity::parse("1000m"));
        assert!(Quantity::parse("1Gi") > Quantity::parse("1G"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC{0,40}") {
            let _ = Quantity::parse(&text).map(|q| q.canonical());
        }

        #[test]
        fn the_canonical_form_means_the_same(text in "[+-]?[0-9]{1,20}(\\.[0-9]{1,12})?(m|k|Ki|Mi|Ei|E|n|e-?[0-9]{1,2})?") {
            if let Ok(quantity) = Quantity::parse(&text) {
                proptest::prop_assert_eq!(Quantity::parse(&quantity.canonical()), Ok(quantity));
            }
        }
    }
}
