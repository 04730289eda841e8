package dispatch

import (
	"testing"

	"github.com/hookline/hookline/pipeline/dispatch/lane"
)

// The end of a transaction takes an offset and is nothing that waits: an idle
// partition has no lag.
func TestEndsOfTransactionsAreNoLag(t *testing.T) {
	task := &ownedTask{Task: new(lane.Task)}
	d := &Dispatcher{tasks: map[int32]*ownedTask{3: task}}
	end := func(offset int64) fetchedRecords {
		return fetchedRecords{ends: []partitionRecord[struct{}]{{partition: 3, offset: offset}, {partition: 9, offset: offset}}}
	}
	d.accept(end(4))
	if got := task.behind(); got != 5 {
		t.Errorf("behind an end at 4 it is at %d, want 5", got)
	}
	d.accept(end(2)) // read again after a look back
	if got := task.behind(); got != 5 {
		t.Errorf("an older end puts it to %d", got)
	}
	waiting := end(8)
	waiting.deliveries = []partitionRecord[*lane.Record]{{partition: 3, offset: 7, record: &lane.Record{Offset: 7}}}
	d.accept(waiting)
	if got := task.behind(); got != 0 {
		t.Errorf("with a record that was not fed it is at %d, want its read position 0", got)
	}
}
