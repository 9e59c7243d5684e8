//! Names of owners, each kept once however many workers it has. Pure.
//!
//! Invariant: a name is kept exactly as long as somebody holds it.

use std::collections::HashSet;
use std::sync::Arc;

/// The names that are held.
#[derive(Debug, Default)]
pub(crate) struct Owners(HashSet<Arc<str>>);

impl Owners {
    /// The one copy of `name`.
    pub(crate) fn hold(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let name = Arc::<str>::from(name);
        self.0.insert(Arc::clone(&name));
        name
    }

    /// Gives back a copy, which goes now.
    pub(crate) fn release(&mut self, name: &Arc<str>) {
        // That copy and the set's own: nobody else holds it.
        if Arc::strong_count(name) <= 2 {
            self.0.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_once_and_goes_with_the_last_who_holds_it() {
        let mut owners = Owners::default();
        let (first, second) = (owners.hold("0xa1"), owners.hold("0xa1"));
        assert!(Arc::ptr_eq(&first, &second));
        owners.release(&first);
        drop(first);
        assert_eq!(owners.0.len(), 1);
        owners.release(&second);
        assert!(owners.0.is_empty());
    }
}
