// Command operator is a controller-runtime operator: for each site, a kind that it defines in
// two versions, a deployment and its service, owned by the site, with a finalizer and a
// condition. It serves the webhooks that default, check and convert sites; one of several
// replicas leads by a lease, and the webhooks are the leader's. `operator KUBECONFIG
// IDENTITY`. It prints one line when it leads, one for each site it has settled and
// one for each it has released.
package main

import (
	"fmt"
	"net"
	"os"
	"strconv"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	extensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	controller "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metrics "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	v1 "nautilus/e2e/cmd/operator/v1"
	"nautilus/e2e/cmd/operator/v1alpha1"
)

func check(err error) {
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

// free is a port of this host that nobody listens on.
func free() int {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

func main() {
	log.SetLogger(zap.New(zap.WriteTo(os.Stderr)))
	config, err := clientcmd.BuildConfigFromFlags("", os.Args[1])
	check(err)
	kinds := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		scheme.AddToScheme, extensions.AddToScheme, v1.AddToScheme, v1alpha1.AddToScheme,
	} {
		check(add(kinds))
	}
	folder, err := os.MkdirTemp("", "operator-")
	check(err)
	authority, err := certificate(folder)
	check(err)
	port := free()
	server := webhook.NewServer(webhook.Options{Host: "127.0.0.1", Port: port, CertDir: folder})
	manager, err := controller.NewManager(config, controller.Options{
		Scheme:                  kinds,
		Metrics:                 metrics.Options{BindAddress: "0"},
		WebhookServer:           server,
		LeaderElection:          true,
		LeaderElectionID:        "sites",
		LeaderElectionNamespace: "default",
	})
	check(err)
	direct, err := client.New(config, client.Options{Scheme: kinds})
	check(err)
	check(controller.NewWebhookManagedBy(manager, &v1.Site{}).
		WithDefaulter(hooks{}).
		WithValidator(hooks{}).
		Complete())
	url := "https://127.0.0.1:" + strconv.Itoa(port)
	install := &installer{client: direct, server: server, url: url, authority: authority}
	signals := controller.SetupSignalHandler()
	check(install.before(signals))
	check(manager.Add(install))
	check(controller.NewControllerManagedBy(manager).
		For(&v1.Site{}).
		Owns(&apps.Deployment{}).
		Owns(&core.Service{}).
		Complete(&reconciler{manager.GetClient()}))
	check(manager.Start(signals))
}
