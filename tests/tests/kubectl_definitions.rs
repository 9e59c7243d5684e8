//! kubectl and a kind that a definition defines: made, applied, printed, explained,
//! refused, scaled and taken away.

use nautilus_tests::Quorum;

const DEFINITION: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: widgets.example.org
spec:
  group: example.org
  scope: Namespaced
  names: {plural: widgets, kind: Widget, shortNames: [wd], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}
    additionalPrinterColumns:
    - {name: Size, type: integer, jsonPath: .spec.size}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [size]
            properties:
              size: {type: integer, minimum: 1, description: How large it is.}
              replicas: {type: integer}
              colour: {type: string, default: blue}
            x-kubernetes-validations:
            - {rule: 'self.size < 100', message: too large}
          status:
            type: object
            properties: {replicas: {type: integer}}
";

fn widget(spec: &str) -> String {
    format!("{{apiVersion: example.org/v1, kind: Widget, metadata: {{name: a}}, spec: {{{spec}}}}}")
}

/// Applies a manifest; whether it worked, and what kubectl said.
fn apply(quorum: &Quorum, manifest: &str) -> (bool, String) {
    let output = quorum.kubectl_with_input(&["apply", "-f", "-"], manifest);
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
fn a_defined_kind_is_used_as_any_other() {
    let quorum = Quorum::start();
    let (applied, said) = apply(&quorum, DEFINITION);
    assert!(applied, "{said}");
    let name = "crd/widgets.example.org";
    quorum.kubectl_ok(&["wait", "--for=condition=established", name, "--timeout=30s"]);
    let (applied, said) = apply(&quorum, &widget("size: 3, replicas: 1"));
    assert!(applied, "{said}");
    let (applied, said) = apply(&quorum, &widget("size: 5, replicas: 1"));
    assert!(applied && said.contains("configured"), "{said}");
    let (applied, said) = apply(&quorum, &widget("size: 300"));
    assert!(!applied && said.contains("too large"), "{said}");
    let (applied, said) = apply(&quorum, &widget("size: 5, unknown: 1"));
    assert!(
        !applied && said.contains("unknown field \"spec.unknown\""),
        "{said}"
    );
    let printed = quorum.kubectl_ok(&["get", "wd"]);
    let heads: Vec<&str> = printed.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(heads, ["NAME", "SIZE", "AGE"]);
    let colour = ["get", "wd", "a", "-o", "jsonpath={.spec.colour}"];
    assert_eq!(quorum.kubectl_ok(&colour), "blue");
    let told = quorum.kubectl_ok(&["explain", "widget.spec"]);
    assert!(told.contains("How large it is."), "{told}");
    quorum.kubectl_ok(&["scale", "widget", "a", "--replicas", "4"]);
    let replicas = ["get", "wd", "a", "-o", "jsonpath={.spec.replicas}"];
    assert_eq!(quorum.kubectl_ok(&replicas), "4");
    quorum.kubectl_ok(&["delete", name]);
    assert_eq!(quorum.kubectl_ok(&["get", "crd", "-o", "name"]), "");
}
