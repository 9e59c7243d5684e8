// Records whom a kube-apiserver names as the owners of fields after a list of requests
// (`api/rest/tests/face/owners/requests.json`): one answer a line, replayed by the face's
// tests. Needs kube-apiserver and etcd in NAUTILUS_E2E_BIN (`make peers`).
//
//	go run ./cmd/ownersgolden ../../api/rest/tests/face/owners/requests.json > .../answers.jsonl
package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

const token = "an-administrators-token"

type request struct {
	Method string          `json:"method"`
	Path   string          `json:"path"`
	Type   string          `json:"type"`
	Body   json.RawMessage `json:"body"`
}

type answer struct {
	Code    int    `json:"code"`
	Message string `json:"message,omitempty"`
	Owners  []any  `json:"owners,omitempty"`
}

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return value
}

func free() string {
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	defer listener.Close()
	return listener.Addr().String()
}

func start(folder, name string, arguments ...string) *exec.Cmd {
	log := must(os.Create(filepath.Join(folder, name+".log")))
	command := exec.Command(filepath.Join(os.Getenv("NAUTILUS_E2E_BIN"), name), arguments...)
	command.Stdout, command.Stderr = log, log
	must(0, command.Start())
	return command
}

func main() {
	var requests []request
	must(0, json.Unmarshal(must(os.ReadFile(os.Args[1])), &requests))
	folder := must(os.MkdirTemp("", "owners"))
	defer os.RemoveAll(folder)
	client, peer := "http://"+free(), "http://"+free()
	etcd := start(folder, "etcd", "--data-dir", filepath.Join(folder, "etcd"),
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)
	defer etcd.Process.Kill()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	private := filepath.Join(folder, "key")
	must(0, os.WriteFile(private, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: must(x509.MarshalECPrivateKey(key))}), 0o600))
	tokens := filepath.Join(folder, "tokens.csv")
	must(0, os.WriteFile(tokens, []byte(token+",admin,1,system:masters\n"), 0o600))
	address := free()
	_, port, _ := net.SplitHostPort(address)
	server := start(folder, "kube-apiserver", "--etcd-servers", client,
		"--service-account-issuer", "https://nautilus.test", "--service-account-signing-key-file", private,
		"--service-account-key-file", private, "--token-auth-file", tokens, "--authorization-mode", "RBAC",
		"--service-cluster-ip-range", "10.0.0.0/24", "--disable-admission-plugins", "ServiceAccount",
		"--bind-address", "127.0.0.1", "--secure-port", port, "--cert-dir", filepath.Join(folder, "serving"))
	defer server.Process.Kill()
	http.DefaultTransport.(*http.Transport).TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	for range 300 {
		if code, _ := send(address, request{Method: "GET", Path: "/readyz"}); code == 200 {
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	for _, one := range requests {
		code, body := send(address, one)
		result := answer{Code: code}
		var object map[string]any
		if json.Unmarshal(body, &object) == nil {
			if object["kind"] == "Status" && code >= 400 {
				result.Message = fmt.Sprint(object["message"])
			}
			if metadata, ok := object["metadata"].(map[string]any); ok {
				result.Owners, _ = metadata["managedFields"].([]any)
				for _, entry := range result.Owners {
					delete(entry.(map[string]any), "time")
				}
			}
		}
		must(0, encoder.Encode(result))
	}
}

func send(address string, one request) (int, []byte) {
	body := []byte(one.Body)
	var text string
	if json.Unmarshal(body, &text) == nil {
		body = []byte(text)
	}
	message := must(http.NewRequest(one.Method, "https://"+address+one.Path, bytes.NewReader(body)))
	message.Header.Set("Authorization", "Bearer "+token)
	message.Header.Set("User-Agent", "recorder/1")
	if one.Type == "" {
		one.Type = "application/json"
	}
	message.Header.Set("Content-Type", one.Type)
	response, err := http.DefaultClient.Do(message)
	if err != nil {
		return 0, nil
	}
	defer response.Body.Close()
	return response.StatusCode, must(io.ReadAll(response.Body))
}
