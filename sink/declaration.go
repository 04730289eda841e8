package sink

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// declaration names a block before it is inserted: metadata of the committed
// offset. It says everything that is not in the records themselves, so that
// whoever repeats the block makes the same rows.
type declaration struct {
	from, to int64 // offsets, both inclusive
	storedAt time.Time
}

// declarationVersion begins every declaration; another is not ours to repeat.
const declarationVersion = "b1"

// errDeclaration is wrapped by errors about metadata that is not a declaration.
var errDeclaration = errors.New("not a declared block")

// String is the metadata: "b1 FROM TO MILLISECONDS".
func (d declaration) String() string {
	return fmt.Sprintf("%s %d %d %d", declarationVersion, d.from, d.to, d.storedAt.UnixMilli())
}

// parseDeclaration reads the metadata that was committed with offset. Nothing
// was declared where the text does not begin with the version: other clients
// write metadata of their own.
func parseDeclaration(offset int64, text string) (*declaration, error) {
	fields := strings.Fields(text)
	if len(fields) == 0 || fields[0] != declarationVersion {
		return nil, nil //nolint:nilnil // no declaration is not an error
	}
	if len(fields) != 4 {
		return nil, fmt.Errorf("reading metadata %q: %w", text, errDeclaration)
	}
	var n [3]int64
	for i := range n {
		v, err := strconv.ParseInt(fields[i+1], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("reading metadata %q: %w", text, errDeclaration)
		}
		n[i] = v
	}
	d := &declaration{from: n[0], to: n[1], storedAt: time.UnixMilli(n[2]).UTC()}
	if d.from != offset || d.to < d.from {
		return nil, fmt.Errorf("reading metadata %q of offset %d: %w", text, offset, errDeclaration)
	}
	return d, nil
}

// token by which ClickHouse knows the block again.
func (d declaration) token(topicID [16]byte, partition int32) string {
	return fmt.Sprintf("%s/%d/%d-%d", hex.EncodeToString(topicID[:]), partition, d.from, d.to)
}
