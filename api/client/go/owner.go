package client

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/crypto/blake2b"
)

// Signer is the wallet of the token's owner. It signs a personal message and gives Sui's
// serialized signature: flag, signature, public key.
type Signer interface {
	SignPersonalMessage(ctx context.Context, message []byte) ([]byte, error)
}

// ProofMessage is the personal message by whose signature a token's owner stands for a
// node at a time in Unix seconds.
func ProofMessage(nodeID string, timestamp int64) []byte {
	return fmt.Appendf(nil, "nautilus seal proof v1\n%s\n%d", nodeID, timestamp)
}

// Ed25519 is a wallet whose key is at hand.
type Ed25519 struct{ Key ed25519.PrivateKey }

const (
	// ed25519Flag is Sui's for the scheme.
	ed25519Flag = 0x00
	// Sui's intent of a personal message: scope 3, version 0, application 0.
	personalMessageScope = 3
)

// SignPersonalMessage implements Signer: the BLAKE2b-256 of the intent and of the message
// in BCS is signed.
func (e Ed25519) SignPersonalMessage(_ context.Context, message []byte) ([]byte, error) {
	framed := binary.AppendUvarint([]byte{personalMessageScope, 0, 0}, uint64(len(message)))
	digest := blake2b.Sum256(append(framed, message...))
	signature := ed25519.Sign(e.Key, digest[:])
	return slices.Concat([]byte{ed25519Flag}, signature, e.public()), nil
}

// Address is the wallet's on Sui: BLAKE2b-256 of flag and public key.
func (e Ed25519) Address() string {
	sum := blake2b.Sum256(append([]byte{ed25519Flag}, e.public()...))
	return fmt.Sprintf("0x%x", sum)
}

func (e Ed25519) public() []byte { return e.Key[ed25519.SeedSize:] }
