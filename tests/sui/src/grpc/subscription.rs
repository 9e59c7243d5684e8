//! `SubscriptionService`: checkpoints as they are sealed, from the latest one on.

use futures_util::stream;
use sui_rpc::proto::sui::rpc::v2::subscription_service_server::SubscriptionService;
use sui_rpc::proto::sui::rpc::v2::{
    Checkpoint, SubscribeCheckpointsRequest, SubscribeCheckpointsResponse,
};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::{Face, mask, render};

const CHECKPOINT_MASK: &str = "sequence_number,digest";

#[tonic::async_trait]
impl SubscriptionService for Face {
    async fn subscribe_checkpoints(
        &self,
        request: Request<SubscribeCheckpointsRequest>,
    ) -> Result<Response<BoxStream<SubscribeCheckpointsResponse>>, Status> {
        let request = request.into_inner();
        if request.filter.is_some() {
            return Err(Status::unimplemented(
                "the stand-in filters no subscription",
            ));
        }
        let mask = mask::<Checkpoint>(request.read_mask, CHECKPOINT_MASK)?;
        let sealed = self.node.chain.sealed();
        let next = self.read(|view| Ok(view.height()))?;
        let start = (self.clone(), sealed, next);
        let frames = stream::unfold(start, move |(face, mut sealed, next)| {
            let mask = mask.clone();
            async move {
                loop {
                    let frame = face.read(|view| {
                        let found = view.checkpoint(next);
                        Ok(found.map(|found| render::checkpoint(view, found, &mask)))
                    });
                    match frame {
                        Ok(Some(checkpoint)) => {
                            let mut response = SubscribeCheckpointsResponse::default();
                            response.cursor = Some(next);
                            response.checkpoint = Some(checkpoint);
                            return Some((Ok(response), (face, sealed, next + 1)));
                        }
                        Ok(None) => sealed.changed().await.ok()?,
                        Err(status) => return Some((Err(status), (face, sealed, next))),
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(frames)))
    }
}
