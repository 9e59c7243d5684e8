package client

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// maxCacheBytes bounds what is read of a cache.
const maxCacheBytes = 64 * 1024

// cache is the file's form, the same for every client library. It says where to ask, not
// whom to believe: whoever alters it can make a client ask in vain.
type cache struct {
	Endpoints []string `json:"endpoints"`
}

// readCache gives the addresses of an earlier run; none when there is no file of use.
func readCache(path string) []string {
	if path == "" {
		return nil
	}
	if info, err := os.Stat(path); err != nil || info.Size() > maxCacheBytes {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var kept cache
	if json.Unmarshal(text, &kept) != nil {
		return nil
	}
	var addresses []string
	for _, text := range kept.Endpoints {
		if address, err := parseAddress(text); err == nil && len(addresses) < maxEndpoints {
			addresses = append(addresses, address)
		}
	}
	return addresses
}

// writeCache replaces the file as a whole. That it could not be written costs the next
// start a discovery and is no error of this one.
func writeCache(path string, addresses []string) {
	if path == "" {
		return
	}
	text, err := json.Marshal(cache{addresses})
	if err != nil {
		return
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return
	}
	_, err = temporary.Write(append(text, '\n'))
	if closed := temporary.Close(); err != nil || closed != nil || os.Rename(temporary.Name(), path) != nil {
		_ = os.Remove(temporary.Name())
	}
}
