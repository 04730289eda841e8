package replay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/kafkax"
	"github.com/hookline/hookline/pipeline/registry"
)

const (
	// archivePage is how many stored events are read at once.
	archivePage = 500
	// routedBefore is how much of the routed deliveries before a time is looked at,
	// and the most that the router is taken to have been behind.
	routedBefore = time.Hour
	// clocksApart is what clocks of producers and of hookline may differ by, and
	// what a change of a subscription may take to reach every router.
	clocksApart = 10 * time.Second
)

// item is one event of a plan. There may be millions.
type item struct {
	key    int64 // ms: by it items of different sources are put in order
	offset int64
	source int32
}

// source is one partition of a topic of events.
type source struct {
	pipeline.Position       // Offset is not used
	start, end        int64 // of the log; end as of when the replay was begun
}

// placeKey tells events apart.
type placeKey struct {
	topicID   [16]byte
	partition int32
	offset    int64
}

func keyOf(p *pipeline.Position) placeKey { return placeKey{p.TopicID, p.Partition, p.Offset} }

// planner makes a plan.
type planner struct {
	r       *Replayer
	run     *run
	sel     *Selection
	sources []source
	index   map[placeKey]int32 // of sources; offset 0
	items   []item
	before  int
	matched []*pipeline.Subscription

	unmatched, gone, archived int
	incomplete                string
	dead                      map[placeKey]int64 // copies in dead, by their events
	undone                    bool               // some of what this replay had enqueued ended untried
	spans                     []registry.MissedSpan
}

func (p *planner) plan() Plan {
	out := Plan{
		ID: p.run.progress.ID, Selection: *p.sel, Events: len(p.items) + p.before, Continued: p.run.continued, Before: p.before,
		Unmatched: p.unmatched, Gone: p.gone, Archived: p.archived, Incomplete: p.incomplete,
	}
	if n := len(p.items); n > 0 {
		out.First, out.Last = time.UnixMilli(p.items[0].key).UTC(), time.UnixMilli(p.items[n-1].key).UTC()
	}
	return out
}

// make finds the events, in their order.
func (p *planner) make(ctx context.Context) error {
	if p.sel.needsArchive() && p.r.deps.Archive == nil {
		return errors.New("what was delivered is known to ClickHouse only (set HOOKLINE_CLICKHOUSE_ADDR; or select by subscription and time)")
	}
	if err := p.findSources(ctx); err != nil {
		return err
	}
	var err error
	switch {
	case p.sel.needsArchive():
		err = p.positions(ctx)
	case p.sel.Missed:
		err = p.missed(ctx)
	default:
		err = p.times(ctx, p.sel.Since, nil)
	}
	if err != nil {
		return err
	}
	if p.run.continued && p.undone {
		// To go on with it would put that behind what comes after.
		p.run.anew(p.run.progress.Selection)
		*p = planner{r: p.r, run: p.run, sel: &p.run.progress.Selection}
		return p.make(ctx)
	}
	p.order()
	p.run.progress.Total = len(p.items)
	p.items = slices.DeleteFunc(p.items, func(it item) bool {
		s := &p.sources[it.source]
		return it.offset < p.run.progress.Next[sourceKey(s.Topic, s.Partition)]
	})
	p.before = p.run.progress.Total - len(p.items)
	return nil
}

// order puts the items in the order in which their events were produced; of one
// source by offset, whatever the clocks of producers said.
func (p *planner) order() {
	slices.SortFunc(p.items, func(a, b item) int { return cmp.Or(cmp.Compare(a.source, b.source), cmp.Compare(a.offset, b.offset)) })
	p.items = slices.CompactFunc(p.items, func(a, b item) bool { return a.source == b.source && a.offset == b.offset })
	for i := 1; i < len(p.items); i++ {
		if a, b := &p.items[i-1], &p.items[i]; a.source == b.source {
			b.key = max(b.key, a.key)
		}
	}
	slices.SortFunc(p.items, func(a, b item) int {
		return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.source, b.source), cmp.Compare(a.offset, b.offset))
	})
}

