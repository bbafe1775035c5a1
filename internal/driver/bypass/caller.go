package bypass

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/seccomp"
	"rootlesskit/internal/userlandproxy"
)

// caller is a process that is stopped in a system call.
type caller struct {
	tid   int
	pidfd int
	// What readStatus reads: the process, its capabilities in effect, and sets of
	// signals.
	pid             int
	caps            uint64
	caught, pending uint64
}

// pidfdThread is PIDFD_THREAD (Linux 6.9): a descriptor for a thread, whose table
// of descriptors may not be its process's.
const pidfdThread = unix.O_EXCL

func openCaller(c seccomp.Call) (*caller, error) {
	p := &caller{tid: c.TID}
	var err error
	if p.pidfd, err = unix.PidfdOpen(p.tid, pidfdThread); err == unix.EINVAL {
		if err = p.readStatus(); err == nil {
			p.pidfd, err = unix.PidfdOpen(p.pid, 0)
		}
	}
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	if !c.Valid() {
		p.close()
		return nil, errNotOurs
	}
	return p, nil
}

func (p *caller) close() { unix.Close(p.pidfd) }

// readStatus reads /proc/PID/status, see proc_pid_status(5).
func (p *caller) readStatus() error {
	text, err := readProc("%d/status", p.tid)
	if err != nil {
		return err
	}
	return p.parseStatus(text)
}

func (p *caller) parseStatus(text string) (err error) {
	p.pending = 0
	keyValues(text, func(key, value string) {
		set, _ := strconv.ParseUint(value, 16, 64)
		switch key {
		case "Tgid":
			if p.pid, err = strconv.Atoi(value); err != nil {
				err = fmt.Errorf("the process of thread %d: %w", p.tid, err)
			}
		case "CapEff":
			p.caps = set
		case "SigPnd", "ShdPnd":
			p.pending |= set
		case "SigBlk":
			p.pending &^= set
		case "SigCgt":
			p.caught = set
		}
	})
	return err
}

// interrupted reports whether a signal waits that the caller has a handler for.
func (p *caller) interrupted() bool { return p.readStatus() == nil && p.pending&p.caught != 0 }

// publishes reports whether the caller listens in the name of a container, by what it
// says of itself.
func (p *caller) publishes() bool {
	text, err := readProc("%d/cmdline", p.pid)
	return err == nil && userlandproxy.Publishes(text)
}

// has reports whether a capability is in effect.
func (p *caller) has(capability int) bool { return p.caps&(1<<capability) != 0 }

// socket returns the caller's socket with a descriptor.
func (p *caller) socket(fd int) (*socket, error) {
	dup, err := unix.PidfdGetfd(p.pidfd, fd, 0)
	if err == unix.EBADF {
		return nil, errNotOurs
	}
	if err != nil {
		return nil, os.NewSyscallError("pidfd_getfd", err)
	}
	s, err := describe(dup)
	if err != nil {
		return nil, errors.Join(errNotOurs, err) // no socket
	}
	if link := fdLink(p.tid, fd); link != socketLink(s.inode) {
		s.close()
		return nil, fmt.Errorf("descriptor %d of thread %d is not its process's", fd, p.tid)
	}
	return s, nil
}

// descriptor is an entry of a table of descriptors.
type descriptor struct {
	number      int
	closeOnExec bool
}

// descriptors are those of the caller for a socket.
func (p *caller) descriptors(inode uint64) []descriptor {
	var found []descriptor
	for _, fd := range fdsOf(p.tid, is(socketLink(inode))) {
		found = append(found, descriptor{fd, closeOnExec(p.tid, fd)})
	}
	return found
}

// otherHolder is a process that has the socket too, and would keep the old one;
// 0 is none.
func (p *caller) otherHolder(inode uint64) int {
	wanted := is(socketLink(inode))
	for _, pid := range processes() {
		if pid != p.pid && len(fdsOf(pid, wanted)) > 0 {
			return pid
		}
	}
	return 0
}

func is(link string) func(string) bool { return func(l string) bool { return l == link } }

// holds reports whether a process has the socket still.
func holds(pid, fd int, inode uint64) bool { return fdLink(pid, fd) == socketLink(inode) }

func closeOnExec(pid, fd int) bool {
	flags := fdInfo(pid, fd)["flags"]
	return len(flags) == 1 && octal(flags[0])&unix.O_CLOEXEC != 0
}

func octal(s string) uint64 {
	n, _ := strconv.ParseUint(s, 8, 64)
	return n
}

// shutdownAll ends the sockets with these inodes, whoever has them.
func shutdownAll(inodes map[uint64]bool) {
	links := map[string]bool{}
	for inode := range inodes {
		links[socketLink(inode)] = true
	}
	for _, pid := range processes() {
		for _, fd := range fdsOf(pid, func(link string) bool { return links[link] }) {
			shutdown(pid, fd)
		}
	}
}

func shutdown(pid, fd int) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(pidfd)
	if dup, err := unix.PidfdGetfd(pidfd, fd, 0); err == nil {
		_ = unix.Shutdown(dup, unix.SHUT_RDWR)
		unix.Close(dup)
	}
}
