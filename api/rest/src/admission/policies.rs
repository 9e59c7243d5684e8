//! Admission policies: those that the request meets, with the parameters their bindings
//! name.
//!
//! Invariants
//! - Policies are asked in the order of their names, bindings likewise.
//! - A parameter that is missing here was looked up behind a read barrier.

use std::sync::Arc;

use nautilus_admission::attributes::Attributes;
use nautilus_admission::expressions::{self, Input, Verdict};
use nautilus_admission::policy::{
    self, Action, Binding, Change, Decision, Outcome, ParamRef, Policy, Trail,
};
use nautilus_admission::{matching, review};
use nautilus_apply::merge;
use nautilus_apply::schema::{Schema, table};
use nautilus_machine::Kv;
use nautilus_machine::types::KeyRange;
use nautilus_machinery::patch::{self, PatchKind};
use nautilus_machinery::resource::{self, Resource};
use nautilus_machinery::status::ApiError;
use nautilus_machinery::strategy;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::Admission;
use super::authorizer::AccessAuthorizer;
use super::webhooks::{Rounds, form_of, in_form};
use crate::audit::Remarks;
use crate::failure::Failure;
use crate::lister::Lister;
use crate::storage::versioned_object;

/// Policies of one kind and their bindings.
struct Configured {
    policies: Arc<Lister<Policy>>,
    bindings: Arc<Lister<Binding>>,
}

/// The configured policies.
pub(super) struct Policies {
    validating: Option<Configured>,
    mutating: Option<Configured>,
}

/// A policy that is to be asked, for one binding, with one set of parameters.
struct Question {
    policy: Arc<Policy>,
    binding: Arc<Binding>,
    params: Option<Value>,
}

/// What is wrong with the configuration a request met.
struct Misconfigured {
    policy: Arc<Policy>,
    binding: Arc<Binding>,
    why: String,
}

impl Policies {
    pub(super) fn start(kv: &Arc<dyn Kv>, shutdown: &CancellationToken) -> Self {
        let configured = |policies: &str, bindings: &str| {
            let find = |plural: &str| resource::find(matching::GROUP, "v1", plural).cloned();
            let (policies, bindings) = (find(policies)?, find(bindings)?);
            let stop = || shutdown.clone();
            Some(Configured {
                policies: Lister::start(kv.clone(), policies, |o| Ok(Policy::of(&o)), stop()),
                bindings: Lister::start(kv.clone(), bindings, |o| Ok(Binding::of(&o)), stop()),
            })
        };
        Self {
            validating: configured(
                "validatingadmissionpolicies",
                "validatingadmissionpolicybindings",
            ),
            mutating: configured(
                "mutatingadmissionpolicies",
                "mutatingadmissionpolicybindings",
            ),
        }
    }

    /// Waits until the configuration was read once.
    pub(super) async fn ready(&self) {
        for own in [&self.validating, &self.mutating].into_iter().flatten() {
            own.policies.synced().await;
            own.bindings.synced().await;
        }
    }

    /// Whether there is a mutating one at all.
    pub(super) fn may_mutate(&self) -> bool {
        self.mutating
            .as_ref()
            .is_some_and(|own| !own.bindings.snapshot().objects.is_empty())
    }
}

impl Configured {
    /// Each policy with its bindings, in the order of names.
    fn bound(&self) -> Vec<(Arc<Policy>, Vec<Arc<Binding>>)> {
        let (policies, bindings) = (self.policies.snapshot(), self.bindings.snapshot());
        if bindings.objects.is_empty() {
            return Vec::new();
        }
        let of = |policy: &Policy| {
            let all = bindings.objects.values();
            all.filter(|binding| binding.policy == policy.name)
                .cloned()
                .collect::<Vec<_>>()
        };
        policies
            .objects
            .values()
            .map(|policy| (policy.clone(), of(policy)))
            .filter(|(_, bindings)| !bindings.is_empty())
            .collect()
    }
}

