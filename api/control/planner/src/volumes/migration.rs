//! Volumes of plugins that were part of Kubernetes, and whose CSI drivers took over.

use serde_json::Value;

use super::{BETA_STORAGE_PROVISIONER, PROVISIONED_BY, STORAGE_PROVISIONER, annotate};
use crate::object;

/// On a claim or a volume: the driver that took over.
pub(super) const MIGRATED_TO: &str = "pv.kubernetes.io/migrated-to";
/// Held a volume until its plugin had deleted it.
const IN_TREE_FINALIZER: &str = "kubernetes.io/pv-controller";

/// Plugins, their volumes' field in a volume's spec, their drivers.
const DRIVERS: [(&str, &str, &str); 7] = [
    (
        "kubernetes.io/aws-ebs",
        "awsElasticBlockStore",
        "ebs.csi.aws.com",
    ),
    (
        "kubernetes.io/azure-disk",
        "azureDisk",
        "disk.csi.azure.com",
    ),
    (
        "kubernetes.io/azure-file",
        "azureFile",
        "file.csi.azure.com",
    ),
    ("kubernetes.io/cinder", "cinder", "cinder.csi.openstack.org"),
    (
        "kubernetes.io/gce-pd",
        "gcePersistentDisk",
        "pd.csi.storage.gke.io",
    ),
    (
        "kubernetes.io/portworx-volume",
        "portworxVolume",
        "pxd.portworx.com",
    ),
    (
        "kubernetes.io/vsphere-volume",
        "vsphereVolume",
        "csi.vsphere.vmware.com",
    ),
];

/// The driver that took over from a plugin.
pub(super) fn driver(plugin: &str) -> Option<&'static str> {
    let found = DRIVERS.iter().find(|(own, ..)| *own == plugin);
    found.map(|(.., driver)| *driver)
}

/// The plugin that a volume is of, and the driver that took over from it.
pub(super) fn of_volume(volume: &Value) -> Option<(&'static str, &'static str)> {
    let mut drivers = DRIVERS.iter();
    let found = drivers.find(|(_, field, _)| volume["spec"][field].is_object());
    found.map(|(plugin, _, driver)| (*plugin, *driver))
}

/// A claim or a volume with the annotation that its driver goes by, where it lacks that.
pub(super) fn annotated(object: &Value) -> Option<Value> {
    let plugin = [
        PROVISIONED_BY,
        STORAGE_PROVISIONER,
        BETA_STORAGE_PROVISIONER,
    ]
    .into_iter()
    .find_map(|name| object::annotation(object, name))?;
    let before = object::annotation(object, MIGRATED_TO);
    let mut right = object.clone();
    match driver(plugin) {
        Some(driver) => {
            if before != Some(driver) {
                annotate(&mut right, MIGRATED_TO, driver);
            }
            if let Some(finalizers) = right["metadata"]["finalizers"].as_array_mut() {
                finalizers.retain(|own| own != IN_TREE_FINALIZER);
            }
        }
        None if before.is_some() => {
            if let Some(annotations) = right["metadata"]["annotations"].as_object_mut() {
                annotations.shift_remove(MIGRATED_TO);
            }
        }
        None => {}
    }
    (right != *object).then_some(right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_driver_took_over_says_so() {
        let volume = |annotations: Value| json!({"metadata": {"annotations": annotations}});
        for (annotations, expected) in [
            (
                json!({PROVISIONED_BY: "kubernetes.io/gce-pd"}),
                Some("pd.csi.storage.gke.io"),
            ),
            (
                json!({STORAGE_PROVISIONER: "kubernetes.io/aws-ebs"}),
                Some("ebs.csi.aws.com"),
            ),
            (json!({PROVISIONED_BY: "mine.example"}), None),
            (json!({}), None),
        ] {
            let migrated = annotated(&volume(annotations));
            let driver = migrated
                .as_ref()
                .and_then(|own| object::annotation(own, MIGRATED_TO));
            assert_eq!(driver, expected);
            assert_eq!(migrated.as_ref().and_then(annotated), None);
        }
        let stale = volume(json!({PROVISIONED_BY: "mine.example", MIGRATED_TO: "x"}));
        let right = annotated(&stale).unwrap();
        assert_eq!(object::annotation(&right, MIGRATED_TO), None);
    }
}
