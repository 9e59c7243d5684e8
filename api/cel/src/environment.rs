//! What an expression may name.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::declaration::{Declaration, ObjectDeclaration};

/// The variables of an expression and the objects it may make.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, Declaration>,
    objects: BTreeMap<String, Arc<ObjectDeclaration>>,
    binds: bool,
}

impl Environment {
    /// Kubernetes' functions, no variables.
    pub fn kubernetes() -> Self {
        Self::default()
    }

    /// Adds a variable. The name may have dots (`authorizer.requestResource`).
    pub fn declare(&mut self, name: impl Into<String>, declaration: Declaration) -> &mut Self {
        self.variables.insert(name.into(), declaration);
        self
    }

    /// Adds a type of objects that expressions make: `Name{field: value}`. Its functions
    /// of patches (`jsonpatch.escapeKey`) come with it.
    pub fn declare_object(&mut self, object: ObjectDeclaration) -> &mut Self {
        self.objects.insert(object.name.clone(), Arc::new(object));
        self
    }

    /// Lets expressions name a part of them: `cel.bind(name, part, expression)`.
    pub fn allow_binding(&mut self) -> &mut Self {
        self.binds = true;
        self
    }

    pub(crate) fn binds(&self) -> bool {
        self.binds
    }

    pub(crate) fn variable(&self, name: &str) -> Option<&Declaration> {
        self.variables.get(name)
    }

    /// The objects of that type; `A.b.c` is of an undeclared part of an open `A`.
    pub(crate) fn object(&self, name: &str) -> Option<Arc<ObjectDeclaration>> {
        if let Some(object) = self.objects.get(name) {
            return Some(Arc::clone(object));
        }
        let (whole, _) = name.split_once('.')?;
        let part = || ObjectDeclaration {
            name: name.to_owned(),
            fields: BTreeMap::new(),
            open: true,
        };
        let open = self.objects.get(whole).is_some_and(|object| object.open);
        open.then(|| Arc::new(part()))
    }

    /// Whether the function is for environments that make objects only.
    pub(crate) fn hides(&self, function: &str) -> bool {
        self.objects.is_empty() && function == "jsonpatch.escapeKey"
    }
}
