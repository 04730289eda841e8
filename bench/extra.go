package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
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
func (b *bed) mallocs() (int64, error) {
	var sum int64
	for _, admin := range b.admin {
		n, err := b.metric(admin, "go_memstats_mallocs_total")
		if err != nil {
			return 0, err
		}
		sum += int64(n)
	}
	return sum, nil
}

// metric reads a metric. That there is none is an error: a new name must not look
// like 0.
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
	return 0, fmt.Errorf("reading %s/metrics (%s): there is no %s", admin, resp.Status, name)
}

// storedAfter is more than the sink keeps rows for: five times its interval of a
// second, and an insert.
const storedAfter = 8 * time.Second

// logged waits until the sinks have stored all attempts, and gives the time, to the
// second: between two inserts the processes look idle, and what is left would be
// stored in the next round. Without a sink it is now. Beside endpoints that fail the
// log never ends: it waits until what there was so far is stored.
func (b *bed) logged(ctx context.Context) (time.Time, error) {
	if b.sc.noSink {
		return time.Now(), nil
	}
	if b.sc.failing > 0 {
		now := time.Now()
		time.Sleep(storedAfter)
		return now, nil
	}
	var at time.Time
	var last error
	stored := 0
	err := until(ctx, time.Minute, func() bool {
		time.Sleep(time.Second) // as often as the metric is set
		if stored++; stored == 1 {
			at = time.Now()
		}
		for _, admin := range b.admin {
			lag, err := b.metric(admin, "hookline_sink_lag_seconds")
			if last = err; err != nil || lag > 0 {
				stored = 0
			}
		}
		return stored == 2
	})
	if err != nil {
		return at, errors.Join(fmt.Errorf("waiting for the log: %w", err), last)
	}
	return at, b.complete()
}

// complete is an error where ClickHouse does not have one row for each request.
func (b *bed) complete() error {
	now, err := receiverCounts(b.url, "")
	if err != nil {
		return err
	}
	var rows int64
	if err := get(b.st.clickhouse+"/?query="+url.QueryEscape("SELECT count() FROM "+b.database()+".attempts"), &rows); err != nil {
		return err
	}
	if want := b.requests + now.Requests; rows != want {
		return fmt.Errorf("reading the log: it has %d attempts of %d requests", rows, want)
	}
	return nil
}

func (b *bed) database() string { return strings.ReplaceAll(b.topic, "-", "_") }

// clear removes what the scenario has written: merges of its log would go on beside
// the next one, and the topics of all scenarios are more than many disks have room
// for.
func (b *bed) clear() error {
	resp, err := http.Post(b.st.clickhouse+"/", "text/plain", strings.NewReader("DROP DATABASE IF EXISTS "+b.database()+" SYNC"))
	if err == nil {
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("dropping the database %s: %s", b.database(), resp.Status)
		}
	}
	if b.cl == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	adm := kadm.NewClient(b.cl)
	all, listed := adm.ListTopics(ctx)
	var ours []string
	for _, topic := range all.Names() {
		if topic == b.topic || strings.HasPrefix(topic, b.topic+".") {
			ours = append(ours, topic)
		}
	}
	deleted, failed := adm.DeleteTopics(ctx, ours...)
	return errors.Join(err, listed, failed, deleted.Error())
}

// aloneSettings are those of a process with no role but the sink's (docs/performance.md).
var aloneSettings = []string{"HOOKLINE_CLICKHOUSE_BLOCK_BYTES=32MiB", "HOOKLINE_CLICKHOUSE_BUFFER_BYTES=128MiB"}

// sinkAlone has a process with no role but the sink's store all attempts and
// events so far, and tells how fast it was from being ready to the last insert. Its
// profile is written to the folder profile, unless that is empty.
func (b *bed) sinkAlone(ctx context.Context, profile string) (string, error) {
	dispatchers := len(b.procs)
	b.sc.extra = append(slices.Clone(b.sc.extra), aloneSettings...)
	if err := b.start(ctx, "sink"); err != nil {
		return "", err
	}
	admin, pid := b.admin[dispatchers], b.procs[dispatchers].Process.Pid
	var prof *profiles
	if profile != "" {
		prof = startProfiles(ctx, admin)
	}
	begun, engine := time.Now(), b.engineCPU()
	var rows, last float64
	var ended time.Time
	if err := until(ctx, 2*time.Minute, func() bool {
		n, err := b.metric(admin, "hookline_sink_rows_total")
		if err == nil && n > last {
			last, ended = n, time.Now()
		}
		rows = n
		return rows >= float64(b.requests) && time.Since(ended) > 2*time.Second
	}); err != nil {
		return "", fmt.Errorf("storing %d attempts, of which %.0f rows are there: %w", b.requests, rows, err)
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
	return fmt.Sprintf("the sink alone stored %d attempts, and their events: %.0f rows in %.1f s: %.0f attempts/s, %.0f rows/s, %.1f µs of CPU a row with its start, %.1f µs of the engine's; with %s and %d MiB at most",
		b.requests, rows, took.Seconds(), float64(b.requests)/took.Seconds(), rows/took.Seconds(), µs(cpu)/rows, µs(engine)/rows,
		strings.Join(aloneSettings, " "), peakMemory(pid)), err
}

// engineCPU is the CPU time of the ClickHouse engine so far; 0 where it cannot be
// read. Merges that come after a round are in none.
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
		if err := fs.Err(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
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
