//! Webhooks: mutating ones in turn, validating ones all at once.
//!
//! Invariants
//! - A webhook that failed lets the request pass only if its configuration says so.
//! - An object that a webhook patched is conformed and defaulted before anybody else
//!   sees it.
//! - A webhook is asked again only if it may be, at most once, and only if the object
//!   changed since it saw it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use nautilus_access::audit::Level;
use nautilus_admission::attributes::{Attributes, Operation};
use nautilus_admission::expressions::{self, Input, Verdict};
use nautilus_admission::hooks::{self, Hook};
use nautilus_admission::matching;
use nautilus_admission::review::{self, Answer, Role};
use nautilus_machine::Kv;
use nautilus_machinery::patch::{self, PatchKind};
use nautilus_machinery::resource::{self, Resource};
use nautilus_machinery::status::ApiError;
use nautilus_machinery::{convert, fields, strategy};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Admission;
use super::authorizer::AccessAuthorizer;
use crate::audit::Remarks;
use crate::custom;
use crate::failure::Failure;
use crate::ids;
use crate::lister::Lister;

/// Audit annotations: whether a mutating webhook changed the object, and by which patch.
const MUTATION_PREFIX: &str = "mutation.webhook.admission.k8s.io/";
const PATCH_PREFIX: &str = "patch.webhook.admission.k8s.io/";
const VALIDATING_PREFIX: &str = "validating.webhook.admission.k8s.io/";

/// The configured webhooks.
pub(super) struct Webhooks {
    mutating: Option<Arc<Lister<Vec<Hook>>>>,
    validating: Option<Arc<Lister<Vec<Hook>>>>,
}

/// What was asked of whom while one request was mutated.
#[derive(Default)]
pub(super) struct Rounds {
    /// Webhooks that were asked and may be asked again.
    asked: BTreeSet<String>,
    /// Those that must be: the object changed after them.
    again: BTreeSet<String>,
    /// The object as the last one left it.
    left: Option<Value>,
    /// Whether one of them changed the object: the plugins are run once more.
    pub(super) changed: bool,
    /// The schema of what a subresource brings; `None` of an object of the kind.
    other: Option<String>,
}

impl Rounds {
    /// About what a subresource brings that is no object of the kind.
    pub(super) fn of_other(asked: &Attributes<'_>) -> Self {
        let subresource = asked
            .subresource
            .and_then(|name| asked.resource.subresource(name));
        Self {
            other: subresource.map(|own| own.schema.clone()),
            ..Self::default()
        }
    }

    /// Whether it is to be asked in the second round.
    pub(super) fn must_again(&self, id: &str) -> bool {
        self.again.contains(id)
    }

    /// Somebody was asked, and changed the object or did not.
    pub(super) fn note(&mut self, id: String, changed: bool, reinvokes: bool) {
        if changed {
            self.again.append(&mut self.asked);
            self.changed = true;
        }
        if reinvokes {
            self.asked.insert(id);
        }
    }

    /// The object as the last one left it; of no use where nobody may be asked again.
    pub(super) fn leave(&mut self, object: &Value) {
        if !self.asked.is_empty() {
            self.left = Some(object.clone());
        }
    }

    /// The second round begins: whoever was asked about an object that the plugins have
    /// changed since is asked again.
    pub(super) fn begin_again(&mut self, object: &Value) {
        if self.left.as_ref() != Some(object) {
            self.again.append(&mut self.asked);
        }
    }
}

/// A webhook that is to be asked, and about which form of the object.
struct Call<'a> {
    hook: Hook,
    matched: &'a Resource,
    /// In which round it is asked, and which one of those it is, as the audit log counts.
    place: String,
    /// See [`Rounds`].
    other: Option<String>,
}

impl Call<'_> {
    /// Tells the audit log whether a mutating webhook changed the object.
    fn note_mutation(&self, mutated: bool, remarks: Remarks<'_>) {
        if remarks.records(Level::Metadata) {
            let hook = &self.hook;
            let value = json!({
                "configuration": hook.configuration, "webhook": hook.name, "mutated": mutated,
            });
            let key = format!("{MUTATION_PREFIX}{}", self.place);
            remarks.annotate(&key, &value.to_string());
        }
    }

    /// Tells the audit log how, where it records bodies.
    fn note_patch(&self, patch: &Value, remarks: Remarks<'_>) {
        if remarks.records(Level::Request) {
            let hook = &self.hook;
            let value = json!({
                "configuration": hook.configuration, "webhook": hook.name, "patch": patch,
                "patchType": "JSONPatch",
            });
            let key = format!("{PATCH_PREFIX}{}", self.place);
            remarks.annotate(&key, &value.to_string());
        }
    }

    /// Tells the audit log that it failed and was passed over.
    fn note_failure(&self, remarks: Remarks<'_>) {
        let prefix = match self.hook.role {
            Role::Mutating => MUTATION_PREFIX,
            Role::Validating => VALIDATING_PREFIX,
        };
        let key = format!("failed-open.{prefix}{}", self.place);
        remarks.annotate(&key, &self.hook.name);
    }
}

