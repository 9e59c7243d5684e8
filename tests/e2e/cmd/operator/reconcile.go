package main

import (
	"context"
	"fmt"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	conditions "k8s.io/apimachinery/pkg/api/meta"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	controller "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	v1 "nautilus/e2e/cmd/operator/v1"
)

const finalizer = "sites.example.org/release"

type reconciler struct{ client.Client }

func (r *reconciler) Reconcile(ctx context.Context, request controller.Request) (controller.Result, error) {
	site := &v1.Site{}
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
	labels := map[string]string{"app": site.Name}
	deployment := &apps.Deployment{ObjectMeta: meta.ObjectMeta{Name: site.Name, Namespace: site.Namespace}}
	_, err := controllerutil.CreateOrUpdate(ctx, r.Client, deployment, func() error {
		deployment.Spec.Replicas = &site.Spec.Replicas
		deployment.Spec.Selector = &meta.LabelSelector{MatchLabels: labels}
		deployment.Spec.Template.Labels = labels
		deployment.Spec.Template.Spec.Containers = []core.Container{{Name: "web", Image: site.Spec.Image}}
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
	if site.Status.ObservedGeneration == site.Generation {
		return controller.Result{}, nil
	}
	site.Status.ObservedGeneration = site.Generation
	conditions.SetStatusCondition(&site.Status.Conditions, meta.Condition{
		Type: "Settled", Status: meta.ConditionTrue, Reason: "Made", ObservedGeneration: site.Generation,
	})
	if err := r.Status().Update(ctx, site); err != nil {
		return controller.Result{}, err
	}
	fmt.Println("settled", site.Name, site.Spec.Replicas, "of", site.Spec.Image)
	return controller.Result{}, nil
}
