package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// profileSeconds is how long a CPU profile goes on: the admin address answers
// within 30 s.
const profileSeconds = 8

// profiles of one process, over about one round: the CPU profile takes in what it
// does for nothing while the bare loop runs as well.
type profiles struct {
	admin string
	cpu   chan []byte // one value, empty after an error
}

func startProfiles(ctx context.Context, admin string) *profiles {
	p := &profiles{admin: admin, cpu: make(chan []byte, 1)}
	go func() {
		data, err := download(ctx, fmt.Sprintf("%s/debug/pprof/profile?seconds=%d", p.admin, profileSeconds))
		if err != nil {
			fmt.Fprintln(os.Stderr, "profile:", err)
		}
		p.cpu <- data
	}()
	return p
}

// save writes NAME.cpu.pprof, NAME.allocs.pprof, which is since the process
// began, and NAME.heap.pprof, what is live after a collection.
func (p *profiles) save(folder, name string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	allocs, err := download(context.Background(), p.admin+"/debug/pprof/allocs")
	heap, errHeap := download(context.Background(), p.admin+"/debug/pprof/heap?gc=1")
	path := filepath.Join(folder, strings.NewReplacer(" ", "-", ",", "", "%", "").Replace(name))
	return errors.Join(err, errHeap, os.WriteFile(path+".cpu.pprof", <-p.cpu, 0o600),
		os.WriteFile(path+".allocs.pprof", allocs, 0o600), os.WriteFile(path+".heap.pprof", heap, 0o600))
}

func download(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+profileToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return data, err
}
