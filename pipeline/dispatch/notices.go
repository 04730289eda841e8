package dispatch

import (
	"context"
	"log/slog"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/dispatch/lane"
)

// NoticeVersion of the JSON in the topic of notices. It grows only when a reader
// would get a notice wrong; new fields alone do not change it.
const NoticeVersion = 1

// Notice is the value of one record of the topic of notices, JSON; its key is
// the subscription's id.
type Notice struct {
	V            int             `json:"v"`
	Type         lane.NoticeType `json:"type"` // failing, recovered, exhausted, disabled or backlog
	Time         time.Time       `json:"time"`
	Subscription string          `json:"subscription"`
	Tenant       string          `json:"tenant,omitempty"`
	Revision     int64           `json:"revision,omitempty"` // of the configuration
	// Reason: of disabled gone, failing or backlog; of failing the last error.
	Reason string `json:"reason,omitempty"`
	// Since: since when there was nothing but failures.
	Since time.Time `json:"since,omitzero"`
	// Count: failures in a row; of exhausted the deliveries since the last
	// notice; of backlog the parked deliveries.
	Count int `json:"count"`
	// Limit, of backlog: how many disable the subscription.
	Limit int `json:"limit,omitempty"`
	// The delivery that brought it about, where there is one.
	DeliveryID string `json:"delivery_id,omitempty"`
	EventID    string `json:"event_id,omitempty"`
	Attempts   int    `json:"attempts,omitempty"` // that it has made
	Node       string `json:"node,omitempty"`
}

func (d *Dispatcher) noticeJSON(o *lane.Out) []byte {
	n := Notice{
		V: NoticeVersion, Type: o.Notice.Type, Time: o.At.UTC().Truncate(time.Millisecond), Subscription: o.Subscription,
		Revision: o.Revision, Reason: o.Notice.Reason, Since: o.Notice.Since, Count: o.Notice.Count, Attempts: o.Notice.Attempts,
		Node: d.deps.Node,
	}
	if s := d.view.Get(o.Subscription); s != nil {
		n.Tenant = s.Tenant
	}
	if n.Type == lane.NoticeBacklog {
		n.Limit = d.cfg.MaxParked
	}
	if env := o.Notice.Envelope; env != nil {
		n.DeliveryID, n.EventID = pipeline.DeliveryID(&env.Source, o.Subscription), env.EventID
	}
	b, err := json.Marshal(&n, json.Deterministic(true))
	if err != nil {
		// Text from outside that is not UTF-8; ids are checked, errors are not.
		n.Reason, n.EventID = "", ""
		if b, err = json.Marshal(&n, json.Deterministic(true)); err != nil {
			panic("BUG: encoding a notice of subscription " + o.Subscription + ": " + err.Error())
		}
	}
	return b
}

// noticeLines is how many notices are logged each second at most: when the
// network is down, every subscription has something to say.
const noticeLines = 10

// logNotice says in the log what was told in the topic. In the loop, when it is
// durable.
func (d *Dispatcher) logNotice(now time.Time, o *lane.Out) {
	if now.Sub(d.noticeSecond) >= time.Second {
		if d.noticesUnsaid > 0 {
			d.log.Warn("more notices than are logged: see the topic", "topic", d.topics.Notices(), "unsaid", d.noticesUnsaid)
		}
		d.noticeSecond, d.noticesSaid, d.noticesUnsaid = now, 0, 0
	}
	if d.noticesSaid++; d.noticesSaid > noticeLines {
		d.noticesUnsaid++
		return
	}
	level := slog.LevelWarn
	if o.Notice.Type == lane.NoticeRecovered {
		level = slog.LevelInfo
	}
	args := []any{"subscription", o.Subscription, "count", o.Notice.Count}
	if o.Notice.Reason != "" {
		args = append(args, "reason", o.Notice.Reason)
	}
	if !o.Notice.Since.IsZero() {
		args = append(args, "since", o.Notice.Since)
	}
	d.log.Log(context.Background(), level, "subscription: "+string(o.Notice.Type), args...)
}
