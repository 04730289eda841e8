package sender

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http/httputil"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/hookline/hookline/pipeline"
)

// statusLineBytes is "HTTP/1.1 200" and the byte after it.
const statusLineBytes = 13

// checkStatusLine lets through only "HTTP/1.0" and "HTTP/1.1" with a status from
// 100 to 599. fasthttp takes more, and gives 200 for 000.
func checkStatusLine(br *bufio.Reader) error {
	line, err := br.Peek(statusLineBytes)
	const proto = "HTTP/1."
	for i := range min(len(line), len(proto)) {
		if line[i] != proto[i] {
			return errProtocol("Parse Error: Expected HTTP/1.1")
		}
	}
	if err != nil {
		return err
	}
	end := line[12]
	if line[7] != '0' && line[7] != '1' || line[8] != ' ' || end != ' ' && end != '\r' ||
		line[9] < '1' || line[9] > '5' || !isDigit(line[10]) || !isDigit(line[11]) {
		return errProtocol("Parse Error: Invalid status line")
	}
	return nil
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// awaitHeaders returns when the headers have been buffered to their end, or with
// bufio.ErrBufferFull. It refuses what fasthttp lets through although receivers
// and proxies disagree on it: lines without CR, folded ones, names that end with
// a space, and a length beside a transfer coding.
func awaitHeaders(br *bufio.Reader) error {
	var framed framing
	for start := 0; ; {
		block, _ := br.Peek(br.Buffered())
		for {
			end := bytes.IndexByte(block[start:], '\n')
			if end < 0 {
				break
			}
			line := block[start : start+end]
			switch {
			case end == 0 || line[end-1] != '\r':
				return errProtocol("Parse Error: Missing expected CR before LF")
			case end == 1:
				return nil
			case line[0] == ' ' || line[0] == '\t':
				return errProtocol("Parse Error: Folded header")
			}
			if start > 0 { // behind the status line
				if err := framed.line(line); err != nil {
					return err
				}
			}
			start += end + 1
		}
		if _, err := br.Peek(len(block) + 1); err != nil {
			return err
		}
	}
}

// framing is what the header lines so far say about where the body ends.
type framing struct{ length, coded bool }

// line takes in one header line. Who obeys one of two contradicting lines ends
// the answer elsewhere than who obeys the other.
func (f *framing) line(line []byte) error {
	const length, coding = "Content-Length", "Transfer-Encoding"
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 {
		return nil // fasthttp refuses it
	}
	switch colon {
	case len(length):
		f.length = f.length || asciiEqualFold(line[:colon], length)
	case len(coding):
		f.coded = f.coded || asciiEqualFold(line[:colon], coding)
	}
	if end := line[colon-1]; end == ' ' || end == '\t' {
		return errProtocol("Parse Error: Invalid header token")
	}
	if f.length && f.coded {
		return errProtocol("Parse Error: Content-Length can't be present with Transfer-Encoding")
	}
	return nil
}

// asciiEqualFold tells whether a is b in any letter case; both of one length.
func asciiEqualFold(a []byte, b string) bool {
	for i := range a {
		if a[i]|0x20 != b[i]|0x20 {
			return false
		}
	}
	return true
}

// bodyError keeps the errors of the connection and hides all others, whose
// texts may quote the answer.
func bodyError(err error) error {
	if isTimeout(err) || isReset(err) || isLocal(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return errProtocol("Parse Error: Invalid body framing")
}

var setCookie = []byte("Set-Cookie")

// logHeaders keeps the answer's header lines that fit into limit.
func (x *exchange) logHeaders(res *pipeline.Result, limit int) {
	for name, value := range x.resp.All() {
		if len(res.ResponseHeaders)+len(name)+len(value)+4 > limit {
			return
		}
		res.ResponseHeaders = append(res.ResponseHeaders, name...)
		if bytes.EqualFold(name, setCookie) {
			res.ResponseHeaders = append(res.ResponseHeaders, ": [redacted]\r\n"...)
			continue
		}
		res.ResponseHeaders = append(res.ResponseHeaders, ": "...)
		res.ResponseHeaders = append(res.ResponseHeaders, value...)
		res.ResponseHeaders = append(res.ResponseHeaders, crlf...)
	}
}

// readBody keeps up to limit bytes of the body. whole tells whether the body was
// read to its end, so that another answer may follow on the connection.
func (x *exchange) readBody(br *bufio.Reader, res *pipeline.Result, limit int) (whole bool, err error) {
	status, length := x.resp.StatusCode(), x.resp.ContentLength()
	switch {
	case status == fasthttp.StatusNoContent || status == fasthttp.StatusNotModified:
		return true, nil
	case length >= 0:
		whole, err = readFixed(br, res, length, limit)
	case length == -1:
		if whole, err = x.readStream(httputil.NewChunkedReader(br), res, limit); whole {
			if err = x.resp.ReadTrailer(br); errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
		}
	default:
		_, err = x.readStream(br, res, limit)
	}
	if err != nil {
		return false, bodyError(err)
	}
	if encoding := x.resp.ContentEncoding(); len(encoding) > 0 {
		decode(res, encoding, limit)
	}
	return whole, nil
}

// readFixed reads a body of known length. One that is too long to be drained is
// read no further than the log needs.
func readFixed(br *bufio.Reader, res *pipeline.Result, length, limit int) (whole bool, err error) {
	kept := min(length, limit)
	res.ResponseTruncated = kept < length
	if cap(res.ResponseBody) < kept {
		res.ResponseBody = make([]byte, kept)
	}
	n, err := io.ReadFull(br, res.ResponseBody[:kept])
	res.ResponseBody = res.ResponseBody[:n]
	if err != nil || length > maxDrainBytes {
		return false, err
	}
	_, err = br.Discard(length - kept)
	return true, err
}

// readStream reads a body of unknown length, to its end or to maxDrainBytes.
func (x *exchange) readStream(r io.Reader, res *pipeline.Result, limit int) (whole bool, err error) {
	if x.drain == nil {
		x.drain = make([]byte, smallHeaderBytes)
	}
	for total := 0; total <= maxDrainBytes; {
		n, err := r.Read(x.drain)
		total += n
		kept := min(n, limit-len(res.ResponseBody))
		res.ResponseBody = append(res.ResponseBody, x.drain[:kept]...)
		res.ResponseTruncated = res.ResponseTruncated || kept < n
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
	res.ResponseTruncated = true
	return false, nil
}

// decode replaces a gzipped body by its first limit bytes, for the log only.
// What cannot be decoded stays as it is.
func decode(res *pipeline.Result, encoding []byte, limit int) {
	if !bytes.EqualFold(encoding, []byte("gzip")) && !bytes.EqualFold(encoding, []byte("x-gzip")) {
		return
	}
	zr, err := gzip.NewReader(bytes.NewReader(res.ResponseBody))
	if err != nil {
		return
	}
	plain := make([]byte, limit+1)
	n, err := io.ReadFull(zr, plain)
	if n == 0 {
		return
	}
	ended := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) && !res.ResponseTruncated
	res.ResponseTruncated = !ended || n > limit
	res.ResponseBody = plain[:min(n, limit)]
}

// judge gives a complete answer its outcome.
func (c *Client) judge(x *exchange, res *pipeline.Result) {
	switch status := res.StatusCode; {
	case c.parsed.success[status]:
		res.Outcome = pipeline.OutcomeSuccess
		return
	case status == fasthttp.StatusGone:
		res.Outcome = pipeline.OutcomeGone
	default:
		res.Outcome = pipeline.OutcomeResponseError
		if status == fasthttp.StatusTooManyRequests || status == fasthttp.StatusServiceUnavailable {
			res.RetryAfter = retryAfter(x.resp.Peek(fasthttp.HeaderRetryAfter), c.now())
		}
	}
	res.Error = "status " + strconv.Itoa(res.StatusCode)
}

// maxRetryAfter is the longest wait that a receiver may ask for.
const maxRetryAfter = time.Hour

// retryAfter reads seconds or an HTTP date; 0 for anything else.
func retryAfter(value []byte, now time.Time) time.Duration {
	value = bytes.TrimSpace(value)
	if len(value) == 0 {
		return 0
	}
	if len(bytes.Trim(value, "0123456789")) == 0 {
		seconds, err := strconv.ParseUint(string(value), 10, 63)
		if err != nil || seconds > uint64(maxRetryAfter/time.Second) {
			return maxRetryAfter
		}
		return time.Duration(seconds) * time.Second
	}
	at, err := fasthttp.ParseHTTPDate(value)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}
