//! What autoscalers ask of the API, and how its answers are read: scales, and metrics of
//! pods, of other objects and from outside.
//!
//! Source: the paths and shapes of metrics.k8s.io, custom.metrics.k8s.io and
//! external.metrics.k8s.io.

use std::collections::BTreeMap;

use nautilus_machinery::quantity::Quantity;
use nautilus_machinery::selector::LabelSelector;
use nautilus_machinery::timestamp::{self, Instant};
use serde_json::Value;

use super::look::target;
use crate::object;
use crate::view::{Question, View};

/// Seconds that a measurement of pods spans, where it does not say so.
const WINDOW_S: i64 = 60;
const CUSTOM: &str = "/apis/custom.metrics.k8s.io";

/// One measurement of one pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) at: Option<Instant>,
    pub(super) window_s: i64,
    /// Thousandths of the unit.
    pub(super) milli: i64,
}

/// Measurements by the names of pods.
pub(super) type Samples = BTreeMap<String, Sample>;

/// Everything that can be asked by now.
pub(super) fn questions(view: &dyn View, scaler: &Value) -> Vec<Question> {
    let scale = Question::Scale(target(scaler));
    let metrics = || object::items(&scaler["spec"]["metrics"]);
    let mut questions = Vec::new();
    if metrics().any(|own| own["type"] == "Pods" || own["type"] == "Object") {
        questions.push(Question::Get(CUSTOM.to_owned()));
    }
    for metric in metrics().filter(|own| own["type"] == "Object") {
        let described = &metric["object"]["describedObject"];
        questions.extend(kinds_of(described).map(Question::Get));
    }
    if let Some(Ok(scale)) = view.answer(&scale) {
        let source = Source {
            view,
            scaler,
            selector: scale["status"]["selector"].as_str().unwrap_or_default(),
        };
        let paths = metrics().filter_map(|metric| source.path(metric).ok());
        questions.extend(paths.map(Question::Get));
    }
    questions.push(scale);
    questions
}

/// Where measurements for one autoscaler come from.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) view: &'a dyn View,
    pub(super) scaler: &'a Value,
    /// Of the pods of its target.
    pub(super) selector: &'a str,
}

impl<'a> Source<'a> {
    /// What a resource of pods, or of their container of a name, measured.
    pub(super) fn resource(
        &self,
        metric: &Value,
        resource: &str,
        container: &str,
    ) -> Result<Samples, String> {
        let items = self.items(metric, "resource metrics API")?;
        Ok(items
            .iter()
            .filter_map(|pod| {
                let milli = usage(pod, resource, container)?;
                let window = pod["window"].as_str().and_then(timestamp::parse_duration);
                let sample = Sample {
                    at: object::time(&pod["timestamp"]),
                    window_s: window.map_or(0, |nanoseconds| nanoseconds / 1_000_000_000),
                    milli,
                };
                Some((object::name(pod).to_owned(), sample))
            })
            .collect())
    }

    /// What pods measured of themselves.
    pub(super) fn pods(&self, metric: &Value) -> Result<Samples, String> {
        let items = self.items(metric, "custom metrics API")?;
        Ok(items
            .iter()
            .map(|own| {
                let name = own["describedObject"]["name"].as_str().unwrap_or_default();
                let sample = Sample {
                    at: object::time(&own["timestamp"]),
                    window_s: own["windowSeconds"].as_i64().unwrap_or(WINDOW_S),
                    milli: milli(&own["value"]),
                };
                (name.to_owned(), sample)
            })
            .collect())
    }

    /// What was measured of one object.
    pub(super) fn object(&self, metric: &Value) -> Result<i64, String> {
        let items = self.items(metric, "custom metrics API")?;
        match items {
            [one] => Ok(milli(&one["value"])),
            items => Err(format!(
                "unable to fetch metrics from custom metrics API: the custom metrics API server \
                 returned {} results when we asked for exactly one",
                items.len()
            )),
        }
    }

    /// The sum of what is measured outside.
    pub(super) fn external(&self, metric: &Value) -> Result<i64, String> {
        let items = self.items(metric, "external metrics API")?;
        let values = items.iter().map(|own| milli(&own["value"]));
        Ok(values.fold(0, i64::saturating_add))
    }