impl Admission {
    /// Lets the mutating policies at the object.
    pub(super) async fn apply_policies(
        &self,
        asked: &Attributes<'_>,
        object: &mut Value,
        rounds: &mut Rounds,
        second: bool,
    ) -> Result<(), Failure> {
        let Some(configured) = &self.policies.mutating else {
            return Ok(());
        };
        let bound = configured.bound();
        if bound.is_empty() || matching::is_exempt(asked) {
            return Ok(());
        }
        let namespace = self.own_namespace(asked)?;
        let equivalents = self.equivalents(asked.resource);
        let equivalents: Vec<&Resource> = equivalents.iter().map(|kind| &**kind).collect();
        for (policy, bindings) in bound {
            let Some(matched) = self.meets(&policy, asked, Some(object), &equivalents)? else {
                continue;
            };
            let questions = self
                .questions(&policy, &bindings, asked, Some(object), &equivalents)
                .await?;
            for question in questions {
                let question = match question {
                    Ok(question) => question,
                    Err(wrong) if wrong.policy.ignores_failure => continue,
                    Err(wrong) => return Err(self.refuse(asked, object, &wrong).into()),
                };
                let id = question.id();
                if second && !rounds.must_again(&id) {
                    continue;
                }
                let before = object.clone();
                let met = self
                    .mutate_by(&question, asked, matched, object, namespace.as_ref())
                    .await?;
                if !met {
                    continue;
                }
                rounds.note(id, *object != before, question.policy.reinvokes);
            }
        }
        rounds.leave(object);
        Ok(())
    }

    /// Applies a policy's mutations in turn; false where its conditions do not hold.
    async fn mutate_by(
        &self,
        question: &Question,
        asked: &Attributes<'_>,
        matched: &Resource,
        object: &mut Value,
        namespace: Option<&Value>,
    ) -> Result<bool, Failure> {
        let policy = &question.policy;
        let request = review::request(asked, matched);
        let old = form_of(asked.resource, matched, asked.old).await?;
        let fail = |object: &Value, why: String| match policy.ignores_failure {
            true => Ok(()),
            false => Err(self.refuse(
                asked,
                object,
                &Misconfigured {
                    policy: policy.clone(),
                    binding: question.binding.clone(),
                    why,
                },
            )),
        };
        for index in 0..policy.mutations() {
            let form = in_form(asked.resource, matched, object).await?;
            let changed = {
                let input = Input {
                    object: Some(&form),
                    old: old.as_ref(),
                    request: &request,
                    namespace,
                    params: question.params.as_ref(),
                    authorizer: AccessAuthorizer::of(&self.access, asked.user),
                    check: expressions::request_check(asked, matched),
                };
                if index == 0 {
                    match policy.meets(&input) {
                        Verdict::Matches => {}
                        Verdict::Skips => return Ok(false),
                        Verdict::Fails(why) => {
                            fail(object, why)?;
                            return Ok(false);
                        }
                    }
                }
                policy.mutate(index, &input).and_then(|change| {
                    change
                        .map(|change| carry_out(matched, &form, change))
                        .transpose()
                })
            };
            match changed {
                Err(why) => fail(object, why)?,
                Ok(None) => {}
                Ok(Some(next)) => {
                    let mut next = in_form(matched, asked.resource, &next).await?;
                    match strategy::default_decoded(asked.resource, &mut next) {
                        Ok(()) => *object = next,
                        Err(error) => fail(object, error.to_string())?,
                    }
                }
            }
        }
        Ok(true)
    }

