// Command discovery prints every document of an API's discovery, as one JSON object by
// path: `discovery KUBECONFIG`. Aggregated lists stand under `aggregated /api` and
// `aggregated /apis`.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

type document struct {
	Type string          `json:"type"`
	Body json.RawMessage `json:"body"`
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	config, err := clientcmd.BuildConfigFromFlags("", os.Args[1])
	check(err)
	config.QPS = -1
	client, err := rest.HTTPClientFor(config)
	check(err)
	documents := map[string]document{}
	get := func(name, path, accept string) json.RawMessage {
		request, err := http.NewRequest(http.MethodGet, config.Host+path, nil)
		check(err)
		request.Header.Set("Accept", accept)
		answer, err := client.Do(request)
		check(err)
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		check(err)
		if answer.StatusCode != http.StatusOK {
			check(fmt.Errorf("%s: %s: %s", path, answer.Status, body))
		}
		documents[name] = document{answer.Header.Get("Content-Type"), body}
		return body
	}
	for _, path := range []string{"/api", "/apis"} {
		get("aggregated "+path, path, aggregated)
	}
	get("/api", "/api", "application/json")
	get("/api/v1", "/api/v1", "application/json")
	groups := meta.APIGroupList{}
	check(json.Unmarshal(get("/apis", "/apis", "application/json"), &groups))
	for _, group := range groups.Groups {
		path := "/apis/" + group.Name
		get(path, path, "application/json")
		for _, version := range group.Versions {
			path := "/apis/" + version.GroupVersion
			get(path, path, "application/json")
		}
	}
	check(json.NewEncoder(os.Stdout).Encode(documents))
}
