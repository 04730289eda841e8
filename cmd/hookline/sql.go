package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hookline/hookline/configs"
	"github.com/hookline/hookline/internal/telemetry"
	"github.com/hookline/hookline/sink"
)

func (c *cli) sqlCmd() *cobra.Command {
	format, asJSON, write := "", false, false
	cmd := &cobra.Command{
		Use:   "sql QUERY",
		Short: "SQL against the configured ClickHouse",
		Long: "SQL against the configured ClickHouse, in hookline's database: tables attempts and events.\n" +
			"With - the query is read from standard input. Control characters in results are escaped unless\n" +
			"a --format is asked for. What would change anything is refused unless --write is given.",
		Example: "  hookline sql 'SELECT subscription_id, outcome, count() FROM attempts GROUP BY ALL ORDER BY ALL'\n" +
			"  hookline sql --write \"ALTER TABLE attempts DELETE WHERE tenant = 'gone'\"",
		Args: exactly("QUERY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			exact := format != ""
			if exact {
				if err := sink.CheckFormat(format); err != nil {
					return usagef("reading options: hookline sql: --format: %w", err)
				}
			}
			switch {
			case asJSON && exact:
				return usagef("reading options: hookline sql: --json and --format exclude each other")
			case asJSON:
				format = "JSONEachRow"
			case !exact && telemetry.IsTerminal(c.out):
				format = "PrettyCompactNoEscapes"
			case !exact:
				format = "TabSeparatedWithNames"
			}
			query := args[0]
			if query == "-" {
				b, err := c.readFile("the query", "-")
				if err != nil {
					return err
				}
				query = string(b)
			}
			if strings.TrimSpace(query) == "" {
				return usagef("reading arguments: hookline sql: the query is empty")
			}
			return c.sql(cmd.Context(), query, format, exact, write)
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "ClickHouse's name of an output format, e.g. CSV")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one row a line")
	cmd.Flags().BoolVar(&write, "write", false, "let the query change data, tables and the server")
	return cmd
}

// reader connects to the configured ClickHouse.
func (c *cli) reader(ctx context.Context) (*sink.Reader, error) {
	cfg, err := c.config()
	if err != nil {
		return nil, err
	}
	r, err := sink.OpenReader(cfg.Sink)
	if err != nil {
		return nil, usage(err)
	}
	if err := pingClickHouse(ctx, r); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// pingClickHouse makes sure that ClickHouse answers.
func pingClickHouse(ctx context.Context, r *sink.Reader) error {
	limited, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	err := r.Ping(limited)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("reaching ClickHouse: interrupted")
	}
	return withRemedy(err)
}

// clickHouseAnswer is in every error of ClickHouse's own.
var clickHouseAnswer = regexp.MustCompile(`(?i)\bcode: \d+`)

// withRemedy says what to do where ClickHouse does not answer as it should.
func withRemedy(err error) error {
	switch {
	case isBadCertificate(err):
		return unreachableError{fmt.Errorf("%w (set HOOKLINE_CLICKHOUSE_CA_FILE, or the name in HOOKLINE_CLICKHOUSE_ADDR)", err)}
	case sink.Unreachable(err):
		return unreachableError{fmt.Errorf("%w (is ClickHouse running? set HOOKLINE_CLICKHOUSE_ADDR)", err)}
	case sink.Refused(err):
		return fmt.Errorf("%w (set HOOKLINE_CLICKHOUSE_USER and _PASSWORD)", err)
	case clickHouseAnswer.MatchString(err.Error()):
		return err
	}
	return fmt.Errorf("%w (is that ClickHouse? see HOOKLINE_CLICKHOUSE_ADDR)", err)
}

func isBadCertificate(err error) bool {
	_, bad := errors.AsType[*tls.CertificateVerificationError](err)
	return bad
}

func (c *cli) sql(ctx context.Context, query, format string, exact, write bool) error {
	r, err := c.reader(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	run := r.Query
	if write {
		run = r.Execute
	}
	rows, err := run(ctx, query, format)
	switch {
	case errors.Is(err, sink.ErrReadOnly) && !write:
		return usage(fmt.Errorf("%w (give --write to allow it)", err))
	case errors.Is(err, sink.ErrNoStatement):
		return usage(err)
	case err != nil:
		return err
	}
	defer rows.Close()
	if exact && !telemetry.IsTerminal(c.out) {
		_, err = io.Copy(c.out, rows)
	} else {
		err = copySafe(c.out, rows)
	}
	if err != nil {
		return fmt.Errorf("reading the result: %w", err)
	}
	return nil
}

// showSQL prints a result as a table.
func (c *cli) showSQL(ctx context.Context, cfg *configs.Config, query string) error {
	r, err := sink.OpenReader(cfg.Sink)
	if err != nil {
		return err
	}
	defer r.Close()
	rows, err := r.Query(ctx, query, "PrettyCompactNoEscapes")
	if err != nil {
		return err
	}
	defer rows.Close()
	return copySafe(c.out, rows)
}

// copySafe copies text line by line with control characters escaped.
func copySafe(w io.Writer, r io.Reader) error {
	buf := make([]byte, 0, 64<<10)
	chunk := make([]byte, 32<<10)
	for {
		n, err := r.Read(chunk)
		buf = append(buf, chunk[:n]...)
		whole := bytes.LastIndexByte(buf, '\n') + 1
		if err != nil {
			whole = len(buf)
		}
		if whole > 0 {
			if _, werr := io.WriteString(w, safeLines(string(buf[:whole]))); werr != nil {
				return werr
			}
			buf = append(buf[:0], buf[whole:]...)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
