package sink

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/hookline/hookline/pipeline"
)

// Reader asks the delivery log. It needs no Kafka. Safe for concurrent use.
type Reader struct {
	cfg    Config
	target target
	server *server
	client *http.Client // for Query
	// openLook is how many attempts that did not end their delivery are looked at
	// at once for deliveries that are open: nearly all were followed by another one.
	openLook int
}

// readers is how many questions of a Reader are under way at once.
// A page asks several.
const readers = 8

// openLook: most pages are whole with one look, which takes under 100 ms.
const openLook = 20_000

// OpenReader prepares; it connects to nothing. Close it after use.
func OpenReader(cfg Config) (*Reader, error) {
	t, err := cfg.target()
	if err != nil {
		return nil, err
	}
	if !identifier.MatchString(cfg.Database) {
		return nil, fmt.Errorf("reading HOOKLINE_CLICKHOUSE_DATABASE: %q is not a name", cfg.Database)
	}
	own, err := cfg.tls(t.host)
	if err != nil {
		return nil, err
	}
	s, err := openServer(&cfg, readers)
	if err != nil {
		return nil, err
	}
	return &Reader{cfg: cfg, target: t, server: s, openLook: openLook, client: &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: dialTimeout, TLSClientConfig: own, MaxIdleConns: readers, IdleConnTimeout: time.Minute,
	}}}, nil
}

// Close ends idle connections.
func (r *Reader) Close() error {
	r.client.CloseIdleConnections()
	return r.server.close()
}

// Ping tells whether ClickHouse answers and knows the user.
func (r *Reader) Ping(ctx context.Context) error {
	if err := r.server.conn.Ping(ctx); err != nil {
		return fmt.Errorf("reaching ClickHouse at %s: %w", r.target.host, briefly(err))
	}
	return nil
}

// Status narrows a Filter by how attempts ended.
type Status string

// The statuses.
const (
	StatusAny     Status = ""
	StatusSuccess Status = "success"
	StatusFailed  Status = "failed" // any outcome but success
)

// Filter of attempts. Empty fields do not filter.
type Filter struct {
	Subscription string
	Tenant       string
	Event        string // event id
	Correlation  string
	Delivery     string // delivery id
	Status       Status
	Since, Until time.Time // of started_at; Until itself is left out
	Final        bool      // only attempts that ended their delivery
	// Last: only the last attempt of each delivery, so far where it is not ended.
	// Status is asked of those that are left.
	Last bool
	// Spent: only tries that count as one of their delivery's attempts.
	Spent      bool
	Format     pipeline.Format
	TypePrefix string // of the event type
	// NewestFirst turns the order, which otherwise is by started_at.
	NewestFirst bool
	// Limit of rows; 0: none.
	Limit int
	// After yields only what was stored after the cursor, in the order of the log
	// and whatever NewestFirst says; the cursor moves with each row.
	After *Cursor
}

// LogPosition is where the attempts topic has a row: unique.
type LogPosition struct {
	TopicID   [16]byte
	Partition int32
	Offset    int64
	Index     uint32
}

// AttemptRow is one row of the table attempts.
type AttemptRow struct {
	pipeline.Attempt
	Log      LogPosition
	StoredAt time.Time
	// BodiesDropped: headers and response body were left out, since Kafka refused
	// the record as too large.
	BodiesDropped bool
}

// Cursor remembers how far the log was read, by its partitions.
type Cursor struct {
	at map[logPartition]LogPosition
}

type logPartition struct {
	topicID   [16]byte
	partition int32
}

// note moves the cursor behind p.
func (c *Cursor) note(p LogPosition) {
	if c.at == nil {
		c.at = map[logPartition]LogPosition{}
	}
	c.at[logPartition{p.TopicID, p.Partition}] = p
}

