//! The port `Ledger`: proofs out of this node's store, once it is level with the quorum.
//! Rows are read on blocking threads.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use nautilus_machine::{Consistency, Ledger, LedgerError, Receipt, Revision};
use nautilus_store::Store;

use crate::node_core::Core;

pub(crate) struct LedgerPort(pub(crate) Arc<Core>);

impl LedgerPort {
    async fn prove<T: Send + 'static>(
        &self,
        prove: impl FnOnce(&Store) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let core = &self.0;
        let level = core.barrier.pass(core).await;
        level.map_err(|error| LedgerError::Unavailable(error.to_string()))?;
        let core = Arc::clone(core);
        tokio::task::spawn_blocking(move || prove(core.store()))
            .await
            .map_err(|error| LedgerError::Storage(error.to_string()))?
    }
}

impl Ledger for LedgerPort {
    fn receipt(
        &self,
        revision: Revision,
        key: Option<Bytes>,
    ) -> BoxFuture<'_, Result<Receipt, LedgerError>> {
        self.prove(move |store| store.receipt(revision, key.as_deref()))
            .boxed()
    }

    fn consistency(
        &self,
        from: u64,
        to: Option<u64>,
    ) -> BoxFuture<'_, Result<Consistency, LedgerError>> {
        self.prove(move |store| store.consistency(from, to)).boxed()
    }
}