// findSources lists the partitions of the topics of events, with their ends as of
// when the replay was begun.
func (p *planner) findSources(ctx context.Context) error {
	p.index = map[placeKey]int32{}
	topics, err := p.r.eventTopics(ctx)
	if err != nil || len(topics) == 0 {
		return err
	}
	starts, err := p.r.fetcher.StartOffsets(ctx, topics...)
	if err != nil {
		return err
	}
	ends, err := p.ends(ctx, topics, starts)
	if err != nil {
		return err
	}
	if p.run.progress.Ends == nil {
		p.run.progress.Ends = map[string]int64{}
	}
	for _, topic := range topics {
		id, err := p.r.fetcher.TopicID(ctx, topic)
		if err != nil {
			return err
		}
		for _, part := range slices.Sorted(maps.Keys(starts[topic])) {
			key := sourceKey(topic, part)
			end, known := p.run.progress.Ends[key]
			if !known {
				end = max(ends[topic][part], 0)
				p.run.progress.Ends[key] = end
			}
			p.addSource(source{pipeline.Position{Cluster: p.r.deps.Cluster, TopicID: id, Topic: topic, Partition: part}, starts[topic][part], end})
		}
	}
	return nil
}

// ends are the ends of the topics or, for what was missed, how far the router has
// come: what is behind it will be routed.
func (p *planner) ends(ctx context.Context, topics []string, starts map[string]map[int32]int64) (map[string]map[int32]int64, error) {
	if !p.sel.Missed {
		return p.r.fetcher.StableEnds(ctx, topics...)
	}
	want := map[string][]int32{}
	for _, t := range topics {
		want[t] = slices.Sorted(maps.Keys(starts[t]))
	}
	committed, err := p.r.fetcher.StableOffsets(ctx, p.r.deps.Kafka.RouterGroup(), want)
	if err != nil {
		return nil, err
	}
	out := map[string]map[int32]int64{}
	for t, parts := range committed {
		out[t] = map[int32]int64{}
		for part, c := range parts {
			out[t][part] = c.Offset
		}
	}
	return out, nil
}

func (p *planner) addSource(s source) int32 {
	i := int32(len(p.sources))
	p.sources = append(p.sources, s)
	p.index[placeKey{s.TopicID, s.Partition, 0}] = i
	return i
}

// sourceOf finds the source of an event. One whose topic is no more is added: only
// the archive may have its events.
func (p *planner) sourceOf(pos *pipeline.Position) int32 {
	if i, ok := p.index[placeKey{pos.TopicID, pos.Partition, 0}]; ok {
		return i
	}
	s := source{Position: *pos, start: math.MaxInt64, end: math.MaxInt64}
	s.Offset = 0
	return p.addSource(s)
}

