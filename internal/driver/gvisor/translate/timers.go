package translate

import (
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"rootlesskit/internal/sockio"
)

const (
	// firstRetry is when something is sent again; each pause is twice the one before,
	// up to lastRetry.
	firstRetry = 200 * time.Millisecond
	lastRetry  = 30 * time.Second
	// maxTries is after how many tries a namespace that is not heard at all is given
	// up, which takes about as long as Linux takes (tcp(7), tcp_retries2).
	maxTries = 36
	// hoardTries is after how many tries, about six seconds, a connection that has
	// acknowledged nothing is given up if others wait for its chunks.
	hoardTries = 4
	// handshakeTries is after how many more SYN-ACKs, about three seconds, the namespace's
	// part of the handshake is given up, which it normally completes at once. It is no
	// time: after a pause of the launcher, the timers come before the frames that have
	// waited.
	handshakeTries = 3
	// openingCheck is how often an attempt in progress is looked at; openingTime is
	// shorter than the kernel's: the namespace repeats its SYN as long as it wants to
	// wait, and each time may be a new attempt.
	openingCheck = 2 * time.Second
	openingTime  = 30 * time.Second

	keepAliveIdle     = sockio.KeepAliveIdle * time.Second
	keepAliveInterval = sockio.KeepAliveInterval * time.Second
)

// schedule looks at the connection after d at the latest. What happens to it until then
// does not touch its timer, unless that has to come earlier.
func (c *conn) schedule(d time.Duration) { c.t.timers.SetEarlier(&c.timer, c.t.cfg.Now()+d) }

// Due returns when Fire has something to do; false if it has nothing.
func (t *Translator) Due() (time.Duration, bool) {
	due, ok := t.timers.Next()
	if len(t.late) > 0 {
		if late := t.late[0].delayedAt + ackDelay; !ok || late < due {
			return late, true
		}
	}
	return due, ok
}

// Fire does what is due.
func (t *Translator) Fire() {
	now := t.cfg.Now()
	t.lateAcks(now)
	t.timers.Fire(now)
}

// look does what is due for a connection, and sets its timer again.
func (c *conn) look() {
	now := c.t.cfg.Now()
	switch {
	case c.state == opening:
		if c.abandoned(now) || now-c.first >= openingTime {
			c.drop(unix.ETIMEDOUT)
			return
		}
		c.schedule(openingCheck)
	case c.state == accepted && c.tries >= handshakeTries:
		c.abort(unix.ETIMEDOUT)
	case c.state == calling && now-c.first >= callTime:
		c.refused(unix.ETIMEDOUT)
	case c.state == calling:
		c.schedule(c.first + callTime - now)
		c.retry(now)
	case c.outstanding() > 0 || c.shutOut():
		c.retry(now)
	default:
		c.keepAlive(now)
	}
}

// shutOut reports whether there is something to send, but no window.
func (c *conn) shutOut() bool { return c.readable && !c.finSent && c.usable() == 0 }

// retry repeats what was not acknowledged, or asks for the window.
func (c *conn) retry(now time.Duration) {
	if wait := c.moved + c.pause() - now; wait > 0 {
		c.schedule(wait)
		return
	}
	if c.tries >= hoardTries && len(c.t.starved) > 0 && c.t.chunks.used > maxAllChunks/2 && c.sent.size > 0 {
		c.abort(unix.ETIMEDOUT) // it keeps from others what it does not use
		return
	}
	if !c.asks(now, maxTries) {
		return
	}
	if c.outstanding() > 0 {
		c.repeat()
	} else {
		c.probe()
	}
	c.tries++
	c.moved = now
	c.schedule(c.pause())
}

// asks counts a question to the namespace. It returns false if too many in a row had no
// answer of any kind, which has ended the connection.
func (c *conn) asks(now time.Duration, most int) bool {
	if c.heard >= c.asked {
		c.misses = 0
	}
	if c.misses++; c.misses > most {
		c.abort(unix.ETIMEDOUT)
		return false
	}
	c.asked = now
	return true
}

// pause is the time between two tries.
func (c *conn) pause() time.Duration {
	return min(firstRetry<<min(c.tries, 10), lastRetry)
}

// repeat sends the oldest that was not acknowledged again.
func (c *conn) repeat() {
	switch b := c.sent.first(); {
	case c.state == accepted:
		c.sendSyn(header.TCPFlagSyn | header.TCPFlagAck)
	case c.state == calling:
		c.sendSyn(header.TCPFlagSyn)
	case len(b) > 0:
		flags := header.TCPFlagAck | header.TCPFlagPsh
		if c.finSent && len(b) == c.sent.size {
			flags |= header.TCPFlagFin
		}
		c.send(flags, c.sndUna, b)
	case c.finSent:
		c.send(header.TCPFlagAck|header.TCPFlagFin, c.sndUna, nil)
	}
}

// probe sends an old number, which the namespace answers with what it expects, and its
// window.
func (c *conn) probe() { c.send(header.TCPFlagAck, c.sndUna-1, nil) }

// keepAlive asks a namespace that has been silent for long whether it still has the
// connection.
func (c *conn) keepAlive(now time.Duration) {
	if silent := now - c.heard; silent < keepAliveIdle {
		c.schedule(keepAliveIdle - silent)
		return
	}
	if c.asks(now, sockio.KeepAliveCount) {
		c.probe()
		c.schedule(keepAliveInterval)
	}
}