// Tail gives a cursor at the end of what is stored; it looks at attempts since
// that time only.
func (r *Reader) Tail(ctx context.Context, since time.Time) (*Cursor, error) {
	rows, err := r.server.conn.Query(ctx, "SELECT log_topic_id, log_partition, max((log_offset, log_index)).1, max((log_offset, log_index)).2 FROM "+r.cfg.Database+
		".attempts WHERE started_at >= "+microParam+" GROUP BY log_topic_id, log_partition", clampTime(since).UnixMicro())
	if err != nil {
		return nil, fmt.Errorf("reading the end of the log: %w", briefly(err))
	}
	defer rows.Close()
	c := &Cursor{}
	for rows.Next() {
		var p LogPosition
		var id uuid.UUID
		if err := rows.Scan(&id, &p.Partition, &p.Offset, &p.Index); err != nil {
			return nil, fmt.Errorf("reading the end of the log: %w", briefly(err))
		}
		p.TopicID = id
		c.note(p)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading the end of the log: %w", briefly(err))
	}
	return c, nil
}

// microParam takes microseconds since 1970: a time.Time is bound in seconds.
const microParam = "fromUnixTimestamp64Micro(toInt64(?), 'UTC')"

const attemptColumns = `attempt_id, delivery_id, subscription_id, url, attempt, round, toUInt8(outcome), status_code, error, started_at,
	elapsed_us, dns_us, connect_us, tls_us, ttfb_us, request_headers, request_bytes, request_written, response_headers, response_body,
	response_truncated, bodies_dropped, ack_id, final, next_attempt_at, node, resends, replay, registry_version, content_type,
	event_id, tenant, format, event_type, entity, correlation_id, event_time, produced_at,
	source_cluster, source_topic_id, source_topic, source_partition, source_offset, stored_at,
	log_topic_id, log_partition, log_offset, log_index`

