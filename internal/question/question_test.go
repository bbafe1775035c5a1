package question

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestTurns: those who come while somebody asks are all served by the next answer.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New[int]()
		asked := 0
		from := Source[int]{Ask: func(latest int) int {
			time.Sleep(time.Second)
			asked++
			return latest + 1
		}}
		var callers sync.WaitGroup
		ask := func(want int) {
			callers.Go(func() {
				if got, ok := q.Ask(t.Context(), from); got != want || !ok {
					t.Errorf("answer %d, %t, want %d", got, ok, want)
				}
			})
		}
		ask(1)
		synctest.Wait()
		time.Sleep(time.Millisecond)
		for range 10 {
			ask(2) // the answer under way is too old for them
		}
		callers.Wait()
		if asked != 2 {
			t.Errorf("asked %d times", asked)
		}
	})
}

// TestKnown: what has become known meanwhile is taken, and not asked for.
func TestKnown(t *testing.T) {
	q := New[string]()
	got, ok := q.Ask(t.Context(), Source[string]{
		Known: func() (string, bool) { return "known", true },
		Ask:   func(string) string { t.Error("asked"); return "" },
	})
	if got != "known" || !ok {
		t.Errorf("got %q, %t", got, ok)
	}
}

// TestAnswersThatDoNotHold are asked for again, although they are new.
func TestAnswersThatDoNotHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New[int]()
		from := Source[int]{
			Holds: func(int) bool { return false },
			Ask: func(latest int) int {
				time.Sleep(time.Second)
				return latest + 1
			},
		}
		var callers sync.WaitGroup
		for range 3 {
			callers.Go(func() { q.Ask(t.Context(), from) })
		}
		callers.Wait()
		if latest := q.Close(); latest != 3 {
			t.Errorf("asked %d times", latest)
		}
	})
}

func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New[int]()
		started, end := make(chan struct{}), make(chan struct{})
		go q.Ask(context.Background(), Source[int]{Ask: func(int) int { close(started); <-end; return 7 }})
		<-started
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		never := Source[int]{Ask: func(int) int { t.Error("asked"); return 0 }}
		if _, ok := q.Ask(ctx, never); ok {
			t.Error("an answer after the end of the context")
		}
		time.AfterFunc(time.Second, func() { close(end) })
		if latest := q.Close(); latest != 7 {
			t.Errorf("the latest answer is %d", latest)
		}
		if _, ok := q.Ask(t.Context(), never); ok {
			t.Error("an answer after Close")
		}
	})
}
