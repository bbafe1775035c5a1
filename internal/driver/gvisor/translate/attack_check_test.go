package translate

import "testing"

// check fails unless the counters of a Translator are those of its connections, and
// every connection has what keeps it from staying for ever.
func (w *world) check() {
	w.t.Helper()
	tr := w.tr
	chunks, unsent, attempts := 0, 0, 0
	for f, c := range tr.conns {
		if c.ended || c.flow != f {
			w.t.Fatalf("a forgotten connection is in the table: %+v", f)
		}
		if !c.timer.IsSet() {
			w.t.Fatalf("a connection without a timer, in state %d", c.state)
		}
		if c.state == opening {
			attempts++
		}
		chunks += len(c.sent.chunks)
		unsent += len(c.unsent)
		c.checkNumbers(w.t)
	}
	open := 0
	for _, s := range w.sockets {
		if !s.closed {
			open++
		}
	}
	if open != len(tr.conns) || tr.timers.Len() != len(tr.conns) || attempts != tr.opening.order.Len() {
		w.t.Fatalf("%d connections, %d sockets, %d timers; %d attempts, of which %d are counted",
			len(tr.conns), open, tr.timers.Len(), attempts, tr.opening.order.Len())
	}
	if chunks != tr.chunks.used || unsent != tr.unsent {
		w.t.Fatalf("%d chunks of which %d are counted, %d bytes of which %d are counted",
			chunks, tr.chunks.used, unsent, tr.unsent)
	}
}

func (c *conn) checkNumbers(t testing.TB) {
	t.Helper()
	size := 0
	for _, k := range c.sent.chunks {
		if k.from >= k.to || k.to > chunkSize {
			t.Fatalf("a chunk from %d to %d", k.from, k.to)
		}
		size += k.to - k.from
	}
	fin := int(c.outstanding()) - size
	if size != c.sent.size || c.state == open && fin != 0 && !(fin == 1 && c.finSent) {
		t.Fatalf("%d bytes are kept, %d are counted, for %d numbers; the end was sent: %v", size, c.sent.size, c.outstanding(), c.finSent)
	}
	if space := int32(c.rcvEdge - c.rcvNxt); space < -1 || space > maxUnsent {
		t.Fatalf("there is room for %d bytes", space)
	}
	if len(c.unsent) > maxUnsent || len(c.sent.chunks) > maxChunks {
		t.Fatalf("%d bytes for the host, %d chunks for the namespace", len(c.unsent), len(c.sent.chunks))
	}
}

// empty fails if a Translator that was closed has anything left.
func (w *world) empty() {
	w.t.Helper()
	w.tr.Close()
	w.round()
	w.tr.Fire()
	w.now += ackDelay
	w.tr.Fire()
	w.check()
	tr := w.tr
	if len(tr.conns)+tr.chunks.used+tr.unsent+tr.timers.Len() != 0 {
		w.t.Fatalf("%d connections, %d chunks, %d bytes and %d timers are left", len(tr.conns), tr.chunks.used, tr.unsent, tr.timers.Len())
	}
	if n := len(tr.toAck) + len(tr.late) + len(tr.again) + len(tr.starved); n != 0 {
		w.t.Fatalf("%d connections are still in lists", n)
	}
	if d := w.timeout(); d >= 0 {
		w.t.Fatalf("something is due in %s", d)
	}
}
