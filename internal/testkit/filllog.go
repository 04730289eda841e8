package testkit

import (
	"context"
	"crypto/md5"
	_ "embed"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"text/template"
	"time"
)

// fillText makes rows as hookline does: see Log.
//
//go:embed filllog.sql
var fillText string

var fillTemplate = template.Must(template.New("filllog").Parse(fillText))

// Log is a delivery log that ClickHouse makes up by itself: the same for the same
// values. Deliveries are spread evenly over Days before Until, over Subscriptions
// of which few have most (subscription 0 has one in the cube root of their
// number), over 200 tenants and a rare one. Five deliveries are of one event,
// twenty of one correlation id. Of a thousand first attempts 940 succeed; the
// others are retried after 30 s up to three times, are given up, cancelled, or
// wait without a known time. One subscription in a hundred never succeeds.
type Log struct {
	URL           string // of ClickHouse's HTTP interface
	Database      string // with hookline's schema
	Deliveries    int    // about 1.13 attempts each
	Subscriptions int
	Days          int
	Until         time.Time // no attempt has begun later
}

// fillDeliveries is how many deliveries one statement makes.
const fillDeliveries = 250_000

// Fill stores the log, the oldest first, and calls progress with the number of
// deliveries that are stored.
func (l *Log) Fill(ctx context.Context, progress func(int)) error {
	for from := 0; from < l.Deliveries; from += fillDeliveries {
		n := min(fillDeliveries, l.Deliveries-from)
		var b strings.Builder
		if err := fillTemplate.Execute(&b, map[string]any{
			"DB": l.Database, "From": from, "N": n, "All": l.Deliveries, "Subscriptions": l.Subscriptions,
			"Span": int64(l.Days) * 24 * int64(time.Hour/time.Microsecond), "Until": l.Until.UnixMicro(),
		}); err != nil {
			return fmt.Errorf("filling the log: %w", err)
		}
		for sql := range strings.SplitSeq(b.String(), ";\n") {
			if err := l.exec(ctx, sql); err != nil {
				return fmt.Errorf("filling the log: %w", err)
			}
		}
		progress(from + n)
	}
	return nil
}

func (l *Log) exec(ctx context.Context, sql string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.URL, strings.NewReader(sql))
	if err != nil {
		return err
	}
	req.Close = true // no idle connection, hence no goroutine, is left behind
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<12))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("HTTP %d: %s", resp.StatusCode, text)
	}
	return err
}

// FilledID is the id of a filled log's delivery, event or correlation by its
// number, from 0 on: the kind is dlv, evt or cor.
func FilledID(kind string, number int) string {
	sum := md5.Sum([]byte(kind + strconv.Itoa(number)))
	return kind + "_" + hex.EncodeToString(sum[:])[:26]
}
