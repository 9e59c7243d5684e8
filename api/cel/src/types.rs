//! Types of expressions, and when a value of one may stand where another is asked for.
//!
//! Invariant: substitution and unification end: a parameter never stands for a type
//! that holds it.

use std::sync::Arc;

use crate::declaration::ObjectDeclaration;

/// The type of an expression. Types are values too, and so have a type.
#[allow(clippy::enum_variant_names)]
#[derive(Clone, Debug)]
pub enum Type {
    /// Decided at run time.
    Dyn,
    /// Decided at run time, and nothing to walk over.
    Any,
    /// Of what was found wrong already: fits everywhere, so that one mistake is one error.
    Error,
    /// `null`.
    Null,
    /// Of booleans.
    Bool,
    /// Of 64-bit integers.
    Int,
    /// Of unsigned 64-bit integers.
    Uint,
    /// Of doubles.
    Double,
    /// Of text.
    String,
    /// Of bytes.
    Bytes,
    /// Of points in time.
    Timestamp,
    /// Of spans of time.
    Duration,
    /// Of lists of one type.
    List(Arc<Type>),
    /// Of maps from one type to another.
    Map(Arc<(Type, Type)>),
    /// Of values that may be absent.
    Optional(Arc<Type>),
    /// Of types; of which, where known.
    Type(Option<Arc<Type>>),
    /// Of objects with declared fields.
    Object(Arc<ObjectDeclaration>),
    /// Of a library's values, by the reference's name, as `kubernetes.Quantity`. The
    /// flag says that the reference registers it as an object.
    Opaque(&'static str),
    /// A parameter of a signature, or a type not known yet.
    Param(usize),
}

/// The library's types by their names in signatures and messages.
pub(crate) const OPAQUE: &[&str] = &[
    "kubernetes.Quantity",
    "net.IP",
    "net.CIDR",
    "kubernetes.URL",
    "kubernetes.Semver",
    "kubernetes.NamedFormat",
    "kubernetes.authorization.Authorizer",
    "kubernetes.authorization.PathCheck",
    "kubernetes.authorization.GroupCheck",
    "kubernetes.authorization.ResourceCheck",
    "kubernetes.authorization.Decision",
];

impl Type {
    /// A list of these.
    pub fn list(element: Self) -> Self {
        Self::List(Arc::new(element))
    }

    /// A map from `key` to `value`.
    pub fn map(key: Self, value: Self) -> Self {
        Self::Map(Arc::new((key, value)))
    }

    /// One of these, or nothing.
    pub fn optional(inner: Self) -> Self {
        Self::Optional(Arc::new(inner))
    }

    pub(crate) fn is_dyn_or_error(&self) -> bool {
        matches!(self, Self::Dyn | Self::Any | Self::Error)
    }

    /// Whether values have one size whatever they are.
    pub(crate) fn is_scalar(&self) -> bool {
        match self {
            Self::Bool
            | Self::Int
            | Self::Uint
            | Self::Double
            | Self::Timestamp
            | Self::Duration => true,
            Self::Optional(inner) => inner.is_scalar(),
            _ => false,
        }
    }

    /// Equality of structure; objects are equal by name.
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::List(a), Self::List(b))
            | (Self::Optional(a), Self::Optional(b))
            | (Self::Type(Some(a)), Self::Type(Some(b))) => a.same(b),
            (Self::Map(a), Self::Map(b)) => a.0.same(&b.0) && a.1.same(&b.1),
            (Self::Object(a), Self::Object(b)) => a.name == b.name,
            (Self::Opaque(a), Self::Opaque(b)) => a == b,
            (Self::Param(a), Self::Param(b)) => a == b,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl std::fmt::Display for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dyn => f.write_str("dyn"),
            Self::Any => f.write_str("any"),
            Self::Error => f.write_str("!error!"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Duration => f.write_str("duration"),
            Self::List(element) => write!(f, "list({element})"),
            Self::Map(entry) => write!(f, "map({}, {})", entry.0, entry.1),
            Self::Optional(inner) => write!(f, "optional_type({inner})"),
            Self::Type(None) => f.write_str("type"),
            Self::Type(Some(inner)) => write!(f, "type({inner})"),
            Self::Object(object) => f.write_str(&object.name),
            Self::Opaque(name) => f.write_str(name),
            Self::Param(at) => write!(f, "_var{at}"),
        }
    }
}

/// What each parameter stands for, by its number.
#[derive(Clone, Default, Debug)]
pub(crate) struct Substitutions(Vec<Option<Type>>);

impl Substitutions {
    /// A parameter that stands for nothing yet.
    pub(crate) fn fresh(&mut self) -> Type {
        self.0.push(None);
        Type::Param(self.0.len() - 1)
    }

