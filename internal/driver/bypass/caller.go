package bypass

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/seccomp"
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
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", p.tid))
	if err != nil {
		return err
	}
	defer f.Close()
	p.pending = 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimSpace(value)
		set, _ := strconv.ParseUint(value, 16, 64)
		switch key {
		case "Tgid":
			if p.pid, err = strconv.Atoi(value); err != nil {
				return fmt.Errorf("the process of thread %d: %w", p.tid, err)
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
	}
	return nil
}

// interrupted tells whether a signal waits that the caller has a handler for.
func (p *caller) interrupted() bool { return p.readStatus() == nil && p.pending&p.caught != 0 }

// has tells whether a capability is in effect.
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

func socketLink(inode uint64) string { return fmt.Sprintf("socket:[%d]", inode) }

func is(link string) func(string) bool { return func(l string) bool { return l == link } }

func fdLink(pid, fd int) string {
	link, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
	return link
}

// holds tells whether a process has the socket still.
func holds(pid, fd int, inode uint64) bool { return fdLink(pid, fd) == socketLink(inode) }

// fdsOf are the descriptors of a process or thread that lead to what is wanted;
// none where the process is not ours to look into.
func fdsOf(pid int, wanted func(link string) bool) []int {
	dir, err := os.Open(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	var fds []int
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err == nil && wanted(fdLink(pid, fd)) {
			fds = append(fds, fd)
		}
	}
	return fds
}

func closeOnExec(pid, fd int) bool {
	flags := fdInfo(pid, fd)["flags"]
	return len(flags) == 1 && octal(flags[0])&unix.O_CLOEXEC != 0
}

func octal(s string) uint64 {
	n, _ := strconv.ParseUint(s, 8, 64)
	return n
}

// fdInfo reads /proc/PID/fdinfo/FD: lines by their key, see proc_pid_fdinfo(5).
func fdInfo(pid, fd int) map[string][]string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd))
	if err != nil {
		return nil
	}
	info := map[string][]string{}
	for line := range strings.Lines(string(b)) {
		key, value, ok := strings.Cut(line, ":")
		if ok {
			info[key] = append(info[key], strings.TrimSpace(value))
		}
	}
	return info
}

// processes lists all others that /proc shows.
func processes() []int {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var pids []int
	for _, d := range dirs {
		if pid, err := strconv.Atoi(filepath.Base(d)); err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
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
