package embedded

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	chproto "github.com/ClickHouse/ch-go/proto"
	clickhouse "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

const (
	benchRows    = 100_000
	benchColumns = 24 // half UInt64, half String
)

func benchEngine(b *testing.B) (*Engine, driver.Conn) {
	b.Helper()
	if _, err := FindLibrary(""); err != nil || buildErr != nil {
		b.Skipf("no ClickHouse engine: %v %v", err, buildErr)
	}
	engine, err := Start(context.Background(), Config{Binary: binary, DataDir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	conn, err := clickhouse.Open(&clickhouse.Options{
		Protocol: clickhouse.HTTP, Addr: []string{engine.Addr()},
		Compression: &clickhouse.Compression{Method: clickhouse.CompressionLZ4},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = conn.Close()
		_ = engine.Stop()
		http.DefaultClient.CloseIdleConnections()
	})
	return engine, conn
}

func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		engine, err := Start(context.Background(), Config{Binary: binary, DataDir: b.TempDir()})
		if err != nil {
			b.Skip(err)
		}
		b.StopTimer()
		_ = engine.Stop()
		b.StartTimer()
	}
}

func BenchmarkPing(b *testing.B) {
	engine, conn := benchEngine(b)
	for b.Loop() {
		if err := conn.Ping(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	reportMemory(b, engine)
}

func benchTable(b *testing.B, conn driver.Conn) string {
	b.Helper()
	var names, columns []string
	for i := range benchColumns {
		names = append(names, fmt.Sprintf("c%d", i))
		columns = append(columns, names[i]+[]string{" UInt64", " String"}[i%2])
	}
	if err := conn.Exec(context.Background(), "CREATE TABLE t ("+strings.Join(columns, ", ")+") ENGINE = MergeTree ORDER BY c0"); err != nil {
		b.Fatal(err)
	}
	return strings.Join(names, ", ")
}

// BenchmarkInsertNative is the sink's way: a block of 100,000 rows made by hand.
func BenchmarkInsertNative(b *testing.B) {
	engine, conn := benchEngine(b)
	names := benchTable(b, conn)
	var (
		input   chproto.Input
		buf     chproto.Buffer
		numbers chproto.ColUInt64
		texts   chproto.ColStr
	)
	for i := range benchRows {
		numbers.Append(uint64(i))
		texts.Append(fmt.Sprintf("some text of row %d", i))
	}
	for i, name := range strings.Split(names, ", ") {
		input = append(input, chproto.InputColumn{Name: name, Data: []chproto.ColInput{&numbers, &texts}[i%2]})
	}
	if err := (chproto.Block{Columns: len(input), Rows: benchRows}).EncodeRawBlock(&buf, 0, input); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(buf.Buf)))
	for b.Loop() {
		if err := conn.InsertFormat(context.Background(), "Native", "INSERT INTO t ("+names+")", bytes.NewReader(buf.Buf)); err != nil {
			b.Fatal(err)
		}
	}
	reportMemory(b, engine)
}

// BenchmarkInsertBatch is the plain way of clickhouse-go, with its own cost.
func BenchmarkInsertBatch(b *testing.B) {
	engine, conn := benchEngine(b)
	names := benchTable(b, conn)
	row := make([]any, benchColumns)
	for b.Loop() {
		batch, err := conn.PrepareBatch(context.Background(), "INSERT INTO t ("+names+")")
		if err != nil {
			b.Fatal(err)
		}
		for i := range benchRows {
			for j := range row {
				row[j] = []any{uint64(i), "some text of a row"}[j%2]
			}
			if err := batch.Append(row...); err != nil {
				b.Fatal(err)
			}
		}
		if err := batch.Send(); err != nil {
			b.Fatal(err)
		}
	}
	reportMemory(b, engine)
}

var residentLine = regexp.MustCompile(`VmRSS:\s+(\d+) kB`)

// reportMemory adds the engine's resident memory, where /proc tells it.
func reportMemory(b *testing.B, engine *Engine) {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", engine.PID()))
	if err != nil {
		return
	}
	if m := residentLine.FindSubmatch(status); m != nil {
		var kb float64
		if _, err := fmt.Sscan(string(m[1]), &kb); err == nil {
			b.ReportMetric(kb/1024, "rss-MiB")
		}
	}
}
