package chhttp

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"github.com/hookline/hookline/sink/embedded/chdb"
)

// request is one HTTP request, read as ClickHouse's HTTP interface has it.
type request struct {
	database string
	format   string // default_format
	queryID  string
	mark     string       // the query's log_comment, to find it by
	settings []chdb.Param // by name
	params   []chdb.Param // param_name, by name
	readOnly bool         // GET changes nothing
	revision uint64       // client_protocol_version
	framed   bool         // compress=1: the reply in ClickHouse's blocks
	whole    bool         // wait_end_of_query=1: no reply before the end
	method   compress.Method
	encoding string // Content-Encoding of the reply

	body      *bufio.Reader // query and rows, decompressed
	closeBody func()
}

// reserved are the URL parameters that are no settings; source: ClickHouse,
// src/Server/HTTPHandler.cpp, reserved_param_names. Users are not checked: the
// engine serves whoever may open its address.
var reserved = map[string]bool{
	"compress": true, "decompress": true, "user": true, "password": true, "quota_key": true, "query_id": true,
	"stacktrace": true, "role": true, "buffer_size": true, "wait_end_of_query": true, "session_timeout": true,
	"session_check": true, "client_protocol_version": true, "close_session": true, "database": true,
	"default_format": true, "query": true, "http_method": true,
}

func readRequest(r *http.Request) (*request, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, newException(36, "Reading the URL's parameters: "+err.Error(), "BAD_ARGUMENTS")
	}
	if values.Get("session_id") != "" {
		return nil, newException(48, "session_id: the embedded engine keeps no sessions (send each query alone, with its settings)", "NOT_IMPLEMENTED")
	}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/form-data") {
		return nil, newException(48, "multipart/form-data: the embedded engine takes no external tables (send the query as the body)", "NOT_IMPLEMENTED")
	}
	req := &request{
		database: first(values.Get("database"), r.Header.Get("X-ClickHouse-Database")),
		format:   first(values.Get("default_format"), r.Header.Get("X-ClickHouse-Format")),
		queryID:  first(values.Get("query_id"), r.Header.Get("X-ClickHouse-Query-Id")),
		readOnly: r.Method == http.MethodGet || r.Method == http.MethodHead,
		framed:   isOn(values.Get("compress")),
		whole:    isOn(values.Get("wait_end_of_query")),
		encoding: acceptedEncoding(r.Header.Get("Accept-Encoding")),
	}
	if v := values.Get("client_protocol_version"); v != "" {
		if req.revision, err = strconv.ParseUint(v, 10, 32); err != nil {
			return nil, newException(36, "client_protocol_version is no number", "BAD_ARGUMENTS")
		}
	}
	if req.method, err = frameMethod(values.Get("network_compression_method")); err != nil {
		return nil, err
	}
	if err := req.readSettings(values); err != nil {
		return nil, err
	}
	return req, req.openBody(r, values.Get("query"), isOn(values.Get("decompress")))
}

func (req *request) readSettings(values url.Values) error {
	for name, vs := range values {
		value := vs[len(vs)-1]
		if param, ok := strings.CutPrefix(name, "param_"); ok {
			if err := checkName("A parameter", param); err != nil {
				return err
			}
			req.params = append(req.params, chdb.Param{Name: param, Value: value})
		} else if !reserved[name] {
			if err := checkName("A setting", name); err != nil {
				return err
			}
			req.settings = append(req.settings, chdb.Param{Name: name, Value: value})
		}
	}
	sort.Slice(req.params, func(i, j int) bool { return req.params[i].Name < req.params[j].Name })
	sort.Slice(req.settings, func(i, j int) bool { return req.settings[i].Name < req.settings[j].Name })
	return nil
}

// openBody sets body to the query of the URL, if there is one, a line end, and
// the request's body, uncompressed.
func (req *request) openBody(r *http.Request, query string, framed bool) error {
	body, done, err := decodeBody(r.Body, r.Header.Get("Content-Encoding"))
	if err != nil {
		return err
	}
	req.closeBody = done
	if framed {
		body = newFrameReader(body)
	}
	if query != "" {
		body = io.MultiReader(strings.NewReader(query+"\n"), body)
	}
	req.body = bufio.NewReaderSize(body, maxHeadBytes)
	return nil
}

