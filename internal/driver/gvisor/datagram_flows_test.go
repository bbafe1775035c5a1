package gvisor

import (
	"slices"
	"testing"
	"time"
)

func TestFlowTable(t *testing.T) {
	var retired []int
	table := newFlowTable(3, time.Minute, func(key int, _ string) { retired = append(retired, key) })
	for _, key := range []int{1, 2, 3} {
		if !table.add(key, "x") {
			t.Fatalf("%d was not added", key)
		}
	}
	if table.add(2, "again") {
		t.Error("a key was added twice")
	}
	table.get(1)
	table.add(4, "x") // makes room by the least recently used
	if _, ok := table.get(2); ok || !slices.Equal(retired, []int{2}) {
		t.Errorf("retired %v", retired)
	}
	table.expire(time.Now().Add(59 * time.Second))
	if len(retired) != 1 {
		t.Errorf("retired too early: %v", retired)
	}
	table.remove(1)
	table.expire(time.Now().Add(61 * time.Second))
	if !slices.Equal(retired, []int{2, 1, 3, 4}) {
		t.Errorf("retired %v", retired)
	}
	table.add(5, "x")
	table.close()
	if table.add(6, "x") || retired[len(retired)-1] != 5 {
		t.Errorf("after close: retired %v", retired)
	}
}

func TestMemoryKeeper(t *testing.T) {
	var m memoryKeeper
	for i, step := range []struct {
		frames uint64
		due    bool
	}{
		{0, false}, {50, false}, {5000, false}, {9000, false}, {9001, true}, {9002, false}, {9500, false}, {9501, false}, {11500, false}, {11501, true},
	} {
		if got := m.due(step.frames, 0); got != step.due {
			t.Errorf("step %d: due %v", i, got)
		}
	}
}
