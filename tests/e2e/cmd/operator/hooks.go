package main

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	v1 "nautilus/e2e/cmd/operator/v1"
)

// Sites of more replicas are refused.
const most = 9

// Sites with this annotation stay.
const keep = "sites.example.org/keep"

// hooks give a site what it does not say, and refuse what can't be.
type hooks struct{}

func (hooks) Default(_ context.Context, site *v1.Site) error {
	if site.Spec.Replicas == 0 {
		site.Spec.Replicas = 1
	}
	if !strings.Contains(site.Spec.Image, ":") {
		site.Spec.Image += ":latest"
	}
	return nil
}

func (hooks) ValidateCreate(_ context.Context, site *v1.Site) (admission.Warnings, error) {
	var warnings admission.Warnings
	if strings.HasSuffix(site.Spec.Image, ":latest") {
		warnings = append(warnings, "the latest image is another one tomorrow")
	}
	if site.Spec.Replicas > most {
		path := field.NewPath("spec", "replicas")
		wrong := field.ErrorList{field.Invalid(path, site.Spec.Replicas, fmt.Sprintf("at most %d", most))}
		kind := v1.GroupVersion.WithKind("Site").GroupKind()
		return warnings, errors.NewInvalid(kind, site.Name, wrong)
	}
	return warnings, nil
}

func (h hooks) ValidateUpdate(ctx context.Context, _, site *v1.Site) (admission.Warnings, error) {
	return h.ValidateCreate(ctx, site)
}

func (hooks) ValidateDelete(_ context.Context, site *v1.Site) (admission.Warnings, error) {
	if _, is := site.Annotations[keep]; is {
		return nil, fmt.Errorf("%s is to be kept", site.Name)
	}
	return nil, nil
}
