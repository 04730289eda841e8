package chhttp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	chproto "github.com/ClickHouse/ch-go/proto"
	clickhouse "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

func (c *client) open(method clickhouse.CompressionMethod, level int) driver.Conn {
	c.t.Helper()
	conn, err := clickhouse.Open(&clickhouse.Options{
		Protocol:    clickhouse.HTTP,
		Addr:        []string{strings.TrimPrefix(c.url, "http://")},
		Auth:        clickhouse.Auth{Database: c.db, Username: "default", Password: "ignored"},
		Compression: &clickhouse.Compression{Method: method, Level: level},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

var methods = map[string]clickhouse.CompressionMethod{
	"none": clickhouse.CompressionNone, "lz4": clickhouse.CompressionLZ4, "zstd": clickhouse.CompressionZSTD,
	"gzip": clickhouse.CompressionGZIP, "deflate": clickhouse.CompressionDeflate, "brotli": clickhouse.CompressionBrotli,
}

func TestClickhouseGo(t *testing.T) {
	for name, method := range methods {
		t.Run(name, func(t *testing.T) {
			c := newClient(t)
			conn := c.open(method, 3)
			ctx := context.Background()
			if err := conn.Ping(ctx); err != nil {
				t.Fatal(err)
			}
			if v, err := conn.ServerVersion(); err != nil || v.Version.Major < 26 {
				t.Fatalf("ServerVersion() = %v, %v", v, err)
			}
			if err := conn.Exec(ctx, "CREATE TABLE t (a UInt64, s String) ENGINE = MergeTree ORDER BY a"); err != nil {
				t.Fatal(err)
			}
			insertBatch(t, conn, 100_000)
			insertNative(t, conn, 100_000, 1000)
			readBack(t, conn, 101_000)
		})
	}
}

func insertBatch(t *testing.T, conn driver.Conn, rows int) {
	t.Helper()
	batch, err := conn.PrepareBatch(context.Background(), "INSERT INTO t (a, s)")
	if err != nil {
		t.Fatal(err)
	}
	for i := range rows {
		if err := batch.Append(uint64(i), fmt.Sprintf("row\n\n%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := batch.Send(); err != nil {
		t.Fatal(err)
	}
}

// insertNative sends rows from..from+n as the sink does: a block made by hand.
func insertNative(t *testing.T, conn driver.Conn, from, n int) {
	t.Helper()
	if err := conn.InsertFormat(context.Background(), "Native", "INSERT INTO t (a, s)", bytes.NewReader(nativeBlock(t, from, n))); err != nil {
		t.Fatal(err)
	}
}

func nativeBlock(t *testing.T, from, n int) []byte {
	t.Helper()
	var (
		a   chproto.ColUInt64
		s   chproto.ColStr
		buf chproto.Buffer
	)
	for i := from; i < from+n; i++ {
		a.Append(uint64(i))
		s.Append(fmt.Sprintf("row\n\n%d", i))
	}
	input := chproto.Input{{Name: "a", Data: &a}, {Name: "s", Data: &s}}
	block := chproto.Block{Columns: len(input), Rows: n}
	if err := block.EncodeRawBlock(&buf, 0, input); err != nil {
		t.Fatal(err)
	}
	return buf.Buf
}

func readBack(t *testing.T, conn driver.Conn, rows int) {
	t.Helper()
	ctx := context.Background()
	result, err := conn.Query(ctx, "SELECT a, s FROM t WHERE a >= {from:UInt64} ORDER BY a", clickhouse.Named("from", 10))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = result.Close() }()
	next := uint64(10)
	for result.Next() {
		var (
			a uint64
			s string
		)
		if err := result.Scan(&a, &s); err != nil {
			t.Fatal(err)
		}
		if a != next || s != fmt.Sprintf("row\n\n%d", a) {
			t.Fatalf("row %d %q, want %d", a, s, next)
		}
		next++
	}
	if err := result.Err(); err != nil || int(next) != rows {
		t.Fatalf("read to row %d, %v; want %d", next, err, rows)
	}
}

func TestClickhouseGoErrors(t *testing.T) {
	for name, method := range methods {
		t.Run(name, func(t *testing.T) {
			c := newClient(t)
			conn := c.open(method, 3)
			ctx := context.Background()
			_, err := conn.Query(ctx, "SELECT * FROM nope")
			wantCode(t, err, 60)
			wantCode(t, conn.Exec(ctx, "DROP TABLE nope"), 60)
			wantCode(t, conn.InsertFormat(ctx, "Native", "INSERT INTO nope", strings.NewReader("")), 60)

			result, err := conn.Query(ctx, "SELECT number, throwIf(number = 300000) FROM numbers(400000)")
			if err == nil {
				for result.Next() {
				}
				err = result.Err()
				_ = result.Close()
			}
			wantCode(t, err, 395)
		})
	}
}

func wantCode(t *testing.T, err error, code int32) {
	t.Helper()
	var e *clickhouse.Exception
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("error %v, want ClickHouse's code %d", err, code)
	}
}

// Every kind of column must come through the transcoder as the server's own
// Native would, the empty result included.
func TestNativeTypes(t *testing.T) {
	c := newClient(t)
	conn := c.open(clickhouse.CompressionLZ4, 0)
	for _, tc := range []struct {
		expr string
		want any
	}{
		{"toUInt8(7)", uint8(7)},
		{"toInt64(-7)", int64(-7)},
		{"1.5", 1.5},
		{"true", true},
		{"'x\\n\\ny'", "x\n\ny"},
		{"toFixedString('ab', 2)", "ab"},
		{"toLowCardinality('lc')", "lc"},
		{"CAST(NULL AS Nullable(String))", (*string)(nil)},
		{"CAST('a' AS LowCardinality(Nullable(String)))", ptr("a")},
		{"CAST('b' AS Enum8('a' = 1, 'b' = 2))", "b"},
		{"[[1,2],[]]::Array(Array(UInt16))", [][]uint16{{1, 2}, {}}},
		{"['a','b']::Array(LowCardinality(String))", []string{"a", "b"}},
		{"map('k', toUInt64(1))", map[string]uint64{"k": 1}},
		{"toDateTime64('2026-01-02 03:04:05.123456', 6, 'UTC')", time.Date(2026, 1, 2, 3, 4, 5, 123456000, time.UTC)},
		{"toUUID('61f0c404-5cb3-11e7-907b-a6006ad3dba0')::String", "61f0c404-5cb3-11e7-907b-a6006ad3dba0"},
		{"quantileTDigest(0.5)(number)", float32(0)},
	} {
		t.Run(tc.expr, func(t *testing.T) {
			got := reflect.New(reflect.TypeOf(tc.want))
			if err := conn.QueryRow(context.Background(), "SELECT "+tc.expr+" FROM numbers(1)"+groupBy(tc.expr)).Scan(got.Interface()); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got.Elem().Interface(), tc.want) {
				t.Errorf("got %#v, want %#v", got.Elem().Interface(), tc.want)
			}
			empty, err := conn.Query(context.Background(), "SELECT "+tc.expr+" AS x FROM numbers(1)"+groupBy(tc.expr)+" LIMIT 0")
			if err != nil {
				t.Fatal(err)
			}
			for empty.Next() {
				t.Error("a row in an empty result")
			}
			if err := errors.Join(empty.Err(), empty.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}

func groupBy(expr string) string {
	if strings.HasPrefix(expr, "quantile") {
		return " GROUP BY number"
	}
	return ""
}

func ptr[T any](v T) *T { return &v }

func TestQueryFormat(t *testing.T) {
	c := newClient(t)
	conn := c.open(clickhouse.CompressionZSTD, 1)
	reader, err := conn.QueryFormat(context.Background(), "JSONEachRow", "SELECT number FROM numbers(2)")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(reader)
	if err := errors.Join(err, reader.Close()); err != nil || string(text) != "{\"number\":0}\n{\"number\":1}\n" {
		t.Errorf("%q, %v", text, err)
	}
	reader, err = conn.QueryFormat(context.Background(), "TSV", "SELECT number, throwIf(number = 300000) FROM numbers(400000)")
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, reader)
	wantCode(t, errors.Join(err, reader.Close()), 395)
}

// The same block with the same token counts once, in the table and in what its
// materialized view makes of it.
func TestDeduplication(t *testing.T) {
	c := newClient(t)
	conn := c.open(clickhouse.CompressionLZ4, 0)
	for _, ddl := range dedupTables {
		if err := conn.Exec(context.Background(), ddl); err != nil {
			t.Fatal(err)
		}
	}
	for _, token := range []string{"p0/0-99", "p0/0-99", "p0/100-199", "p0/100-199", "p0/0-99"} {
		if err := conn.InsertFormat(context.Background(), "Native", dedupInsert(token), bytes.NewReader(nativeBlock(t, 0, 100))); err != nil {
			t.Fatal(err)
		}
	}
	// The settings may come with the request instead of the statement.
	ctx := clickhouse.Context(context.Background(), clickhouse.WithSettings(clickhouse.Settings{
		"insert_deduplication_token": "p0/100-199", "deduplicate_blocks_in_dependent_materialized_views": 1,
	}))
	if err := conn.InsertFormat(ctx, "Native", "INSERT INTO t (a, s)", bytes.NewReader(nativeBlock(t, 0, 100))); err != nil {
		t.Fatal(err)
	}
	c.wants("SELECT count() FROM t", "200\n")
	c.wants("SELECT sum(n) FROM stats", "200\n")
}

var dedupTables = []string{
	"CREATE TABLE t (a UInt64, s String) ENGINE = MergeTree PARTITION BY a % 3 ORDER BY a SETTINGS non_replicated_deduplication_window = 1000",
	"CREATE TABLE stats (k UInt64, n UInt64) ENGINE = SummingMergeTree ORDER BY k SETTINGS non_replicated_deduplication_window = 1000",
	"CREATE MATERIALIZED VIEW mv TO stats AS SELECT a % 10 AS k, count() AS n FROM t GROUP BY k",
}

func dedupInsert(token string) string {
	return "INSERT INTO t (a, s) SETTINGS insert_deduplication_token = '" + token + "', deduplicate_blocks_in_dependent_materialized_views = 1"
}