    /// The answer to a metric's question.
    fn items(&self, metric: &Value, api: &str) -> Result<&'a [Value], String> {
        let failed = |why: &str| format!("unable to fetch metrics from {api}: {why}");
        let question = Question::Get(self.path(metric).map_err(|why| failed(&why))?);
        let answer = match self.view.answer(&question) {
            Some(Ok(answer)) => answer,
            Some(Err((404, _))) => {
                let what = asked_for(metric);
                let why = "the server could not find the requested resource";
                return Err(failed(&format!("{why} (get {what})")));
            }
            Some(Err((_, why))) => return Err(failed(why)),
            None => return Err(failed("it was not asked")),
        };
        match answer["items"].as_array().map(Vec::as_slice) {
            None | Some([]) => Err(format!("no metrics returned from {api}")),
            Some(items) => Ok(items),
        }
    }

    /// Where a metric is measured.
    fn path(&self, metric: &Value) -> Result<String, String> {
        let namespace = object::namespace(self.scaler);
        let pods = ("labelSelector", self.selector.to_owned());
        let own = |field: &str| &metric[field]["metric"];
        let name = |field: &str| encoded(own(field)["name"].as_str().unwrap_or_default());
        let selected = |field: &str| selector_text(&own(field)["selector"]);
        Ok(match metric["type"].as_str() {
            Some("Resource" | "ContainerResource") => {
                let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods");
                with_query(path, &[pods])
            }
            Some("Pods") => {
                let version = self.custom_version()?;
                let name = name("pods");
                let path = format!("{CUSTOM}/{version}/namespaces/{namespace}/pods/*/{name}");
                with_query(path, &[pods, ("metricLabelSelector", selected("pods")?)])
            }
            Some("Object") => {
                let (version, place) = (self.custom_version()?, self.place_of(metric)?);
                let name = name("object");
                let path = format!("{CUSTOM}/{version}/namespaces/{namespace}/{place}/{name}");
                with_query(path, &[("metricLabelSelector", selected("object")?)])
            }
            _ => {
                let name = name("external");
                let path =
                    format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{name}");
                with_query(path, &[("labelSelector", selected("external")?)])
            }
        })
    }

    fn custom_version(&self) -> Result<&'a str, String> {
        let answer = self.view.answer(&Question::Get(CUSTOM.to_owned()));
        let group = match answer {
            Some(Ok(group)) => group,
            Some(Err((_, why))) => return Err(why.clone()),
            None => return Err("it was not asked".to_owned()),
        };
        let known = |version: &&str| {
            object::items(&group["versions"]).any(|own| own["version"] == *version)
        };
        let version = ["v1beta2", "v1beta1"].into_iter().find(known);
        version.ok_or_else(|| "no known available metric versions found".to_owned())
    }

    /// How a described object stands in the path of its metrics.
    fn place_of(&self, metric: &Value) -> Result<String, String> {
        let described = &metric["object"]["describedObject"];
        let Some(path) = kinds_of(described) else {
            return Ok("metrics".to_owned());
        };
        let kind = described["kind"].as_str().unwrap_or_default();
        let version = described["apiVersion"].as_str().unwrap_or_default();
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let kinds = match self.view.answer(&Question::Get(path)) {
            Some(Ok(kinds)) => kinds,
            _ => &Value::Null,
        };
        let mut kinds = object::items(&kinds["resources"]);
        let is_whole = |own: &&Value| own["name"].as_str().is_some_and(|own| !own.contains('/'));
        let found = kinds.find(|own| own["kind"] == kind && is_whole(own));
        let Some(plural) = found.and_then(|own| own["name"].as_str()) else {
            let map = match group {
                "" => kind.to_owned(),
                group => format!("{kind}.{group}"),
            };
            return Err(format!(
                "unable to map kind {map} to resource: no matches for kind {kind:?} in group \
                 {group:?}"
            ));
        };
        let name = encoded(described["name"].as_str().unwrap_or_default());
        Ok(match group {
            "" => format!("{plural}/{name}"),
            group => format!("{plural}.{group}/{name}"),
        })
    }
}

/// Where the kinds beside a described object's are told; not for namespaces, which stand in
/// paths by themselves.
fn kinds_of(described: &Value) -> Option<String> {
    let version = described["apiVersion"].as_str().unwrap_or("v1");
    match version.split_once('/') {
        Some(_) => Some(format!("/apis/{version}")),
        None if described["kind"] == "Namespace" => None,
        None => Some(format!("/api/{version}")),
    }
}

/// What a client says it did not find.
fn asked_for(metric: &Value) -> String {
    let name = |field: &str| metric[field]["metric"]["name"].as_str().unwrap_or_default();
    match metric["type"].as_str() {
        Some("Pods") => "pods.custom.metrics.k8s.io".to_owned(),
        Some("Object") => format!("{}.custom.metrics.k8s.io", name("object")),
        Some("External") => format!("{}.external.metrics.k8s.io", name("external")),
        _ => "pods.metrics.k8s.io".to_owned(),
    }
}

/// The sum over a pod's containers; nothing where one of them does not say.
fn usage(pod: &Value, resource: &str, container: &str) -> Option<i64> {
    let of = |own: &Value| {
        let usage = &own["usage"][resource];
        usage.is_string().then(|| milli(usage))
    };
    let mut containers = object::items(&pod["containers"]);
    if !container.is_empty() {
        return containers.find(|own| own["name"] == container).and_then(of);
    }
    let first = of(containers.next()?)?;
    containers.try_fold(first, |sum, own| Some(sum.saturating_add(of(own)?)))
}

/// Thousandths of a quantity, rounded up; 0 for what is none.
pub(super) fn milli(quantity: &Value) -> i64 {
    const NANO_PER_MILLI: i128 = 1_000_000;
    let parsed = quantity
        .as_str()
        .and_then(|text| Quantity::parse(text).ok());
    parsed.map_or(0, |own| {
        let nano = own.nanounits();
        let whole = nano.div_euclid(NANO_PER_MILLI);
        let milli = whole + i128::from(nano.rem_euclid(NANO_PER_MILLI) != 0);
        i64::try_from(milli).unwrap_or(i64::MAX)
    })
}

/// A selector of metrics as it stands in queries; empty for none.
fn selector_text(selector: &Value) -> Result<String, String> {
    if selector.is_null() {
        return Ok(String::new());
    }
    let selector = LabelSelector::of_object(selector).map_err(|error| error.to_string())?;
    Ok(selector.to_string())
}

fn with_query(path: String, parameters: &[(&str, String)]) -> String {
    let given = parameters.iter().filter(|(_, value)| !value.is_empty());
    let query: Vec<String> = given
        .map(|(name, value)| format!("{name}={}", encoded(value)))
        .collect();
    match query.is_empty() {
        true => path,
        false => format!("{path}?{}", query.join("&")),
    }
}

/// Percent-encoded, all but what RFC 3986 leaves unreserved.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
