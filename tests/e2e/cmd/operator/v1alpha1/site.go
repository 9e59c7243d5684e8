// Package v1alpha1 is the version of sites of old, which is served still.
package v1alpha1

import (
	"fmt"
	"strings"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/conversion"

	v1 "nautilus/e2e/cmd/operator/v1"
)

// GroupVersion is what this package holds.
var GroupVersion = schema.GroupVersion{Group: v1.GroupVersion.Group, Version: "v1alpha1"}

// Site is a deployment and its service.
type Site struct {
	meta.TypeMeta   `json:",inline"`
	meta.ObjectMeta `json:"metadata,omitempty"`
	Spec            Spec      `json:"spec"`
	Status          v1.Status `json:"status,omitempty"`
}

// Spec is what a site is to be: what v1 has in `replicas` and `image`.
type Spec struct {
	Count int32 `json:"count,omitempty"`
	Image Image `json:"image"`
}

// Image is an image in parts.
type Image struct {
	Name string `json:"name"`
	Tag  string `json:"tag,omitempty"`
}

// ConvertTo makes a v1 of it.
func (s *Site) ConvertTo(hub conversion.Hub) error {
	site, is := hub.(*v1.Site)
	if !is {
		return fmt.Errorf("no v1.Site: %T", hub)
	}
	site.ObjectMeta, site.Status = s.ObjectMeta, s.Status
	site.Spec.Replicas, site.Spec.Image = s.Spec.Count, s.Spec.Image.Name
	if s.Spec.Image.Tag != "" {
		site.Spec.Image += ":" + s.Spec.Image.Tag
	}
	return nil
}

// ConvertFrom is made of a v1.
func (s *Site) ConvertFrom(hub conversion.Hub) error {
	site, is := hub.(*v1.Site)
	if !is {
		return fmt.Errorf("no v1.Site: %T", hub)
	}
	s.ObjectMeta, s.Status = site.ObjectMeta, site.Status
	s.Spec.Count = site.Spec.Replicas
	s.Spec.Image.Name, s.Spec.Image.Tag, _ = strings.Cut(site.Spec.Image, ":")
	return nil
}

// DeepCopyObject shares nothing with what it copies.
func (s *Site) DeepCopyObject() runtime.Object {
	copied := *s
	copied.ObjectMeta = *s.ObjectMeta.DeepCopy()
	copied.Status = (&v1.Site{Status: s.Status}).DeepCopyObject().(*v1.Site).Status
	return &copied
}

// AddToScheme makes the type known.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion, &Site{})
	meta.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