    /// Asks the validating policies. Everything is judged before the first refusal counts:
    /// warnings are complete.
    pub(super) async fn ask_policies(
        &self,
        asked: &Attributes<'_>,
        object: Option<&Value>,
        remarks: Remarks<'_>,
    ) -> Result<(), Failure> {
        let Some(configured) = &self.policies.validating else {
            return Ok(());
        };
        let bound = configured.bound();
        if bound.is_empty() || matching::is_exempt(asked) {
            return Ok(());
        }
        let namespace = self.own_namespace(asked)?;
        let equivalents = self.equivalents(asked.resource);
        let equivalents: Vec<&Resource> = equivalents.iter().map(|kind| &**kind).collect();
        let (mut refusal, mut trail) = (None, Trail::default());
        for (policy, bindings) in bound {
            let Some(matched) = self.meets(&policy, asked, object, &equivalents)? else {
                continue;
            };
            let questions = self
                .questions(&policy, &bindings, asked, object, &equivalents)
                .await?;
            for question in questions {
                let refused = match &question {
                    Ok(question) => {
                        let namespace = namespace.as_ref();
                        let outcome = self
                            .judge_by(question, asked, matched, object, namespace)
                            .await?;
                        question.act(asked, object, &outcome, remarks, &mut trail)
                    }
                    Err(wrong) if wrong.policy.ignores_failure => None,
                    Err(wrong) => Some(wrong.denied(asked, object)),
                };
                refusal = refusal.or(refused);
            }
        }
        for (key, value) in trail.annotations() {
            remarks.annotate(&key, &value);
        }
        match refusal {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    async fn judge_by(
        &self,
        question: &Question,
        asked: &Attributes<'_>,
        matched: &Resource,
        object: Option<&Value>,
        namespace: Option<&Value>,
    ) -> Result<Outcome, Failure> {
        let request = review::request(asked, matched);
        let in_new_form = form_of(asked.resource, matched, object).await?;
        let old = form_of(asked.resource, matched, asked.old).await?;
        Ok(question.policy.validate(&Input {
            object: in_new_form.as_ref(),
            old: old.as_ref(),
            request: &request,
            namespace,
            params: question.params.as_ref(),
            authorizer: AccessAuthorizer::of(&self.access, asked.user),
            check: expressions::request_check(asked, matched),
        }))
    }

    /// Whether a policy is about the request, and about which form.
    fn meets<'a>(
        &self,
        policy: &Policy,
        asked: &Attributes<'a>,
        object: Option<&Value>,
        equivalents: &[&'a Resource],
    ) -> Result<Option<&'a Resource>, Failure> {
        let Some(matched) = policy.matching.by_rules(asked, equivalents) else {
            return Ok(None);
        };
        let selected = policy.matching.by_object(asked, object)
            && self.in_selected_namespace(&policy.matching, asked, object)?;
        Ok(selected.then_some(matched))
    }

    /// A policy's bindings that are about the request, each with its parameters.
    async fn questions(
        &self,
        policy: &Arc<Policy>,
        bindings: &[Arc<Binding>],
        asked: &Attributes<'_>,
        object: Option<&Value>,
        equivalents: &[&Resource],
    ) -> Result<Vec<Result<Question, Misconfigured>>, Failure> {
        let mut questions = Vec::new();
        for binding in bindings {
            let about = binding.matching.by_rules_if_any(asked, equivalents)
                && binding.matching.by_object(asked, object)
                && self.in_selected_namespace(&binding.matching, asked, object)?;
            if !about {
                continue;
            }
            let ask = |params: Option<Value>| Question {
                policy: policy.clone(),
                binding: binding.clone(),
                params,
            };
            match self.params(policy, binding, asked).await? {
                Ok(params) => questions.extend(params.into_iter().map(|one| Ok(ask(one)))),
                Err(why) => questions.push(Err(Misconfigured {
                    policy: policy.clone(),
                    binding: binding.clone(),
                    why: format!("failed to configure binding: {why}"),
                })),
            }
        }
        Ok(questions)
    }

    /// The parameters that a binding names; one of nothing where the policy has none.
    async fn params(
        &self,
        policy: &Policy,
        binding: &Binding,
        asked: &Attributes<'_>,
    ) -> Result<Result<Vec<Option<Value>>, String>, Failure> {
        let (Some((group, version, kind)), Some(reference)) = (&policy.param_kind, &binding.params)
        else {
            return Ok(Ok(vec![None]));
        };
        let found = self
            .registry
            .served()
            .kinds
            .find_kind(group, version, kind)
            .cloned();
        let Some(resource) = found else {
            let api_version = resource::api_version(group, version);
            return Ok(Err(format!(
                "paramKind kind `{api_version}, Kind={kind}` not known"
            )));
        };
        let namespace = match (resource.namespaced, &reference.namespace, asked.namespace) {
            (false, Some(_), _) => {
                return Ok(Err(
                    "paramRef.namespace must not be provided for a cluster-scoped `paramKind`"
                        .to_owned(),
                ));
            }
            (false, None, _) => None,
            (true, Some(own), _) => Some(own.as_str()),
            (true, None, Some(own)) if !asked.of("", "namespaces") => Some(own),
            (true, None, _) => {
                return Ok(Err(
                    "cannot use namespaced paramRef in policy binding that matches \
                               cluster-scoped resources"
                        .to_owned(),
                ));
            }
        };
        let params = self.find_params(&resource, namespace, reference).await?;
        if params.is_empty() && reference.denies_missing {
            return Ok(Err(
                "no params found for policy binding with `Deny` parameterNotFoundAction".to_owned(),
            ));
        }
        Ok(Ok(params.into_iter().map(Some).collect()))
    }

    async fn find_params(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        reference: &ParamRef,
    ) -> Result<Vec<Value>, Failure> {
        let with_kind = |object: Value| policy::with_kind_of(object, resource);
        if let Some(name) = &reference.name {
            let key = resource.key(namespace, name);
            let mut row = self.storage.find(resource, &key).await?;
            if row.is_none() {
                self.storage.barrier().await?;
                row = self.storage.find(resource, &key).await?;
            }
            let object = row.map(crate::storage::Row::into_versioned);
            return Ok(object.map(with_kind).into_iter().collect());
        }
        let Some(selector) = &reference.selector else {
            return Ok(Vec::new());
        };
        let prefix = match namespace {
            Some(namespace) => resource.namespace_prefix(namespace),
            None => resource.storage_prefix(),
        };
        let range = KeyRange::prefix(prefix);
        let (rows, _) = self.storage.rows_of(resource, range).await?;
        let mut params = Vec::new();
        for row in &rows {
            let object = versioned_object(resource, row)?;
            if selector.matches(&object) {
                params.push(with_kind(object));
            }
        }
        Ok(params)
    }

    /// The namespace the object is in; none of a namespace itself.
    fn own_namespace(&self, asked: &Attributes<'_>) -> Result<Option<Value>, Failure> {
        match asked.namespace.filter(|_| !asked.of("", "namespaces")) {
            Some(name) => self.one("", "namespaces", None, name),
            None => Ok(None),
        }
    }

    fn refuse(&self, asked: &Attributes<'_>, object: &Value, wrong: &Misconfigured) -> ApiError {
        let why = format!(
            "policy '{}' with binding '{}' denied request: {}",
            wrong.policy.name, wrong.binding.name, wrong.why
        );
        asked
            .forbidden(Some(object), &why)
            .with_code(422, "Invalid")
            .with_cause(&why)
    }
}

impl Misconfigured {
    fn denied(&self, asked: &Attributes<'_>, object: Option<&Value>) -> ApiError {
        let decision = Decision {
            index: 0,
            message: self.why.clone(),
            reason: String::new(),
        };
        let kind = "ValidatingAdmissionPolicy";
        policy::denied(
            asked,
            object,
            kind,
            &self.policy,
            Some(&self.binding),
            &decision,
        )
    }
}

impl Question {
    /// Does what the binding says of what does not hold; gives the first refusal.
    fn act(
        &self,
        asked: &Attributes<'_>,
        object: Option<&Value>,
        outcome: &Outcome,
        remarks: Remarks<'_>,
        trail: &mut Trail,
    ) -> Option<ApiError> {
        let (policy, binding) = (&self.policy, &self.binding);
        let mut refusal = None;
        let denied = |decision: &Decision| {
            let kind = "ValidatingAdmissionPolicy";
            policy::denied(asked, object, kind, policy, Some(binding), decision)
        };
        for decision in &outcome.decisions {
            for action in &binding.actions {
                match action {
                    Action::Deny => {
                        refusal.get_or_insert_with(|| denied(decision));
                    }
                    Action::Warn => remarks.warn(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{}' with binding \
                         '{}': {}",
                        policy.name, binding.name, decision.message
                    )),
                    Action::Audit => trail.failed(policy, binding, decision),
                }
            }
        }
        trail.annotate(policy, &outcome.annotations);
        if let Some(error) = outcome.errors.first() {
            refusal.get_or_insert_with(|| denied(error));
        }
        refusal
    }

