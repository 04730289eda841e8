package sink

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"net/http"
	"path"
	"strconv"
	"strings"
	"text/template"
)

//go:embed sql/*.sql
var migrationFiles embed.FS

// migration is one step of the schema: a file NNNN_name.sql. Steps are only
// ever added. Each statement must be idempotent, since several processes may
// run one at once, and a step is run again where it was broken off.
type migration struct {
	version int
	name    string
	text    string
}

// migrations in the order of their versions, which count from 1 without a gap.
func migrations() ([]migration, error) {
	files, err := migrationFiles.ReadDir("sql")
	if err != nil {
		return nil, fmt.Errorf("reading embedded migrations: %w", err)
	}
	var out []migration
	for i, f := range files { // sorted by name
		number, name, ok := strings.Cut(strings.TrimSuffix(f.Name(), ".sql"), "_")
		version, err := strconv.Atoi(number)
		if err != nil || !ok || version != i+1 {
			return nil, fmt.Errorf("reading embedded migrations: %s is not number %04d", f.Name(), i+1)
		}
		text, err := migrationFiles.ReadFile(path.Join("sql", f.Name()))
		if err != nil {
			return nil, fmt.Errorf("reading embedded migrations: %w", err)
		}
		out = append(out, migration{version, name, string(text)})
	}
	return out, nil
}

// ddl is what a migration's template may ask for.
type ddl struct {
	DB          string // the database
	OnCluster   string // "ON CLUSTER '...'", or nothing
	OutcomeType string // the Enum8 of outcomes
	// Window is the setting by which repeated blocks are recognised: it must hold
	// more blocks than are inserted between a block and its repetition, which is a
	// session's end and a few retries later. 10,000 are ten minutes of the most
	// that one process inserts.
	Window     string
	replicated bool
	ttlDays    int
}

func newDDL(cfg *Config) ddl {
	d := ddl{DB: cfg.Database, OutcomeType: outcomeType, Window: "non_replicated_deduplication_window = 10000", ttlDays: cfg.TTLDays}
	if cfg.Cluster != "" {
		d.OnCluster = "ON CLUSTER '" + cfg.Cluster + "'"
		d.replicated = true
		d.Window = "replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800"
	}
	return d
}

// Engine is the table engine, replicated where there is a cluster.
func (d ddl) Engine(name string) string {
	if d.replicated {
		return "Replicated" + name
	}
	return name
}

// DumpBytes is how much of a request's body the view webhook_called shows: as
// much as RESPONSE_BODY_BYTES by default, which a view cannot ask for.
func (d ddl) DumpBytes() int { return 16384 }

// StatusText is an expression for the reason phrase of the status in column.
func (d ddl) StatusText(column string) string {
	var codes, texts []string
	for code := 100; code < 600; code++ {
		if text := http.StatusText(code); text != "" {
			codes = append(codes, strconv.Itoa(code))
			texts = append(texts, "'"+strings.ReplaceAll(text, "'", `\'`)+"'")
		}
	}
	return "transform(" + column + ", [" + strings.Join(codes, ", ") + "], [" + strings.Join(texts, ", ") + "], '')"
}

// TTL is the table's TTL clause by its time column; rows stay extra days longer.
func (d ddl) TTL(column string, extra int) string {
	if d.ttlDays == 0 {
		return ""
	}
	return "TTL " + d.ttl(column, extra)
}

// ttl is the expression as ClickHouse writes it in system.tables.
func (d ddl) ttl(column string, extra int) string {
	return fmt.Sprintf("toDateTime(%s) + toIntervalDay(%d)", column, d.ttlDays+extra)
}

