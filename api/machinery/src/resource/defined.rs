//! The port to kinds that are defined by objects: what their objects are, in place of a
//! type of the table.

use serde_json::Value;

use crate::status::Cause;
use crate::validation::Errors;

/// What a kind made at run time knows of its objects.
pub trait Defined: std::any::Any + std::fmt::Debug + Send + Sync {
    /// Makes of a decoded object what is stored: unknown fields go, defaults come. Gives
    /// the paths of unknown fields; an error says what metadata cannot hold.
    fn normalize(&self, object: &mut Value) -> Result<Vec<String>, Vec<Cause>>;

    /// What refuses a new object, or a changed one beside what it was, through the object
    /// itself or a subresource; and what the client is warned of.
    fn check(
        &self,
        subresource: Option<&str>,
        old: Option<&Value>,
        object: &Value,
    ) -> (Errors, Vec<String>);

    /// A stored object in this version.
    fn read_stored(&self, object: Value) -> Value;

    /// An object of this version as it is stored; unchanged where somebody else converts it.
    fn to_stored(&self, object: Value) -> Value;

    /// Whether [`Defined::read_stored`] takes an object that is stored as `stored` (an
    /// `apiVersion`); if not, somebody else has to convert it before.
    fn reads(&self, stored: &str) -> bool;

    /// Whether `status` is written only through its subresource.
    fn has_status(&self) -> bool;

    /// The schema as its definition writes it, and whether unknown fields are kept.
    fn schema(&self) -> (&Value, bool);

    /// What clients of this version are warned of, if it is deprecated.
    fn deprecation(&self) -> Option<&str>;
}
