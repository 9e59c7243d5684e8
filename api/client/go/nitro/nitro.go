// Package nitro judges evidence of AWS Nitro Enclaves: a COSE_Sign1 document (ES384) whose
// chain leads to the root that AWS publishes. Everything needed comes with the document.
package nitro

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha512"
	"crypto/x509"
	_ "embed"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"
	"nautilus.io/client"
)

// SHA-256 641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b, as AWS
// publishes it.
//
//go:embed root.der
var root []byte

const (
	// lifetime of a document; how fresh it is, is for the nonce to show.
	lifetime = 24 * time.Hour
	skew     = 5 * time.Minute
	// Bytes of one number of a signature on P-384.
	numberBytes = 48
	// Bytes of user data that are report data.
	reportDataBytes = 64
	maxBundle       = 8
)

// protected is the header {1: -35}: signed by ES384.
var protected = []byte{0xa1, 0x01, 0x38, 0x22}

// Verifier judges Nitro documents.
type Verifier struct{}

// message is a COSE_Sign1 (RFC 9052, 4.2).
type message struct {
	_                  struct{} `cbor:",toarray"`
	Protected          []byte
	Unprotected        map[int]cbor.RawMessage
	Payload, Signature []byte
}

// document is what the hypervisor signs ("Verifying the root of trust").
type document struct {
	ModuleID    string            `cbor:"module_id"`
	Digest      string            `cbor:"digest"`
	Timestamp   int64             `cbor:"timestamp"`
	PCRs        map[uint64][]byte `cbor:"pcrs"`
	Certificate []byte            `cbor:"certificate"`
	Bundle      [][]byte          `cbor:"cabundle"`
	PublicKey   []byte            `cbor:"public_key"`
	UserData    []byte            `cbor:"user_data"`
	Nonce       []byte            `cbor:"nonce"`
}

var strict = func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

// Verify implements client.Verifier.
func (Verifier) Verify(_ context.Context, body []byte, now time.Time) (*client.Claims, error) {
	var signed message
	// The tag 18, which says COSE_Sign1, may be there or not.
	if err := strict.Unmarshal(bytes.TrimPrefix(body, []byte{0xd2}), &signed); err != nil {
		return nil, err
	}
	if !bytes.Equal(signed.Protected, protected) || len(signed.Unprotected) != 0 {
		return nil, errors.New("it is not a COSE_Sign1 message signed by ES384 alone")
	}
	var said document
	if err := strict.Unmarshal(signed.Payload, &said); err != nil {
		return nil, err
	}
	made := time.UnixMilli(said.Timestamp)
	leaf, err := said.chain(made)
	if err != nil {
		return nil, err
	}
	if err := checkSignature(leaf, signed); err != nil {
		return nil, err
	}
	if now.Before(made.Add(-skew)) || now.After(made.Add(lifetime)) {
		return nil, fmt.Errorf("made at %v, it does not hold at %v", made.UTC(), now.UTC())
	}
	return said.claims()
}

// chain checks that the bundle leads from the root to the document's certificate. AWS' keys
// live three hours, so it must hold when the document was made.
func (d *document) chain(made time.Time) (*x509.Certificate, error) {
	if len(d.Bundle) == 0 || len(d.Bundle) > maxBundle || !bytes.Equal(d.Bundle[0], root) {
		return nil, errors.New("its chain does not begin at the root of AWS Nitro Enclaves")
	}
	options := x509.VerifyOptions{
		Roots:         x509.NewCertPool(),
		Intermediates: x509.NewCertPool(),
		CurrentTime:   made,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	for at, der := range d.Bundle {
		authority, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		if at == 0 {
			options.Roots.AddCert(authority)
		} else {
			options.Intermediates.AddCert(authority)
		}
	}
	leaf, err := x509.ParseCertificate(d.Certificate)
	if err != nil {
		return nil, err
	}
	_, err = leaf.Verify(options)
	return leaf, err
}

func checkSignature(leaf *x509.Certificate, signed message) error {
	key, isECDSA := leaf.PublicKey.(*ecdsa.PublicKey)
	if !isECDSA || key.Curve.Params().BitSize != 384 || len(signed.Signature) != 2*numberBytes {
		return errors.New("its signature is not one on P-384")
	}
	covered, err := cbor.Marshal([]any{"Signature1", signed.Protected, []byte{}, signed.Payload})
	if err != nil {
		return err
	}
	digest := sha512.Sum384(covered)
	r := new(big.Int).SetBytes(signed.Signature[:numberBytes])
	s := new(big.Int).SetBytes(signed.Signature[numberBytes:])
	if !ecdsa.Verify(key, digest[:], r, s) {
		return errors.New("it is not signed by the key of its certificate")
	}
	return nil
}

func (d *document) claims() (*client.Claims, error) {
	image := d.PCRs[0]
	if d.Digest != "SHA384" || len(image) != sha512.Size384 {
		return nil, errors.New("it has no SHA-384 of the image")
	}
	instance, _, found := strings.Cut(strings.TrimPrefix(d.ModuleID, "i-"), "-enc")
	if !found {
		return nil, errors.New("its module id names no instance")
	}
	// Any other user data binds nothing, and no hash is 64 zeros.
	reportData := make([]byte, reportDataBytes)
	if len(d.UserData) == reportDataBytes {
		reportData = d.UserData
	}
	return &client.Claims{
		Measurement: image,
		Platform:    instance,
		Debug:       bytes.Equal(image, make([]byte, len(image))),
		ReportData:  reportData,
	}, nil
}
