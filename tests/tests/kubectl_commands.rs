//! kubectl's commands one by one, each for what its user looks at.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use nautilus_tests::kubectl::{all, contains, is, run};
use nautilus_tests::{Quorum, WITHOUT_CONTROLLERS, eventually};

#[test]
fn objects_are_made_shown_and_changed() {
    let quorum = Quorum::start_with(&WITHOUT_CONTROLLERS);
    all(
        &quorum,
        "create deployment web --image=registry.example/web:1 --replicas=2 --port=80
         create job once --image=registry.example/job:1
         create cronjob nightly --image=registry.example/job:1 --schedule='0 3 * * *'
         create configmap c --from-literal=a=1
         create secret generic s --from-literal=a=1
         create secret docker-registry r --docker-username=u --docker-password=p --docker-server=registry.example
         create serviceaccount robot
         create role reader --verb=get,list --resource=pods
         create rolebinding readers --role=reader --serviceaccount=default:robot
         create clusterrole viewer --verb=get --resource=nodes
         create clusterrolebinding viewers --clusterrole=viewer --user=alice
         create ingress i --rule=web.example/*=web:80
         create poddisruptionbudget p --selector=app=web --min-available=1
         create priorityclass high --value=1000
         create quota q --hard=configmaps=50
         create service nodeport n --tcp=80:80
         run pod --image=registry.example/pod:1 --labels=app=web,tier=front",
    );

    // get, in every form.
    contains(&quorum, "get deployments", &["NAME", "READY", "web", "0/2"]);
    contains(
        &quorum,
        "get all",
        &[
            "pod/pod",
            "deployment.apps/web",
            "job.batch/once",
            "service/n",
        ],
    );
    is(
        &quorum,
        "get pod pod -o jsonpath={.spec.containers[0].image}",
        "registry.example/pod:1",
    );
    contains(
        &quorum,
        "get pod pod -o yaml",
        &["kind: Pod", "restartPolicy: Always"],
    );
    is(
        &quorum,
        "get pods -o custom-columns=N:.metadata.name --no-headers",
        "pod",
    );
    contains(
        &quorum,
        "get pods --sort-by=.metadata.name --show-labels",
        &["app=web,tier=front"],
    );
    contains(
        &quorum,
        "get deploy,svc -o name",
        &["deployment.apps/web", "service/n"],
    );
    is(
        &quorum,
        "get pods -l tier!=front --ignore-not-found -o name",
        "",
    );

    // describe, of what is made of many parts.
    contains(
        &quorum,
        "describe deployment web",
        &["StrategyType:", "2 desired"],
    );
    contains(
        &quorum,
        "describe pod pod",
        &["registry.example/pod:1", "QoS Class:", "BestEffort"],
    );
    contains(
        &quorum,
        "describe service n",
        &["NodePort:", "Session Affinity:"],
    );
    contains(&quorum, "describe quota q", &["configmaps", "50"]);
    contains(&quorum, "describe role reader", &["pods", "[get list]"]);
    contains(&quorum, "describe ingress i", &["web.example", "web:80"]);
    contains(&quorum, "describe cronjob nightly", &["0 3 * * *"]);
    contains(
        &quorum,
        "describe namespace default",
        &["Active", "Resource Quotas"],
    );

    // label, annotate, set, scale, autoscale, expose.
    all(
        &quorum,
        "label pod pod tier=back --overwrite
         annotate deployment web note=x
         set image deployment/web web=registry.example/web:2
         set env deployment/web COLOUR=green
         set resources deployment/web --limits=cpu=100m
         set serviceaccount deployment web robot
         scale deployment web --replicas=3
         autoscale deployment web --min=2 --max=5 --cpu=80%
         expose deployment web --port=80 --target-port=8080",
    );
    is(
        &quorum,
        "get pod pod -o jsonpath={.metadata.labels.tier}",
        "back",
    );
    is(
        &quorum,
        "get deployment web -o 'jsonpath={.spec.replicas} {.spec.template.spec.containers[0].image} {.spec.template.spec.containers[0].env[0].value} {.spec.template.spec.serviceAccountName}'",
        "3 registry.example/web:2 green robot",
    );
    is(
        &quorum,
        "get hpa web -o 'jsonpath={.spec.minReplicas} {.spec.maxReplicas}'",
        "2 5",
    );
    is(
        &quorum,
        "get service web -o jsonpath={.spec.ports[0].targetPort}",
        "8080",
    );

    // patch of every type.
    all(
        &quorum,
        r#"patch configmap c --type=merge -p '{"data":{"b":"2"}}'
           patch configmap c --type=json -p '[{"op":"test","path":"/data/b","value":"2"},{"op":"add","path":"/data/c","value":"3"}]'
           patch deployment web --type=strategic -p '{"spec":{"template":{"spec":{"containers":[{"name":"web","imagePullPolicy":"Never"}]}}}}'
           patch deployment web --subresource=scale --type=merge -p '{"spec":{"replicas":1}}'"#,
    );
    is(
        &quorum,
        "get configmap c -o jsonpath={.data}",
        r#"{"a":"1","b":"2","c":"3"}"#,
    );
    is(
        &quorum,
        "get deployment web -o 'jsonpath={.spec.replicas} {.spec.template.spec.containers[0].imagePullPolicy}'",
        "1 Never",
    );
    let refused = quorum.kubectl(&[
        "patch",
        "configmap",
        "c",
        "--type=json",
        "-p",
        r#"[{"op":"test","path":"/data/b","value":"9"}]"#,
    ]);
    assert!(!refused.status.success());

    // edit, by a scripted editor.
    let editor = quorum.dir().join("editor");
    std::fs::write(&editor, "#!/bin/sh\nsed -i 's/a: \"1\"/a: \"7\"/' \"$1\"\n").expect("written");
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755)).expect("set");
    let output = quorum
        .kubectl_command(&["edit", "configmap", "c"])
        .env("KUBE_EDITOR", &editor)
        .stdin(Stdio::null())
        .output()
        .expect("kubectl");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    is(&quorum, "get configmap c -o jsonpath={.data.a}", "7");

    // rollout.
    all(
        &quorum,
        "rollout restart deployment web
         rollout pause deployment web
         rollout resume deployment web",
    );
    contains(
        &quorum,
        "rollout history deployment web",
        &["deployment.apps/web"],
    );

    // replace and delete.
    let manifest = run(&quorum, "get configmap c -o json");
    let replaced = quorum.kubectl_with_input(&["replace", "-f", "-"], &manifest);
    assert!(replaced.status.success());
    all(
        &quorum,
        "delete configmap c
         delete pod pod --now
         delete deployment,job,cronjob --all",
    );
    is(
        &quorum,
        "get deployments,jobs,cronjobs --ignore-not-found -o name",
        "",
    );
}

#[test]
fn nodes_rights_and_the_api_itself() {
    let quorum = Quorum::start();
    let node = r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"worker"},"spec":{}}"#;
    assert!(
        quorum
            .kubectl_with_input(&["create", "-f", "-"], node)
            .status
            .success()
    );
    all(
        &quorum,
        "taint node worker dedicated=x:NoSchedule
         cordon worker
         label node worker disk=fast",
    );
    contains(&quorum, "get node worker", &["SchedulingDisabled"]);
    contains(
        &quorum,
        "describe node worker",
        &["dedicated=x:NoSchedule", "Unschedulable:", "true"],
    );
    all(
        &quorum,
        "uncordon worker
         taint node worker dedicated-",
    );
    let taints = run(&quorum, "get node worker -o jsonpath={.spec.taints[*].key}");
    assert!(!taints.contains("dedicated"), "{taints}");

    // wait, for what is and for what goes.
    all(&quorum, "create namespace short");
    all(
        &quorum,
        "wait namespace/short --for=jsonpath={.status.phase}=Active --timeout=30s
         delete namespace short --wait=false
         wait namespace/short --for=delete --timeout=60s",
    );

    // auth.
    is(&quorum, "auth can-i create pods", "yes");
    contains(&quorum, "auth can-i --list", &["*.*"]);
    contains(&quorum, "auth whoami", &["system:masters"]);
    let refused = quorum.kubectl(&["auth", "can-i", "delete", "nodes", "--as=nobody"]);
    assert_eq!(String::from_utf8_lossy(&refused.stdout).trim(), "no");
    all(&quorum, "create serviceaccount robot");
    assert_eq!(run(&quorum, "create token robot").matches('.').count(), 2);

    // events.
    let event = r#"{"apiVersion":"v1","kind":"Event","metadata":{"name":"e","namespace":"default"},"involvedObject":{"kind":"ServiceAccount","apiVersion":"v1","namespace":"default","name":"robot"},"reason":"Seen","message":"it is there","type":"Normal","lastTimestamp":"2026-01-01T00:00:00Z"}"#;
    assert!(
        quorum
            .kubectl_with_input(&["create", "-f", "-"], event)
            .status
            .success()
    );
    contains(
        &quorum,
        "events --for=serviceaccount/robot",
        &["Seen", "it is there"],
    );

    // The API about itself.
    contains(
        &quorum,
        "api-resources",
        &["deployments", "apps/v1", "networkpolicies", "netpol"],
    );
    contains(
        &quorum,
        "api-resources --namespaced=false --verbs=list -o name",
        &["nodes", "storageclasses.storage.k8s.io"],
    );
    contains(&quorum, "api-versions", &["apps/v1", "batch/v1", "v1"]);
    contains(
        &quorum,
        "explain deployment.spec.strategy",
        &["FIELDS:", "rollingUpdate"],
    );
    contains(
        &quorum,
        "explain pod --recursive",
        &["terminationMessagePath", "ephemeralContainers"],
    );
    contains(&quorum, "cluster-info", &["Kubernetes control plane"]);
    contains(&quorum, "version", &["Server Version: v1.37"]);
    eventually("readiness", || {
        let printed = run(&quorum, "get --raw /readyz");
        printed.contains("ok").then_some(()).ok_or(printed)
    });
}