// Attempts yields the attempts that f asks for; each row is new and the
// caller's to keep. After an error it ends.
func (r *Reader) Attempts(ctx context.Context, f Filter) iter.Seq2[*AttemptRow, error] {
	return func(yield func(*AttemptRow, error) bool) {
		sql, args := f.sql(r.cfg.Database)
		rows, err := r.server.conn.Query(ctx, sql, args...)
		if err != nil {
			yield(nil, fmt.Errorf("reading attempts: %w", briefly(err)))
			return
		}
		defer rows.Close()
		for rows.Next() {
			row, err := scanAttempt(rows.Scan)
			if err != nil {
				yield(nil, fmt.Errorf("reading attempts: %w", briefly(err)))
				return
			}
			if f.After != nil {
				f.After.note(row.Log)
			}
			if !yield(row, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(nil, fmt.Errorf("reading attempts: %w", briefly(err)))
		}
	}
}

func (f *Filter) sql(db string) (string, []any) {
	where, args := f.about()
	and := func(condition string, values ...any) {
		where = append(where, condition)
		args = append(args, values...)
	}
	if f.Last {
		inner, values := f.about()
		and("attempt_id IN (SELECT argMax(attempt_id, (started_at, round, attempt)) FROM "+db+".attempts WHERE "+
			strings.Join(append(inner, "1"), " AND ")+" GROUP BY subscription_id, delivery_id)", values...)
	}
	switch f.Status {
	case StatusAny:
	case StatusSuccess:
		and("outcome = 'success'")
	case StatusFailed:
		and("outcome != 'success'")
	}
	if !f.Until.IsZero() {
		and("started_at < "+microParam, clampTime(f.Until).UnixMicro())
	}
	if f.Final {
		and("final")
	}
	order := "started_at, log_partition, log_offset, log_index"
	if f.NewestFirst {
		order = "started_at DESC, log_partition DESC, log_offset DESC, log_index DESC"
	}
	if f.After != nil {
		// Within a partition by offset, so that a limit leaves nothing behind.
		order = "log_offset, log_index, log_partition"
		condition, values := f.After.sql()
		and(condition, values...)
	}
	sql := "SELECT " + attemptColumns + " FROM " + db + ".attempts"
	if len(where) > 0 {
		sql += " WHERE " + strings.Join(where, " AND ")
	}
	sql += " ORDER BY " + order
	if f.Limit > 0 {
		sql += fmt.Sprintf(" LIMIT %d", f.Limit)
	}
	return sql, args
}

// about gives the conditions that do not depend on how an attempt ended.
func (f *Filter) about() (where []string, args []any) {
	for _, c := range []struct{ column, value string }{
		{"subscription_id", f.Subscription},
		{"tenant", f.Tenant},
		{"event_id", f.Event},
		{"correlation_id", f.Correlation},
		{"delivery_id", f.Delivery},
		{"format", string(f.Format)},
	} {
		if c.value != "" {
			where, args = append(where, c.column+" = ?"), append(args, c.value)
		}
	}
	if f.TypePrefix != "" {
		where, args = append(where, "startsWith(event_type, ?)"), append(args, f.TypePrefix)
	}
	if f.Spent {
		where = append(where, "attempt > 0 AND outcome NOT IN ('local_error', 'cancelled')")
	}
	if !f.Since.IsZero() {
		where, args = append(where, "started_at >= "+microParam), append(args, clampTime(f.Since).UnixMicro())
	}
	return where, args
}

// sql is the condition for rows behind the cursor, those of partitions that it
// does not know included.
func (c *Cursor) sql() (string, []any) {
	known, either := []string{}, []string{}
	var first, second []any
	for p, at := range c.at {
		id := uuid.UUID(p.topicID).String()
		known = append(known, "(toUUID(?), toInt32(?))")
		first = append(first, id, p.partition)
		either = append(either, "(log_topic_id = toUUID(?) AND log_partition = ? AND (log_offset, log_index) > (?, ?))")
		second = append(second, id, p.partition, at.Offset, at.Index)
	}
	if len(known) == 0 {
		return "1", nil
	}
	return "((log_topic_id, log_partition) NOT IN (" + strings.Join(known, ", ") + ") OR " + strings.Join(either, " OR ") + ")", append(first, second...)
}

func scanAttempt(scan func(...any) error) (*AttemptRow, error) {
	row := &AttemptRow{}
	a, env := &row.Attempt, &pipeline.Envelope{}
	a.Envelope = env
	var attempt, outcome, resends uint8
	var round, status uint16
	var elapsed, dns, connect, tls, ttfb, requestBytes uint32
	var requestHeaders, responseHeaders, responseBody, format string
	var next, eventTime *time.Time
	var sourceID, logID uuid.UUID
	err := scan(&a.AttemptID, &a.DeliveryID, &a.SubscriptionID, &a.URL, &attempt, &round, &outcome, &status, &a.Error, &a.StartedAt,
		&elapsed, &dns, &connect, &tls, &ttfb, &requestHeaders, &requestBytes, &a.RequestWritten, &responseHeaders, &responseBody,
		&a.ResponseTruncated, &row.BodiesDropped, &a.AckID, &a.Final, &next, &a.Node, &resends, &env.Replay, &env.RegistryVersion, &env.ContentType,
		&env.EventID, &env.Tenant, &format, &env.EventType, &env.Entity, &env.Correlation, &eventTime, &env.ProducedAt,
		&env.Source.Cluster, &sourceID, &env.Source.Topic, &env.Source.Partition, &env.Source.Offset, &row.StoredAt,
		&logID, &row.Log.Partition, &row.Log.Offset, &row.Log.Index)
	if err != nil {
		return nil, err
	}
	a.Attempt, a.Round, a.Outcome, a.StatusCode = int(attempt), int(round), pipeline.Outcome(outcome), int(status)
	a.RequestBytes, a.Resends = int(requestBytes), int(resends)
	a.Elapsed, a.DNS, a.Connect, a.TLS, a.TTFB = micros(elapsed), micros(dns), micros(connect), micros(tls), micros(ttfb)
	a.RequestHeaders, a.ResponseHeaders, a.ResponseBody = []byte(requestHeaders), []byte(responseHeaders), []byte(responseBody)
	env.Format, env.Source.TopicID, row.Log.TopicID = pipeline.Format(format), sourceID, logID
	if next != nil {
		a.NextAttemptAt = *next
	}
	if eventTime != nil {
		env.Time = *eventTime
	}
	return row, nil
}

func micros(n uint32) time.Duration { return time.Duration(n) * time.Microsecond }
