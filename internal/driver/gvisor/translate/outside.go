package translate

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// budget is how many segments a connection sends before others have their turn.
const budget = 16

const (
	writable = unix.EPOLLOUT
	hangup   = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	readable = unix.EPOLLIN | hangup
)

// Ready implements Watcher.
func (c *conn) Ready(events uint32) {
	if c.ended {
		return
	}
	if c.state == opening {
		if events&(writable|unix.EPOLLERR|unix.EPOLLHUP) == 0 || !c.connected() {
			return
		}
	}
	if events&readable != 0 {
		c.readable = true
		c.unsure = c.unsure || events&(hangup|unix.EPOLLPRI) != 0
	}
	if events&unix.EPOLLERR != 0 && c.finSent { // nobody reads any more, so it shows here
		c.abort(unix.ECONNRESET)
		return
	}
	if events&writable != 0 && len(c.unsent) > 0 && !c.flush() {
		return
	}
	c.receive()
	c.finish()
}

// flush sends what was kept. It returns false if that has ended the connection.
func (c *conn) flush() bool {
	n, errno := c.socket.Send(c.unsent)
	if errno != 0 && errno != unix.EAGAIN {
		c.abort(errno)
		return false
	}
	if errno == 0 {
		c.t.unsent -= n
		c.unsent = c.unsent[:copy(c.unsent, c.unsent[n:])]
	}
	if len(c.unsent) == 0 {
		c.unsent = nil
	}
	// The namespace has to learn that its window is open again.
	known, share := int(c.rcvEdge-c.rcvNxt), c.t.share()
	if !c.finGot && known < share/2 && c.t.room(c) >= known+share/4 {
		c.ack()
	}
	c.shutdown()
	return true
}

// receive moves what the socket has to the namespace, as far as its window allows.
func (c *conn) receive() {
	for n := 0; c.readable && !c.finSent && !c.ended && c.state == open; n++ {
		if n == budget {
			c.later()
			return
		}
		if !c.receiveOne() {
			return
		}
	}
}

// later lets others have their turn.
func (c *conn) later() {
	if !c.queued {
		c.queued = true
		c.t.again = append(c.t.again, c)
	}
}

// usable is how many bytes the namespace takes now. A little window is left to grow
// (RFC 9293, 3.8.6.2.1).
func (c *conn) usable() int {
	used := c.outstanding()
	if used >= c.sndWnd {
		return 0
	}
	room := c.sndWnd - used
	if used > 0 && room < uint32(c.mss) && room < c.sndMax/2 {
		return 0
	}
	return int(room)
}

// receiveOne sends one segment, and returns true if there may be more.
func (c *conn) receiveOne() bool {
	room := c.usable()
	if room == 0 {
		c.schedule(firstRetry) // the window may open without a word
		return false
	}
	k := c.sent.room(&c.t.chunks)
	if k == nil {
		c.starve()
		return false
	}
	b := k.data[k.to:min(chunkSize, k.to+room)]
	n, errno := c.socket.Recv(b)
	end := n == 0
	switch {
	case errno != 0 || n == 0 || n == len(b):
	case c.unsure: // the end may be there already, and saves a segment
		var more int
		more, errno = c.socket.Recv(b[n:])
		n += more
		end = more == 0
	default:
		errno = unix.EAGAIN // more will be an event
	}
	k.to += n
	c.sent.size += n
	if c.call != nil {
		c.call.In.Add(uint64(n))
	}
	c.sent.tidy(&c.t.chunks)
	c.readable = errno == 0
	if end = end && errno == 0; end || n > 0 {
		c.emit(b[:n], end)
	}
	if errno != 0 && errno != unix.EAGAIN {
		c.abort(errno) // the kernel reports an error once
	}
	return c.readable
}

// starve waits for chunks: those of the connection, which its next acknowledgement
// frees, or those of all.
func (c *conn) starve() {
	if len(c.sent.chunks) < maxChunks && !c.starving {
		c.starving = true
		c.t.starved = append(c.t.starved, c)
	}
}

// emit sends new bytes, and the end of file.
func (c *conn) emit(b []byte, end bool) {
	flags := header.TCPFlagAck
	if len(b) > 0 {
		flags |= header.TCPFlagPsh
		c.turn()
	}
	if c.outstanding() == 0 {
		c.moved, c.tries = c.t.cfg.Now(), 0
		c.schedule(firstRetry)
	}
	seq := c.sndNxt
	c.sndNxt += uint32(len(b))
	if end {
		flags |= header.TCPFlagFin
		c.sndNxt++
		c.finSent, c.readable = true, false
	}
	c.send(flags, seq, b)
}
