//! Ties the API's question of who joins to the workers' face, which knows.

use futures_util::future::BoxFuture;
use nautilus_rest::{SealRefusal, Workers};
use nautilus_workers::{JoinRefusal, Joins};

/// The workers' face as the API sees it.
pub(super) struct JoiningWorkers(pub(super) Joins);

impl Workers for JoiningWorkers {
    fn node_of_token<'a>(
        &'a self,
        token: &'a str,
        claimed: Option<&'a str>,
    ) -> BoxFuture<'a, Result<String, SealRefusal>> {
        Box::pin(async move {
            let judged = self.0.node_of_token(token, claimed).await;
            judged.map_err(|refusal| match refusal {
                JoinRefusal::Token(problem) if problem.is_suspicious() => SealRefusal::Suspicious {
                    why: problem.to_string(),
                    word: problem.word(),
                },
                JoinRefusal::Token(_) | JoinRefusal::Taken(_) => {
                    SealRefusal::Invalid(refusal.to_string())
                }
                JoinRefusal::Unavailable(why) => SealRefusal::Unavailable(why),
            })
        })
    }

    fn barred(&self, name: &str) -> Result<Option<String>, String> {
        self.0.barred(name)
    }

    fn each_barred<'a>(&'a self, told: &'a (dyn Fn(&str) + Send + Sync)) -> BoxFuture<'a, ()> {
        Box::pin(self.0.each_barred(told))
    }
}
