package client

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// Kind is a kind of trusted execution environment.
type Kind string

// The kinds there are.
const (
	Simulated Kind = "simulated"
	Nitro     Kind = "nitro"
	SNP       Kind = "snp"
	TDX       Kind = "tdx"
	SGX       Kind = "sgx"
)

// Claims is what genuine evidence says.
type Claims struct {
	// Measurement is the digest of the code that runs.
	Measurement []byte
	// Platform is the chip or host it runs on, in hex.
	Platform string
	// Debug says that the TEE can be looked into. Never accepted.
	Debug bool
	// ReportData is what the TEE was asked to sign: 64 bytes.
	ReportData []byte
}

// Verifier judges whether evidence of one kind is genuine at a time, under its vendor's
// root, and reads it. What the code is worth is for a Policy to say. An error that wraps
// ErrCannotTell says nothing against the evidence.
type Verifier interface {
	Verify(ctx context.Context, body []byte, now time.Time) (*Claims, error)
}

// ErrCannotTell says that evidence can't be judged now, for something that its vendor publishes
// can't be had: the node is not believed, nor distrusted.
var ErrCannotTell = errors.New("the evidence can't be judged now")

// Policy says which code is believed. The zero Policy believes nobody.
type Policy struct {
	// Measurements are the code that may run: "KIND:HEX".
	Measurements []string
	// Verifiers are those of the kinds that can be judged; a kind without one is refused.
	// SimulatedVerifier is for development only.
	Verifiers map[Kind]Verifier
}

const (
	maxEvidenceBytes = 32 * 1024
	simulatedTag     = 0x6e617574
	intelQuoteTag    = 60000
	nitroMediaType   = "application/aws-nitro-document+cbor"
	snpMediaType     = "application/vnd.amd.sev-snp-report"
	// The indicator of a CMW record that holds evidence.
	cmwEvidence = 1 << 2

	attestationLabel = "nautilus attestation evidence v1"
)

// judge gives the claims of evidence that is genuine, answers reportData, and is of code
// that the policy names.
func (p Policy) judge(ctx context.Context, evidence, reportData []byte, now time.Time) (*Claims, error) {
	kind, body, err := decodeEvidence(evidence)
	if err != nil {
		return nil, err
	}
	verifier := p.Verifiers[kind]
	if verifier == nil {
		return nil, fmt.Errorf("%s evidence is not accepted here: there is no verifier for it", kind)
	}
	claims, err := verifier.Verify(ctx, body, now)
	if err != nil {
		return nil, fmt.Errorf("%s evidence: %w", kind, err)
	}
	if !bytes.Equal(claims.ReportData, reportData) {
		return nil, errors.New("the evidence answers another question (replayed or relayed)")
	}
	if claims.Debug {
		return nil, fmt.Errorf("the %s TEE runs in debug mode", kind)
	}
	seen := string(kind) + ":" + hex.EncodeToString(claims.Measurement)
	if !slices.ContainsFunc(p.Measurements, func(allowed string) bool {
		return strings.EqualFold(strings.TrimSpace(allowed), seen)
	}) {
		return nil, fmt.Errorf("measurement %s is not in the policy", seen)
	}
	return claims, nil
}

// attestationReportData is what evidence signs that vouches for a serving key: SHA-512
// over the label, the nonce and the SubjectPublicKeyInfo, each preceded by its length.
func attestationReportData(nonce, spki []byte) []byte {
	hash := sha512.New()
	for _, field := range [][]byte{[]byte(attestationLabel), nonce, spki} {
		_ = binary.Write(hash, binary.BigEndian, uint64(len(field)))
		hash.Write(field)
	}
	return hash.Sum(nil)
}

// decodeEvidence reads the wire form: tag([body, claims buffer]), or a CMW record
// [media type, body, 4]. Anything but the one encoding is refused.
func decodeEvidence(encoded []byte) (Kind, []byte, error) {
	if len(encoded) > maxEvidenceBytes {
		return "", nil, fmt.Errorf("evidence of %d bytes is more than %d", len(encoded), maxEvidenceBytes)
	}
	var tagged cbor.RawTag
	if cbor.Unmarshal(encoded, &tagged) == nil {
		var parts struct {
			_            struct{} `cbor:",toarray"`
			Body, Buffer []byte
		}
		if err := decodeExactly(tagged.Content, &parts); err != nil {
			return "", nil, err
		}
		switch {
		case tagged.Number == simulatedTag:
			return Simulated, parts.Body, nil
		case tagged.Number == intelQuoteTag && len(parts.Body) >= 8:
			switch binary.LittleEndian.Uint32(parts.Body[4:8]) {
			case 0x00:
				return SGX, parts.Body, nil
			case 0x81:
				return TDX, parts.Body, nil
			}
		}
		return "", nil, fmt.Errorf("evidence with the CBOR tag %d is of no known kind", tagged.Number)
	}
	var record struct {
		_         struct{} `cbor:",toarray"`
		MediaType string
		Body      []byte
		Indicator uint64
	}
	if err := decodeExactly(encoded, &record); err != nil {
		return "", nil, err
	}
	kinds := map[string]Kind{nitroMediaType: Nitro, snpMediaType: SNP}
	kind, known := kinds[record.MediaType]
	if !known || record.Indicator != cmwEvidence {
		return "", nil, fmt.Errorf("evidence of media type %.64q is of no known kind", record.MediaType)
	}
	return kind, record.Body, nil
}

// decodeExactly decodes a value whose only encoding is the one given.
func decodeExactly(encoded []byte, value any) error {
	if err := cbor.Unmarshal(encoded, value); err != nil {
		return fmt.Errorf("evidence: %w", err)
	}
	again, err := cbor.Marshal(value)
	if err != nil || !bytes.Equal(again, encoded) {
		return errors.New("evidence: not the canonical encoding")
	}
	return nil
}