// maxHeadBytes bounds an INSERT up to its rows; it is ClickHouse's max_query_size.
const maxHeadBytes = 256 << 10

// head returns the beginning of the query without taking it from the body, and
// whether that is all of it.
func (req *request) head() (text []byte, all bool, err error) {
	text, err = req.body.Peek(maxHeadBytes)
	switch {
	case err == nil:
		return text, false, nil
	case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return text, true, nil
	}
	return nil, false, fmt.Errorf("reading the request's body: %w", err)
}

// text reads the whole body as a query.
func (req *request) text(limit int64) (string, error) {
	text, err := io.ReadAll(io.LimitReader(req.body, limit+1))
	if err != nil {
		return "", fmt.Errorf("reading the request's body: %w", err)
	}
	if int64(len(text)) > limit {
		return "", newException(62, fmt.Sprintf("The query is longer than %d bytes", limit), "SYNTAX_ERROR")
	}
	return string(bytes.TrimSpace(text)), nil
}

func decodeBody(body io.Reader, encoding string) (io.Reader, func(), error) {
	nothing := func() {}
	switch encoding {
	case "", "identity":
		return body, nothing, nil
	case "gzip", "x-gzip":
		zr, err := gzip.NewReader(body)
		return zr, nothing, bodyError(encoding, err)
	case "deflate":
		zr, err := zlib.NewReader(body)
		return zr, nothing, bodyError(encoding, err)
	case "br":
		return brotli.NewReader(body), nothing, nil
	case "zstd":
		zr, err := zstd.NewReader(body, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(128<<20))
		if err != nil {
			return nil, nothing, bodyError(encoding, err)
		}
		return zr, zr.Close, nil
	}
	return nil, nothing, newException(48, fmt.Sprintf("Content-Encoding %q (use gzip, deflate, br or zstd)", encoding), "NOT_IMPLEMENTED")
}

func bodyError(encoding string, err error) error {
	if err == nil {
		return nil
	}
	return newException(354, fmt.Sprintf("Reading a body in %s: %v", encoding, err), "ZLIB_INFLATE_FAILED")
}

// acceptedEncoding picks the first known one; the client put the best in front.
func acceptedEncoding(accept string) string {
	for _, part := range strings.Split(accept, ",") {
		name, q, _ := strings.Cut(strings.TrimSpace(part), ";")
		switch name = strings.TrimSpace(name); name {
		case "gzip", "deflate", "br", "zstd":
			if strings.ReplaceAll(q, " ", "") != "q=0" {
				return name
			}
		}
	}
	return ""
}

func frameMethod(name string) (compress.Method, error) {
	switch strings.ToUpper(name) {
	case "", "LZ4", "LZ4HC":
		return compress.LZ4, nil
	case "ZSTD":
		return compress.ZSTD, nil
	case "NONE":
		return compress.None, nil
	}
	return compress.None, newException(36, fmt.Sprintf("network_compression_method %q (use LZ4, ZSTD or NONE)", name), "BAD_ARGUMENTS")
}

// frameReader reads ClickHouse's compressed blocks, checking their checksums.
type frameReader struct {
	raw    *bufio.Reader
	blocks *compress.Reader
}

func newFrameReader(r io.Reader) *frameReader {
	raw := bufio.NewReader(r)
	return &frameReader{raw: raw, blocks: compress.NewReader(raw)}
}

// Read tells the end of the last block, which is the end, from an end within one.
func (f *frameReader) Read(p []byte) (int, error) {
	n, err := f.blocks.Read(p)
	if err == nil {
		return n, nil
	}
	if errors.Is(err, io.EOF) && strings.Contains(err.Error(), "header") {
		return n, io.EOF
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return n, io.ErrUnexpectedEOF
	}
	return n, newException(271, fmt.Sprintf("Reading a compressed block: %v", err), "CANNOT_DECOMPRESS")
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func isOn(value string) bool { return value == "1" || strings.EqualFold(value, "true") }