    /// The number of parameters.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn find(&self, at: usize) -> Option<&Type> {
        self.0.get(at).and_then(Option::as_ref)
    }

    fn bind(&mut self, at: usize, to: Type) {
        if let Some(slot) = self.0.get_mut(at) {
            *slot = Some(to);
        }
    }

    /// The type with bound parameters replaced; unbound ones become `dyn` where asked.
    pub(crate) fn resolve(&self, of: &Type, unbound_to_dyn: bool) -> Type {
        let again = |inner: &Type| self.resolve(inner, unbound_to_dyn);
        match of {
            Type::Param(at) => match self.find(*at) {
                Some(bound) => again(bound),
                None if unbound_to_dyn => Type::Dyn,
                None => of.clone(),
            },
            Type::List(element) => Type::list(again(element)),
            Type::Map(entry) => Type::map(again(&entry.0), again(&entry.1)),
            Type::Optional(inner) => Type::optional(again(inner)),
            Type::Type(Some(inner)) => Type::Type(Some(Arc::new(again(inner)))),
            _ => of.clone(),
        }
    }

    /// Whether each of `actual` may stand for its place in `expected`; binds parameters
    /// only if all may.
    pub(crate) fn assign_all(&mut self, actual: &[Type], expected: &[Type]) -> bool {
        if actual.len() != expected.len() {
            return false;
        }
        let mut tried = self.clone();
        let fits = actual
            .iter()
            .zip(expected)
            .all(|(actual, expected)| tried.fits(actual, expected));
        if fits {
            *self = tried;
        }
        fits
    }

    /// Whether the two agree; binds parameters only if they do.
    pub(crate) fn assign(&mut self, left: &Type, right: &Type) -> bool {
        self.assign_all(std::slice::from_ref(left), std::slice::from_ref(right))
    }

    fn fits(&mut self, left: &Type, right: &Type) -> bool {
        if let Type::Param(at) = right {
            let (valid, bound) = self.substitute(left, *at);
            if valid {
                return true;
            }
            if bound {
                return false;
            }
        }
        if let Type::Param(at) = left {
            return self.substitute(right, *at).0;
        }
        if left.is_dyn_or_error() || right.is_dyn_or_error() {
            return true;
        }
        match (left, right) {
            (Type::Null, other) | (other, Type::Null) => is_nullable(other),
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => {
                self.fits(a, b)
            }
            (Type::Map(a), Type::Map(b)) => self.fits(&a.0, &b.0) && self.fits(&a.1, &b.1),
            (Type::Type(_), Type::Type(_)) => true,
            _ => left.same(right),
        }
    }

    /// Whether the parameter may stand for the type, and whether it stood for one before.
    fn substitute(&mut self, by: &Type, at: usize) -> (bool, bool) {
        if matches!(by, Type::Param(same) if *same == at) {
            return (true, true);
        }
        if let Some(bound) = self.find(at).cloned() {
            if by.same(&bound) {
                return (true, true);
            }
            if !self.fits(by, &bound) {
                return (false, true);
            }
            let general = most_general(by, &bound);
            if !self.occurs(at, &general) {
                self.bind(at, general);
            }
            return (true, true);
        }
        if self.occurs(at, by) {
            return (false, false);
        }
        self.bind(at, by.clone());
        (true, false)
    }

    fn occurs(&self, at: usize, within: &Type) -> bool {
        match within {
            Type::Param(other) if *other == at => true,
            Type::Param(other) => self
                .find(*other)
                .is_some_and(|bound| self.occurs(at, bound)),
            Type::List(inner) | Type::Optional(inner) | Type::Type(Some(inner)) => {
                self.occurs(at, inner)
            }
            Type::Map(entry) => self.occurs(at, &entry.0) || self.occurs(at, &entry.1),
            _ => false,
        }
    }
}

fn is_nullable(of: &Type) -> bool {
    matches!(
        of,
        Type::Null
            | Type::Any
            | Type::Object(_)
            | Type::Opaque(_)
            | Type::Optional(_)
            | Type::Timestamp
            | Type::Duration
    )
}

/// The less specific of two types that agree.
pub(crate) fn most_general(left: &Type, right: &Type) -> Type {
    if is_less_specific(left, right) {
        left.clone()
    } else {
        right.clone()
    }
}

fn is_less_specific(left: &Type, right: &Type) -> bool {
    match (left, right) {
        (Type::Dyn | Type::Any | Type::Param(_), _) | (Type::Type(_), Type::Type(_)) => true,
        (_, Type::Dyn | Type::Any | Type::Param(_)) => false,
        (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => {
            is_less_specific(a, b)
        }
        (Type::Map(a), Type::Map(b)) => {
            is_less_specific(&a.0, &b.0) && is_less_specific(&a.1, &b.1)
        }
        _ => left.same(right),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_never_stands_for_what_holds_it() {
        let mut all = Substitutions::default();
        let param = all.fresh();
        assert!(!all.assign(&Type::list(param.clone()), &param));
        assert!(all.assign(&Type::Int, &param));
        assert!(all.resolve(&param, false).same(&Type::Int));
        assert!(!all.assign(&Type::String, &param));
    }

    #[test]
    fn the_general_type_wins() {
        let mut all = Substitutions::default();
        let param = all.fresh();
        assert!(all.assign_all(&[Type::Int, Type::Dyn], &[param.clone(), param.clone()]));
        assert!(all.resolve(&param, false).same(&Type::Dyn));
    }

    #[test]
    fn null_stands_for_messages_only() {
        let mut all = Substitutions::default();
        assert!(all.assign(&Type::Null, &Type::Timestamp));
        assert!(!all.assign(&Type::Null, &Type::Int));
    }
}
