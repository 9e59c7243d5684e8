// Command operator is a controller-runtime operator: for each config map labelled
// `site`, a deployment and its service, owned by it, with a finalizer and a condition in
// the map's annotations; one of several replicas leads by a lease. `operator KUBECONFIG
// IDENTITY`. It prints one line when it leads and one for each site it has settled.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	controller "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metrics "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
)

const (
	label     = "site"
	finalizer = "nautilus.example/site"
	settled   = "nautilus.example/settled"
)

type reconciler struct{ client.Client }

func (r *reconciler) Reconcile(ctx context.Context, request controller.Request) (controller.Result, error) {
	site := &core.ConfigMap{}
	if err := r.Get(ctx, request.NamespacedName, site); err != nil {
		return controller.Result{}, client.IgnoreNotFound(err)
	}
	if !site.DeletionTimestamp.IsZero() {
		if controllerutil.RemoveFinalizer(site, finalizer) {
			fmt.Println("released", site.Name)
			return controller.Result{}, r.Update(ctx, site)
		}
		return controller.Result{}, nil
	}
	if controllerutil.AddFinalizer(site, finalizer) {
		return controller.Result{}, r.Update(ctx, site)
	}
	replicas, err := strconv.ParseInt(site.Data["replicas"], 10, 32)
	if err != nil {
		return controller.Result{}, err
	}
	labels := map[string]string{"app": site.Name}
	deployment := &apps.Deployment{ObjectMeta: meta.ObjectMeta{Name: site.Name, Namespace: site.Namespace}}
	_, err = controllerutil.CreateOrUpdate(ctx, r.Client, deployment, func() error {
		count := int32(replicas)
		deployment.Spec.Replicas = &count
		deployment.Spec.Selector = &meta.LabelSelector{MatchLabels: labels}
		deployment.Spec.Template.Labels = labels
		deployment.Spec.Template.Spec.Containers = []core.Container{{Name: "web", Image: site.Data["image"]}}
		return controllerutil.SetControllerReference(site, deployment, r.Scheme())
	})
	if err != nil {
		return controller.Result{}, err
	}
	service := &core.Service{ObjectMeta: meta.ObjectMeta{Name: site.Name, Namespace: site.Namespace}}
	_, err = controllerutil.CreateOrUpdate(ctx, r.Client, service, func() error {
		service.Spec.Selector = labels
		service.Spec.Ports = []core.ServicePort{{Port: 80}}
		return controllerutil.SetControllerReference(site, service, r.Scheme())
	})
	if err != nil {
		return controller.Result{}, err
	}
	wanted := site.Data["replicas"] + " of " + site.Data["image"]
	if site.Annotations[settled] != wanted {
		before := site.DeepCopy()
		meta.SetMetaDataAnnotation(&site.ObjectMeta, settled, wanted)
		if err := r.Patch(ctx, site, client.MergeFrom(before)); err != nil {
			return controller.Result{}, err
		}
		fmt.Println("settled", site.Name, wanted)
	}
	return controller.Result{}, nil
}

func check(err error) {
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

func main() {
	log.SetLogger(zap.New(zap.WriteTo(os.Stderr)))
	config, err := clientcmd.BuildConfigFromFlags("", os.Args[1])
	check(err)
	manager, err := controller.NewManager(config, controller.Options{
		Scheme:                        scheme.Scheme,
		Metrics:                       metrics.Options{BindAddress: "0"},
		LeaderElection:                true,
		LeaderElectionID:              "sites",
		LeaderElectionNamespace:       "default",
		LeaderElectionReleaseOnCancel: true,
	})
	check(err)
	labelled, err := predicate.LabelSelectorPredicate(meta.LabelSelector{
		MatchExpressions: []meta.LabelSelectorRequirement{{Key: label, Operator: meta.LabelSelectorOpExists}},
	})
	check(err)
	check(controller.NewControllerManagedBy(manager).
		For(&core.ConfigMap{}, builder.WithPredicates(labelled)).
		Owns(&apps.Deployment{}).
		Owns(&core.Service{}).
		Complete(&reconciler{manager.GetClient()}))
	go func() {
		<-manager.Elected()
		fmt.Println("leading", os.Args[2])
	}()
	check(manager.Start(controller.SetupSignalHandler()))
}
