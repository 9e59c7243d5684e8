package client

import (
	"context"
	"crypto/ed25519"
	"testing"
)

// The owner's address is what api/workers reads out of the signature; it takes the proofs
// of this wallet in tests/tests/worker_clients.rs.
func TestWalletOfSevens(t *testing.T) {
	seed := make([]byte, ed25519.SeedSize)
	for at := range seed {
		seed[at] = 7
	}
	wallet := Ed25519{ed25519.NewKeyFromSeed(seed)}
	signature, err := wallet.SignPersonalMessage(context.Background(), ProofMessage("worker-1", 1_790_000_000))
	if err != nil || len(signature) != 1+ed25519.SignatureSize+ed25519.PublicKeySize || signature[0] != 0 {
		t.Fatalf("%x, %v", signature, err)
	}
	if wallet.Address() != "0xa0ccc8bcc83f6c628340134f8546a21e0618fd1aaa02432bba454c4a2c2233da" {
		t.Error(wallet.Address())
	}
}
