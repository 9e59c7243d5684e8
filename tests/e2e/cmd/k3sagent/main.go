// Command k3sagent is what an agent of K3s says to its server, written from the wire form, with
// the agent's own libraries: it finds the authority by the hash in its token, gets certificates
// over its own keys, the configuration and the servers, renews the lease of its node, and holds a
// tunnel through which the server reaches its kubelet.
// `k3sagent SERVER TOKEN NODE PASSWORD FOLDER`. Each step prints a line.
package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gorilla/websocket"
	"github.com/rancher/remotedialer"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// nodeIP is an address that nobody reaches but through the tunnel.
const nodeIP = "10.99.0.1"

func check(step string, err error) {
	if err != nil {
		fmt.Println("failed:", step+":", err)
		os.Exit(1)
	}
}

// token is a join token in its three forms: K10<hash>::user:password, K10::user:password, bare.
type token struct{ hash, user, password string }

func parse(text string) token {
	rest, ok := strings.CutPrefix(text, "K10")
	if !ok {
		return token{user: "node", password: text}
	}
	hash, credentials, _ := strings.Cut(rest, "::")
	_, password, ok := strings.Cut(credentials, ":")
	if !ok {
		check("token", fmt.Errorf("no user and password"))
	}
	return token{hash: hash, user: "node", password: password}
}

type agent struct {
	server, node, password, folder string
	token                          token
	authorities                    []byte
	client                         *http.Client
}

// trust fetches the authorities from a server that is not known yet, and checks them.
func (a *agent) trust() {
	blind := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	a.client = blind
	status, found := a.send(http.MethodGet, "/cacerts", nil)
	if status != http.StatusOK {
		check("authorities", fmt.Errorf("status %d", status))
	}
	hash := sha256.Sum256(found)
	if a.token.hash != "" && a.token.hash != hex.EncodeToString(hash[:]) {
		check("authorities", fmt.Errorf("token CA hash does not match the Cluster CA certificate hash"))
	}
	a.authorities = found
	a.client = a.with(nil)
	status, again := a.send(http.MethodGet, "/cacerts", nil)
	if status != http.StatusOK || !bytes.Equal(found, again) {
		check("authorities", fmt.Errorf("CA cert validation failed"))
	}
}

func (a *agent) roots() *x509.CertPool {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(a.authorities) {
		check("authorities", fmt.Errorf("no certificate"))
	}
	return roots
}

func (a *agent) with(pair *tls.Certificate) *http.Client {
	config := &tls.Config{RootCAs: a.roots()}
	if pair != nil {
		config.Certificates = []tls.Certificate{*pair}
	}
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: config}}
}

func (a *agent) send(method, path string, body []byte) (int, []byte) {
	request, err := http.NewRequest(method, a.server+path, bytes.NewReader(body))
	check(path, err)
	if path != "/cacerts" {
		request.SetBasicAuth(a.token.user, a.token.password)
		request.Header.Set("k3s-Node-Name", a.node)
		request.Header.Set("k3s-Node-Password", a.password)
		request.Header.Set("k3s-Node-IP", nodeIP)
	}
	response, err := a.client.Do(request)
	check(path, err)
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	check(path, err)
	return response.StatusCode, content
}

func (a *agent) get(path string) []byte {
	status, content := a.send(http.MethodGet, path, nil)
	if status != http.StatusOK {
		check(path, fmt.Errorf("status %d: %s", status, content))
	}
	return content
}

// certificate is one over a key that was made here, checked against what it is for.
func (a *agent) certificate(file, name string, usage x509.ExtKeyUsage) *tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(file, err)
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	check(file, err)
	status, answer := a.send(http.MethodPost, "/v1-k3s/"+file+".crt", request)
	if status != http.StatusOK {
		check(file, fmt.Errorf("status %d: %s", status, answer))
	}
	keyBytes, err := x509.MarshalECPrivateKey(key)
	check(file, err)
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyBytes})
	pair, err := tls.X509KeyPair(answer, keyPEM)
	check(file, err)
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	check(file, err)
	_, err = leaf.Verify(x509.VerifyOptions{Roots: a.roots(), KeyUsages: []x509.ExtKeyUsage{usage}})
	check(file, err)
	if leaf.Subject.CommonName != name {
		check(file, fmt.Errorf("it is of %s", leaf.Subject.CommonName))
	}
	check(file, os.WriteFile(filepath.Join(a.folder, file+".crt"), answer, 0o600))
	check(file, os.WriteFile(filepath.Join(a.folder, file+".key"), keyPEM, 0o600))
	return &pair
}

func (a *agent) clientset(file string) kubernetes.Interface {
	client, err := kubernetes.NewForConfig(&rest.Config{Host: a.server, TLSClientConfig: rest.TLSClientConfig{
		CAData:   a.authorities,
		CertFile: filepath.Join(a.folder, file+".crt"),
		KeyFile:  filepath.Join(a.folder, file+".key"),
	}})
	check(file, err)
	return client
}

