package sender

import (
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/format/jsonscan"
)

const (
	// ackRoom is by how much a receiver's acknowledgement may be longer than
	// what it acknowledges: its id, and white space.
	ackRoom = 4 << 10
	// maxAckID is the longest number that is taken for an id.
	maxAckID = 64
)

// acknowledgement reads the number by which the receiver of a task event
// acknowledges it: the "id" of its answer, which is otherwise the event again.
type acknowledgement struct {
	wanted bool
	doc    jsonscan.Doc
}

// limit is how much of the answer's body is read: the id may stand at its end,
// beyond what the log keeps.
func (a *acknowledgement) limit(c *Client, status, sent int) int {
	logged := c.cfg.ResponseBodyBytes
	if !a.wanted || !c.parsed.success[status] {
		return logged
	}
	return max(logged, min(sent+ackRoom, maxDrainBytes))
}

// read takes the id out of a successful answer; err is what came of reading it.
func (a *acknowledgement) read(c *Client, res *pipeline.Result, err error) {
	if !a.wanted || err != nil || !c.parsed.success[res.StatusCode] || res.ResponseTruncated {
		return
	}
	if a.doc.Scan(res.ResponseBody) == nil {
		if id := a.doc.Root().Get("id"); id.Kind() == jsonscan.Number && len(id.Raw()) <= maxAckID {
			res.AckID = string(id.Raw())
		}
	}
	a.doc.Reset()
}
