package sink

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// span is what a block has of one partition: offsets, both inclusive.
type span struct {
	partition int32
	from, to  int64
}

// declaration names a block before it is inserted: metadata of the committed
// offset of each of its partitions, all of one topic. It says everything that is
// not in the records themselves, so that whoever repeats the block makes the same
// rows, in the same order.
type declaration struct {
	spans    []span // each of another partition, in the order of the rows
	storedAt time.Time
}

// What a declaration begins with; another word is not ours to repeat.
const (
	// declaresOne partition's block: "b1 FROM TO MILLISECONDS".
	declaresOne = "b1"
	// declaresSeveral partitions' block: "b2 MILLISECONDS PARTITION:FROM-TO ...".
	declaresSeveral = "b2"
)

// maxSpans of a block: with 64 even the largest numbers stay within the 4096 bytes that
// Kafka allows for metadata by default (offset.metadata.max.bytes).
const maxSpans = 64

// errDeclaration is wrapped by errors about metadata that is not a declaration.
var errDeclaration = errors.New("not a declared block")

// String is the metadata.
func (d *declaration) String() string {
	if len(d.spans) == 1 {
		return fmt.Sprintf("%s %d %d %d", declaresOne, d.spans[0].from, d.spans[0].to, d.storedAt.UnixMilli())
	}
	return fmt.Sprintf("%s %d %s", declaresSeveral, d.storedAt.UnixMilli(), d.list())
}

func (d *declaration) list() string {
	var b []byte
	for i, s := range d.spans {
		if i > 0 {
			b = append(b, ' ')
		}
		b = strconv.AppendInt(b, int64(s.partition), 10)
		b = strconv.AppendInt(append(b, ':'), s.from, 10)
		b = strconv.AppendInt(append(b, '-'), s.to, 10)
	}
	return string(b)
}

// parseDeclaration reads the metadata that was committed with a partition's offset.
// Nothing was declared where the text does not begin with one of our words: other
// clients write metadata of their own.
func parseDeclaration(partition int32, offset int64, text string) (*declaration, error) {
	fields := strings.Fields(text)
	if len(fields) == 0 || fields[0] != declaresOne && fields[0] != declaresSeveral {
		return nil, nil //nolint:nilnil // no declaration is not an error
	}
	d, err := readDeclaration(partition, fields)
	if err == nil {
		err = d.check(partition, offset)
	}
	if err != nil {
		return nil, fmt.Errorf("reading metadata %q of offset %d: %w", text, offset, err)
	}
	return d, nil
}

func readDeclaration(partition int32, fields []string) (*declaration, error) {
	if fields[0] == declaresOne {
		if len(fields) != 4 {
			return nil, errDeclaration
		}
		fields = []string{fields[0], fields[3], fmt.Sprintf("%d:%s-%s", partition, fields[1], fields[2])}
	}
	if len(fields) < 3 {
		return nil, errDeclaration
	}
	at, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return nil, errDeclaration
	}
	d := &declaration{storedAt: time.UnixMilli(at).UTC()}
	for _, field := range fields[2:] {
		s, err := parseSpan(field)
		if err != nil {
			return nil, err
		}
		d.spans = append(d.spans, s)
	}
	return d, nil
}

// parseSpan reads "PARTITION:FROM-TO".
func parseSpan(text string) (span, error) {
	partition, offsets, _ := strings.Cut(text, ":")
	first, last, _ := strings.Cut(offsets, "-")
	id, err1 := strconv.ParseInt(partition, 10, 32)
	from, err2 := strconv.ParseInt(first, 10, 64)
	to, err3 := strconv.ParseInt(last, 10, 64)
	if errors.Join(err1, err2, err3) != nil || from < 0 || to < from {
		return span{}, errDeclaration
	}
	return span{int32(id), from, to}, nil
}

// check tells whether the declaration can be one that was committed with that offset
// of a partition.
func (d *declaration) check(partition int32, offset int64) error {
	own, seen := false, map[int32]bool{}
	for _, s := range d.spans {
		if seen[s.partition] {
			return errDeclaration
		}
		seen[s.partition] = true
		own = own || s.partition == partition && s.from == offset
	}
	if !own {
		return errDeclaration
	}
	return nil
}

// of gives a partition's span, which there is.
func (d *declaration) of(partition int32) span {
	for _, s := range d.spans {
		if s.partition == partition {
			return s
		}
	}
	panic(fmt.Sprintf("BUG: partition %d is not of the block %s", partition, d))
}

// byAll tells whether the block was declared in all of its partitions: each has the
// declaration, or is past it. One that was declared in some only was not stored: nobody
// sends a block before Kafka has taken all of its declaration.
func (d *declaration) byAll(committed kadm.OffsetResponses, topic string) bool {
	text := d.String()
	for _, s := range d.spans {
		// Where nothing is committed any more, it was deleted by hand.
		if at, ok := committed.Lookup(topic, s.partition); ok && at.At <= s.to && at.Metadata != text {
			return false
		}
	}
	return true
}

// token by which ClickHouse knows the block again.
func (d *declaration) token(topicID [16]byte) string {
	if len(d.spans) == 1 {
		return fmt.Sprintf("%s/%d/%d-%d", hex.EncodeToString(topicID[:]), d.spans[0].partition, d.spans[0].from, d.spans[0].to)
	}
	sum := sha256.Sum256([]byte(d.list()))
	return hex.EncodeToString(topicID[:]) + "/" + hex.EncodeToString(sum[:16])
}
