// Package question has one question asked for all who ask it at about the same
// time.
package question

import (
	"context"
	"time"
)

// Shared is a question to which the answer may change. Whoever asks takes turns:
// the first asks indeed, and the others take that answer, but only where it was
// asked for after they came. An answer that was under way before could be older
// than what they know.
type Shared[A any] struct {
	turn   chan struct{} // a semaphore; what follows is its holder's
	latest A
	since  time.Time // when latest was asked for; zero: never
	closed bool
}

// New returns a question that was never asked.
func New[A any]() *Shared[A] { return &Shared[A]{turn: make(chan struct{}, 1)} }

// Source is where the answers of one caller come from.
type Source[A any] struct {
	// Known is an answer that has become known before it was the caller's turn; nil
	// and false: none has.
	Known func() (A, bool)
	// Holds reports whether an answer to another caller serves this one too; nil: it
	// does.
	Holds func(A) bool
	// Ask asks. It gets the latest answer, which its own takes the place of.
	Ask func(latest A) A
}

// Ask returns an answer. It reports false where ctx has ended before the caller's
// turn, or the question is closed.
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

// Close waits for the turn of whoever asks, and lets nobody ask any more. It
// returns the latest answer.
func (q *Shared[A]) Close() A {
	q.turn <- struct{}{}
	defer func() { <-q.turn }()
	q.closed = true
	return q.latest
}
