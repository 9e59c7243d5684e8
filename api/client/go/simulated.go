package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"
)

const (
	simulatedLabel    = "nautilus simulated evidence v2\x00"
	simulatedLifetime = 48 * time.Hour
	simulatedSkew     = 5 * time.Minute
)

// SimulatedVerifier judges simulated evidence, which proves nothing about hardware: whoever
// holds the root's key can make it. For development.
type SimulatedVerifier struct{ root *ecdsa.PublicKey }

// NewSimulatedVerifier reads the root's public key as `nautilus up` writes it: the
// uncompressed P-256 point in hex.
func NewSimulatedVerifier(root string) (*SimulatedVerifier, error) {
	point, err := hex.DecodeString(strings.TrimSpace(root))
	if err != nil {
		return nil, fmt.Errorf("the simulated root's public key: %w", err)
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return nil, fmt.Errorf("the simulated root's public key: %w", err)
	}
	return &SimulatedVerifier{key}, nil
}

// Verify implements Verifier.
func (v *SimulatedVerifier) Verify(_ context.Context, body []byte, now time.Time) (*Claims, error) {
	var signed struct {
		_                   struct{} `cbor:",toarray"`
		Document, Signature []byte
	}
	if err := cbor.Unmarshal(body, &signed); err != nil {
		return nil, err
	}
	digest := sha256.Sum256(append([]byte(simulatedLabel), signed.Document...))
	if !ecdsa.VerifyASN1(v.root, digest[:], signed.Signature) {
		return nil, errors.New("it is not signed by this simulated root")
	}
	var document struct {
		Measurement []byte `cbor:"measurement"`
		Platform    []byte `cbor:"platform"`
		ReportData  []byte `cbor:"report-data"`
		IssuedAtMS  int64  `cbor:"issued-at-ms"`
	}
	if err := cbor.Unmarshal(signed.Document, &document); err != nil {
		return nil, err
	}
	issued := time.UnixMilli(document.IssuedAtMS)
	if now.Before(issued.Add(-simulatedSkew)) || now.After(issued.Add(simulatedLifetime)) {
		return nil, fmt.Errorf("issued at %v, it does not hold at %v", issued.UTC(), now.UTC())
	}
	return &Claims{
		Measurement: document.Measurement,
		Platform:    hex.EncodeToString(document.Platform),
		ReportData:  document.ReportData,
	}, nil
}
