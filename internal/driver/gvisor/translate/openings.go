package translate

import (
	"container/list"
	"time"

	"golang.org/x/sys/unix"
)

// maxOpening bounds the attempts that wait for an answer from outside; a fraction of
// the places for connections bounds them too.
const (
	maxOpening      = 1024
	openingFraction = 4
)

// openings has the attempts in progress. Those that wait in vain, for addresses that
// never answer, do not hold up others: if there are too many, the one whose last SYN is
// the oldest makes room. If it is still wanted, its SYN will come again.
type openings struct {
	max   int
	order list.List // the one whose SYN came last is in front
}

// place is that of an attempt.
type place struct {
	element *list.Element
	last    time.Duration // when the SYN came last
}

func newOpenings(places int) openings {
	return openings{max: max(1, min(maxOpening, places/openingFraction))}
}

// room makes room for one more attempt. It returns false if there are too many
// connections.
func (o *openings) room(t *Translator) bool {
	if o.order.Len() >= o.max {
		o.order.Back().Value.(*conn).drop(unix.ETIMEDOUT)
	}
	return len(t.conns) < t.cfg.Max
}

func (o *openings) add(c *conn) {
	c.place = place{o.order.PushFront(c), c.first}
}

// repeated is called when a SYN has come again.
func (o *openings) repeated(c *conn) {
	c.place.last = c.heard
	o.order.MoveToFront(c.place.element)
}

func (o *openings) remove(c *conn) {
	if c.place.element != nil {
		o.order.Remove(c.place.element)
		c.place.element = nil
	}
}

// abandoned reports whether the SYN should have come again by now: each pause is at
// most twice the one before, and the first is a second.
func (c *conn) abandoned(now time.Duration) bool {
	return now-c.place.last > 2*(c.place.last-c.first)+4*time.Second
}
