package registry

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/hookline/hookline/pipeline/match"
)

const crowd = 100_000

// crowdDocs are n subscriptions as a large deployment has them.
func crowdDocs(n int) []Document {
	docs := make([]Document, n)
	retries := 2
	for i := range docs {
		docs[i] = Document{
			ID: fmt.Sprintf("sub-%06d", i), Tenant: fmt.Sprintf("tenant-%d", i/10), URL: fmt.Sprintf("https://r%d.example.com/hooks/in", i),
			Description: "ERP mirror", Format: []string{"cotalker"}, Events: []string{"COTTask.*", "COTUser"}, Timeout: "10s",
			Retries: &retries, Headers: map[string]string{"X-Team": "ops"},
		}
	}
	return docs
}

// TestHundredThousand: applied in one transaction, loaded and indexed within
// bounds that leave room for a slow machine.
func TestHundredThousand(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("measures time and memory")
	}
	w, _ := fakeWorld(t)
	start := time.Now()
	if _, err := w.writer.Apply(w.ctx, crowdDocs(crowd), false); err != nil {
		t.Fatal(err)
	}
	t.Logf("applied in %v", time.Since(start))

	heap := heapBytes()
	start = time.Now()
	r := w.follow()
	<-r.Ready()
	loaded := time.Since(start)
	snap := r.Snapshot()
	start = time.Now()
	x := match.NewIndex(snap.All())
	indexed := time.Since(start)
	heap = heapBytes() - heap
	t.Logf("%d subscriptions: loaded in %v, indexed in %v, %d MiB together", snap.Len(), loaded, indexed, heap>>20)
	if x.Len() != crowd || loaded+indexed > 15*time.Second || heap > 500<<20 {
		t.Errorf("%d subscriptions in %v and %d bytes", x.Len(), loaded+indexed, heap)
	}

	one := doc("one")
	w.apply(false, one)
	start = time.Now()
	w.apply(false, doc("two"))
	t.Logf("one more applied in %v", time.Since(start))
	w.await(r, w.end()-1)
	runtime.KeepAlive(x)
}

func heapBytes() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func crowdBuilder(b *testing.B) *builder {
	b.Helper()
	out := newBuilder(testPolicy())
	docs := crowdDocs(crowd)
	for i := range docs {
		if err := out.add([]byte(docs[i].ID), encode(&docs[i], 1, time.Time{}, nil)); err != nil {
			b.Fatal(err)
		}
	}
	out.snapshot(crowd)
	return out
}

// BenchmarkChange is the cost of a snapshot for one changed subscription among
// 100,000, merging included.
func BenchmarkChange(b *testing.B) {
	x := crowdBuilder(b)
	docs := crowdDocs(crowd)
	version := int64(crowd)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		d := &docs[(i*7919)%crowd]
		if err := x.add([]byte(d.ID), encode(d, version, time.Time{}, nil)); err != nil {
			b.Fatal(err)
		}
		version++
		x.snapshot(version)
	}
}

// BenchmarkParseDocuments is per file of 1,000 subscriptions.
func BenchmarkParseDocuments(b *testing.B) {
	yaml, docs := "subscriptions:\n", crowdDocs(1000)
	for i := range docs {
		yaml += fmt.Sprintf("  - id: %s\n    tenant: %s\n    url: %s\n    events: [\"COTTask.*\"]\n    retries: 2\n", docs[i].ID, docs[i].Tenant, docs[i].URL)
	}
	asJSON, err := json.Marshal(docs)
	if err != nil {
		b.Fatal(err)
	}
	for _, bm := range []struct{ name, src string }{{"yaml", yaml}, {"json", string(asJSON)}} {
		b.Run(bm.name, func(b *testing.B) {
			for b.Loop() {
				if got, err := ParseDocuments("f", []byte(bm.src), testPolicy()); err != nil || len(got) != len(docs) {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkParseRecord(b *testing.B) {
	d := crowdDocs(1)[0]
	value, pol := encode(&d, 1, time.Time{}, nil), testPolicy()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseRecord([]byte(d.ID), value, pol); err != nil {
			b.Fatal(err)
		}
	}
}
