package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	admissions "k8s.io/api/admissionregistration/v1"
	extensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/cert"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	v1 "nautilus/e2e/cmd/operator/v1"
	"nautilus/e2e/cmd/operator/v1alpha1"
)

const definitionName = "sites.sites.example.org"

// installer points the definition of sites and its webhooks to this replica.
type installer struct {
	client client.Client
	server webhook.Server
	// Where this replica's webhooks are, and who signed for them, in PEM.
	url       string
	authority []byte
}

// certificate writes one for this host into a folder, for the server, and gives it.
func certificate(folder string) ([]byte, error) {
	chain, key, err := cert.GenerateSelfSignedCertKey("127.0.0.1", nil, nil)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(folder, "tls.key"), key, 0o600); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(chain), os.WriteFile(filepath.Join(folder, "tls.crt"), chain, 0o600)
}

// before defines sites if nobody has, so that the controllers find them.
func (i *installer) before(ctx context.Context) error {
	definition := &extensions.CustomResourceDefinition{}
	key := client.ObjectKey{Name: definitionName}
	if err := i.client.Get(ctx, key, definition); client.IgnoreNotFound(err) != nil {
		return err
	} else if err != nil {
		if err := i.definition(ctx); err != nil {
			return err
		}
	}
	return wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		err := i.client.List(ctx, &v1.SiteList{})
		return err == nil, nil
	})
}

// Start runs on the leader alone.
func (i *installer) Start(ctx context.Context) error {
	listens := i.server.StartedChecker()
	err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
		return listens(nil) == nil, nil
	})
	if err != nil {
		return err
	}
	if err := i.definition(ctx); err != nil {
		return err
	}
	if err := i.webhooks(ctx); err != nil {
		return err
	}
	fmt.Println("leading", os.Args[2])
	return nil
}

func (i *installer) definition(ctx context.Context) error {
	definition := &extensions.CustomResourceDefinition{}
	definition.Name = definitionName
	_, err := controllerutil.CreateOrUpdate(ctx, i.client, definition, func() error {
		convert := i.url + "/convert"
		spec := map[string]extensions.JSONSchemaProps{
			"replicas": {Type: "integer", Format: "int32"},
			"image":    {Type: "string"},
		}
		old := map[string]extensions.JSONSchemaProps{
			"count": {Type: "integer", Format: "int32"},
			"image": {Type: "object", Required: []string{"name"}, Properties: map[string]extensions.JSONSchemaProps{
				"name": {Type: "string"}, "tag": {Type: "string"},
			}},
		}
		definition.Spec.Group = v1.GroupVersion.Group
		definition.Spec.Names = extensions.CustomResourceDefinitionNames{
			Plural: "sites", Singular: "site", Kind: "Site", ListKind: "SiteList", Categories: []string{"all"},
		}
		definition.Spec.Scope = extensions.NamespaceScoped
		definition.Spec.Versions = []extensions.CustomResourceDefinitionVersion{
			version(v1.GroupVersion.Version, spec, ".spec.replicas"),
			version(v1alpha1.GroupVersion.Version, old, ".spec.count"),
		}
		definition.Spec.Versions[0].Storage = true
		definition.Spec.Versions[1].Deprecated = true
		definition.Spec.Conversion = &extensions.CustomResourceConversion{
			Strategy: extensions.WebhookConverter,
			Webhook: &extensions.WebhookConversion{
				ClientConfig:             &extensions.WebhookClientConfig{URL: &convert, CABundle: i.authority},
				ConversionReviewVersions: []string{"v1"},
			},
		}
		return nil
	})
	return err
}

func version(name string, spec map[string]extensions.JSONSchemaProps, replicas string) extensions.CustomResourceDefinitionVersion {
	preserve := true
	root := &extensions.JSONSchemaProps{Type: "object", Required: []string{"spec"}, Properties: map[string]extensions.JSONSchemaProps{
		"spec":   {Type: "object", Required: []string{"image"}, Properties: spec},
		"status": {Type: "object", XPreserveUnknownFields: &preserve},
	}}
	return extensions.CustomResourceDefinitionVersion{
		Name: name, Served: true,
		Schema: &extensions.CustomResourceValidation{OpenAPIV3Schema: root},
		Subresources: &extensions.CustomResourceSubresources{
			Status: &extensions.CustomResourceSubresourceStatus{},
			Scale:  &extensions.CustomResourceSubresourceScale{SpecReplicasPath: replicas, StatusReplicasPath: ".status.replicas"},
		},
		AdditionalPrinterColumns: []extensions.CustomResourceColumnDefinition{{
			Name: "Replicas", Type: "integer", JSONPath: replicas,
		}},
	}
}

func (i *installer) webhooks(ctx context.Context) error {
	none, fail := admissions.SideEffectClassNone, admissions.Fail
	at := func(path string) admissions.WebhookClientConfig {
		url := i.url + path
		return admissions.WebhookClientConfig{URL: &url, CABundle: i.authority}
	}
	rules := func(operations ...admissions.OperationType) []admissions.RuleWithOperations {
		return []admissions.RuleWithOperations{{Operations: operations, Rule: admissions.Rule{
			APIGroups: []string{v1.GroupVersion.Group}, APIVersions: []string{"v1"}, Resources: []string{"sites"},
		}}}
	}
	mutating := &admissions.MutatingWebhookConfiguration{ObjectMeta: meta.ObjectMeta{Name: "sites"}}
	_, err := controllerutil.CreateOrUpdate(ctx, i.client, mutating, func() error {
		mutating.Webhooks = []admissions.MutatingWebhook{{
			Name: "default.sites.example.org", ClientConfig: at("/mutate-sites-example-org-v1-site"),
			Rules: rules(admissions.Create, admissions.Update), FailurePolicy: &fail, SideEffects: &none,
			AdmissionReviewVersions: []string{"v1"},
		}}
		return nil
	})
	if err != nil {
		return err
	}
	validating := &admissions.ValidatingWebhookConfiguration{ObjectMeta: meta.ObjectMeta{Name: "sites"}}
	_, err = controllerutil.CreateOrUpdate(ctx, i.client, validating, func() error {
		validating.Webhooks = []admissions.ValidatingWebhook{{
			Name: "validate.sites.example.org", ClientConfig: at("/validate-sites-example-org-v1-site"),
			Rules: rules(admissions.Create, admissions.Update, admissions.Delete), FailurePolicy: &fail, SideEffects: &none,
			AdmissionReviewVersions: []string{"v1"},
		}}
		return nil
	})
	return err
}
