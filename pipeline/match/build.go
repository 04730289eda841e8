package match

import (
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/hookline/hookline/pipeline"
)

// MaxFormats is how many different formats the subscriptions may name.
const MaxFormats = 32

// NewIndex builds the index of subs, which must not change afterwards. A
// disabled subscription is left out; a paused one is matched, since its lanes
// are held. Ids are unique in a registry; of two with the same id the later wins.
func NewIndex(subs iter.Seq[*pipeline.Subscription]) *Index { return NewObservedIndex(subs, nil) }

// NewObservedIndex is NewIndex with somebody who hears of filters that fail; nil:
// nobody.
func NewObservedIndex(subs iter.Seq[*pipeline.Subscription], o Observer) *Index {
	b := builder{x: &Index{observer: o}, patterns: map[patternKey][]candidate{}}
	for s := range subs {
		if s.State != pipeline.StateDisabled {
			b.x.subs = append(b.x.subs, candidate{s, s.ID, b.formatBits(s.Formats), s.Filter != ""})
		}
	}
	// Stable, and the last of equal ids is kept.
	slices.Reverse(b.x.subs)
	slices.SortStableFunc(b.x.subs, func(c, d candidate) int { return byID(&c, &d) })
	b.x.subs = slices.Clip(slices.CompactFunc(b.x.subs, func(c, d candidate) bool { return c.id == d.id }))
	for _, c := range b.x.subs {
		b.add(c)
	}
	b.finish()
	return b.x
}

type builder struct {
	x        *Index
	patterns map[patternKey][]candidate
}

type patternKey struct {
	scope
	pattern string
}

// formatBits gives the bits of formats; 0: any.
func (b *builder) formatBits(formats []pipeline.Format) uint32 {
	var bits uint32
	for _, f := range formats {
		i := slices.Index(b.x.formats, f)
		if i < 0 {
			if i = len(b.x.formats); i == MaxFormats {
				panic("BUG: subscriptions name more than 32 formats")
			}
			b.x.formats = append(b.x.formats, f)
		}
		bits |= 1 << i
	}
	return bits
}

// add notes c under each of its event names. Subscriptions come in the order of
// their ids, so that every list is in that order.
func (b *builder) add(c candidate) {
	s := scope{c.sub.Tenant, c.sub.Resthook}
	for i, pattern := range c.sub.Events {
		if !slices.Contains(c.sub.Events[:i], pattern) {
			k := patternKey{s, pattern}
			b.patterns[k] = append(b.patterns[k], c)
		}
	}
}

func (b *builder) finish() {
	x := b.x
	x.exact = make(map[key][]candidate)
	x.globs = make(map[key]globs)
	x.lengths = make(map[scope][]int)
	b.placeIDs()
	for k, list := range b.patterns {
		list = slices.Clip(list)
		if !strings.Contains(k.pattern, Wildcard) {
			x.exact[key{k.scope, k.pattern}] = list
			continue
		}
		prefix, g := splitGlob(k.pattern)
		at := key{k.scope, prefix}
		if _, ok := x.globs[at]; !ok && !slices.Contains(x.lengths[k.scope], len(prefix)) {
			x.lengths[k.scope] = append(x.lengths[k.scope], len(prefix))
		}
		x.globs[at] = append(x.globs[at], globList{g, list})
	}
	for _, lengths := range x.lengths {
		slices.Sort(lengths)
	}
}

// placeIDs copies the ids to one place, those of a list one after another: an event's
// takers are in few lists, and of 100,000 subscriptions each id would be a miss of the
// processor's cache. The id of a subscription in several lists
// stands in the shortest: a long one, of a name that all have, would scatter the others.
func (b *builder) placeIDs() {
	size := 0
	for i := range b.x.subs {
		size += len(b.x.subs[i].id)
	}
	var text strings.Builder
	text.Grow(size) // once: what was given out stays
	placed := make(map[*pipeline.Subscription]string, len(b.x.subs))
	lists := slices.SortedFunc(maps.Values(b.patterns), func(a, b []candidate) int { return len(a) - len(b) })
	for _, list := range lists {
		for i := range list {
			c := &list[i]
			id, ok := placed[c.sub]
			if !ok {
				from := text.Len()
				text.WriteString(c.id)
				id = text.String()[from:]
				placed[c.sub] = id
			}
			c.id = id
		}
	}
}
