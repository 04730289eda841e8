package kafkax

import (
	"slices"
	"testing"
	"time"
)

// TestStandstill: what moves, or is away for one look, does not stand still.
func TestStandstill(t *testing.T) {
	var s Standstill
	a, b := TopicPartition{"t", 0}, TopicPartition{"t", 1}
	at := func(second int) time.Time { return time.Unix(int64(1000+second), 0) }
	for i, step := range []struct {
		second  int
		waiting map[TopicPartition]int64
		where   []string
		since   int // of the first, in seconds
	}{
		{0, map[TopicPartition]int64{a: 1, b: 1}, nil, 0},
		{4, map[TopicPartition]int64{a: 1, b: 2}, nil, 4},
		{5, map[TopicPartition]int64{a: 1, b: 2}, []string{"t/0"}, 0},
		{9, map[TopicPartition]int64{a: 1, b: 2}, []string{"t/0", "t/1"}, 0},
		{10, nil, nil, 10},
		{11, map[TopicPartition]int64{a: 1}, nil, 11},
		{15, map[TopicPartition]int64{a: 1}, nil, 15},
		{16, map[TopicPartition]int64{a: 1}, []string{"t/0"}, 11},
	} {
		where, since := s.Note(at(step.second), step.waiting, 5*time.Second)
		if !slices.Equal(where, step.where) || !since.Equal(at(step.since)) {
			t.Errorf("step %d: %v since %v, want %v since %v", i, where, since, step.where, at(step.since))
		}
	}
}
