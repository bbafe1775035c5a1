package relay

import (
	"slices"

	"golang.org/x/sys/unix"
)

// direction is one half of a connection. At any time its bytes are in kept, or
// in the pipe, or nowhere.
type direction struct {
	// kept was read but not written yet.
	kept []byte
	// pipe carries a stream by splice, with piped bytes in it.
	pipe  *pipe
	piped int
	// full counts reads in a row that filled the buffer: the mark of a stream.
	full int
	// eof: the source has ended; shut: the sink was told.
	eof, shut bool
}

// pumpBudget bounds the bytes of one turn, so that a stream does not keep the
// others of its loop waiting.
const pumpBudget = 4 << 20

// streamAfter is the number of full reads after which splice takes over.
const streamAfter = 2

// pump moves bytes in a direction until there are none, the sink is full, or
// the turn is over.
func (c *tcpConn) pump(d int) {
	dir := &c.dir[d]
	if c.side[child].fd < 0 || dir.shut {
		return
	}
	src, dst := c.side[d].fd, c.side[1-d].fd
	for moved := 0; moved < pumpBudget; {
		n, more, f := c.step(d, src, dst)
		if f.errno != 0 {
			c.fault(f)
			return
		}
		if n > 0 {
			moved += n
			c.part.port.stats.bytes[d].Add(uint64(n))
			c.connected = c.connected || d == toClient
		}
		if !more {
			c.ended(dir, dst)
			return
		}
	}
	if !c.resumed {
		c.resumed = true
		c.part.loop.again(c.side[d].token)
	}
}

// fault is the failure of a system call on one side; errno 0 is none.
type fault struct {
	side  int
	errno unix.Errno
}

// fault ends a connection that a side has failed.
func (c *tcpConn) fault(f fault) {
	if f.side == child && !c.connected {
		c.rerouteOrRefuse(f.errno)
		return
	}
	c.abort()
}

// step moves once. It returns the bytes written, and whether there may be more
// to do now.
func (c *tcpConn) step(d, src, dst int) (n int, more bool, f fault) {
	dir := &c.dir[d]
	if len(dir.kept) > 0 {
		return dir.flush(dst, 1-d)
	}
	if dir.pipe != nil {
		return c.stepSplice(d, src, dst)
	}
	if dir.eof {
		return 0, false, fault{}
	}
	buf := c.part.loop.buf
	got, errno := sysRead(src, buf)
	switch {
	case errno == unix.EAGAIN:
		dir.full = 0
		return 0, false, fault{}
	case errno == unix.EINTR:
		return 0, true, fault{}
	case errno != 0:
		return 0, false, fault{d, errno}
	case got == 0:
		dir.eof = true
		return 0, false, fault{}
	}
	if got == len(buf) {
		if dir.full++; dir.full >= streamAfter {
			dir.pipe = c.part.loop.pipes.get()
		}
	} else {
		dir.full = 0
	}
	wrote, errno := sysSend(dst, buf[:got])
	if errno == unix.EINTR { // nothing was written; EPOLLOUT will not come for that
		wrote, errno = sysSend(dst, buf[:got])
	}
	if errno != 0 && errno != unix.EAGAIN && errno != unix.EINTR {
		return 0, false, fault{1 - d, errno}
	}
	if wrote < got {
		dir.keep(buf[wrote:got])
		return wrote, false, fault{}
	}
	// A read that did not fill the buffer emptied the socket; new bytes come
	// with a new event.
	return wrote, got == len(buf) || c.side[d].ended, fault{}
}

func (dir *direction) keep(b []byte) { dir.kept = slices.Clone(b) }

// flush writes what was kept to a side.
func (dir *direction) flush(dst, side int) (n int, more bool, f fault) {
	wrote, errno := sysSend(dst, dir.kept)
	switch {
	case errno == unix.EAGAIN:
		return 0, false, fault{}
	case errno == unix.EINTR:
		return 0, true, fault{}
	case errno != 0:
		return 0, false, fault{side, errno}
	}
	dir.kept = dir.kept[wrote:]
	if len(dir.kept) == 0 {
		dir.kept = nil
		return wrote, true, fault{}
	}
	return wrote, false, fault{}
}

// stepSplice moves a piece of a stream without copying it.
func (c *tcpConn) stepSplice(d, src, dst int) (n int, more bool, f fault) {
	dir := &c.dir[d]
	blocked := false
	if !dir.eof && dir.piped < dir.pipe.size {
		got, errno := sysSplice(src, dir.pipe.w, dir.pipe.size-dir.piped)
		switch {
		case errno == unix.EAGAIN:
			blocked = true
		case errno == unix.EINTR:
		case errno != 0:
			return 0, false, fault{d, errno}
		case got == 0:
			dir.eof = true
		}
		dir.piped += got
	}
	if dir.piped == 0 {
		if blocked || dir.eof { // idle: read and write again from here on
			dir.release(c.part.loop)
			return 0, false, fault{}
		}
		return 0, true, fault{}
	}
	wrote, errno := sysSplice(dir.pipe.r, dst, dir.piped)
	switch {
	case errno == unix.EAGAIN:
		return 0, false, fault{}
	case errno == unix.EINTR:
		return 0, true, fault{}
	case errno != 0:
		return 0, false, fault{1 - d, errno}
	}
	dir.piped -= wrote
	return wrote, true, fault{}
}

// release gives the pipe back.
func (dir *direction) release(l *loop) {
	if dir.pipe != nil {
		l.pipes.put(dir.pipe, dir.piped)
		dir.pipe, dir.piped, dir.full = nil, 0, 0
	}
	dir.kept = nil
}

// ended passes the end of a stream on when all before it was written, and
// closes the connection after both.
func (c *tcpConn) ended(dir *direction, dst int) {
	if !dir.eof || dir.shut || len(dir.kept) > 0 || dir.piped > 0 {
		return
	}
	dir.shut = true
	dir.release(c.part.loop)
	// ENOTCONN: the peer is gone, and its socket tells so by an event.
	_ = unix.Shutdown(dst, unix.SHUT_WR)
	if c.dir[0].shut && c.dir[1].shut {
		c.finish()
	}
}
