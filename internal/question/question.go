// Package question asks a question once for all callers that ask it at about
// the same time.
package question

import (
	"context"
	"time"
)

// Shared is a question whose answer may change. Callers take turns: the first
// one really asks, and the others use its answer, but only if it was asked for
// after they came. An answer that was already in progress could be older than
// what they know.
type Shared[A any] struct {
	turn   chan struct{} // a semaphore, which guards the fields below
	latest A
	since  time.Time // when latest was asked for; zero: never
	closed bool
}

// New returns a question that has not been asked.
func New[A any]() *Shared[A] { return &Shared[A]{turn: make(chan struct{}, 1)} }

// Source provides the answers for one caller.
type Source[A any] struct {
	// Known returns an answer that has become known before the caller's turn. If
	// Known is nil or returns false, there is none.
	Known func() (A, bool)
	// Holds reports whether an answer to another caller is valid for this one too;
	// nil means that it is.
	Holds func(A) bool
	// Ask asks the question. It gets the latest answer, and returns the one that
	// replaces it.
	Ask func(latest A) A
}

// Ask returns an answer. It returns false if ctx ends before the caller's turn,
// or if the question is closed.
func (q *Shared[A]) Ask(ctx context.Context, from Source[A]) (answer A, ok bool) {
	came := time.Now()
	select {
	case q.turn <- struct{}{}:
		defer func() { <-q.turn }()
	case <-ctx.Done():
		return answer, false
	}
	if q.closed {
		return answer, false
	}
	if from.Known != nil {
		if answer, ok := from.Known(); ok {
			return answer, true
		}
	}
	if q.since.After(came) && (from.Holds == nil || from.Holds(q.latest)) {
		return q.latest, true
	}
	since := time.Now()
	q.latest = from.Ask(q.latest)
	q.since = since
	return q.latest, true
}

// Close waits for the current turn to end, and then prevents further questions.
// It returns the latest answer.
func (q *Shared[A]) Close() A {
	q.turn <- struct{}{}
	defer func() { <-q.turn }()
	q.closed = true
	return q.latest
}
