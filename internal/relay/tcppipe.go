package relay

import "golang.org/x/sys/unix"

// pipe is a kernel buffer for splice.
type pipe struct{ r, w, size int }

// pipePool makes the pipes of a loop and keeps those that no stream uses.
type pipePool struct {
	free []*pipe
	made int // how many are open, free or in use
}

const (
	// pipeSize is the size that the kernel allows every user (pipe(7),
	// /proc/sys/fs/pipe-max-size).
	pipeSize = 1 << 20
	// pipeMin is the smallest size for which splicing pays off. An ordinary user
	// whose pipes have /proc/sys/fs/pipe-user-pages-soft pages in total gets
	// smaller pipes.
	pipeMin = 64 << 10
	// pipesMax bounds the pipes of a loop: the kernel's limit counts those of the
	// user's other programs as well. Further streams use read and write.
	pipesMax = 16
	// pipesAtHand are kept for the next stream.
	pipesAtHand = 4
)

// get returns an empty pipe, or nil if none is available.
func (p *pipePool) get() *pipe {
	if n := len(p.free); n > 0 {
		pp := p.free[n-1]
		p.free = p.free[:n-1]
		return pp
	}
	if p.made == pipesMax {
		return nil
	}
	pp := newPipe()
	if pp != nil {
		p.made++
	}
	return pp
}

func newPipe() *pipe {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		return nil
	}
	pp := &pipe{r: fds[0], w: fds[1]}
	_, _ = unix.FcntlInt(uintptr(pp.w), unix.F_SETPIPE_SZ, pipeSize)
	pp.size, _ = unix.FcntlInt(uintptr(pp.w), unix.F_GETPIPE_SZ, 0)
	if pp.size < pipeMin {
		pp.close()
		return nil
	}
	return pp
}

func (pp *pipe) close() {
	unix.Close(pp.r)
	unix.Close(pp.w)
}

// put takes back a pipe; a pipe that still has bytes in it is useless.
func (p *pipePool) put(pp *pipe, left int) {
	if left > 0 || len(p.free) == pipesAtHand {
		p.made--
		pp.close()
		return
	}
	p.free = append(p.free, pp)
}

func (p *pipePool) close() {
	for _, pp := range p.free {
		pp.close()
	}
}