impl Webhooks {
    pub(super) fn start(kv: &Arc<dyn Kv>, shutdown: &CancellationToken) -> Self {
        let follow = |plural: &str, read: fn(Value) -> Result<Vec<Hook>, String>| {
            let kind = resource::find(matching::GROUP, "v1", plural)?;
            let lister = Lister::start(kv.clone(), kind.clone(), read, shutdown.clone());
            Some(lister)
        };
        Self {
            mutating: follow("mutatingwebhookconfigurations", |object| {
                Ok(hooks::hooks(&object, Role::Mutating))
            }),
            validating: follow("validatingwebhookconfigurations", |object| {
                Ok(hooks::hooks(&object, Role::Validating))
            }),
        }
    }

    fn of(&self, role: Role) -> Vec<Hook> {
        let lister = match role {
            Role::Mutating => &self.mutating,
            Role::Validating => &self.validating,
        };
        let Some(lister) = lister else {
            return Vec::new();
        };
        let snapshot = lister.snapshot();
        let all = snapshot.objects.values().flat_map(|hooks| hooks.iter());
        all.cloned().collect()
    }

    /// Waits until the configurations were read once.
    pub(super) async fn ready(&self) {
        for lister in [&self.mutating, &self.validating].into_iter().flatten() {
            lister.synced().await;
        }
    }

    /// Whether there is a mutating one at all.
    pub(super) fn may_mutate(&self) -> bool {
        self.mutating
            .as_ref()
            .is_some_and(|lister| !lister.snapshot().objects.is_empty())
    }
}

impl Admission {
    /// Asks the mutating webhooks in turn. `object` is `None` of a deletion.
    pub(super) async fn ask_mutating(
        &self,
        asked: &Attributes<'_>,
        mut object: Option<&mut Value>,
        rounds: &mut Rounds,
        second: bool,
        remarks: Remarks<'_>,
    ) -> Result<(), Failure> {
        let hooks = self.webhooks.of(Role::Mutating);
        if hooks.is_empty() || matching::is_exempt(asked) {
            return Ok(());
        }
        let equivalents = self.equivalents(asked.resource);
        let equivalents: Vec<&Resource> = equivalents.iter().map(|kind| &**kind).collect();
        for (index, hook) in hooks.into_iter().enumerate() {
            let id = hook.id();
            if second && !rounds.must_again(&id) {
                continue;
            }
            let present = object.as_deref();
            let concerned = self.concerns(&hook, asked, present, &equivalents).await?;
            let Some(matched) = concerned else {
                continue;
            };
            let call = Call {
                hook,
                matched,
                place: format!("round_{}_index_{index}", u8::from(second)),
                other: rounds.other.clone(),
            };
            let patched = self
                .mutate_through(&call, asked, object.as_deref_mut(), remarks)
                .await;
            call.note_mutation(*patched.as_ref().unwrap_or(&false), remarks);
            rounds.note(id, patched?, call.hook.reinvokes);
        }
        if let Some(object) = object {
            rounds.leave(object);
        }
        Ok(())
    }

    /// Asks one mutating webhook; whether it changed the object.
    async fn mutate_through(
        &self,
        call: &Call<'_>,
        asked: &Attributes<'_>,
        object: Option<&mut Value>,
        remarks: Remarks<'_>,
    ) -> Result<bool, Failure> {
        let answer = self.ask(call, asked, object.as_deref(), remarks).await?;
        let Some(patch) = answer.and_then(|answer| answer.patch) else {
            return Ok(false);
        };
        let Some(object) = object else {
            return Err(ApiError::internal(format!(
                "admission webhook \"{}\" attempted to modify the object, which is not \
                 supported for this operation",
                call.hook.name
            ))
            .into());
        };
        let changed = apply(call, asked, object, &patch).await?;
        call.note_patch(&patch, remarks);
        Ok(changed)
    }

