package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// notePeak notes the memory of the processes.
func (b *bed) notePeak() {
	sum := 0
	for _, p := range b.procs {
		sum += peakMemory(p.Process.Pid)
	}
	b.peakMiB = max(b.peakMiB, sum)
}

// mallocs is the number of objects that the processes have allocated so far.
func (b *bed) mallocs() int64 {
	var sum int64
	for _, url := range b.admin {
		n, _ := b.metric(url, "go_memstats_mallocs_total")
		sum += int64(n)
	}
	return sum
}

// metric reads a metric without labels; 0 where there is none.
func (b *bed) metric(admin, name string) (float64, error) {
	req, err := http.NewRequest(http.MethodGet, admin+"/metrics", http.NoBody)
	if err != nil {
		return 0, err
	}
	if b.profile {
		req.Header.Set("Authorization", "Bearer "+profileToken)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, nil
}

// logged waits until the sinks have stored all attempts: between two inserts the
// processes look idle, and what is left would be stored in the next round.
func (b *bed) logged(ctx context.Context) error {
	stored := 0
	return until(ctx, time.Minute, func() bool {
		time.Sleep(time.Second) // as often as the metric is set
		stored++
		for _, url := range b.admin {
			if lag, err := b.metric(url, "hookline_sink_lag_seconds"); err != nil || lag > 0 {
				stored = 0
			}
		}
		return stored == 2
	})
}

// sinkAlone has a process with no role but the sink's store all attempts and
// events so far, and tells how fast it was. Its profile is written to the folder
// profile, unless that is empty.
func (b *bed) sinkAlone(ctx context.Context, profile string) (string, error) {
	dispatchers := len(b.procs)
	if err := b.start(ctx, "sink"); err != nil {
		return "", err
	}
	admin, pid := b.admin[dispatchers], b.procs[dispatchers].Process.Pid
	var prof *profiles
	if profile != "" {
		prof = startProfiles(ctx, admin)
	}
	engine := b.engineCPU()
	var rows, last, first float64
	var begun, ended time.Time // of the rows after the first ones that were seen
	for quiet := 0; quiet < 20; {
		time.Sleep(100 * time.Millisecond)
		n, err := b.metric(admin, "hookline_sink_rows_total")
		if err != nil || ctx.Err() != nil {
			return "", fmt.Errorf("reading the sink's metrics: %w", err)
		}
		if rows = n; rows > last {
			last, quiet, ended = rows, 0, time.Now()
			if begun.IsZero() {
				begun, first = ended, rows
			}
		} else if rows > 0 {
			quiet++
		}
	}
	took := ended.Sub(begun)
	cpu, err := cpuOf(pid)
	if err != nil {
		return "", err
	}
	engine = b.engineCPU() - engine
	if prof != nil {
		err = prof.save(profile, "the sink")
	}
	return fmt.Sprintf("the sink alone stored %.0f rows of attempts and events, those after the first %.0f in %.1f s: %.0f rows/s, %.1f µs of CPU each with its start, %.1f µs of the engine's",
		rows, first, took.Seconds(), (rows-first)/took.Seconds(), float64(cpu.Microseconds())/rows, float64(engine.Microseconds())/rows), err
}

// engineCPU is the CPU time of the ClickHouse engine so far, merges included; 0
// where it cannot be read.
func (b *bed) engineCPU() time.Duration {
	d, _ := cpuOf(b.st.enginePID)
	return d
}

// kafkaCPU is the CPU time of all Kafka nodes so far; 0 where it cannot be read.
func (b *bed) kafkaCPU() time.Duration {
	files, _ := filepath.Glob(filepath.Join(b.st.dir, "kafka", "n*", "pid"))
	var sum time.Duration
	for _, f := range files {
		text, _ := os.ReadFile(f)
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			continue
		}
		d, _ := cpuOf(pid)
		sum += d
	}
	return sum
}

// readPatience is how long nothing must come of a topic to be its end.
const readPatience = 5 * time.Second

// deliveriesBytes tells how much the topic deliveries has for each delivery,
// before compression.
func (b *bed) deliveriesBytes(ctx context.Context) (string, error) {
	topic := b.topic + ".deliveries"
	ends, err := kadm.NewClient(b.cl).ListEndOffsets(ctx, topic)
	if err != nil {
		return "", err
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(b.st.brokers, ",")...), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return "", err
	}
	defer cl.Close()
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 1 { // the last one is the end of a transaction
			left[o.Partition] = o.Offset - 1
		}
	})
	bytes, records := 0, 0
	for len(left) > 0 {
		poll, cancel := context.WithTimeout(ctx, readPatience)
		fs := cl.PollFetches(poll)
		cancel()
		if err := ctx.Err(); err != nil {
			return "", err
		}
		if fs.Empty() {
			break // the partitions left end with more than one end of a transaction
		}
		fs.EachRecord(func(r *kgo.Record) {
			records++
			bytes += len(r.Key) + len(r.Value)
			for _, h := range r.Headers {
				bytes += len(h.Key) + len(h.Value)
			}
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		})
	}
	per := float64(bytes) / float64(b.produced*b.sc.fanOut)
	return fmt.Sprintf("%d records in deliveries, %.0f bytes per delivery before compression (payload %d)", records, per, b.sc.sizeBytes), nil
}
