package sender

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/content"
)

const (
	// smallHeaderBytes fits the headers of nearly every answer; maxHeaderBytes
	// is the limit. A request under way holds a buffer of the first size.
	smallHeaderBytes = 4 << 10
	maxHeaderBytes   = 32 << 10
	// maxDrainBytes is how much of a body is read so that its connection can be
	// kept; beyond it the connection is closed.
	maxDrainBytes = 1 << 20
	// maxInterim bounds the 1xx answers before the final one.
	maxInterim = 100
	// joinBytes: payloads up to this size are copied behind the header, so that
	// both leave in one write.
	joinBytes = 64 << 10
	// resendWithin is how soon a kept connection must fail for the request to be
	// sent again: a receiver that closes later may have worked on it.
	resendWithin = time.Second
)

// exchange is one request and its answer, and the buffers for them. Pooled.
type exchange struct {
	resp          fasthttp.ResponseHeader
	content       content.Message // its Body is the caller's payload or a part of made
	made          []byte          // room for a body that is not the payload itself
	wire          []byte          // the request as it goes out: header, and the body if small
	payload       []byte          // what follows wire
	authorization string          // the value of that header; empty: not sent
	ack           acknowledgement
	withdrawn     *atomic.Bool  // of the request; may be nil
	reader        *bufio.Reader // smallHeaderBytes
	large         *bufio.Reader // maxHeaderBytes; made when first needed
	drain         []byte

	to       *target
	limit    time.Duration // of the whole try
	deadline time.Time     // its end
	// Of a Batch, while the try is under way:
	try *pipeline.Try
	cr  *credentials

	cn        *conn     // of the run under way
	last      lastRun   // what mayResend needs
	startedAt time.Time // of the last run
	keep      bool      // the answer leaves the connection usable
}

// lastRun is how the last run ended, kept beyond its connection.
type lastRun struct{ ran, reused, gotByte bool }

func newExchange() *exchange {
	return &exchange{reader: bufio.NewReaderSize(nil, smallHeaderBytes)}
}

// render makes the body and what is said about it, into x.content.
func (x *exchange) render(req *pipeline.Request, res *pipeline.Result) (err error) {
	x.made, x.content, err = content.Render(x.made[:0], req)
	res.RequestBytes = len(x.content.Body)
	x.ack.wanted = req.Envelope.Format == pipeline.FormatTask
	return err
}

// forget lets go of the caller's memory, and of what is too large to keep.
func (x *exchange) forget() {
	x.content, x.payload, x.authorization = content.Message{}, nil, ""
	x.to, x.withdrawn = nil, nil
	if cap(x.made) > joinBytes {
		x.made = nil
	}
}

var crlf = []byte("\r\n")

// run sends the request over cn and reads the answer. It returns where an error
// came up. errStale and errNotFresh: nothing was written.
func (x *exchange) run(cn *conn, c *Client, res *pipeline.Result) (phase, error) {
	x.cn = cn
	if err := cn.tcp.SetDeadline(x.deadline); err != nil {
		return phaseWrite, err
	}
	if err := x.begin(cn, c); err != nil {
		return phaseWrite, err
	}
	return x.answer(cn, c, res, x.write(cn))
}

// begin readies x and cn for a run; the caller has set the deadline, so that
// closing cuts it short or is seen here.
func (x *exchange) begin(cn *conn, c *Client) error {
	x.cn, x.keep = cn, false
	x.startedAt = c.now()
	cn.begin(c.gate)
	x.reader.Reset(cn)
	if c.closing.Load() {
		return errClosed
	}
	if x.withdrawn != nil && x.withdrawn.Load() {
		return errNotFresh
	}
	return nil
}