    /// Asks the validating webhooks, all at once; the first refusal in their order counts.
    pub(super) async fn ask_validating(
        &self,
        asked: &Attributes<'_>,
        object: Option<&Value>,
        remarks: Remarks<'_>,
    ) -> Result<(), Failure> {
        let hooks = self.webhooks.of(Role::Validating);
        if hooks.is_empty() || matching::is_exempt(asked) {
            return Ok(());
        }
        let equivalents = self.equivalents(asked.resource);
        let equivalents: Vec<&Resource> = equivalents.iter().map(|kind| &**kind).collect();
        let mut calls = Vec::new();
        for hook in hooks {
            let concerned = self.concerns(&hook, asked, object, &equivalents).await?;
            if let Some(matched) = concerned {
                let place = format!("round_0_index_{}", calls.len());
                calls.push(Call {
                    hook,
                    matched,
                    place,
                    other: None,
                });
            }
        }
        let answers = calls
            .iter()
            .map(|call| self.ask(call, asked, object, remarks));
        for answer in join_all(answers).await {
            answer?;
        }
        Ok(())
    }

    /// Whether a webhook is to be asked, and about which form.
    async fn concerns<'a>(
        &self,
        hook: &Hook,
        asked: &Attributes<'a>,
        object: Option<&Value>,
        equivalents: &[&'a Resource],
    ) -> Result<Option<&'a Resource>, Failure> {
        let Some(matched) = hook.matching.by_rules(asked, equivalents) else {
            return Ok(None);
        };
        if !hook.matching.by_object(asked, object)
            || !self.in_selected_namespace(&hook.matching, asked, object)?
        {
            return Ok(None);
        }
        if hook.conditions.is_empty() {
            return Ok(Some(matched));
        }
        let request = review::request(asked, matched);
        let object = form_of(asked.resource, matched, object).await?;
        let old = form_of(asked.resource, matched, asked.old).await?;
        let input = Input {
            object: object.as_ref(),
            old: old.as_ref(),
            request: &request,
            namespace: None,
            params: None,
            authorizer: AccessAuthorizer::of(&self.access, asked.user),
            check: expressions::request_check(asked, matched),
        };
        let verdict = match expressions::bindings(&input) {
            Ok(bindings) => hook.conditions.judge(&bindings),
            Err(error) => Verdict::Fails(error.to_string()),
        };
        match verdict {
            Verdict::Matches => Ok(Some(matched)),
            Verdict::Skips => Ok(None),
            Verdict::Fails(_) if hook.ignores_failure => Ok(None),
            Verdict::Fails(why) => {
                Err(ApiError::forbidden_because(asked.resource, asked.name, &why).into())
            }
        }
    }

    /// Asks one webhook. `None`: it failed and may.
    async fn ask(
        &self,
        call: &Call<'_>,
        asked: &Attributes<'_>,
        object: Option<&Value>,
        remarks: Remarks<'_>,
    ) -> Result<Option<Answer>, Failure> {
        let hook = &call.hook;
        if asked.dry_run && !hook.allows_dry_run {
            return Err(review::no_dry_run(&hook.name).into());
        }
        let object = form_of(asked.resource, call.matched, object).await?;
        let old = form_of(asked.resource, call.matched, asked.old).await?;
        let begun = Instant::now();
        let outcome = self.call(call, asked, object.as_ref(), old.as_ref()).await;
        let (code, rejected) = match &outcome {
            Ok(answer) => match &answer.refused {
                Some(error) => (error.code(), true),
                None => (200, false),
            },
            Err(_) => (500, !hook.ignores_failure),
        };
        observe(hook, asked.operation, begun, code, rejected);
        match outcome {
            Ok(answer) => {
                for warning in &answer.warnings {
                    remarks.warn(warning);
                }
                for (key, value) in &answer.audit {
                    remarks.annotate(&format!("{}/{key}", hook.name), value);
                }
                match answer.refused {
                    Some(error) => Err(error.into()),
                    None => Ok(Some(answer)),
                }
            }
            Err(why) if hook.ignores_failure => {
                metrics::counter!("apiserver_admission_webhook_fail_open_count",
                    "name" => hook.name.clone(), "type" => role_label(hook.role))
                .increment(1);
                tracing::warn!(webhook = %hook.name, %why, "a webhook failed and was passed over");
                call.note_failure(remarks);
                Ok(None)
            }
            Err(why) => {
                tracing::warn!(webhook = %hook.name, %why, "a webhook failed: the request is refused");
                Err(review::call_failed(&hook.name, &why).into())
            }
        }
    }

    async fn call(
        &self,
        call: &Call<'_>,
        asked: &Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<Answer, String> {
        let hook = &call.hook;
        let Some(version) = hook.reviews else {
            return Err(
                "could not create admission objects: webhook does not accept known \
                 AdmissionReview versions (v1, v1beta1)"
                    .to_owned(),
            );
        };
        let uid = ids::uuid();
        let request = review::request(asked, call.matched);
        let body = review::review(version, request, &uid, object, old);
        let timeout = Duration::from_secs(hook.timeout_seconds);
        let answer = self
            .clients
            .post(&hook.address, &hook.ca_bundle, timeout, &body)
            .await
            .map_err(|why| format!("failed to call webhook: {why}"))?;
        review::answer(version, &hook.name, hook.role, &uid, &answer)
            .map_err(|why| format!("received invalid webhook response: {why}"))
    }

    /// The other forms in which the same objects are served.
    pub(super) fn equivalents(&self, kind: &Resource) -> Vec<Arc<Resource>> {
        let stored = |kind: &Resource| match &kind.stored_as {
            Some((group, plural)) => (group.clone(), plural.clone()),
            None => (kind.group.clone(), kind.plural.clone()),
        };
        let own = stored(kind);
        let served = self.registry.served();
        let others = served.kinds.all().iter().filter(|other| {
            stored(other) == own && (&other.group, &other.version) != (&kind.group, &kind.version)
        });
        others.cloned().collect()
    }
}

