//! What the quorum promised to clients, and whether it kept it.
//!
//! Every client owns one register (a configmap) that it raises by compare-and-swap.
//! An acknowledged raise may never be undone: a read that begins after it sees at
//! least its value, and no read sees more than was ever tried.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, ensure};

/// One register's history, as its only writer knows it.
#[derive(Debug, Default)]
pub(crate) struct Register {
    acknowledged: AtomicU64,
    tried: AtomicU64,
}

impl Register {
    /// The next value to write: above everything that was ever tried.
    pub(crate) fn next(&self) -> u64 {
        self.tried.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The write of `value` was acknowledged.
    pub(crate) fn acknowledge(&self, value: u64) {
        self.acknowledged.fetch_max(value, Ordering::SeqCst);
    }

    /// The highest acknowledged value.
    pub(crate) fn floor(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Checks a read that began when the floor was `floor`.
    pub(crate) fn check(&self, name: &str, floor: u64, read: u64) -> Result<()> {
        let tried = self.tried.load(Ordering::SeqCst);
        ensure!(
            read >= floor,
            "{name}: read {read}, but {floor} had been acknowledged before the read began"
        );
        ensure!(
            read <= tried,
            "{name}: read {read}, but nothing above {tried} was ever written"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_below_an_acknowledged_write_is_a_broken_promise() {
        let register = Register::default();
        let value = register.next();
        register.acknowledge(value);
        register.check("r", register.floor(), value).expect("kept");
        register.check("r", register.floor(), 0).expect_err("lost");
        register
            .check("r", register.floor(), 2)
            .expect_err("invented");
    }
}
