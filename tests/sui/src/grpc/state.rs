//! `StateService`: dynamic fields and owned objects.

use sui_rpc::field::FieldMaskTree;
use sui_rpc::proto::sui::rpc::v2::dynamic_field::DynamicFieldKind;
use sui_rpc::proto::sui::rpc::v2::state_service_server::StateService;
use sui_rpc::proto::sui::rpc::v2::{
    Bcs, DynamicField, ListDynamicFieldsRequest, ListDynamicFieldsResponse,
    ListOwnedObjectsRequest, ListOwnedObjectsResponse, Object,
};
use sui_sdk_types::Address;
use tonic::{Request, Response, Status};

use super::{Face, field, invalid, mask, render};
use crate::ledger::Live;
use crate::view::View;

const DYNAMIC_FIELD_MASK: &str = "parent,field_id";
const OBJECT_MASK: &str = "object_id,version,object_type";
/// How many a page has when nothing is asked.
const PAGE_SIZE: u32 = 50;
/// How many a page has at most.
const PAGE_SIZE_LIMIT: u32 = 1_000;

#[tonic::async_trait]
impl StateService for Face {
    async fn list_dynamic_fields(
        &self,
        request: Request<ListDynamicFieldsRequest>,
    ) -> Result<Response<ListDynamicFieldsResponse>, Status> {
        let request = request.into_inner();
        let parent: Address = field("parent", request.parent.as_deref())?;
        let mask = mask::<DynamicField>(request.read_mask, DYNAMIC_FIELD_MASK)?;
        let page = Page::new(parent, request.page_size, request.page_token.as_deref())?;
        self.read(|view| {
            let (found, next) = page.cut(view, view.children(parent), |_| true);
            let mut response = ListDynamicFieldsResponse::default();
            response.dynamic_fields = found
                .iter()
                .map(|(id, live)| dynamic_field(parent, *id, live, &mask))
                .collect();
            response.next_page_token = next.map(Into::into);
            Ok(Response::new(response))
        })
    }

    async fn list_owned_objects(
        &self,
        request: Request<ListOwnedObjectsRequest>,
    ) -> Result<Response<ListOwnedObjectsResponse>, Status> {
        let request = request.into_inner();
        let owner: Address = field("owner", request.owner.as_deref())?;
        let mask = mask::<Object>(request.read_mask, OBJECT_MASK)?;
        let page = Page::new(owner, request.page_size, request.page_token.as_deref())?;
        let wanted = match &request.object_type {
            Some(name) => Some(field::<sui_sdk_types::StructTag>(
                "object_type",
                Some(name),
            )?),
            None => None,
        };
        self.read(|view| {
            let (found, next) = page.cut(view, view.owned(owner), |live| {
                wanted.as_ref().is_none_or(|it| *it == live.record.tag)
            });
            let mut response = ListOwnedObjectsResponse::default();
            response.objects = found
                .iter()
                .map(|(_, live)| render::object(live, &mask))
                .collect();
            response.next_page_token = next.map(Into::into);
            Ok(Response::new(response))
        })
    }
}

/// Where a page begins, and how long it is. Its token is the owner's id and the first object's.
struct Page {
    owner: Address,
    from: Option<Address>,
    size: usize,
}

impl Page {
    fn new(owner: Address, size: Option<u32>, token: Option<&[u8]>) -> Result<Self, Status> {
        let from = match token {
            Some(token) => {
                let first = token.strip_prefix(owner.as_bytes());
                let first = first.and_then(|it| Address::from_bytes(it).ok());
                Some(first.ok_or_else(|| invalid("page_token", "invalid page_token"))?)
            }
            None => None,
        };
        let size = size.unwrap_or(PAGE_SIZE).clamp(1, PAGE_SIZE_LIMIT) as usize;
        Ok(Self { owner, from, size })
    }

    /// The page of those objects, and the token of the next one.
    fn cut(
        &self,
        view: &View<'_>,
        ids: impl Iterator<Item = Address>,
        wanted: impl Fn(&Live) -> bool,
    ) -> (Vec<(Address, Live)>, Option<Vec<u8>>) {
        let ids = ids.filter(|id| self.from.is_none_or(|from| *id >= from));
        let live = ids.filter_map(|id| Some((id, view.object(id)?)));
        let mut wanted = live.filter(|(_, live)| wanted(live));
        let found = wanted.by_ref().take(self.size).collect();
        let next = wanted.next().map(|(id, _)| {
            let mut token = self.owner.as_bytes().to_vec();
            token.extend(id.as_bytes());
            token
        });
        (found, next)
    }
}

fn dynamic_field(parent: Address, id: Address, live: &Live, mask: &FieldMaskTree) -> DynamicField {
    let mut message = DynamicField::default();
    if mask.contains(DynamicField::PARENT_FIELD) {
        message.parent = Some(parent.to_string());
    }
    if mask.contains(DynamicField::FIELD_ID_FIELD) {
        message.field_id = Some(id.to_string());
    }
    if mask.contains(DynamicField::KIND_FIELD) {
        message.set_kind(DynamicFieldKind::Field);
    }
    let bcs = |part: &str, parameter: usize| {
        let value = live.record.get(part)?;
        let name = live.record.tag.type_params().get(parameter)?.to_string();
        Some(Bcs::from(value.bcs()).with_name(name))
    };
    if mask.contains(DynamicField::NAME_FIELD) {
        message.name = bcs("name", 0);
    }
    if mask.contains(DynamicField::VALUE_FIELD) {
        message.value = bcs("value", 1);
    }
    if mask.contains(DynamicField::VALUE_TYPE_FIELD) {
        message.value_type = bcs("value", 1).and_then(|it| it.name);
    }
    if let Some(submask) = mask.subtree(DynamicField::FIELD_OBJECT_FIELD) {
        message.field_object = Some(render::object(live, &submask));
    }
    message
}
