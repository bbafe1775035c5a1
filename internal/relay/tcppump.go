package relay

import (
	"slices"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/eventloop"
	"rootlesskit/internal/sockio"
)

// direction is one half of a connection. Small messages are read into the loop's
// buffer and written from there. A stream is spliced through a pipe, which moves
// pages instead of bytes. What the sink has not taken is in the pipe, or in kept
// if there is no pipe.
type direction struct {
	kept  []byte
	pipe  *pipe // nil while idle
	piped int   // bytes in the pipe
	// stream says that the last turn moved many bytes: the next begins with a pipe.
	stream bool
	// eof: the source has ended or failed; shut: this was passed on to the sink.
	eof, shut bool
	resumed   bool // the loop will call again
}

const (
	// pumpBudget bounds the bytes of one turn, so that a stream does not keep
	// the others of its loop waiting.
	pumpBudget = 1 << 20
	// streamMin is how much a turn has to move for the direction to count as a stream.
	streamMin = 64 << 10
)

// pump moves bytes in a direction until there are no more, the sink is full, or
// the turn is over.
func (c *tcpConn) pump(d int) {
	dir, src := &c.dir[d], &c.side[d]
	moved := 0
	for moved < pumpBudget {
		n, more := c.step(d)
		moved += n
		if !more {
			c.endTurn(d, moved)
			return
		}
	}
	// Without a token, registering the socket will report what is left.
	if !dir.resumed && src.token != (eventloop.Token{}) {
		dir.resumed = true
		c.part.loop.again(src.token)
	}
}

// endTurn is called when nothing more can be moved for now.
func (c *tcpConn) endTurn(d, moved int) {
	dir := &c.dir[d]
	if !c.side[d].readable && moved > 0 {
		dir.stream = moved >= streamMin
	}
	if dir.pipe != nil && dir.piped == 0 {
		dir.releasePipe(c.part.loop) // others may need it
	}
	c.passEnd(d)
}

// passEnd passes on the end of a stream once everything before it is written,
// and closes the connection after both ends.
func (c *tcpConn) passEnd(d int) {
	dir := &c.dir[d]
	if c.dead || !dir.eof || dir.shut || dir.pending() {
		return
	}
	if c.side[d].failed {
		c.abort()
		return
	}
	if c.dir[1-d].shut {
		c.finish() // closing tells the sink too
		return
	}
	if d == toChild && c.opening != nil {
		return // shutdown would undo the connect
	}
	dir.shut = true
	sockio.ShutdownWrite(int(c.side[1-d].fd))
}

func (dir *direction) pending() bool { return dir.piped > 0 || len(dir.kept) > 0 }

// step reads and writes once. It returns the number of bytes read, and whether
// there may be more to do now.
func (c *tcpConn) step(d int) (n int, more bool) {
	dir, src, dst := &c.dir[d], &c.side[d], &c.side[1-d]
	switch {
	case dst.fd < 0 || src.fd < 0 || dir.shut:
		return 0, false
	case dir.pending():
		return 0, dst.writable && c.flush(d)
	case dir.eof || !src.readable:
		return 0, false
	}
	if dir.stream && dir.pipe == nil {
		dir.pipe = c.part.loop.tcp.pipes.get()
	}
	if dir.pipe != nil {
		n, errno := sockio.Splice(int(src.fd), dir.pipe.w, dir.pipe.size)
		if !c.received(d, n, true, errno) {
			return 0, false
		}
		dir.piped = n
		return n, c.flush(d)
	}
	buf := c.part.loop.tcp.buf
	n, errno := sockio.Read(int(src.fd), buf)
	// Fewer bytes than asked for: the socket is empty, and new bytes will cause a new edge.
	if !c.received(d, n, n == len(buf) || src.ended, errno) {
		return 0, false
	}
	wrote, errno := sockio.Send(int(dst.fd), buf[:n])
	if wrote < n { // before sent, which may try another server
		dir.keep(c.part.loop, buf[wrote:n])
	}
	return n, c.sent(d, wrote, errno) // after a part, the next step tries the rest
}

// flush writes the kept bytes. It reports whether all of them are written.
func (c *tcpConn) flush(d int) bool {
	dir, dst := &c.dir[d], &c.side[1-d]
	for dir.piped > 0 {
		n, errno := sockio.Splice(dir.pipe.r, int(dst.fd), dir.piped)
		dir.piped -= n
		if !c.sent(d, n, errno) {
			return false
		}
	}
	for len(dir.kept) > 0 {
		n, errno := sockio.Send(int(dst.fd), dir.kept)
		dir.kept = dir.kept[n:]
		if !c.sent(d, n, errno) {
			return false
		}
	}
	dir.kept = nil
	return true
}

// received handles the result of a read; more says whether there may be more
// bytes. It reports whether bytes were read.
func (c *tcpConn) received(d, n int, more bool, errno unix.Errno) bool {
	src := &c.side[d]
	switch errno {
	case 0:
	case unix.EAGAIN:
		src.readable = false
		return false
	default:
		if d == toClient && c.opening != nil {
			c.connectFailed(errno)
			return false
		}
		src.failed = true
	}
	if n == 0 {
		src.readable = false
		c.dir[d].eof = true
		return false
	}
	if d == toClient {
		c.answered()
	}
	src.readable = more
	c.part.stats.bytes[d].Add(uint64(n))
	return true
}

// sent handles the result of a write. It reports whether the sink takes more.
func (c *tcpConn) sent(d, n int, errno unix.Errno) bool {
	dst := &c.side[1-d]
	switch errno {
	case 0:
		if d == toChild {
			c.answered()
		}
		return true
	case unix.EAGAIN:
		dst.writable = false
		return false
	}
	if d == toChild && c.opening != nil {
		c.connectFailed(errno)
		return false
	}
	c.sinkFailed(d)
	return false
}

// sinkFailed ends a direction whose sink has gone. What the sink has sent
// before is still passed on; then the source is reset.
func (c *tcpConn) sinkFailed(d int) {
	back := &c.dir[1-d]
	if back.shut {
		c.abort()
		return
	}
	c.dir[d].shut = true
	c.dir[d].release(c.part.loop)
	dst := &c.side[1-d]
	dst.failed, dst.readable = true, true
	c.pump(1 - d)
	c.passEnd(1 - d)
}

// keep keeps the bytes that the sink did not take.
func (dir *direction) keep(l *loop, b []byte) {
	if p := l.tcp.pipes.get(); p != nil {
		if n, _ := sockio.Write(p.w, b); n == len(b) {
			dir.pipe, dir.piped = p, n
			return
		}
		l.tcp.pipes.put(p, 1)
	}
	dir.kept = slices.Clone(b)
}

func (dir *direction) releasePipe(l *loop) {
	if dir.pipe != nil {
		l.tcp.pipes.put(dir.pipe, dir.piped)
		dir.pipe, dir.piped = nil, 0
	}
}

// release drops the kept bytes.
func (dir *direction) release(l *loop) {
	dir.releasePipe(l)
	dir.kept = nil
}
