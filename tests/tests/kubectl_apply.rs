//! kubectl's server-side apply against the quorum: conflicts, force, migration from
//! client-side apply, diff, and the commands that read or change what was applied.

use nautilus_tests::Quorum;

const CONFIG: &str = "
apiVersion: v1
kind: ConfigMap
metadata:
  name: settings
data:
  colour: green
  shape: round
";

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  selector: {app: web}
  ports:
  - {name: http, port: 80}
  - {name: https, port: 443}
";

/// Runs kubectl with a manifest; its exit code, what it printed, and what it complained of.
fn kubectl(quorum: &Quorum, arguments: &[&str], manifest: &str) -> (i32, String, String) {
    let output = quorum.kubectl_with_input(arguments, manifest);
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn apply(quorum: &Quorum, arguments: &[&str], manifest: &str) -> (i32, String, String) {
    let mut all = vec!["apply", "-f", "-"];
    all.extend(arguments);
    kubectl(quorum, &all, manifest)
}

fn managers(quorum: &Quorum, kind: &str, name: &str) -> String {
    quorum.kubectl_ok(&[
        "get",
        kind,
        name,
        "--show-managed-fields",
        "-o",
        "jsonpath={range .metadata.managedFields[*]}{.manager} {.operation} {.subresource}{\"\\n\"}{end}",
    ])
}

#[test]
fn a_configuration_is_applied_by_the_server() {
    let quorum = Quorum::start();

    // Made, unchanged, changed; a field that is no longer named goes.
    let (code, printed, _) = apply(&quorum, &["--server-side"], CONFIG);
    assert_eq!(
        (code, printed.as_str()),
        (0, "configmap/settings serverside-applied\n")
    );
    let version = [
        "get",
        "cm",
        "settings",
        "-o",
        "jsonpath={.metadata.resourceVersion}",
    ];
    let before = quorum.kubectl_ok(&version);
    apply(&quorum, &["--server-side"], CONFIG);
    assert_eq!(
        quorum.kubectl_ok(&version),
        before,
        "an apply of the same again"
    );
    let square = CONFIG
        .replace("  colour: green\n", "")
        .replace("round", "square");
    let (code, ..) = apply(&quorum, &["--server-side"], &square);
    assert_eq!(code, 0);
    let data = ["get", "cm", "settings", "-o", "jsonpath={.data}"];
    assert_eq!(quorum.kubectl_ok(&data), r#"{"shape":"square"}"#);

    // Another manager's value is not overwritten, unless by force.
    let (code, _, refused) = apply(&quorum, &["--server-side", "--field-manager=other"], CONFIG);
    assert_eq!(code, 1);
    assert!(
        refused.contains("Apply failed with 1 conflict: conflict with \"kubectl\": .data.shape"),
        "{refused}"
    );
    let forced = [
        "--server-side",
        "--field-manager=other",
        "--force-conflicts",
    ];
    assert_eq!(apply(&quorum, &forced, CONFIG).0, 0);
    assert_eq!(
        quorum.kubectl_ok(&data),
        r#"{"colour":"green","shape":"round"}"#
    );
    assert_eq!(managers(&quorum, "cm", "settings"), "other Apply \n");

    // Two managers share a list by its keys.
    assert_eq!(apply(&quorum, &["--server-side"], SERVICE).0, 0);
    let more = SERVICE.replace(
        "  - {name: http, port: 80}\n  - {name: https, port: 443}\n",
        "  - {name: admin, port: 8080}\n",
    );
    let other = ["--server-side", "--field-manager=other"];
    let (code, _, refused) = apply(&quorum, &other, &more);
    assert_eq!(code, 0, "{refused}");
    let ports = ["get", "svc", "web", "-o", "jsonpath={.spec.ports[*].name}"];
    assert_eq!(quorum.kubectl_ok(&ports), "http https admin");
    let less = SERVICE.replace("  - {name: https, port: 443}\n", "");
    assert_eq!(apply(&quorum, &["--server-side"], &less).0, 0);
    assert_eq!(quorum.kubectl_ok(&ports), "http admin");

    // A field that the kind does not have.
    let wrong = CONFIG.replace("\ndata:", "\ndada:");
    let (code, _, refused) = apply(&quorum, &["--server-side", "--validate=false"], &wrong);
    assert_eq!(code, 1);
    assert!(
        refused.contains(".dada: field not declared in schema"),
        "{refused}"
    );

    // What a dry run would do, and what differs.
    let blue = CONFIG.replace("green", "blue");
    let (code, printed, _) = apply(
        &quorum,
        &[
            "--server-side",
            "--field-manager=other",
            "--dry-run=server",
            "-o",
            "jsonpath={.data.colour}",
        ],
        &blue,
    );
    assert_eq!((code, printed.as_str()), (0, "blue"));
    let (code, printed, complaint) = kubectl(
        &quorum,
        &["diff", "--server-side", "--field-manager=other", "-f", "-"],
        &blue,
    );
    assert_eq!(code, 1, "{complaint}");
    assert!(
        printed.contains("-  colour: green") && printed.contains("+  colour: blue"),
        "{printed}"
    );
    let (code, ..) = kubectl(
        &quorum,
        &["diff", "--server-side", "--field-manager=other", "-f", "-"],
        CONFIG,
    );
    assert_eq!(code, 0, "nothing differs");
}

#[test]
fn client_side_apply_goes_over_to_the_server() {
    let quorum = Quorum::start();
    assert_eq!(apply(&quorum, &[], CONFIG).0, 0);
    assert_eq!(
        managers(&quorum, "cm", "settings"),
        "kubectl-client-side-apply Update \n"
    );
    let last = quorum.kubectl_ok(&["apply", "view-last-applied", "cm/settings"]);
    assert!(last.contains("colour: green"), "{last}");
    let (code, printed, _) = kubectl(
        &quorum,
        &["diff", "-f", "-"],
        &CONFIG.replace("green", "blue"),
    );
    assert_eq!(code, 1);
    assert!(printed.contains("+  colour: blue"), "{printed}");

    // Without conflicts although the fields are another manager's, and with the right to
    // take them away afterwards.
    let (code, _, complaint) = apply(
        &quorum,
        &["--server-side"],
        &CONFIG.replace("green", "blue"),
    );
    assert_eq!(code, 0, "{complaint}");
    let owners = managers(&quorum, "cm", "settings");
    assert!(owners.contains("kubectl Apply \n"), "{owners}");
    assert!(!owners.contains("client-side"), "{owners}");
    let last = quorum.kubectl_ok(&["apply", "view-last-applied", "cm/settings"]);
    assert!(last.contains("colour: blue"), "{last}");
    let (code, _, complaint) = apply(
        &quorum,
        &["--server-side"],
        &CONFIG
            .replace("  shape: round\n", "")
            .replace("green", "blue"),
    );
    assert_eq!(code, 0, "{complaint}");
    assert_eq!(
        quorum.kubectl_ok(&["get", "cm", "settings", "-o", "jsonpath={.data}"]),
        r#"{"colour":"blue"}"#
    );

    // And back.
    let (code, _, complaint) = apply(&quorum, &[], CONFIG);
    assert_eq!(code, 0, "{complaint}");
    assert_eq!(
        quorum.kubectl_ok(&["get", "cm", "settings", "-o", "jsonpath={.data.colour}"]),
        "green"
    );
    quorum.kubectl_ok(&[
        "apply",
        "set-last-applied",
        "--create-annotation=true",
        "-f",
        &manifest(&quorum),
    ]);
}

/// A manifest in a file, for commands that read none from their input.
fn manifest(quorum: &Quorum) -> String {
    let file = quorum.dir().join("settings.yaml");
    std::fs::write(&file, CONFIG).expect("written");
    file.to_str().expect("UTF-8").to_owned()
}
