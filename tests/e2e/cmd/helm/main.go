// Command helm installs, upgrades, rolls back and removes a chart by Helm's own library:
// `helm KUBECONFIG CHART`. It prints one line a step, and ok at last.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/loader"
	"helm.sh/helm/v4/pkg/cli"
	"helm.sh/helm/v4/pkg/kube"
	"helm.sh/helm/v4/pkg/release"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const (
	namespace = "helm"
	name      = "shop"
	patience  = 30 * time.Second
)

func check(what string, err error) {
	if err != nil {
		fmt.Printf("failed: %s: %v\n", what, err)
		os.Exit(1)
	}
}

func expect(condition bool, format string, values ...any) {
	if !condition {
		check("expectation", fmt.Errorf(format, values...))
	}
}

func main() {
	settings := cli.New()
	settings.KubeConfig = os.Args[1]
	settings.SetNamespace(namespace)
	configuration := action.NewConfiguration()
	check("init", configuration.Init(settings.RESTClientGetter(), namespace, "secret"))
	chart, err := loader.Load(os.Args[2])
	check("chart", err)
	config, err := settings.RESTClientGetter().ToRESTConfig()
	check("kubeconfig", err)
	clients, err := kubernetes.NewForConfig(config)
	check("client", err)
	deployment := func() (int32, string) {
		found, err := clients.AppsV1().Deployments(namespace).Get(context.Background(), name, meta.GetOptions{})
		check("deployment", err)
		return *found.Spec.Replicas, found.Spec.Template.Spec.Containers[0].Image
	}
	colour := func() string {
		found, err := clients.CoreV1().ConfigMaps(namespace).Get(context.Background(), name+"-settings", meta.GetOptions{})
		check("settings", err)
		return found.Data["colour"]
	}

	install := action.NewInstall(configuration)
	install.Namespace, install.ReleaseName, install.CreateNamespace = namespace, name, true
	install.ServerSideApply, install.WaitStrategy, install.Timeout = true, kube.HookOnlyStrategy, patience
	_, err = install.Run(chart, map[string]any{"replicas": 2})
	check("install", err)
	replicas, image := deployment()
	expect(replicas == 2 && image == "registry.example/web:1", "%d of %s", replicas, image)
	expect(colour() == "green", "the colour is %s", colour())
	_, err = clients.PolicyV1().PodDisruptionBudgets(namespace).Get(context.Background(), name, meta.GetOptions{})
	check("what the capabilities give", err)
	fmt.Println("installed")

	for _, sides := range []string{"true", "false"} {
		upgrade := action.NewUpgrade(configuration)
		upgrade.Namespace, upgrade.ServerSideApply = namespace, sides
		upgrade.ForceConflicts = sides == "true"
		upgrade.WaitStrategy, upgrade.Timeout = kube.HookOnlyStrategy, patience
		_, err = upgrade.Run(name, chart, map[string]any{"replicas": 3, "colour": "blue" + sides, "image": "registry.example/web:2"})
		check("upgrade with server-side apply "+sides, err)
		replicas, image = deployment()
		expect(replicas == 3 && image == "registry.example/web:2", "%d of %s", replicas, image)
		expect(colour() == "blue"+sides, "the colour is %s", colour())
	}
	hook, err := clients.CoreV1().ConfigMaps(namespace).Get(context.Background(), name+"-before", meta.GetOptions{})
	check("hook", err)
	expect(hook.Data["revision"] == "3", "the hook ran at %s", hook.Data["revision"])
	fmt.Println("upgraded")

	rollback := action.NewRollback(configuration)
	rollback.Version, rollback.WaitStrategy, rollback.Timeout = 1, kube.HookOnlyStrategy, patience
	rollback.ServerSideApply = "auto"
	check("rollback", rollback.Run(name))
	replicas, image = deployment()
	expect(replicas == 2 && image == "registry.example/web:1", "%d of %s", replicas, image)
	fmt.Println("rolled back")

	revisions, err := action.NewHistory(configuration).Run(name)
	check("history", err)
	var states []string
	for _, one := range revisions {
		accessor, err := release.NewAccessor(one)
		check("release", err)
		states = append(states, accessor.Status())
	}
	expect(strings.Join(states, " ") == "superseded superseded superseded deployed", "%v", states)
	fmt.Println("listed")

	uninstall := action.NewUninstall(configuration)
	uninstall.WaitStrategy, uninstall.Timeout = kube.StatusWatcherStrategy, patience
	_, err = uninstall.Run(name)
	check("uninstall", err)
	left, err := clients.AppsV1().Deployments(namespace).List(context.Background(), meta.ListOptions{})
	check("list", err)
	expect(len(left.Items) == 0, "%d deployments are left", len(left.Items))
	fmt.Println("uninstalled")
	fmt.Println("ok")
}
