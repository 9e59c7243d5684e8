package client

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
)

var measurement = []byte{0xab, 0xcd}

// world is a simulated root, and nodes whose evidence it signs.
type world struct {
	t      *testing.T
	root   *ecdsa.PrivateKey
	policy Policy
}

func newWorld(t *testing.T) *world {
	root := newKey(t)
	point, err := root.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := NewSimulatedVerifier(hex.EncodeToString(point))
	if err != nil {
		t.Fatal(err)
	}
	return &world{t, root, Policy{
		Measurements: []string{"simulated:" + hex.EncodeToString(measurement)},
		Verifiers:    map[Kind]Verifier{Simulated: verifier},
	}}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// evidence is over report data, as the server makes it.
func (w *world) evidence(measurement, reportData []byte) []byte {
	must := func(value any) []byte {
		encoded, err := cbor.Marshal(value)
		if err != nil {
			w.t.Fatal(err)
		}
		return encoded
	}
	document := must(struct {
		Measurement []byte `cbor:"measurement"`
		Platform    []byte `cbor:"platform"`
		ReportData  []byte `cbor:"report-data"`
		IssuedAtMS  int64  `cbor:"issued-at-ms"`
	}{measurement, make([]byte, 32), reportData, time.Now().UnixMilli()})
	digest := sha256.Sum256(append([]byte(simulatedLabel), document...))
	signature, err := ecdsa.SignASN1(rand.Reader, w.root, digest[:])
	if err != nil {
		w.t.Fatal(err)
	}
	return must(cbor.Tag{Number: simulatedTag, Content: [][]byte{must([][]byte{document, signature}), {}}})
}

// node is a member under a test's control.
type node struct {
	*httptest.Server
	mu sync.Mutex
	// Set by the test.
	measurement []byte
	cluster     string
	relayed     []byte
	members     []string
	leader      string
	status      int
	retryAfter  string
	// Seen.
	proofs   int
	requests []*http.Request
	bodies   []map[string]any
}

func (w *world) node() *node {
	n := &node{measurement: measurement, cluster: "q", status: http.StatusOK}
	n.Server = w.serve(n)
	return n
}

// serve starts the node, with a key of its own.
func (w *world) serve(n *node) *httptest.Server {
	key := newKey(w.t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"node"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		w.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		w.t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(answer http.ResponseWriter, asked *http.Request) {
		n.mu.Lock()
		defer n.mu.Unlock()
		answer.Header().Set(leaderHeader, n.leader)
		if asked.URL.Path == attestationPath {
			n.proofs++
			nonce, _ := hex.DecodeString(asked.URL.Query().Get("nonce"))
			spki := leaf.RawSubjectPublicKeyInfo
			if n.relayed != nil {
				spki = n.relayed
			}
			members := []map[string]string{}
			for _, member := range n.members {
				members = append(members, map[string]string{"api_address": member})
			}
			_ = json.NewEncoder(answer).Encode(map[string]any{
				"evidence": w.evidence(n.measurement, attestationReportData(nonce, spki)),
				"quorum":   map[string]any{"cluster": n.cluster, "members": members},
			})
			return
		}
		body, _ := io.ReadAll(asked.Body)
		var fields map[string]any
		_ = json.Unmarshal(body, &fields)
		n.requests, n.bodies = append(n.requests, asked), append(n.bodies, fields)
		if n.retryAfter != "" {
			answer.Header().Set("Retry-After", n.retryAfter)
		}
		answer.WriteHeader(n.status)
		_ = json.NewEncoder(answer).Encode(map[string]string{"message": "so says the node"})
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	w.t.Cleanup(server.Close)
	return server
}

// set changes what the node does.
func (n *node) set(change func(*node)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(n)
}

func (n *node) seen() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.requests)
}
