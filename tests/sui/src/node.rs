//! The full node: one chain, two faces, each with its faults.

use parking_lot::RwLock;

use anyhow::Result;

use crate::chain::Chain;
use crate::faults::{Answer, Control};
use crate::view::View;

/// What both faces and the tests share.
pub(crate) struct Node {
    pub chain: Chain,
    fork: RwLock<Option<Chain>>,
    pub grpc: Control,
    pub jsonrpc: Control,
}

impl Node {
    pub(crate) fn new(chain: Chain) -> Self {
        Self {
            chain,
            fork: RwLock::default(),
            grpc: Control::default(),
            jsonrpc: Control::default(),
        }
    }

    /// The fork that faces tell of, made when it is first needed.
    pub(crate) fn fork(&self) -> Result<Chain> {
        let mut fork = self.fork.write();
        if let Some(fork) = fork.as_ref() {
            return Ok(fork.clone());
        }
        let made = self.chain.fork()?;
        *fork = Some(made.clone());
        Ok(made)
    }

    /// What a face sees, as its fault has it.
    pub(crate) fn read<T>(&self, answer: &Answer, look: impl FnOnce(&View<'_>) -> T) -> Result<T> {
        let fork = match answer {
            Answer::Forked(_) => self.fork()?,
            _ => self.chain.clone(),
        };
        let truth = self.chain.read();
        if matches!(answer, Answer::Forked(_)) {
            let fork = fork.read();
            return Ok(look(&View::new(&truth, &fork, answer)));
        }
        Ok(look(&View::new(&truth, &truth, answer)))
    }
}
