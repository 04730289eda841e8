package kafkax

import (
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/hookline/hookline/pipeline"
)

// MaxSubs is how many subscriptions one deliveries record goes to at most: the
// positions in its list are the bits that a task keeps while it is unsettled.
const MaxSubs = 256

const subsVersion = 1

// EncodeSubs appends a list of 1 to MaxSubs subscription ids to dst. A list or an
// id outside the limits is a bug of the caller and panics.
func EncodeSubs(dst []byte, ids []string) []byte {
	if len(ids) == 0 || len(ids) > MaxSubs {
		panic("BUG: encoding a list of " + strconv.Itoa(len(ids)) + " subscriptions")
	}
	dst = append(dst, subsVersion)
	dst = binary.AppendUvarint(dst, uint64(len(ids)))
	for _, id := range ids {
		if !ValidSubscription(id) {
			panic("BUG: encoding an id that is not a subscription's")
		}
		dst = appendString(dst, id)
	}
	return dst
}

// DecodeSubs appends the ids in b to dst, in their order. It takes one allocation
// besides growing dst and keeps nothing of b. An id that is there twice is an
// error. On an error dst is as it was.
func DecodeSubs(b []byte, dst []string) ([]string, error) {
	if len(b) == 0 {
		return dst, fmt.Errorf("decoding subscription list: %w", errShort)
	}
	if b[0] != subsVersion {
		return dst, fmt.Errorf("decoding subscription list: %w", versionError(b[0], subsVersion))
	}
	out, r := dst, reader{s: string(b[1:])}
	n := r.uvarint(MaxSubs)
	if r.err == nil && n == 0 {
		r.fail(errShort)
	}
	for ; n > 0 && r.err == nil; n-- {
		id := r.take(int(r.uvarint(pipeline.MaxSubscriptionID)))
		if r.err == nil && !ValidSubscription(id) {
			r.fail(fmt.Errorf("%q is not a subscription id", id))
		}
		out = append(out, id)
	}
	if r.err == nil {
		if id, twice := repeated(out[len(dst):]); twice {
			r.fail(fmt.Errorf("%q is there twice", id))
		}
	}
	if r.err != nil {
		return dst, fmt.Errorf("decoding subscription list: %w", r.err)
	}
	return out, nil
}

// repeated finds an id that is in the list twice: its positions would be one
// delivery in two places. It takes no allocation.
func repeated(ids []string) (string, bool) {
	const places = 2 * MaxSubs // a power of two
	var table [places]uint16   // index + 1 of the id that is there
	for i, id := range ids {
		h := uint32(2166136261) // FNV-1a
		for j := range len(id) {
			h = (h ^ uint32(id[j])) * 16777619
		}
		for at := h % places; ; at = (at + 1) % places {
			if table[at] == 0 {
				table[at] = uint16(i + 1)
				break
			}
			if ids[table[at]-1] == id {
				return id, true
			}
		}
	}
	return "", false
}

// ValidSubscription tells whether id matches [A-Za-z0-9_-]{1,128}.
func ValidSubscription(id string) bool {
	if id == "" || len(id) > pipeline.MaxSubscriptionID {
		return false
	}
	for i := range len(id) {
		c := id[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-') {
			return false
		}
	}
	return true
}
