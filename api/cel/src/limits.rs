//! The bounds of this crate, and the costs that the reference charges.

/// Characters of an expression; as the reference's parser has it.
pub const MAX_EXPRESSION_CODE_POINTS: usize = 100_000;
/// Brackets in brackets.
pub const MAX_NESTING: usize = 64;
/// Levels of an expression after macros were written out.
pub const MAX_DEPTH: usize = 160;
/// Nodes of an expression after macros were written out.
pub const MAX_NODES: usize = 200_000;
/// Errors that one compilation reports.
pub const MAX_ERRORS: usize = 100;
/// Cost of one evaluation; the reference's `PerCallLimit`.
pub const PER_CALL_COST: u64 = 1_000_000;
/// Cost of all rules over one object; the reference's `RuntimeCELCostBudget`.
pub const RUNTIME_COST: u64 = 10_000_000;
/// Bytes of a request that sizes are estimated for; the reference's `MaxRequestSizeBytes`.
pub const MAX_REQUEST_BYTES: u64 = 3 * 1024 * 1024;
/// Steps of one evaluation that the reference does not charge for (elements copied or
/// compared), so that no cheap operation on huge values runs long.
pub const MAX_WORK: u64 = 10_000_000;
/// Bytes of a compiled regular expression.
pub const MAX_REGEX_BYTES: usize = 1 << 20;
/// Characters of a pattern that is compiled at run time.
pub const MAX_PATTERN_CHARACTERS: usize = 16_384;
/// Nesting of values that are compared or printed.
pub const MAX_VALUE_DEPTH: usize = 200;

/// A name looked up, a field selected.
pub(crate) const SELECT_COST: u64 = 1;
/// A list made.
pub(crate) const LIST_COST: u64 = 10;
/// A map made.
pub(crate) const MAP_COST: u64 = 30;
/// An object made.
pub(crate) const STRUCT_COST: u64 = 40;
/// Per character walked over.
pub(crate) const TRAVERSAL_FACTOR: f64 = 0.1;
/// Per character of a pattern.
pub(crate) const REGEX_FACTOR: f64 = 0.25;
/// One question to the authorizer.
pub(crate) const AUTHORIZE_COST: u64 = 350_000;
/// Characters of the longest pattern behind a named format.
pub(crate) const NAMED_FORMAT_PATTERN: u64 = 128;