// answer reads the answer to a request whose writing ended with err.
func (x *exchange) answer(cn *conn, c *Client, res *pipeline.Result, err error) (phase, error) {
	res.RequestWritten = res.RequestWritten || cn.written
	if err != nil && !isReset(err) {
		return phaseWrite, err
	}
	// A receiver that refuses a large request early answers, then closes: the
	// answer can still be read although writing failed.
	if readErr := x.read(x.reader, c, res); readErr != nil {
		if err != nil && !cn.gotByte {
			return phaseWrite, err
		}
		return phaseRead, readErr
	}
	if err != nil && c.parsed.success[res.StatusCode] {
		return phaseWrite, err // it cannot have taken what did not reach it
	}
	x.keep = x.keep && err == nil && cn.drained()
	return phaseRead, nil
}

func (x *exchange) write(cn *conn) error {
	if _, err := cn.Write(x.wire); err != nil {
		return err
	}
	if len(x.payload) == 0 {
		return nil
	}
	_, err := cn.Write(x.payload)
	return err
}

// finish notes how the run ended and lets go of its connection.
func (x *exchange) finish() {
	x.last = lastRun{ran: true, reused: x.cn.reused, gotByte: x.cn.gotByte}
	x.reader.Reset(nil)
	if x.large != nil {
		x.large.Reset(nil)
	}
	x.cn = nil
}

// mayResend tells whether the request may be sent again on a fresh connection:
// only if it went over a kept one, which then closed at once without a byte of
// an answer, as it does when the receiver's idle timeout ran out on the way.
func (x *exchange) mayResend(err error, now time.Time) bool {
	return x.last.ran && x.last.reused && !x.last.gotByte && now.Sub(x.startedAt) < resendWithin &&
		(isReset(err) || errors.Is(err, io.EOF))
}

// read reads the answer: its headers into x.resp, its body into res.
func (x *exchange) read(br *bufio.Reader, c *Client, res *pipeline.Result) error {
	if _, err := br.Peek(1); err != nil {
		return err
	}
	res.TTFB = c.now().Sub(x.startedAt)
	br, err := x.readHeaders(br)
	if err != nil {
		return err
	}
	res.StatusCode = x.resp.StatusCode()
	x.logHeaders(res, c.cfg.ResponseHeaderBytes)
	whole, err := x.readBody(br, res, x.ack.limit(c, res.StatusCode, len(x.content.Body)))
	if x.ack.read(c, res, err); len(res.ResponseBody) > c.cfg.ResponseBodyBytes {
		res.ResponseBody, res.ResponseTruncated = res.ResponseBody[:c.cfg.ResponseBodyBytes], true
	}
	x.keep = whole && !x.resp.ConnectionClose() && br.Buffered() == 0
	return err
}

// readHeaders reads up to the final answer's headers. It returns the reader to
// go on with: a larger one where they did not fit.
func (x *exchange) readHeaders(br *bufio.Reader) (*bufio.Reader, error) {
	for range maxInterim {
		if err := checkStatusLine(br); err != nil {
			return br, err
		}
		err := awaitHeaders(br)
		if errors.Is(err, bufio.ErrBufferFull) && br != x.large {
			br = x.enlarge(br)
			err = awaitHeaders(br)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			return br, errProtocol("Parse Error: Header overflow")
		}
		if err != nil {
			return br, err
		}
		if x.resp.Read(br) != nil { // its text may quote the answer
			return br, errProtocol("Parse Error: Invalid header")
		}
		switch status := x.resp.StatusCode(); {
		case status == fasthttp.StatusSwitchingProtocols:
			return br, errProtocol("Parse Error: unexpected status 101")
		case status >= 200:
			return br, nil
		}
	}
	return br, errProtocol("Parse Error: too many interim answers")
}

// enlarge moves what is buffered into a larger reader, followed by the rest.
func (x *exchange) enlarge(br *bufio.Reader) *bufio.Reader {
	head, _ := br.Peek(br.Buffered())
	if x.large == nil {
		x.large = bufio.NewReaderSize(nil, maxHeaderBytes)
	}
	x.large.Reset(io.MultiReader(bytes.NewReader(bytes.Clone(head)), x.cn))
	return x.large
}
