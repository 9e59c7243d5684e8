package client

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func (w *world) worker(config Config) *Worker {
	config.Policy = w.policy
	client, err := New(config)
	if err != nil {
		w.t.Fatal(err)
	}
	return &Worker{Client: client, NodeID: "worker-1", Token: "seal-1"}
}

func TestTokenGoesToAProvenKeyAndNowhereElse(t *testing.T) {
	w := newWorld(t)
	honest := w.node()
	for what, change := range map[string]func(*node){
		"other code":               func(n *node) { n.measurement = []byte{1} },
		"another node's evidence":  func(n *node) { n.relayed = honest.Certificate().RawSubjectPublicKeyInfo },
		"a status and no evidence": func(n *node) { n.measurement = nil },
	} {
		liar := w.node()
		liar.set(change)
		var distrust *Distrust
		err := w.worker(Config{Endpoints: []string{liar.URL}}).Register(context.Background())
		if !errors.As(err, &distrust) || liar.seen() != 0 {
			t.Errorf("%s: %v, and %d requests", what, err, liar.seen())
		}
	}
	worker := w.worker(Config{Endpoints: []string{honest.URL}})
	for range 3 {
		if err := worker.Beat(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if honest.proofs != 1 || honest.seen() != 3 {
		t.Errorf("%d proofs, %d beats", honest.proofs, honest.seen())
	}
	if asked := honest.requests[0]; asked.Header.Get("X-Seal-Token") != "seal-1" || honest.bodies[0]["node_id"] != "worker-1" {
		t.Errorf("%v %v", asked.Header, honest.bodies[0])
	}
}

func TestWithAnAuthorityOnlyItsQuorumIsBelieved(t *testing.T) {
	w := newWorld(t)
	n, other := w.node(), w.node()
	authority := x509.NewCertPool()
	authority.AddCert(other.Certificate())
	var distrust *Distrust
	err := w.worker(Config{Endpoints: []string{n.URL}, Authority: authority}).Register(context.Background())
	if !errors.As(err, &distrust) || n.seen() != 0 || n.proofs != 0 {
		t.Errorf("%v, %d, %d", err, n.seen(), n.proofs)
	}
}

func TestSimulatedEvidenceNeedsItsVerifier(t *testing.T) {
	w := newWorld(t)
	n := w.node()
	w.policy.Verifiers = nil
	err := w.worker(Config{Endpoints: []string{n.URL}}).Beat(context.Background())
	if err == nil || !strings.Contains(err.Error(), "simulated evidence is not accepted") {
		t.Error(err)
	}
}

func TestNodeWithAnotherKeyIsProvenAgain(t *testing.T) {
	w := newWorld(t)
	n := w.node()
	worker := w.worker(Config{Endpoints: []string{n.URL}})
	if err := worker.Beat(context.Background()); err != nil {
		t.Fatal(err)
	}
	// As another process at the same address: its evidence of before says nothing of its key.
	n.Close()
	again := w.serve(n)
	worker.Client.mu.Lock()
	worker.Client.endpoints = newEndpoints([]string{again.URL}, nil)
	worker.Client.proven = map[string]time.Time{again.URL: time.Now().Add(time.Hour)}
	worker.Client.mu.Unlock()
	if err := worker.Beat(context.Background()); err != nil || n.proofs != 2 {
		t.Fatalf("%v after %d proofs", err, n.proofs)
	}
	n.set(func(n *node) { n.measurement = []byte{1} })
	worker.Client.mu.Lock()
	clear(worker.Client.keys)
	worker.Client.mu.Unlock()
	worker.Client.http.CloseIdleConnections()
	var distrust *Distrust
	if err := worker.Beat(context.Background()); !errors.As(err, &distrust) || n.seen() != 2 {
		t.Errorf("%v, %d", err, n.seen())
	}
}

func TestDeadAndBusyMembersArePassedOver(t *testing.T) {
	w := newWorld(t)
	dead, busy, alive := w.node(), w.node(), w.node()
	busy.set(func(n *node) { n.status, n.retryAfter = http.StatusServiceUnavailable, "1" })
	worker := w.worker(Config{Endpoints: []string{dead.URL, busy.URL, alive.URL}})
	for _, n := range []*node{dead, busy, alive} {
		n.set(func(n *node) { n.members = []string{dead.URL, busy.URL, alive.URL} })
	}
	dead.Close()
	for range 3 {
		if err := worker.Beat(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if alive.seen() != 3 || busy.seen() > 1 {
		t.Errorf("%d and %d", alive.seen(), busy.seen())
	}
}

func TestLeaderIsFollowedAndMembersAreDiscovered(t *testing.T) {
	w := newWorld(t)
	first, leader := w.node(), w.node()
	first.set(func(n *node) { n.members, n.leader = []string{first.URL, leader.URL}, leader.URL })
	leader.set(func(n *node) { n.members = []string{first.URL, leader.URL} })
	file := filepath.Join(t.TempDir(), "members.json")
	worker := w.worker(Config{Endpoints: []string{first.URL}, CacheFile: file})
	if err := worker.Beat(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := worker.Register(context.Background()); err != nil || leader.seen() != 1 {
		t.Fatalf("%v, %d", err, leader.seen())
	}
	// The next start needs nobody who was given.
	first.Close()
	again := w.worker(Config{CacheFile: file})
	if err := again.Register(context.Background()); err != nil || leader.seen() != 2 {
		t.Fatalf("%v, %d", err, leader.seen())
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{CacheFile: file}); err == nil {
		t.Error("a broken cache names nobody")
	}
}

func TestAnotherQuorumIsNotOurs(t *testing.T) {
	w := newWorld(t)
	ours, theirs := w.node(), w.node()
	ours.set(func(n *node) { n.members = []string{theirs.URL} })
	theirs.set(func(n *node) { n.cluster = "other" })
	worker := w.worker(Config{Endpoints: []string{ours.URL}})
	if err := worker.Beat(context.Background()); err != nil {
		t.Fatal(err)
	}
	ours.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := worker.Beat(ctx); err == nil || theirs.seen() != 0 {
		t.Errorf("%v, %d", err, theirs.seen())
	}
}

func TestRefusalIsFinalAndForgottenWorkerRegistersAgain(t *testing.T) {
	w := newWorld(t)
	n := w.node()
	worker := w.worker(Config{Endpoints: []string{n.URL}})
	n.set(func(n *node) { n.status = http.StatusUnauthorized })
	var refusal *Refusal
	if err := worker.Run(context.Background()); !errors.As(err, &refusal) || refusal.Message != "so says the node" {
		t.Fatal(err)
	}
	n.set(func(n *node) { n.status = http.StatusOK })
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var told []string
	worker.Interval = time.Millisecond
	worker.Observe = func(event Event) {
		told = append(told, event.What)
		switch {
		case event.Err != nil:
			n.set(func(n *node) { n.status = http.StatusOK })
		case len(told) == 2:
			n.set(func(n *node) { n.status = http.StatusNotFound })
		case len(told) > 3 && event.What == "acknowledged":
			cancel()
		}
	}
	if err := worker.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(told, " "); got != "registered acknowledged acknowledged registered acknowledged" {
		t.Error(got)
	}
}

type wallet struct{}

func (wallet) SignPersonalMessage(_ context.Context, message []byte) ([]byte, error) {
	return append([]byte("signed "), message...), nil
}

func TestOwnersProofGoesBesideTheToken(t *testing.T) {
	w := newWorld(t)
	n := w.node()
	worker := w.worker(Config{Endpoints: []string{n.URL}})
	worker.Owner = wallet{}
	if err := worker.Register(context.Background()); err != nil {
		t.Fatal(err)
	}
	proof, err := base64.StdEncoding.DecodeString(n.requests[0].Header.Get("X-Seal-Proof"))
	timestamp := int64(n.bodies[0]["timestamp"].(float64))
	if err != nil || string(proof) != "signed "+string(ProofMessage("worker-1", timestamp)) {
		t.Errorf("%q, %v", proof, err)
	}
	if string(ProofMessage("w", 7)) != "nautilus seal proof v1\nw\n7" {
		t.Error("the message's form is the quorum's")
	}
}
