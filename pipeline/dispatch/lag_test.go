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

// A partition is fetched from until enough waits for room in its task, and again once
// half of it has gone.
func TestHowFarAheadIsFetched(t *testing.T) {
	task := &ownedTask{}
	for _, step := range []struct {
		records, bytes int
		paused, want   bool
	}{
		{0, 0, false, false},
		{1000, 1 << 20, false, false},
		{1001, 1000, false, true},
		{2, 1<<20 + 1, false, true},
		{501, 1000, true, true},
		{2, 1<<19 + 1, true, true},
		{500, 1 << 19, true, false},
	} {
		task.deliveries, task.aheadBytes, task.paused[0] = make([]*lane.Record, step.records), step.bytes, step.paused
		if got := task.ahead(); got != step.want {
			t.Errorf("%d records with %d bytes, paused %v: paused then is %v", step.records, step.bytes, step.paused, got)
		}
	}
}
