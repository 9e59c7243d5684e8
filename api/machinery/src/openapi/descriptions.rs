//! What types and fields are for, in words: from the schemas of the crate of Kubernetes'
//! types, of the release served. Made once, on first use.
//!
//! Invariant: nothing here depends on what the words say.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::Value;

/// What the type of that OpenAPI name is.
pub fn of_type(name: &str) -> Option<&'static str> {
    let found = TEXTS.get(name)?;
    Some(found.text.as_str())
}

/// What a field of a type is, its own or an inlined one.
pub fn of_field(owner: &str, field: &str) -> Option<&'static str> {
    let found = TEXTS.get(owner)?;
    found.fields.get(field).map(String::as_str)
}

struct Texts {
    text: String,
    fields: BTreeMap<String, String>,
}

static TEXTS: LazyLock<BTreeMap<String, Texts>> = LazyLock::new(collect);

fn collect() -> BTreeMap<String, Texts> {
    let mut generator = SchemaSettings::draft07().into_generator();
    add_core(&mut generator);
    add_others(&mut generator);
    let definitions = generator.take_definitions(false).into_iter();
    definitions
        .map(|(name, schema)| {
            let text = |value: &Value| value["description"].as_str().unwrap_or_default().to_owned();
            let properties = schema["properties"].as_object().into_iter().flatten();
            let fields = properties.map(|(name, property)| (name.clone(), text(property)));
            let texts = Texts {
                text: text(&schema),
                fields: fields.collect(),
            };
            (name, texts)
        })
        .collect()
}

macro_rules! add {
    ($generator:ident, $module:path => $($kind:ident)+) => {{
        use $module as module;
        $(let _ = $generator.subschema_for::<module::$kind>();)+
    }};
}

fn add_core(generator: &mut SchemaGenerator) {
    add!(generator, k8s_openapi::api::core::v1 =>
        Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node
        PersistentVolume PersistentVolumeClaim Pod PodTemplate ReplicationController
        ResourceQuota Secret Service ServiceAccount);
    add!(generator, k8s_openapi::apimachinery::pkg::apis::meta::v1 =>
        DeleteOptions ListMeta ObjectMeta Patch Status Time MicroTime);
    add!(generator, k8s_openapi::apimachinery::pkg::api::resource => Quantity);
    add!(generator, k8s_openapi::apimachinery::pkg::util::intstr => IntOrString);
    add!(generator, k8s_openapi::apimachinery::pkg::runtime => RawExtension);
}

fn add_others(generator: &mut SchemaGenerator) {
    add!(generator, k8s_openapi::api::admissionregistration::v1 =>
        MutatingAdmissionPolicy MutatingAdmissionPolicyBinding MutatingWebhookConfiguration
        ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding
        ValidatingWebhookConfiguration);
    add!(generator, k8s_openapi::api::apps::v1 =>
        ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet);
    add!(generator, k8s_openapi::api::authentication::v1 => SelfSubjectReview TokenRequest TokenReview);
    add!(generator, k8s_openapi::api::authorization::v1 =>
        LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview
        SubjectAccessReview);
    add!(generator, k8s_openapi::api::autoscaling::v1 => HorizontalPodAutoscaler Scale);
    add!(generator, k8s_openapi::api::autoscaling::v2 => HorizontalPodAutoscaler);
    add!(generator, k8s_openapi::api::batch::v1 => CronJob Job);
    add!(generator, k8s_openapi::api::certificates::v1 =>
        CertificateSigningRequest ClusterTrustBundle PodCertificateRequest);
    add!(generator, k8s_openapi::api::coordination::v1 => Lease);
    add!(generator, k8s_openapi::api::discovery::v1 => EndpointSlice);
    add!(generator, k8s_openapi::api::events::v1 => Event);
    add!(generator, k8s_openapi::api::flowcontrol::v1 => FlowSchema PriorityLevelConfiguration);
    add!(generator, k8s_openapi::api::networking::v1 =>
        IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR);
    add!(generator, k8s_openapi::api::node::v1 => RuntimeClass);
    add!(generator, k8s_openapi::api::policy::v1 => Eviction PodDisruptionBudget);
    add!(generator, k8s_openapi::api::rbac::v1 => ClusterRole ClusterRoleBinding Role RoleBinding);
    add!(generator, k8s_openapi::api::resource::v1 =>
        DeviceClass DeviceTaintRule ResourceClaim ResourceClaimTemplate ResourceSlice);
    add!(generator, k8s_openapi::api::scheduling::v1 => PriorityClass);
    add!(generator, k8s_openapi::api::storage::v1 =>
        CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment
        VolumeAttributesClass);
    add!(generator, k8s_openapi::api::storagemigration::v1 => StorageVersionMigration);
    add!(generator, k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 =>
        CustomResourceDefinition);
    add!(generator, k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 => APIService);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource;

    #[test]
    fn every_kind_and_its_fields_are_described() {
        for resource in resource::all() {
            let schema = resource.schema.as_str();
            assert!(
                of_type(schema).is_some_and(|text| !text.is_empty()),
                "{schema}"
            );
        }
        let text = of_field("io.k8s.api.core.v1.PodSpec", "containers").expect("a field");
        assert!(!text.is_empty());
    }
}