// statements of a migration, ready to be run.
func (d ddl) statements(m migration) ([]string, error) {
	t, err := template.New(m.name).Parse(m.text)
	if err != nil {
		return nil, fmt.Errorf("reading migration %s: %w", m.name, err)
	}
	var b strings.Builder
	if err := t.Execute(&b, d); err != nil {
		return nil, fmt.Errorf("reading migration %s: %w", m.name, err)
	}
	var out []string
	for s := range strings.SplitSeq(b.String(), ";\n") {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out, nil
}

// errSchema: the schema is older than this program, which must not change it.
var errSchema = errors.New("the schema is older than this program (run a sink with a user who may change it, without CLICKHOUSE_SKIP_MIGRATIONS)")

// Migrate brings the schema to this program's version and the TTL to the
// configured one, or with SkipMigrations checks the version. It may be called at any time and by several processes at
// once. A schema newer than this program is left alone: its steps only add.
func Migrate(ctx context.Context, cfg Config) error {
	s, err := openServer(&cfg, 1)
	if err != nil {
		return err
	}
	defer s.close()
	_, err = s.migrate(ctx, &cfg)
	return err
}

// migrate is Migrate; it gives the names of tables and views that had been made
// before, were gone, and are made anew.
func (s *server) migrate(ctx context.Context, cfg *Config) (anew []string, err error) {
	steps, err := migrations()
	if err != nil {
		return nil, err
	}
	if cfg.SkipMigrations {
		return nil, s.check(ctx, steps)
	}
	d := newDDL(cfg)
	for _, sql := range []string{
		"CREATE DATABASE IF NOT EXISTS " + d.DB + " " + d.OnCluster,
		"CREATE TABLE IF NOT EXISTS " + d.DB + ".schema_migrations " + d.OnCluster +
			" (version UInt32, name String, applied_at DateTime64(3, 'UTC')) ENGINE = " + d.Engine("MergeTree") +
			" ORDER BY version SETTINGS " + d.Window,
	} {
		if err := s.exec(ctx, sql); err != nil {
			return nil, fmt.Errorf("preparing the schema of %s: %w", d.DB, err)
		}
	}
	have, err := s.applied(ctx)
	if err != nil {
		return nil, err
	}
	done := steps
	for i, m := range steps {
		if !have[m.version] {
			done = steps[:i]
			break
		}
	}
	if anew, err = s.makeAnew(ctx, d, done, have); err != nil {
		return nil, err
	}
	for _, m := range steps[len(done):] {
		if err := s.apply(ctx, d, m); err != nil {
			return anew, fmt.Errorf("migrating %s to version %d (%s): %w", d.DB, m.version, m.name, err)
		}
	}
	return anew, s.retain(ctx, d)
}

// check says what the schema lacks where this program must not change it.
func (s *server) check(ctx context.Context, steps []migration) error {
	have, err := s.applied(ctx)
	if err != nil {
		return err
	}
	if !have[steps[len(steps)-1].version] {
		return fmt.Errorf("checking the schema of %s: %w", s.db, errSchema)
	}
	gone, err := s.lacking(ctx, steps)
	if err == nil && len(gone) > 0 {
		err = fmt.Errorf("checking the schema of %s: %s is gone (run a sink with a user who may change the schema, without CLICKHOUSE_SKIP_MIGRATIONS: it makes it anew)", s.db, strings.Join(gone, ", "))
	}
	return err
}

func (s *server) applied(ctx context.Context) (map[int]bool, error) {
	rows, err := s.conn.Query(ctx, "SELECT version FROM "+s.db+".schema_migrations")
	if err != nil {
		return nil, fmt.Errorf("reading %s.schema_migrations: %w", s.db, briefly(err))
	}
	defer rows.Close()
	out := map[int]bool{}
	for rows.Next() {
		var v uint32
		if err := rows.Scan(&v); err != nil {
			return nil, fmt.Errorf("reading %s.schema_migrations: %w", s.db, briefly(err))
		}
		out[int(v)] = true
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading %s.schema_migrations: %w", s.db, briefly(err))
	}
	return out, nil
}

// apply runs a step and notes it; the token keeps the note single where two
// processes made the step at once.
func (s *server) apply(ctx context.Context, d ddl, m migration) error {
	if err := s.run(ctx, d, m); err != nil {
		return err
	}
	return s.exec(ctx, fmt.Sprintf("INSERT INTO %s.schema_migrations (version, name, applied_at) SETTINGS async_insert = 0, insert_deduplicate = 1, insert_deduplication_token = 'migration-%d' VALUES (%d, '%s', now64(3))",
		d.DB, m.version, m.version, m.name))
}

// run runs a step's statements.
func (s *server) run(ctx context.Context, d ddl, m migration) error {
	statements, err := d.statements(m)
	if err != nil {
		return err
	}
	for _, sql := range statements {
		if err := s.exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// retain changes the TTL of tables that have another than is configured.
func (s *server) retain(ctx context.Context, d ddl) error {
	for _, t := range []struct {
		table, column string
		extra         int
	}{{"attempts", "started_at", 0}, {"events", "stored_at", 7}, {"subscription_stats_1m_data", "minute", 0}, {"outcome_stats_1m_data", "minute", 0}} {
		var engine string
		row := s.conn.QueryRow(ctx, "SELECT engine_full FROM system.tables WHERE database = '"+d.DB+"' AND name = '"+t.table+"'")
		if err := row.Scan(&engine); err != nil {
			return fmt.Errorf("reading the TTL of %s.%s: %w", d.DB, t.table, briefly(err))
		}
		alter := ""
		switch has := strings.Contains(engine, "TTL "); {
		case d.ttlDays == 0 && has:
			alter = "REMOVE TTL"
		case d.ttlDays > 0 && !strings.Contains(engine, "TTL "+d.ttl(t.column, t.extra)):
			alter = "MODIFY TTL " + d.ttl(t.column, t.extra)
		}
		if alter == "" {
			continue
		}
		if err := s.exec(ctx, "ALTER TABLE "+d.DB+"."+t.table+" "+d.OnCluster+" "+alter); err != nil {
			return fmt.Errorf("changing the TTL of %s.%s: %w", d.DB, t.table, err)
		}
	}
	return nil
}
