package receiver

import (
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
)

// reply chooses the answer to req: by script, by the path's rule, or by Config.
func (r *Receiver) reply(req *Request, query *fasthttp.Args) Reply {
	if r.cfg.Script != nil {
		return r.cfg.Script(req)
	}
	rule, rest, _ := strings.Cut(strings.TrimPrefix(req.Path, "/"), "/")
	switch rule {
	case "ok":
		return Reply{}
	case "gone":
		return Reply{Status: fasthttp.StatusGone}
	case "status":
		code, _, _ := strings.Cut(rest, "/")
		if status, err := strconv.Atoi(code); err == nil && status >= 200 && status <= 599 {
			return Reply{Status: status, RetryAfter: string(query.Peek("retry-after"))}
		}
		return Reply{Status: fasthttp.StatusBadRequest, Body: "no such status"}
	case "slow":
		return Reply{Delay: time.Duration(query.GetUintOrZero("ms")) * time.Millisecond}
	case "fail":
		return r.failFirst(req, query.GetUintOrZero("first"), fasthttp.StatusOK)
	case "down":
		return r.down(query)
	}
	return r.failFirst(req, r.cfg.FailFirst, r.cfg.Status)
}

// failFirst answers 503 to the first n requests of a delivery, then status.
func (r *Receiver) failFirst(req *Request, n, status int) Reply {
	if n == 0 {
		return Reply{Status: status}
	}
	key := req.DeliveryID
	if key == "" {
		key = req.Path
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen[key] >= n {
		return Reply{Status: status}
	}
	r.seen[key]++
	return Reply{Status: fasthttp.StatusServiceUnavailable}
}

// down answers 503 from query's "from" (0s) on, for "for" (0s: for ever).
func (r *Receiver) down(query *fasthttp.Args) Reply {
	from, errFrom := span(query, "from")
	length, errFor := span(query, "for")
	if errFrom != nil || errFor != nil {
		return Reply{Status: fasthttp.StatusBadRequest, Body: "from and for are durations such as 40s"}
	}
	age := r.cfg.Now().Sub(r.started)
	if age >= from && (length == 0 || age < from+length) {
		return Reply{Status: fasthttp.StatusServiceUnavailable}
	}
	return Reply{}
}

func span(query *fasthttp.Args, name string) (time.Duration, error) {
	if !query.Has(name) {
		return 0, nil
	}
	return time.ParseDuration(string(query.Peek(name)))
}