    fn id(&self) -> String {
        let params = self.params.as_ref().map_or("", |params| {
            params["metadata"]["uid"].as_str().unwrap_or_default()
        });
        format!("{}/{}/{params}", self.policy.name, self.binding.name)
    }
}

/// The object as a change makes it.
fn carry_out(resource: &Resource, object: &Value, change: Change) -> Result<Value, String> {
    match change {
        Change::Patch(patch) => {
            match patch::apply_loosely(PatchKind::Json, &resource.schema, object, &patch) {
                Ok(patched) => Ok(patched),
                // A test that fails means that the patch is not for this object.
                Err(error) if error.message().contains("test failed") => Ok(object.clone()),
                Err(error) => Err(format!("JSON Patch: {error}")),
            }
        }
        Change::Apply(partial) => {
            let view = table::find(&resource.schema).unwrap_or_else(Schema::deduced);
            let partial = policy::with_kind(partial, object);
            let atomics = policy::atomics(&partial, &|path| is_atomic(&view, path));
            if !atomics.is_empty() {
                return Err(format!(
                    "error applying patch: invalid ApplyConfiguration: may not mutate atomic \
                     arrays, maps or structs: {}",
                    atomics.join(", ")
                ));
            }
            merge::merge(&view, object, &partial)
                .map_err(|error| format!("error applying patch: failed to merge patch: {error}"))
        }
    }
}

/// Whether what stands at a path of fields (`None`: any element of a list) is owned as a
/// whole.
fn is_atomic(view: &nautilus_apply::schema::TypeView, path: &[Option<&str>]) -> bool {
    let mut id = view.id;
    for step in path {
        let atom = view.schema.atom(id);
        let next = match step {
            Some(name) => atom.map.as_ref().and_then(|map| map.child(name)),
            None => atom.list.as_ref().map(|list| list.element),
        };
        match next {
            Some(next) => id = next,
            None => return false,
        }
    }
    let atom = view.schema.atom(id);
    atom.map.as_ref().is_some_and(|map| map.atomic)
        || atom.list.as_ref().is_some_and(|list| !list.associative)
}
