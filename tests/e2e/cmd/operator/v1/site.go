// Package v1 is the version of sites that is stored, and that the operator works with.
package v1

import (
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is what this package holds.
var GroupVersion = schema.GroupVersion{Group: "sites.example.org", Version: "v1"}

// Site is a deployment and its service.
type Site struct {
	meta.TypeMeta   `json:",inline"`
	meta.ObjectMeta `json:"metadata,omitempty"`
	Spec            Spec   `json:"spec"`
	Status          Status `json:"status,omitempty"`
}

// Spec is what a site is to be.
type Spec struct {
	Replicas int32  `json:"replicas,omitempty"`
	Image    string `json:"image"`
}

// Status is what a site is.
type Status struct {
	ObservedGeneration int64            `json:"observedGeneration,omitempty"`
	Conditions         []meta.Condition `json:"conditions,omitempty"`
}

// Hub says that other versions are converted to and from this one.
func (*Site) Hub() {}

// DeepCopyObject shares nothing with what it copies.
func (s *Site) DeepCopyObject() runtime.Object {
	copied := *s
	copied.ObjectMeta = *s.ObjectMeta.DeepCopy()
	copied.Status.Conditions = nil
	for _, condition := range s.Status.Conditions {
		copied.Status.Conditions = append(copied.Status.Conditions, *condition.DeepCopy())
	}
	return &copied
}

// SiteList is many of them.
type SiteList struct {
	meta.TypeMeta `json:",inline"`
	meta.ListMeta `json:"metadata,omitempty"`
	Items         []Site `json:"items"`
}

// DeepCopyObject shares nothing with what it copies.
func (l *SiteList) DeepCopyObject() runtime.Object {
	copied := *l
	copied.ListMeta = *l.ListMeta.DeepCopy()
	copied.Items = make([]Site, len(l.Items))
	for i := range l.Items {
		copied.Items[i] = *l.Items[i].DeepCopyObject().(*Site)
	}
	return &copied
}

// AddToScheme makes the types known.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion, &Site{}, &SiteList{})
	meta.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