// times takes every event produced within the selection's time, from since on, but
// for those that skip names.
func (p *planner) times(ctx context.Context, since time.Time, skip map[placeKey]string) error {
	topics := map[string]map[int32]int64{}
	for i := range len(p.sources) {
		s := &p.sources[i]
		if topics[s.Topic] == nil {
			froms, err := p.r.fetcher.OffsetsAfter(ctx, since, s.Topic)
			if err != nil {
				return err
			}
			topics[s.Topic] = froms[s.Topic]
		}
		if err := p.archivedTimes(ctx, int32(i), since, skip); err != nil {
			return err
		}
		from := topics[s.Topic][s.Partition]
		if behind := p.routedTo(s); behind >= 0 {
			from = min(from, behind)
		}
		err := p.r.fetcher.Scan(ctx, s.Topic, s.Partition, max(from, s.start), s.end, func(rec *kgo.Record) error {
			_, err := p.consider(rec, int32(i), skip)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// archivedTimes does the same for what Kafka does not retain any more.
func (p *planner) archivedTimes(ctx context.Context, i int32, since time.Time, skip map[placeKey]string) error {
	s := &p.sources[i]
	if s.start == 0 {
		return nil
	}
	if p.r.deps.Archive == nil {
		p.incomplete = "events that Kafka does not retain any more were not looked for: ClickHouse is not configured"
		return nil
	}
	if behind := p.routedTo(s); behind >= 0 { // what is older, and was not routed yet
		if err := p.archivedOf(ctx, i, behind, time.Time{}, since, skip); err != nil {
			return err
		}
	}
	return p.archivedOf(ctx, i, 0, since, p.sel.Until, skip)
}

// archivedOf does so for offsets of one source, and events of a time.
func (p *planner) archivedOf(ctx context.Context, i int32, from int64, since, until time.Time, skip map[placeKey]string) error {
	s := &p.sources[i]
	at := s.Position
	at.Offset = from
	for to := min(s.start, s.end); at.Offset < to; {
		recs, err := p.r.deps.Archive.EventRecords(ctx, at, to, since, until, archivePage)
		if err != nil {
			return err
		}
		for _, rec := range recs {
			taken, err := p.consider(rec, i, skip)
			if err != nil {
				return err
			}
			if taken {
				p.archived++
			}
			at.Offset = rec.Offset + 1
		}
		if len(recs) < archivePage {
			break
		}
	}
	return nil
}

// consider takes the event if it matches.
func (p *planner) consider(rec *kgo.Record, i int32, skip map[placeKey]string) (taken bool, err error) {
	switch {
	case p.sel.needsArchive(): // it has told which
	case p.sel.Missed && !slices.ContainsFunc(p.spans, p.mayBeOf(rec, &p.sources[i])),
		!p.sel.Missed && !p.sel.contains(rec.Timestamp):
		return false, nil
	}
	src := p.sources[i].Position
	src.Offset = rec.Offset
	if _, routed := skip[keyOf(&src)]; routed {
		return false, nil
	}
	ev, err := p.r.deps.Parse(rec, &src)
	if err != nil {
		return false, nil //nolint:nilerr // the router has put it into events.dead
	}
	if p.matched = p.run.match(ev, p.matched[:0]); len(p.matched) == 0 {
		p.unmatched++
		return false, nil
	}
	if len(p.items) >= MaxEvents {
		return false, fmt.Errorf("there are more than %d events (replay a shorter time at once)", MaxEvents)
	}
	p.items = append(p.items, item{key: rec.Timestamp.UnixMilli(), offset: rec.Offset, source: i})
	return true, nil
}

// mayBeOf tells whether an event may have been missed in a time: it was produced
// in it, or before it and not routed yet when it began.
func (p *planner) mayBeOf(rec *kgo.Record, s *source) func(registry.MissedSpan) bool {
	return func(m registry.MissedSpan) bool {
		if !rec.Timestamp.Before(m.To) {
			return false
		}
		at := routedIn(&m, s)
		return !rec.Timestamp.Before(m.From) || at >= 0 && rec.Offset >= at
	}
}

// routedIn is how far the router had come in a source when a time began; -1: not known.
func routedIn(m *registry.MissedSpan, s *source) int64 {
	if at := m.Routed[s.Topic]; int(s.Partition) < len(at) {
		return at[s.Partition]
	}
	return -1
}

// routedTo is the least of these; -1: none is known.
func (p *planner) routedTo(s *source) int64 {
	least := int64(-1)
	for i := range p.spans {
		if at := routedIn(&p.spans[i], s); at >= 0 && (least < 0 || at < least) {
			least = at
		}
	}
	return least
}

// positions takes the events that the archive names.
func (p *planner) positions(ctx context.Context) error {
	found, err := p.archivePositions(ctx)
	if err != nil {
		return err
	}
	slices.SortFunc(found, func(a, b placed) int {
		return cmp.Or(cmp.Compare(a.source, b.source), cmp.Compare(a.offset, b.offset))
	})
	found = slices.Compact(found)
	if len(found) == 0 && p.sel.Event+p.sel.Delivery != "" {
		return fmt.Errorf("no event or delivery with the id %.140q is in ClickHouse (it may not have got there yet)", p.sel.Event+p.sel.Delivery)
	}
	rd := newReader(p.r, p.sources)
	for _, f := range found {
		rec, archived, err := rd.record(ctx, f.source, f.offset)
		if err != nil {
			return err
		}
		if rec == nil {
			p.gone++
			continue
		}
		taken, err := p.consider(rec, f.source, nil)
		if err != nil {
			return err
		}
		if taken && archived {
			p.archived++
		}
	}
	return nil
}

type placed struct {
	source int32
	offset int64
}

func (p *planner) archivePositions(ctx context.Context) (found []placed, err error) {
	add := func(pos *pipeline.Position) { found = append(found, placed{p.sourceOf(pos), pos.Offset}) }
	if p.sel.Event != "" {
		all, err := p.r.deps.Archive.EventPositions(ctx, p.sel.Event)
		for i := range all {
			add(&all[i])
		}
		return found, err
	}
	only := ""
	err = p.r.deps.Archive.DeliveryPositions(ctx, p.sel.Subscription, p.sel.Delivery, p.sel.Failed, p.sel.Since, p.sel.Until,
		func(pos pipeline.Position, subscription string) error {
			only = subscription
			add(&pos)
			return nil
		})
	if err == nil && only != "" {
		p.run.match, p.run.version, err = p.r.deps.Match(ctx, only)
		p.run.only = only
	}
	return found, err
}

// missed takes what was never routed to the subscription, and what was and ended
// untried.
func (p *planner) missed(ctx context.Context) error {
	var err error
	if p.spans, err = p.missedSpans(ctx); err != nil || len(p.spans) == 0 {
		return err
	}
	since := p.spans[0].From
	id := p.sel.Subscription
	task := kafkax.Partition(id, p.r.deps.Kafka.Partitions)
	routed := map[placeKey]string{} // of what replay an event was last put into deliveries for it; empty: by the router
	behind := time.Duration(0)      // how far the router was at most, in that time
	err = p.scanSince(ctx, p.r.topics.Deliveries(), task, since.Add(-routedBefore), func(rec *kgo.Record) error {
		var subs []string
		var env pipeline.Envelope
		for _, h := range rec.Headers {
			var err error
			switch h.Key {
			case kafkax.HeaderSubs:
				subs, err = kafkax.DecodeSubs(h.Value, nil)
			case kafkax.HeaderEnvelope:
				err = kafkax.DecodeEnvelope(h.Value, &env)
			}
			if err != nil {
				return nil //nolint:nilerr // the dispatcher puts it into dead as unreadable
			}
		}
		if env.Replay == "" && !env.ProducedAt.IsZero() {
			behind = max(behind, min(rec.Timestamp.Sub(env.ProducedAt), routedBefore))
		}
		if slices.Contains(subs, id) {
			routed[keyOf(&env.Source)] = env.Replay
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := p.endedUntried(ctx, task, since, routed); err != nil {
		return err
	}
	for i := range p.spans {
		p.spans[i].From, p.spans[i].To = p.spans[i].From.Add(-clocksApart-behind), p.spans[i].To.Add(clocksApart+behind)
	}
	return p.times(ctx, p.spans[0].From, routed)
}

// missedSpans are the times in which something may have been missed, oldest first.
func (p *planner) missedSpans(ctx context.Context) ([]registry.MissedSpan, error) {
	forever := p.r.now().Add(routedBefore)
	if !p.sel.Since.IsZero() {
		until := p.sel.Until
		if until.IsZero() {
			until = forever
		}
		return []registry.MissedSpan{{From: p.sel.Since, To: until}}, nil
	}
	it, err := p.r.deps.Writer.Get(ctx, p.sel.Subscription)
	if err != nil {
		return nil, err
	}
	if it.State == string(pipeline.StateDisabled) {
		return nil, errors.New("its configuration says disabled: nothing tells since when (give a start)")
	}
	st := it.Decided
	if st == nil {
		return nil, nil
	}
	spans := slices.Clone(st.Missed)
	if st.State == pipeline.StateDisabled {
		spans = append(spans, registry.MissedSpan{From: st.Since, To: forever, Routed: st.Routed})
	}
	return spans, nil
}

// endedUntried takes the deliveries that ended without a fair try because the
// subscription was disabled, and were not put into deliveries again since. That
// is told by their replays, not by times: those are of several machines' clocks.
func (p *planner) endedUntried(ctx context.Context, task int32, since time.Time, routed map[placeKey]string) error {
	p.dead = map[placeKey]int64{}
	return p.scanSince(ctx, p.r.topics.Dead(), task, since.Add(-time.Minute), func(rec *kgo.Record) error {
		d, err := kafkax.ParseDead(rec)
		if err != nil || d.Subscription != p.sel.Subscription || !untried(&d) {
			return nil //nolint:nilerr // not a record that could be replayed
		}
		key := keyOf(&d.Envelope.Source)
		if last, ok := routed[key]; ok && last != d.Envelope.Replay {
			return nil // another delivery of it came since: what became of that one counts
		}
		if _, ok := p.dead[key]; !ok {
			p.items = append(p.items, item{key: d.Envelope.ProducedAt.UnixMilli(), offset: d.Envelope.Source.Offset, source: p.sourceOf(&d.Envelope.Source)})
		}
		p.dead[key] = rec.Offset
		p.undone = p.undone || d.Envelope.Replay == p.run.progress.ID
		return nil
	})
}

func untried(d *kafkax.Dead) bool {
	switch d.Reason {
	case pipeline.DeadCancelled, pipeline.DeadBacklog:
		return true
	case pipeline.DeadExhausted: // by the answer that disabled it
		return strings.HasPrefix(d.Error, pipeline.OutcomeGone.String())
	case pipeline.DeadSkipped, pipeline.DeadUnreadable:
	}
	return false
}

// scanSince reads a partition from a time on to its end.
func (p *planner) scanSince(ctx context.Context, topic string, partition int32, since time.Time, each func(*kgo.Record) error) error {
	froms, err := p.r.fetcher.OffsetsAfter(ctx, since, topic)
	if err != nil {
		return err
	}
	end, err := p.r.fetcher.EndOffset(ctx, topic, partition)
	if err != nil {
		return err
	}
	return p.r.fetcher.Scan(ctx, topic, partition, froms[topic][partition], end, each)
}
