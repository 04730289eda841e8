package chhttp

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// reply is the answer to one request: headers at the first byte, so that an error
// before it can still choose the status, then the result through its compressions.
type reply struct {
	w       http.ResponseWriter
	control *http.ResponseController
	req     *request
	timeout time.Duration // for the client to take one piece
	tag     string

	begun   bool
	flushed time.Time      // when the client last had all that was written
	encoder io.WriteCloser // of the Content-Encoding, nil if none
	frames  *compress.Writer
	held    *bytes.Buffer // wait_end_of_query: the result so far
	limit   int64         // of held
}

func newReply(w http.ResponseWriter, req *request, timeout time.Duration, limit int64) *reply {
	var tag [8]byte
	_, _ = rand.Read(tag[:])
	r := &reply{w: w, control: http.NewResponseController(w), req: req, timeout: timeout, tag: hex.EncodeToString(tag[:]), limit: limit, flushed: time.Now()}
	if req.whole {
		r.held = &bytes.Buffer{}
	}
	return r
}

// write sends a piece of the result, or holds it back until finish.
func (r *reply) write(piece []byte, format string) error {
	if r.held != nil {
		if int64(r.held.Len()+len(piece)) > r.limit {
			return newException(396, fmt.Sprintf("The result is over %d bytes, the limit with wait_end_of_query=1", r.limit), "TOO_MANY_ROWS_OR_BYTES")
		}
		r.held.Write(piece)
		return nil
	}
	r.begin(format)
	return r.send(piece)
}

// finish ends a reply without error.
func (r *reply) finish(format string) error {
	r.begin(format)
	if r.held != nil {
		if err := r.send(r.held.Bytes()); err != nil {
			return err
		}
	}
	if r.encoder != nil {
		return r.encoder.Close()
	}
	return nil
}

func (r *reply) begin(format string) {
	if r.begun {
		return
	}
	r.begun = true
	h := r.w.Header()
	h.Set("Content-Type", contentType(format))
	h.Set("X-ClickHouse-Format", format)
	h.Set("X-ClickHouse-Exception-Tag", r.tag)
	if r.req.encoding != "" {
		h.Set("Content-Encoding", r.req.encoding)
		r.encoder = newEncoder(r.w, r.req.encoding)
	}
	if r.req.framed {
		r.frames = compress.NewWriter(compress.LevelZero, r.req.method)
	}
}

// frameBytes bounds one compressed block; ClickHouse's own are 1 MiB.
const frameBytes = 1 << 20

func (r *reply) send(piece []byte) error {
	for len(piece) > 0 {
		part := piece[:min(len(piece), frameBytes)]
		piece = piece[len(part):]
		if r.frames != nil {
			if err := r.frames.Compress(part); err != nil {
				return fmt.Errorf("compressing the result: %w", err)
			}
			part = r.frames.Data
		}
		_ = r.control.SetWriteDeadline(time.Now().Add(r.timeout))
		var out io.Writer = r.w
		if r.encoder != nil {
			out = r.encoder
		}
		if _, err := out.Write(part); err != nil {
			return fmt.Errorf("sending the result: %w", errGone{err})
		}
	}
	return r.flush()
}

// flushAfter is how long rows of a slow query may wait for more. Fast results go
// out in one write.
const flushAfter = 100 * time.Millisecond

func (r *reply) flush() error {
	if time.Since(r.flushed) < flushAfter {
		return nil
	}
	r.flushed = time.Now()
	if f, ok := r.encoder.(interface{ Flush() error }); ok {
		if err := f.Flush(); err != nil {
			return fmt.Errorf("sending the result: %w", errGone{err})
		}
	}
	if err := r.control.Flush(); err != nil {
		return fmt.Errorf("sending the result: %w", errGone{err})
	}
	return nil
}

// errGone marks an error of the connection to the client: nobody is left to tell.
type errGone struct{ error }

// fail reports an exception: with a status, or, once the result is under way, in
// the frame by which clients know that it broke off.
func (r *reply) fail(e *exception) {
	if r.begun {
		message := e.text + "\n"
		_ = r.send([]byte("\r\n__exception__\r\n" + r.tag + "\r\n" + message + strconv.Itoa(len(message)) + " " + r.tag + "\r\n__exception__\r\n"))
		if r.encoder != nil {
			_ = r.encoder.Close()
		}
		return
	}
	r.begun = true
	writeException(r.w, e)
}

// writeException sends e as plain text, never compressed: clients try both.
func writeException(w http.ResponseWriter, e *exception) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=UTF-8")
	h.Set("X-ClickHouse-Exception-Code", strconv.Itoa(e.code))
	w.WriteHeader(e.status())
	_, _ = io.WriteString(w, e.text+"\n")
}

func newEncoder(w io.Writer, encoding string) io.WriteCloser {
	switch encoding {
	case "gzip":
		return gzip.NewWriter(w)
	case "deflate":
		return zlib.NewWriter(w)
	case "br":
		return brotli.NewWriterLevel(w, brotli.BestSpeed)
	default: // acceptedEncoding knows no other; the options are constant and cannot fail
		enc, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
		if err != nil {
			panic("BUG: making a zstd encoder: " + err.Error())
		}
		return enc
	}
}

func contentType(format string) string {
	switch format {
	case "TabSeparated", "TSV":
		return "text/tab-separated-values; charset=UTF-8"
	case "CSV", "CSVWithNames":
		return "text/csv; charset=UTF-8; header=absent"
	case "JSON", "JSONCompact", "JSONStrings":
		return "application/json; charset=UTF-8"
	case "JSONEachRow", "NDJSON", "JSONLines", "JSONCompactEachRow":
		return "application/x-ndjson; charset=UTF-8"
	case "Native", "RowBinary", "Parquet", "Arrow", "ORC":
		return "application/octet-stream"
	}
	return "text/plain; charset=UTF-8"
}
