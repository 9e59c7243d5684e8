// Package snp judges evidence of AMD SEV-SNP by google/go-sev-guest: a report, and the
// certificates that the host has put after it.
package snp

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/kds"
	"github.com/google/go-sev-guest/verify"
	"github.com/google/go-sev-guest/verify/trust"
	"nautilus.io/client"
)

// Verifier judges reports under AMD's roots, which are built in.
type Verifier struct {
	// Getter gives what AMD publishes at an URL: the revocation list, and the chip's
	// certificate where the host did not add it. Nil asks AMD's key server.
	Getter trust.HTTPSGetter
}

// authorities are AMD's, by the URL at which AMD publishes them.
var authorities = map[string][]byte{
	kds.ProductCertChainURL(abi.VcekReportSigner, "Milan"): trust.AskArkMilanVcekBytes,
	kds.ProductCertChainURL(abi.VlekReportSigner, "Milan"): trust.AskArkMilanVlekBytes,
	kds.ProductCertChainURL(abi.VcekReportSigner, "Genoa"): trust.AskArkGenoaVcekBytes,
	kds.ProductCertChainURL(abi.VlekReportSigner, "Genoa"): trust.AskArkGenoaVlekBytes,
	kds.ProductCertChainURL(abi.VcekReportSigner, "Turin"): trust.AskArkTurinVcekBytes,
	kds.ProductCertChainURL(abi.VlekReportSigner, "Turin"): trust.AskArkTurinVlekBytes,
}

// beside answers for the authorities, which need not be fetched, and notes what could not be.
type beside struct {
	from   trust.HTTPSGetter
	failed error
}

func (b *beside) Get(url string) ([]byte, error) { return b.GetContext(context.Background(), url) }

func (b *beside) GetContext(ctx context.Context, url string) ([]byte, error) {
	if chain, known := authorities[url]; known {
		return chain, nil
	}
	body, err := trust.GetWith(ctx, b.from, url)
	if err != nil {
		b.failed = err
	}
	return body, err
}

// Verify implements client.Verifier.
func (v Verifier) Verify(ctx context.Context, body []byte, now time.Time) (*client.Claims, error) {
	attestation, err := abi.ReportCertsToProto(body)
	if err != nil {
		return nil, err
	}
	report := attestation.GetReport()
	getter := v.Getter
	if getter == nil {
		getter = trust.DefaultHTTPSGetter()
	}
	published := &beside{from: getter}
	options := &verify.Options{CheckRevocations: true, Getter: published, Now: now}
	if err := verify.SnpAttestationContext(ctx, attestation, options); err != nil {
		if published.failed != nil {
			return nil, fmt.Errorf("%w: %w", client.ErrCannotTell, err)
		}
		return nil, err
	}
	policy, err := abi.ParseSnpPolicy(report.GetPolicy())
	if err != nil {
		return nil, fmt.Errorf("its guest policy: %w", err)
	}
	if report.GetVmpl() != 0 {
		return nil, fmt.Errorf("it was asked for at privilege level %d, expected 0", report.GetVmpl())
	}
	if policy.MigrateMA {
		return nil, errors.New("a migration agent may move the guest")
	}
	return &client.Claims{
		Measurement: report.GetMeasurement(),
		Platform:    hex.EncodeToString(report.GetChipId()),
		Debug:       policy.Debug,
		ReportData:  report.GetReportData(),
	}, nil
}