// kubelet serves by its own certificate, and shows that the server reaches it.
func kubelet(pair *tls.Certificate) int {
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{*pair}, ClientAuth: tls.RequestClientCert})
	check("kubelet", err)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "kubelet asked by %s", r.TLS.PeerCertificates[0].Subject.CommonName)
	})
	go http.Serve(listener, handler)
	return listener.Addr().(*net.TCPAddr).Port
}

func main() {
	a := &agent{server: os.Args[1], token: parse(os.Args[2]), node: os.Args[3], password: os.Args[4], folder: os.Args[5]}
	ctx := context.Background()
	a.trust()
	fmt.Println("trusted")

	var config struct {
		ClusterDNS     net.IP
		ClusterDomain  string
		ServiceIPRange *net.IPNet
		FlannelBackend string
		DisableNPC     bool
		HTTPSPort      int
		SupervisorPort int
	}
	check("config", json.Unmarshal(a.get("/v1-k3s/config"), &config))
	if !config.ServiceIPRange.Contains(config.ClusterDNS) || config.ClusterDomain == "" || config.HTTPSPort != config.SupervisorPort {
		check("config", fmt.Errorf("%+v", config))
	}
	for _, file := range []string{"client-ca.crt", "server-ca.crt"} {
		if !bytes.Equal(a.get("/v1-k3s/"+file), a.authorities) {
			check(file, fmt.Errorf("not the authorities"))
		}
	}
	fmt.Println("configured")

	own := "system:node:" + a.node
	serving := a.certificate("serving-kubelet", own, x509.ExtKeyUsageServerAuth)
	client := a.certificate("client-kubelet", own, x509.ExtKeyUsageClientAuth)
	a.certificate("client-kube-proxy", "system:kube-proxy", x509.ExtKeyUsageClientAuth)
	a.certificate("client-k3s-controller", "system:k3s-controller", x509.ExtKeyUsageClientAuth)
	fmt.Println("certified")

	// From here on as the node.
	a.client = a.with(client)
	if string(a.get("/v1-k3s/readyz")) != "ok" {
		check("readyz", fmt.Errorf("not ok"))
	}
	var servers []string
	check("apiservers", json.Unmarshal(a.get("/v1-k3s/apiservers"), &servers))
	if len(servers) == 0 {
		check("apiservers", fmt.Errorf("none"))
	}
	check("kubeconfig", os.WriteFile(filepath.Join(a.folder, "kubeconfig"), a.get("/kubectl/config"), 0o600))
	fmt.Println("servers", strings.Join(servers, " "))

	nodes := a.clientset("client-kubelet").CoreV1().Nodes()
	port := kubelet(serving)
	patch, err := json.Marshal(map[string]any{"status": map[string]any{
		"addresses":       []core.NodeAddress{{Type: core.NodeInternalIP, Address: nodeIP}},
		"daemonEndpoints": core.NodeDaemonEndpoints{KubeletEndpoint: core.DaemonEndpoint{Port: int32(port)}},
		"nodeInfo":        map[string]string{"kubeletVersion": "v1.37.2+k3s1"},
	}})
	check("status", err)
	_, err = nodes.Patch(ctx, a.node, types.StrategicMergePatchType, patch, meta.PatchOptions{}, "status")
	check("status", err)
	_, err = a.clientset("client-kube-proxy").CoreV1().Services("").List(ctx, meta.ListOptions{})
	check("services as the proxy", err)
	_, err = a.clientset("client-k3s-controller").CoreV1().Endpoints("default").List(ctx, meta.ListOptions{})
	check("endpoints as the controller", err)
	fmt.Println("registered")

	dialer := &websocket.Dialer{TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{*client}, RootCAs: a.roots()}}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	allowed := func(proto, to string) bool { return proto == "tcp" && to == address }
	connected := func(context.Context, *remotedialer.Session) error {
		fmt.Println("connected")
		return nil
	}
	url := strings.Replace(a.server, "https://", "wss://", 1) + "/v1-k3s/connect"
	go func() {
		for {
			remotedialer.ConnectToProxy(ctx, url, http.Header{}, allowed, dialer, connected)
			time.Sleep(200 * time.Millisecond)
		}
	}()

	leases := a.clientset("client-kubelet").CoordinationV1().Leases("kube-node-lease")
	for told := false; ; time.Sleep(500 * time.Millisecond) {
		lease, err := leases.Get(ctx, a.node, meta.GetOptions{})
		if err == nil {
			now := meta.NowMicro()
			lease.Spec.RenewTime = &now
			_, err = leases.Update(ctx, lease, meta.UpdateOptions{})
		}
		switch {
		case err != nil:
			fmt.Println("lease:", err)
		case !told:
			fmt.Println("renewed")
			told = true
		}
	}
}
