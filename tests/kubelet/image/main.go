// The one program of the image that runs in pods: it says that it started, answers HTTP on
// port 8080, and ends when it is told to. As `image archive FILE` it writes that image: itself,
// in the form that `ctr images import` reads.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
)

const reference = "registry.example/pod:1"

func main() {
	if len(os.Args) == 3 && os.Args[1] == "archive" {
		if err := archive(os.Args[2]); err != nil {
			log.Fatal(err)
		}
		return
	}
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM, syscall.SIGINT)
	// The sandbox of a pod runs this too, and shares its network: one of them serves.
	go func() {
		hello := func(answer http.ResponseWriter, _ *http.Request) { fmt.Fprintln(answer, "hello") }
		_ = http.ListenAndServe(":8080", http.HandlerFunc(hello))
	}()
	fmt.Println("started")
	<-told
}

func archive(path string) error {
	own, err := os.Executable()
	if err != nil {
		return err
	}
	program, err := os.ReadFile(own)
	if err != nil {
		return err
	}
	layer, err := tarball(file{"pod", program})
	if err != nil {
		return err
	}
	digest := digest(layer)
	config, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux",
		"config": map[string]any{"Entrypoint": []string{"/pod"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + digest}},
	})
	if err != nil {
		return err
	}
	manifest, err := json.Marshal([]any{map[string]any{
		"Config": "config.json", "RepoTags": []string{reference}, "Layers": []string{"layer.tar"},
	}})
	if err != nil {
		return err
	}
	whole, err := tarball(file{"config.json", config}, file{"layer.tar", layer}, file{"manifest.json", manifest})
	if err != nil {
		return err
	}
	return os.WriteFile(path, whole, 0o644)
}

type file struct {
	name    string
	content []byte
}

func tarball(files ...file) ([]byte, error) {
	var bytes bytes.Buffer
	writer := tar.NewWriter(&bytes)
	for _, file := range files {
		header := &tar.Header{Name: file.name, Mode: 0o755, Size: int64(len(file.content))}
		if err := writer.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := writer.Write(file.content); err != nil {
			return nil, err
		}
	}
	err := writer.Close()
	return bytes.Bytes(), err
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}