/// The object in another form of its kind, with its kind's name.
pub(super) async fn in_form(
    from: &Resource,
    to: &Resource,
    object: &Value,
) -> Result<Value, Failure> {
    if (&from.group, &from.version) == (&to.group, &to.version) {
        let mut object = object.clone();
        if object["kind"].is_null() {
            object["kind"] = json!(to.kind);
            object["apiVersion"] = json!(to.api_version());
        }
        return Ok(object);
    }
    let stored = match custom::in_version(from, object, &to.api_version()).await? {
        Some(converted) => converted,
        None => convert::to_stored(from, object.clone()),
    };
    let mut object = convert::from_stored(to, stored);
    object["kind"] = json!(to.kind);
    object["apiVersion"] = json!(to.api_version());
    Ok(object)
}

/// The same of an object that there may be.
pub(super) async fn form_of(
    from: &Resource,
    to: &Resource,
    object: Option<&Value>,
) -> Result<Option<Value>, Failure> {
    match object {
        Some(object) => in_form(from, to, object).await.map(Some),
        None => Ok(None),
    }
}

/// Applies a webhook's patch; whether it changed anything.
async fn apply(
    call: &Call<'_>,
    asked: &Attributes<'_>,
    object: &mut Value,
    patch: &Value,
) -> Result<bool, Failure> {
    let form = in_form(asked.resource, call.matched, object).await?;
    let broken = |error: ApiError| Failure::from(ApiError::internal(error.to_string()));
    let patched = patch::apply_loosely(PatchKind::Json, &call.matched.schema, &form, patch)
        .map_err(broken)?;
    let mut patched = in_form(call.matched, asked.resource, &patched).await?;
    match &call.other {
        Some(schema) => {
            patched = fields::conform_owned(schema, patched).map_err(broken)?;
        }
        None => strategy::default_decoded(asked.resource, &mut patched).map_err(broken)?,
    }
    let changed = patched != *object;
    *object = patched;
    Ok(changed)
}

fn role_label(role: Role) -> &'static str {
    match role {
        Role::Mutating => "admit",
        Role::Validating => "validating",
    }
}

fn observe(hook: &Hook, operation: Operation, begun: Instant, code: u16, rejected: bool) {
    let (name, kind) = (hook.name.clone(), role_label(hook.role));
    metrics::histogram!("apiserver_admission_webhook_admission_duration_seconds",
        "name" => name.clone(), "type" => kind, "operation" => operation.as_str(),
        "rejected" => rejected.to_string())
    .record(begun.elapsed().as_secs_f64());
    metrics::counter!("apiserver_admission_webhook_request_total",
        "name" => name.clone(), "type" => kind, "operation" => operation.as_str(),
        "code" => code.to_string(), "rejected" => rejected.to_string())
    .increment(1);
    if rejected {
        let (kind_of_error, code) = match code {
            500 => ("calling_webhook_error", "0".to_owned()),
            code => ("no_error", code.to_string()),
        };
        metrics::counter!("apiserver_admission_webhook_rejection_count",
            "name" => name, "type" => kind, "operation" => operation.as_str(),
            "error_type" => kind_of_error, "rejection_code" => code)
        .increment(1);
    }
}
