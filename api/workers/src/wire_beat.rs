//! A heartbeat's body read in one pass, without a tree of values: what every worker sends
//! every half minute. Pure.
//!
//! Invariant: whatever is read here reads the same in [`super::wire`], field by field, or
//! fails there for a number out of range in a field that is ignored; what is not read here
//! is read there, which says what is wrong.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::lifecycle::Stake;
use crate::limits::RUNNING_PODS_LIMIT;
use crate::load::{Load, Share};
use crate::roster::BeatFacts;

/// A body in the wire's form.
#[derive(Deserialize)]
pub(crate) struct BeatBody<'a> {
    #[serde(borrow)]
    pub(crate) node_id: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) seal_token: Option<Text<'a>>,
    #[serde(default, rename = "timestamp")]
    pub(crate) timestamp_s: Option<i64>,
    #[serde(default, deserialize_with = "stake_status")]
    stake_status: Option<Stake>,
    #[serde(default)]
    stake_amount: Option<u64>,
    #[serde(default)]
    running_pods: Option<u32>,
    #[serde(default)]
    resource_usage: Option<Object<ResourceUsage>>,
}

/// A text that points into the body where it can: `Option<Cow<str>>` never does.
#[derive(Deserialize)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// Of the states of a stake, those of the wire.
fn stake_status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Stake>, D::Error> {
    let text = Option::<Text<'de>>::deserialize(deserializer)?;
    let stake = |Text(text)| Stake::parse(&text).ok_or_else(|| D::Error::custom("no such state"));
    text.map(stake).transpose()
}

/// Read from a JSON object alone: `derive` takes arrays too.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
            }
        }
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

#[derive(Deserialize)]
struct ResourceUsage {
    #[serde(default)]
    cpu_percent: Option<f64>,
    #[serde(default)]
    memory_percent: Option<f64>,
    #[serde(default)]
    disk_percent: Option<f64>,
}

impl<'a> BeatBody<'a> {
    /// Reads a body; `None` when it has to be read with more care.
    pub(crate) fn read(body: &'a [u8]) -> Option<Self> {
        let Object(body) = serde_json::from_slice::<Object<Self>>(body).ok()?;
        let pods_fit = body
            .running_pods
            .is_none_or(|pods| pods <= RUNNING_PODS_LIMIT);
        pods_fit.then_some(body)
    }

    pub(crate) fn facts(&self) -> BeatFacts {
        let load = self.resource_usage.as_ref();
        let load = load.map_or_else(Load::default, |Object(usage)| Load {
            cpu: usage.cpu_percent.map(Share::of_percent),
            memory: usage.memory_percent.map(Share::of_percent),
            disk: usage.disk_percent.map(Share::of_percent),
        });
        BeatFacts {
            stake: self.stake_status,
            stake_amount: self.stake_amount,
            running_pods: self.running_pods,
            // Not the worker's to say.
            token_expires_at_s: None,
            load,
        }
    }
}
