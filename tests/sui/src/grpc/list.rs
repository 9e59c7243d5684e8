//! `ListEvents`: the events of a range by filter, in frames with a cursor from which to go on.
//!
//! Invariant: an item is given out once over all pages, whatever their lengths and direction.

use sui_rpc::proto::sui::rpc::v2::event_literal::Predicate;
use sui_rpc::proto::sui::rpc::v2::{
    Event, EventFilter, EventLiteral, ListEventsRequest, ListEventsResponse, Ordering, QueryEnd,
    QueryEndReason, QueryOptions, Watermark,
};
use sui_sdk_types::{Address, Event as SdkEvent};
use tonic::Status;

use super::{field, invalid, mask, render};
use crate::view::{Order, Place, View};

const EVENT_MASK: &str = "checkpoint,transaction_digest,event_index,event_type";
/// How many events an answer has when nothing is asked.
const LIMIT: u32 = 50;
/// How many it has at most.
const LIMIT_MAX: u32 = 1_000;
/// A cursor's bytes: checkpoint, transaction, event, each in eight.
const CURSOR_BYTES: usize = 24;

/// All frames of the answer.
pub(super) fn events(
    view: &View<'_>,
    request: ListEventsRequest,
) -> Result<Vec<ListEventsResponse>, Status> {
    let mask = mask::<Event>(request.read_mask, EVENT_MASK)?;
    let filter = match &request.filter {
        Some(filter) => Some(terms(filter)?),
        None => None,
    };
    let range = Range::new(
        view,
        &request.options.unwrap_or_default(),
        (request.start_checkpoint, request.end_checkpoint),
    )?;
    let mut frames: Vec<ListEventsResponse> = Vec::new();
    for (executed, place) in view.events(range.order, range.from) {
        let at = Place {
            checkpoint: executed.checkpoint,
            transaction: executed.place,
            event: place as u64,
        };
        if at <= range.after || at >= range.before {
            continue;
        }
        let Some((event, _)) = executed.events.get(place) else {
            continue;
        };
        if !filter.as_ref().is_none_or(|terms| matches(terms, event)) {
            continue;
        }
        let mut frame = ListEventsResponse::default();
        frame.event = render::event(executed, place, &mask);
        frame.watermark = Some(range.watermark(at));
        frames.push(frame);
        if frames.len() == range.limit {
            break;
        }
    }
    if frames.len() == range.limit {
        if let Some(last) = frames.last_mut() {
            last.end = Some(end(QueryEndReason::ItemLimit));
        }
    } else {
        let mut frame = ListEventsResponse::default();
        frame.watermark = Some(range.watermark(range.bound()));
        frame.end = Some(end(range.reason));
        frames.push(frame);
    }
    Ok(frames)
}

fn end(reason: QueryEndReason) -> QueryEnd {
    let mut end = QueryEnd::default();
    end.set_reason(reason);
    end
}

/// What is read: an open interval, its direction, and how much of it.
struct Range {
    after: Place,
    before: Place,
    order: Order,
    /// From where the scan starts, in its direction.
    from: Option<Place>,
    limit: usize,
    reason: QueryEndReason,
}

impl Range {
    fn new(
        view: &View<'_>,
        options: &QueryOptions,
        (start, end): (Option<u64>, Option<u64>),
    ) -> Result<Self, Status> {
        let start = start.unwrap_or(0);
        let tip = view.height().saturating_add(1);
        let end = end.unwrap_or(tip).min(tip);
        let mut reason = match end < tip {
            true => QueryEndReason::CheckpointBound,
            false => QueryEndReason::LedgerTip,
        };
        // The last place of the checkpoint before; there are no events in the first one.
        let mut after = match start.checked_sub(1) {
            Some(last) => last_of(last),
            None => Place {
                checkpoint: 0,
                transaction: 0,
                event: 0,
            },
        };
        let mut before = Place {
            checkpoint: end,
            transaction: 0,
            event: 0,
        };
        let cursor_after = cursor("options.after", options.after.as_deref())?;
        let cursor_before = cursor("options.before", options.before.as_deref())?;
        let order = match options.ordering() {
            Ordering::Descending => Order::Descending,
            _ => Order::Ascending,
        };
        if let Some(cursor) = cursor_after.filter(|it| *it > after) {
            after = cursor;
            if order == Order::Descending {
                reason = QueryEndReason::CursorBound;
            }
        }
        if let Some(cursor) = cursor_before.filter(|it| *it < before) {
            before = cursor;
            if order == Order::Ascending {
                reason = QueryEndReason::CursorBound;
            }
        }
        Ok(Self {
            after,
            before,
            order,
            from: match order {
                Order::Ascending => Some(after),
                Order::Descending => Some(before),
            },
            limit: options.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX) as usize,
            reason,
        })
    }

    /// Where the scan ends when it finds no more.
    fn bound(&self) -> Place {
        match self.order {
            Order::Ascending if self.reason == QueryEndReason::CursorBound => self.before,
            Order::Ascending => last_of(self.before.checkpoint.saturating_sub(1)),
            Order::Descending => self.after,
        }
    }

    /// What is covered once the event at that place is given out.
    fn watermark(&self, at: Place) -> Watermark {
        let mut watermark = Watermark::default();
        let words = [at.checkpoint, at.transaction, at.event];
        let cursor: Vec<u8> = words.iter().flat_map(|it| it.to_be_bytes()).collect();
        watermark.cursor = Some(cursor.into());
        let whole = at.event == u64::MAX;
        watermark.checkpoint = match self.order {
            Order::Ascending if whole => Some(at.checkpoint),
            Order::Ascending => {
                let covered = at.checkpoint.checked_sub(1);
                covered.filter(|it| *it > self.after.checkpoint)
            }
            Order::Descending => {
                let covered = at.checkpoint.saturating_add(1);
                (covered < self.before.checkpoint).then_some(covered)
            }
        };
        watermark
    }
}

