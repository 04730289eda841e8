// Package match finds the subscriptions that an event goes to. An Index is built
// once from a snapshot of the registry and never changes; looking an event up
// allocates nothing but room for what it found.
//
// A subscription takes an event if all of these hold: it is not disabled; its
// tenant is the event's, or "*"; it names the event's format, or none; one of its
// event names is the event's type or alias, or a glob that fits one of them; its
// resthook is the event's (none for events that have none); the event, if it is
// meant for one subscription, is meant for this one; and its filter, if it has
// one, says so. Filters come last: an event without candidates that have one pays
// nothing for them.
package match

import (
	"slices"
	"strings"
	"sync"

	"github.com/hookline/hookline/pipeline"
)

// scope is what both of an exact name's lookup and a glob's share.
type scope struct{ tenant, resthook string }

// key is a scope and a literal: a whole event name, or a glob's prefix.
type key struct {
	scope
	name string
}

// candidate is a subscription in a posting list. What most events need of it stands
// here, so that the subscription itself, which is seldom in the processor's cache
// where there are many, is not looked at.
type candidate struct {
	sub      *pipeline.Subscription
	id       string // of sub; builder.placeIDs says where it stands
	formats  uint32 // bits by Index.formats; 0: any
	filtered bool   // sub has a filter
}

// globs are the patterns with the same scope and prefix.
type globs []globList

type globList struct {
	glob       glob
	candidates []candidate
}

// Index is immutable and safe for concurrent use. Every list of candidates is
// ordered by subscription id.
type Index struct {
	subs    []candidate // all, for Target
	exact   map[key][]candidate
	globs   map[key]globs
	lengths map[scope][]int // lengths of the prefixes in globs, ascending
	formats []pipeline.Format
	// observer hears of filters that fail; nil: nobody.
	observer Observer
}

// Len is the number of subscriptions in the index (the disabled ones are not).
func (x *Index) Len() int { return len(x.subs) }

// Match appends to dst the subscriptions that take ev, ordered by id, each once.
// Filters that fail are told to the index's observer.
func (x *Index) Match(ev *pipeline.Event, dst []*pipeline.Subscription) []*pipeline.Subscription {
	room := rooms.Get().(*scratch)
	defer room.free()
	for _, c := range x.takers(ev, room, x.observer) {
		dst = append(dst, c.sub)
	}
	return dst
}

// IDs is Match for those who need the subscriptions' ids only.
func (x *Index) IDs(ev *pipeline.Event, dst []string) []string {
	room := rooms.Get().(*scratch)
	defer room.free()
	for _, c := range x.takers(ev, room, x.observer) {
		dst = append(dst, c.id)
	}
	return dst
}

// Taken tells whether any subscription takes ev. Nothing is told to the observer:
// this is for those who look at an event that was matched before.
func (x *Index) Taken(ev *pipeline.Event) bool {
	room := rooms.Get().(*scratch)
	defer room.free()
	return len(x.takers(ev, room, nil)) > 0
}

// scratch is room for candidates, used again.
type scratch struct{ list []*candidate }

var rooms = sync.Pool{New: func() any { return new(scratch) }}

func (s *scratch) free() {
	clear(s.list) // an index that was replaced is let go
	rooms.Put(s)
}

// takers are the candidates whose filters want ev, in room.
func (x *Index) takers(ev *pipeline.Event, room *scratch, o Observer) []*candidate {
	room.list = x.candidates(ev, room.list[:0])
	return applyFilters(ev, room.list, o)
}

// candidates appends to dst, which is empty, the subscriptions that take ev but for
// their filters.
func (x *Index) candidates(ev *pipeline.Event, dst []*candidate) []*candidate {
	if ev.Target != "" {
		return x.matchTarget(ev, dst)
	}
	bit := x.formatBit(ev.Format)
	dst = x.matchScope(scope{ev.Tenant, ev.Resthook}, ev, bit, dst)
	if ev.Tenant != pipeline.AnyTenant {
		dst = x.matchScope(scope{pipeline.AnyTenant, ev.Resthook}, ev, bit, dst)
	}
	// Most results come from one list and are in order.
	if !slices.IsSortedFunc(dst, byID) {
		slices.SortFunc(dst, byID)
	}
	return slices.CompactFunc(dst, func(c, d *candidate) bool { return c.sub == d.sub })
}

func byID(c, d *candidate) int { return strings.Compare(c.id, d.id) }

// formatBit is the bit of a format that subscriptions name; for a format that
// none names it is one that no candidate has.
func (x *Index) formatBit(f pipeline.Format) uint32 {
	for i, known := range x.formats {
		if known == f {
			return 1 << i
		}
	}
	return 0
}

func (x *Index) matchScope(s scope, ev *pipeline.Event, bit uint32, dst []*candidate) []*candidate {
	dst = x.matchName(s, ev.Type, bit, dst)
	if ev.TypeAlias != "" && ev.TypeAlias != ev.Type {
		dst = x.matchName(s, ev.TypeAlias, bit, dst)
	}
	return dst
}

func (x *Index) matchName(s scope, name string, bit uint32, dst []*candidate) []*candidate {
	dst = appendTakers(dst, x.exact[key{s, name}], bit)
	for _, n := range x.lengths[s] {
		if n > len(name) {
			break
		}
		lists := x.globs[key{s, name[:n]}]
		for i := range lists {
			if lists[i].glob.matches(name[n:]) {
				dst = appendTakers(dst, lists[i].candidates, bit)
			}
		}
	}
	return dst
}

func appendTakers(dst []*candidate, list []candidate, bit uint32) []*candidate {
	for i := range list {
		if c := &list[i]; c.formats == 0 || c.formats&bit != 0 {
			dst = append(dst, c)
		}
	}
	return dst
}

// matchTarget looks at the one subscription that ev is meant for.
func (x *Index) matchTarget(ev *pipeline.Event, dst []*candidate) []*candidate {
	i, ok := slices.BinarySearchFunc(x.subs, ev.Target, func(c candidate, id string) int { return strings.Compare(c.id, id) })
	if !ok {
		return dst
	}
	c := &x.subs[i]
	switch {
	case c.sub.Tenant != ev.Tenant && c.sub.Tenant != pipeline.AnyTenant,
		c.sub.Resthook != ev.Resthook,
		c.formats != 0 && c.formats&x.formatBit(ev.Format) == 0:
		return dst
	}
	for _, pattern := range c.sub.Events {
		if matchesPattern(pattern, ev.Type) || ev.TypeAlias != "" && matchesPattern(pattern, ev.TypeAlias) {
			return append(dst, c)
		}
	}
	return dst
}

// matchesPattern is for single subscriptions: it takes the pattern apart anew.
func matchesPattern(pattern, name string) bool {
	if !strings.Contains(pattern, Wildcard) {
		return pattern == name
	}
	prefix, g := splitGlob(pattern)
	rest, ok := strings.CutPrefix(name, prefix)
	return ok && g.matches(rest)
}
