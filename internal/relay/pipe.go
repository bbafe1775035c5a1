package relay

import "golang.org/x/sys/unix"

// pipe is a buffer of the kernel for splice.
type pipe struct{ r, w, size int }

// pipePool keeps the pipes of a loop that no stream uses.
type pipePool struct{ free []*pipe }

const (
	// pipeSize is asked for; the kernel gives an ordinary user less once all
	// of his pipes have /proc/sys/fs/pipe-user-pages-soft pages (pipe(7)).
	pipeSize     = 1 << 20
	pipesAtHand  = 4
	pipeFallback = 64 << 10
)

// get returns an empty pipe, or nil where none can be made: then the stream
// goes on by read and write.
func (p *pipePool) get() *pipe {
	if n := len(p.free); n > 0 {
		pp := p.free[n-1]
		p.free = p.free[:n-1]
		return pp
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		return nil
	}
	size, err := unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, pipeSize)
	if err != nil {
		size = pipeFallback
	}
	return &pipe{r: fds[0], w: fds[1], size: size}
}

// put takes a pipe back, unless bytes are left in it.
func (p *pipePool) put(pp *pipe, left int) {
	if left > 0 || len(p.free) >= pipesAtHand {
		unix.Close(pp.r)
		unix.Close(pp.w)
		return
	}
	p.free = append(p.free, pp)
}

func (p *pipePool) close() {
	for _, pp := range p.free {
		p.put(pp, 1)
	}
	p.free = nil
}
