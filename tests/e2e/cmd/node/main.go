// Command node is the part of a kubelet that speaks to the API, made of client-go's own
// machinery: with a bootstrap token it asks for a certificate, with the certificate it
// registers its node, asks for another certificate as itself, and renews its lease for as
// long as it runs. `node KUBECONFIG NAME FOLDER`. Each step prints a line.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"os"
	"time"

	certificates "k8s.io/api/certificates/v1"
	coordination "k8s.io/api/coordination/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/certificate"
	"k8s.io/client-go/util/retry"
	"k8s.io/component-helpers/apimachinery/lease"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
)

const (
	leases      = "kube-node-lease"
	renewal     = time.Second
	certifiable = 2 * time.Minute // for somebody to approve
)

func check(step string, err error) {
	if err != nil {
		fmt.Println("failed:", step+":", err)
		os.Exit(1)
	}
}

func main() {
	name, folder := os.Args[2], os.Args[3]
	bootstrap, err := clientcmd.BuildConfigFromFlags("", os.Args[1])
	check("kubeconfig", err)

	// By the token: nothing but a certificate can be had.
	_, err = clientset(bootstrap).CoreV1().Nodes().Create(context.Background(), node(name), meta.CreateOptions{})
	if !errors.IsForbidden(err) {
		check("a node by the token alone", fmt.Errorf("not forbidden: %v", err))
	}
	fmt.Println("asking")
	own := as(bootstrap, obtain(bootstrap, name, folder, "bootstrap"))
	fmt.Println("certified")
	register(clientset(own), name)
	fmt.Println("registered")

	// As itself: another certificate, by which it goes on.
	own = as(bootstrap, obtain(own, name, folder, "rotated"))
	client := clientset(own)
	_, err = client.CoreV1().Nodes().Get(context.Background(), name, meta.GetOptions{})
	check("its node by the new certificate", err)
	fmt.Println("rotated")
	failed := func() { check("renewal", fmt.Errorf("again and again")) }
	owned := func(renewed *coordination.Lease) error {
		found, err := client.CoreV1().Nodes().Get(context.Background(), name, meta.GetOptions{})
		if err != nil {
			return err
		}
		renewed.OwnerReferences = []meta.OwnerReference{{
			APIVersion: "v1", Kind: "Node", Name: name, UID: found.UID,
		}}
		return nil
	}
	lease.NewController(clock.RealClock{}, client, name, 40, failed, renewal, name, leases, owned).
		Run(context.Background())
}

// clientset is a client whose patience is a kubelet's.
func clientset(config *rest.Config) kubernetes.Interface {
	client, err := kubernetes.NewForConfig(config)
	check("client", err)
	return client
}

// obtain is a certificate for the node, asked for by `config`'s user.
func obtain(config *rest.Config, name, folder, pair string) *tls.Certificate {
	store, err := certificate.NewFileStore(pair, folder, folder, "", "")
	check("store", err)
	manager, err := certificate.NewManager(&certificate.Config{
		ClientsetFn: func(*tls.Certificate) (kubernetes.Interface, error) { return kubernetes.NewForConfig(config) },
		Template: &x509.CertificateRequest{Subject: pkix.Name{
			CommonName: "system:node:" + name, Organization: []string{"system:nodes"},
		}},
		RequestedCertificateLifetime: ptr.To(time.Hour),
		SignerName:                   certificates.KubeAPIServerClientKubeletSignerName,
		GetUsages:                    certificate.DefaultKubeletClientGetUsages,
		CertificateStore:             store,
	})
	check("manager", err)
	manager.Start()
	defer manager.Stop()
	err = wait.PollUntilContextTimeout(context.Background(), 50*time.Millisecond, certifiable, true, func(context.Context) (bool, error) {
		return manager.Current() != nil, nil
	})
	check("certificate", err)
	found := manager.Current()
	left := time.Until(found.Leaf.NotAfter)
	if left > time.Hour || left < 50*time.Minute {
		check("certificate", fmt.Errorf("an hour was asked for, not %v", left))
	}
	return found
}

// as is the user of a certificate.
func as(config *rest.Config, found *tls.Certificate) *rest.Config {
	own := rest.AnonymousClientConfig(config)
	for _, part := range found.Certificate {
		own.CertData = append(own.CertData, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: part})...)
	}
	key, err := x509.MarshalPKCS8PrivateKey(found.PrivateKey)
	check("key", err)
	own.KeyData = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	return own
}

func node(name string) *core.Node {
	return &core.Node{ObjectMeta: meta.ObjectMeta{Name: name, Labels: map[string]string{
		"kubernetes.io/hostname": name,
	}}}
}

// register makes the node and says that it is ready; another's is none of its business.
func register(client kubernetes.Interface, name string) {
	nodes := client.CoreV1().Nodes()
	ctx := context.Background()
	made, err := nodes.Create(ctx, node(name), meta.CreateOptions{})
	if errors.IsAlreadyExists(err) {
		// Of a worker that registered before, as kubelets find it.
		made, err = nodes.Get(ctx, name, meta.GetOptions{})
	}
	check("node", err)
	// Controllers of nodes may be first to write to it.
	check("status", retry.RetryOnConflict(retry.DefaultRetry, func() error {
		made.Status.Conditions = []core.NodeCondition{{
			Type: core.NodeReady, Status: core.ConditionTrue, Reason: "KubeletReady",
			LastHeartbeatTime: meta.Now(), LastTransitionTime: meta.Now(),
		}}
		_, err := nodes.UpdateStatus(ctx, made, meta.UpdateOptions{})
		if errors.IsConflict(err) {
			made, _ = nodes.Get(ctx, name, meta.GetOptions{})
		}
		return err
	}))
	_, err = nodes.Create(ctx, node(name+"-other"), meta.CreateOptions{})
	if !errors.IsForbidden(err) {
		check("another's node", fmt.Errorf("not forbidden: %v", err))
	}
	_, err = client.CoordinationV1().Leases(leases).Create(ctx, &coordination.Lease{
		ObjectMeta: meta.ObjectMeta{Name: name + "-other"},
	}, meta.CreateOptions{})
	if !errors.IsForbidden(err) {
		check("another's lease", fmt.Errorf("not forbidden: %v", err))
	}
	pods := meta.ListOptions{FieldSelector: "spec.nodeName=" + name}
	_, err = client.CoreV1().Pods("").List(ctx, pods)
	check("pods", err)
	_, err = client.CoreV1().Secrets("kube-system").List(ctx, meta.ListOptions{})
	if !errors.IsForbidden(err) {
		check("all secrets", fmt.Errorf("not forbidden: %v", err))
	}
}