fn last_of(checkpoint: u64) -> Place {
    Place {
        checkpoint,
        transaction: u64::MAX,
        event: u64::MAX,
    }
}

fn cursor(name: &str, bytes: Option<&[u8]>) -> Result<Option<Place>, Status> {
    let Some(bytes) = bytes else {
        return Ok(None);
    };
    if bytes.len() != CURSOR_BYTES {
        return Err(invalid(name, "invalid cursor"));
    }
    let mut words = bytes.chunks_exact(8).map(|word| {
        word.iter()
            .fold(0, |value, byte| value << 8 | u64::from(*byte))
    });
    let mut next = || words.next().unwrap_or_default();
    Ok(Some(Place {
        checkpoint: next(),
        transaction: next(),
        event: next(),
    }))
}

/// A literal: what it matches, and whether it is negated.
type Literal = (bool, Matcher);

enum Matcher {
    Sender(Address),
    EmitModule(Address, Option<String>),
    EventType(Address, Vec<String>),
}

fn terms(filter: &EventFilter) -> Result<Vec<Vec<Literal>>, Status> {
    if filter.terms.is_empty() {
        return Err(invalid("filter.terms", "a filter has at least one term"));
    }
    let terms = filter.terms.iter();
    terms
        .map(|term| term.literals.iter().map(literal).collect())
        .collect()
}

fn literal(literal: &EventLiteral) -> Result<Literal, Status> {
    let name = "filter.terms.literals";
    let matcher = match &literal.predicate {
        Some(Predicate::Sender(it)) => Matcher::Sender(field(name, it.address.as_deref())?),
        Some(Predicate::EmitModule(it)) => {
            let (package, rest) = path(name, it.module.as_deref())?;
            Matcher::EmitModule(package, rest.into_iter().next())
        }
        Some(Predicate::EventType(it)) => {
            let (package, rest) = path(name, it.event_type.as_deref())?;
            Matcher::EventType(package, rest)
        }
        _ => return Err(invalid(name, "the stand-in serves no such predicate")),
    };
    Ok((literal.negated, matcher))
}

/// A Move path: the address, and what follows it.
fn path(name: &str, path: Option<&str>) -> Result<(Address, Vec<String>), Status> {
    let mut parts = path.unwrap_or_default().split("::");
    let address = field(name, parts.next())?;
    Ok((address, parts.map(str::to_owned).collect()))
}

fn matches(terms: &[Vec<Literal>], event: &SdkEvent) -> bool {
    let holds = |(negated, matcher): &Literal| {
        let found = match matcher {
            Matcher::Sender(sender) => event.sender == *sender,
            Matcher::EmitModule(package, module) => {
                let module = module.as_deref();
                event.package_id == *package && module.is_none_or(|it| event.module.as_str() == it)
            }
            Matcher::EventType(address, rest) => {
                let type_ = &event.type_;
                let names = [type_.module().as_str(), type_.name().as_str()];
                type_.address() == address
                    && rest.len() <= names.len()
                    && rest.iter().zip(names).all(|(asked, name)| asked == name)
            }
        };
        found != *negated
    };
    terms.iter().any(|term| term.iter().all(holds))
}
