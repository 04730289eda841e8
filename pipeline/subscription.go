package pipeline

import (
	"strconv"
	"strings"
	"time"
)

// Ordering is the unit of order of a subscription's deliveries.
type Ordering string

// The orderings. In one lane at most one request is under way, always for the
// oldest unsettled delivery.
const (
	OrderingSubscription Ordering = "subscription" // one lane for the whole subscription
	OrderingEntity       Ordering = "entity"       // a lane for each entity
	OrderingNone         Ordering = "none"         // a lane for each delivery
)

// OnExhausted says what a lane does when its head has spent every attempt.
type OnExhausted string

// The policies.
const (
	OnExhaustedContinue OnExhausted = "continue" // dead letter, then the next
	OnExhaustedBlock    OnExhausted = "block"    // hold the lane for an operator
)

// ContentMode says in which form a subscription's receiver gets events.
type ContentMode string

// The content modes. The zero value means the same as raw.
const (
	// ContentRaw: the payload as it was produced; a CloudEvent in the mode in
	// which it was produced.
	ContentRaw        ContentMode = "raw"
	ContentStructured ContentMode = "structured" // one CloudEvents JSON object, the payload within
	ContentBinary     ContentMode = "binary"     // the payload, with ce-* headers
)

// State is a subscription's state.
type State string

// The states. Paused lanes are held; a disabled subscription gets nothing.
const (
	StateActive   State = "active"
	StatePaused   State = "paused"
	StateDisabled State = "disabled"
)

// ReasonCatchUp is the reason of a paused subscription that gets what it missed
// before anything else: the lanes of its catch-up are not held.
const ReasonCatchUp = "catching up"

// MaxReplayWaiting is how many deliveries of a subscription may wait before a replay
// to it does: a tenth of MAX_PARKED's default. So many of a catch-up wait besides
// the live ones that are held behind it.
const MaxReplayWaiting = 10_000

// Limits and defaults of a subscription's fields.
const (
	MaxRetries         = 3
	MaxSubscriptionID  = 128
	MaxHeaders         = 20
	MaxHeadersBytes    = 4096
	DefaultConcurrency = 16
	AnyTenant          = "*"
)

// Subscription says which events go to which URL, and how. Immutable once it is
// in a registry snapshot. Times and limits hold their effective values (defaults
// filled in by registry).
type Subscription struct {
	ID          string // [A-Za-z0-9_-]{1,128}
	Tenant      string // "*": events of any tenant, or of none
	Description string
	URL         string
	Formats     []Format // empty: any
	Events      []string // names or globs; default ["*"]
	Resthook    string
	Filter      string
	Ordering    Ordering
	OnExhausted OnExhausted
	Timeout     time.Duration // 0: REQUEST_TIMEOUT; never more than it
	Retries     int32         // 0..3
	Concurrency int32         // requests under way at once, 1 per lane
	Rate        Rate          // requests begun; the zero value: no limit
	Headers     []Header      // in the order of their names
	ContentMode ContentMode
	State       State    // effective: the worse of configuration and #state
	StateReason string   // why, when not from the configuration
	Revision    int64    // grows with each apply
	Signing     *Signing // nil: requests are not signed
	Auth        *Auth    // nil: none
	CA          string   // PEM, or a reference to it; empty: the process's authorities
	// DisableAfter of nothing but failures disables it; 0: never.
	DisableAfter time.Duration
	// FailingSince is when the run of nothing but failures began that hookline
	// has noted; zero: none.
	FailingSince time.Time
	// Extra is what packages attach at load (precompiled matchers, URL forms).
	// It has no meaning here and is never stored.
	Extra any
}

// Rate is how many requests may be begun in a span of time.
type Rate struct {
	Count int // 0: no limit
	Per   time.Duration
}

// Interval is the time between two requests at that rate, rounded up; 0: no
// limit.
func (r Rate) Interval() time.Duration {
	if r.Count < 1 {
		return 0
	}
	return (r.Per + time.Duration(r.Count) - 1) / time.Duration(r.Count)
}

// Burst is how many requests may follow each other at once after a pause: those
// of one second, and at least 1.
func (r Rate) Burst() int {
	if r.Count < 1 {
		return 0
	}
	return max(1, int(int64(r.Count)*int64(time.Second)/int64(r.Per)))
}

// Header is one custom HTTP header.
type Header struct{ Name, Value string }

// LaneKey names the lane in which an event with this entity at this origin
// offset is delivered under ordering ord. Keys of different kinds never collide
// since ids have no slash.
func LaneKey(sub string, ord Ordering, entity string, origin int64) string {
	switch ord {
	case OrderingEntity:
		return sub + "/e/" + entity
	case OrderingNone:
		return sub + "/n/" + strconv.FormatInt(origin, 10)
	case OrderingSubscription:
	}
	return sub
}

// laneCatchUp, between a subscription's id and the rest of a lane's key, makes
// the lane one of a catch-up.
const laneCatchUp = "/c"

// replayCatchUp begins the id of a replay whose deliveries go before live ones.
const replayCatchUp = "c_"

// CatchUpReplay makes the id of such a replay.
func CatchUpReplay(id string) string { return replayCatchUp + id }

// LaneKeyOf is LaneKey for the event of an envelope. Deliveries of a catch-up
// have lanes of their own, so that live ones can be held behind them.
func LaneKeyOf(sub string, ord Ordering, env *Envelope, origin int64) string {
	if strings.HasPrefix(env.Replay, replayCatchUp) {
		sub += laneCatchUp
	}
	return LaneKey(sub, ord, env.Entity, origin)
}

// LaneIsCatchUp tells whether a key is of a lane of a catch-up.
func LaneIsCatchUp(key string) bool {
	_, rest, ok := strings.Cut(key, "/")
	return ok && (rest == "c" || strings.HasPrefix(rest, "c/"))
}

// laneRest is what of a lane's key tells its kind: empty, "e/..." or "n/...".
func laneRest(key string) string {
	_, rest, _ := strings.Cut(key, "/")
	if rest == "c" {
		return ""
	}
	return strings.TrimPrefix(rest, "c/")
}

// LaneSubscription is the subscription that a lane key belongs to.
func LaneSubscription(key string) string {
	id, _, _ := strings.Cut(key, "/")
	return id
}

// LaneEntity is the entity of a lane of OrderingEntity; empty for others.
func LaneEntity(key string) string {
	entity, ok := strings.CutPrefix(laneRest(key), "e/")
	if !ok {
		return ""
	}
	return entity
}

// LaneOrdering is the kind of lane that a key names.
func LaneOrdering(key string) Ordering {
	rest := laneRest(key)
	switch {
	case rest == "":
		return OrderingSubscription
	case strings.HasPrefix(rest, "e/"):
		return OrderingEntity
	default:
		return OrderingNone
	}
}

// Subscriptions is a view of the registry at one version. Immutable.
type Subscriptions interface {
	// Version is the offset of the last registry record that this view has.
	Version() int64
	// Get returns nil where there is no such subscription.
	Get(id string) *Subscription
}

// ComparableSubscriptions is a view that knows what has changed.
type ComparableSubscriptions interface {
	Subscriptions
	// ChangedSince gives the ids of all subscriptions that are not what they were
	// in older, and perhaps of some that are; known is false where that cannot be
	// told at little cost.
	ChangedSince(older Subscriptions) (ids []string, known bool)
}
