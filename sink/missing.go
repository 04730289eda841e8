package sink

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	clickhouse "github.com/ClickHouse/clickhouse-go/v2"
)

// MissingError says that ClickHouse lacks one of hookline's tables or views, or
// the database.
type MissingError struct {
	What string // "table hookline.attempts", "database hookline"
	err  error
}

// Error names it with the remedy.
func (e *MissingError) Error() string {
	return "ClickHouse has no " + e.What + ": it was dropped, or never made (a sink makes it when it starts: hookline run --roles sink; or set HOOKLINE_CLICKHOUSE_DATABASE)"
}

// Unwrap gives ClickHouse's own error.
func (e *MissingError) Unwrap() error { return e.err }

// ClickHouse's codes, of src/Common/ErrorCodes.cpp.
const (
	codeUnknownTable    = 60
	codeUnknownDatabase = 81
)

// created finds what the migrations make.
var created = regexp.MustCompile(`(?m)^CREATE (?:TABLE IF NOT EXISTS|OR REPLACE VIEW|MATERIALIZED VIEW IF NOT EXISTS) \{\{\.DB\}\}\.([a-z0-9_]+)`)

// objects are the names of all tables and views that the steps make.
func objects(steps []migration) []string {
	var names []string
	for _, m := range steps {
		for _, found := range created.FindAllStringSubmatch(m.text, -1) {
			if !slices.Contains(names, found[1]) {
				names = append(names, found[1])
			}
		}
	}
	return names
}

var (
	answerCode    = regexp.MustCompile(`(?i)\bcode: (60|81)\b`)
	namedTable    = regexp.MustCompile(`(?:identifier|[Tt]able):? ['"` + "`" + `]?([A-Za-z0-9_.]+)`)
	namedDatabase = regexp.MustCompile("Database ['\"`]?([A-Za-z0-9_]+)")
)

// missingOf is the MissingError that ClickHouse's error stands for; nil: none. A
// table that is none of hookline's is its asker's affair.
func missingOf(err error) *MissingError {
	var known *MissingError
	if errors.As(err, &known) {
		return known
	}
	text, code := err.Error(), ""
	var answer *clickhouse.Exception
	if errors.As(err, &answer) {
		code, text = fmt.Sprint(answer.Code), answer.Message
	} else if found := answerCode.FindStringSubmatch(text); found != nil {
		code = found[1]
	}
	switch code {
	case fmt.Sprint(codeUnknownDatabase):
		if found := namedDatabase.FindStringSubmatch(text); found != nil {
			return &MissingError{"database " + found[1], err}
		}
	case fmt.Sprint(codeUnknownTable):
		steps, readErr := migrations()
		if readErr != nil {
			return nil
		}
		ours := objects(steps)
		for _, found := range namedTable.FindAllStringSubmatch(text, -1) {
			if name := strings.Trim(found[1], "."); slices.Contains(ours, name[strings.LastIndexByte(name, '.')+1:]) {
				return &MissingError{"table " + name, err}
			}
		}
	}
	return nil
}

// lacking gives the tables and views of these steps that are not there.
func (s *server) lacking(ctx context.Context, steps []migration) ([]string, error) {
	var names string
	row := s.conn.QueryRow(ctx, "SELECT arrayStringConcat(groupArray(name), ' ') AS names FROM system.tables WHERE database = '"+s.db+"'")
	if err := row.Scan(&names); err != nil {
		return nil, fmt.Errorf("looking for the tables of %s: %w", s.db, briefly(err))
	}
	there := strings.Fields(names)
	return slices.DeleteFunc(objects(steps), func(n string) bool { return slices.Contains(there, n) }), nil
}

// makeAnew runs every step again where one of their tables or views is gone: each
// statement leaves alone what is there. It gives the names of what was gone.
func (s *server) makeAnew(ctx context.Context, d ddl, steps []migration, have map[int]bool) ([]string, error) {
	gone, err := s.lacking(ctx, steps)
	if err != nil || len(gone) == 0 {
		return nil, err
	}
	for version := range have {
		if version > len(steps) {
			return nil, fmt.Errorf("checking the schema of %s: %s is gone, and the schema is that of a newer version (run a sink of that version: it makes it anew)", s.db, strings.Join(gone, ", "))
		}
	}
	for _, m := range steps {
		if err := s.run(ctx, d, m); err != nil {
			return nil, fmt.Errorf("making %s of %s anew: %w", strings.Join(gone, ", "), s.db, err)
		}
	}
	return gone, nil
}

// healAfter is how long a table must be gone before the sink that runs makes it
// anew: whoever moves it away to put it, or a better one, back does not find
// another one in its place.
const healAfter = 30 * time.Second

// heal makes anew what was dropped while the sink runs and has been gone for a
// while. Others that are at it are not waited for.
func (s *Sink) heal(ctx context.Context) {
	if !s.healing.TryLock() {
		return
	}
	defer s.healing.Unlock()
	now := s.deps.Now()
	if now.Sub(s.missed) > 2*lastRetry { // inserts have gone well since
		s.missing = now
	}
	s.missed = now
	if now.Sub(s.missing) < s.healAfter {
		return
	}
	if err := s.migrate(ctx); err != nil && ctx.Err() == nil {
		s.health.failed(err)
	}
}

// migrate brings the schema up to date, and tells where something had been there
// before and was gone.
func (s *Sink) migrate(ctx context.Context) error {
	anew, err := s.server.migrate(ctx, &s.cfg)
	if len(anew) > 0 {
		s.deps.Logger.Warn("storing the delivery log: tables or views were gone from ClickHouse: they are made anew, without what was in them", "database", s.cfg.Database, "names", strings.Join(anew, ","))
	}
	return err
}
