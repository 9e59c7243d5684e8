//! Things that many nodes have alike, numbered and counted.
//!
//! Invariant: what no node has any more is not kept.

use std::collections::BTreeMap;

/// Numbers for things.
#[derive(Debug)]
pub(super) struct Interned<T> {
    ids: BTreeMap<T, u32>,
    /// By number: the thing and how many have it.
    entries: Vec<Option<(T, u32)>>,
    free: Vec<u32>,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self {
            ids: BTreeMap::new(),
            entries: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T: Ord + Clone> Interned<T> {
    /// One more has it.
    pub(super) fn acquire(&mut self, thing: T) -> u32 {
        if let Some(id) = self.ids.get(&thing) {
            if let Some((_, count)) = &mut self.entries[*id as usize] {
                *count += 1;
            }
            return *id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            u32::try_from(self.entries.len() - 1).unwrap_or_default()
        });
        self.entries[id as usize] = Some((thing.clone(), 1));
        self.ids.insert(thing, id);
        id
    }

    /// One less has it.
    pub(super) fn release(&mut self, id: u32) {
        let entry = &mut self.entries[id as usize];
        if let Some((thing, count)) = entry {
            *count -= 1;
            if *count == 0 {
                self.ids.remove(thing);
                *entry = None;
                self.free.push(id);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The number of a thing that somebody has.
    pub(super) fn id<Q: Ord + ?Sized>(&self, thing: &Q) -> Option<u32>
    where
        T: std::borrow::Borrow<Q>,
    {
        self.ids.get(thing).copied()
    }

    /// How many have it.
    pub(super) fn count(&self, id: u32) -> u32 {
        let entry = self.entries.get(id as usize).and_then(Option::as_ref);
        entry.map_or(0, |(_, count)| *count)
    }

    /// What `of` says of each thing, by number; `unknown` for numbers nobody has.
    pub(super) fn map<R: Clone>(&self, unknown: R, of: impl Fn(&T) -> R) -> Vec<R> {
        let entries = self.entries.iter();
        entries
            .map(|own| own.as_ref().map_or(unknown.clone(), |(thing, _)| of(thing)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_free_again_when_nobody_has_it() {
        let mut interned = Interned::default();
        let a = interned.acquire("a");
        assert_eq!(interned.acquire("a"), a);
        let b = interned.acquire("b");
        interned.release(a);
        assert_eq!((interned.count(a), interned.count(b)), (1, 1));
        interned.release(a);
        assert_eq!((interned.id("a"), interned.id("b")), (None, Some(b)));
        assert_eq!(interned.acquire("c"), a);
        assert_eq!(
            interned.map(' ', |own| own.chars().next().unwrap_or(' ')),
            ['c', 'b']
        );
    }
}
