package translate

import "time"

const (
	// ackDelay is less than the 10 ms after which Linux may probe for a lost
	// acknowledgement.
	ackDelay = 5 * time.Millisecond
	// ackTurns is how many turns a connection must have taken before its
	// acknowledgements wait for replies. A peer with Nagle's algorithm, which does not
	// send its next piece before the last is acknowledged, would wait in vain.
	ackTurns = 3
	// ackBytes is the most that waits to be acknowledged.
	ackBytes = 16 << 10
)

// ackLater acknowledges what was taken: at the end of the round, or with the reply.
func (c *conn) ackLater(taken int) {
	if c.turns >= ackTurns && !c.finGot && c.rcvNxt-c.acked <= ackBytes && taken < int(c.mss) {
		if !c.delayed {
			c.delayed, c.delayedAt = true, c.heard
			c.t.late = append(c.t.late, c)
		}
		return
	}
	if !c.acking {
		c.acking = true
		c.t.toAck = append(c.t.toAck, c)
	}
}

// turn counts data that replies to data.
func (c *conn) turn() {
	switch {
	case c.pure == 1, c.pure == 0 && c.acked != c.rcvNxt:
		c.turns = min(c.turns+1, ackTurns)
	case c.pure > 1:
		c.turns = 0
	}
	c.pure = 0
}

// lateAcks sends the acknowledgements that waited in vain.
func (t *Translator) lateAcks(now time.Duration) {
	n := 0
	for _, c := range t.late {
		if now-c.delayedAt < ackDelay {
			break
		}
		n++
		c.delayed = false
		if !c.ended && c.acked != c.rcvNxt {
			c.turns = 0
			c.ack()
		}
	}
	t.late = t.late[:copy(t.late, t.late[n:])]
}
