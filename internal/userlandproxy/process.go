package userlandproxy

import (
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// holder is a process, and its descriptor of a socket.
type holder struct {
	pid, fd int
	inode   uint64
}

// holds reports whether the process still has the socket at that descriptor.
func (h holder) holds() bool {
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", h.pid, h.fd))
	return err == nil && link == socketLink(h.inode)
}

func socketLink(inode uint64) string { return fmt.Sprintf("socket:[%d]", inode) }

// findProxy returns the proxy that has a socket of the calling thread's network
// namespace. It returns false if there is none.
func findProxy(proto int, port uint16, inode uint64) (holder, commandLine, bool) {
	own, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return holder{}, commandLine{}, false
	}
	for _, pid := range ownProcesses() {
		if network, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid)); err != nil || network != own {
			continue // in another one, a container's address would mean something else
		}
		text, err := readBounded(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			continue // it has ended
		}
		c, ok := parseCommandLine(text)
		if !ok || c.proto != proto || c.hostPort != port {
			continue
		}
		if h, ok := findDescriptor(pid, inode); ok {
			return h, c, true
		}
	}
	return holder{}, commandLine{}, false
}

func findDescriptor(pid int, inode uint64) (holder, bool) {
	for _, fd := range numbers(fmt.Sprintf("/proc/%d/fd", pid)) {
		if h := (holder{pid, fd, inode}); h.holds() {
			return h, true
		}
	}
	return holder{}, false
}

// ownProcesses returns those of this process's user, as engines and their proxies are. A
// client waits for it, and the host may have many others: asking for their owner is
// the cheapest way to skip them.
func ownProcesses() (own []int) {
	user := uint32(os.Geteuid())
	var info unix.Stat_t
	for _, pid := range numbers("/proc") {
		if unix.Stat("/proc/"+strconv.Itoa(pid), &info) == nil && info.Uid == user {
			own = append(own, pid)
		}
	}
	return own
}

// numbers returns the names in a directory of /proc that are numbers.
func numbers(dir string) (all []int) {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	names, _ := f.Readdirnames(-1)
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			all = append(all, n)
		}
	}
	return all
}

// maxCommandLine bounds how much of a command line is read: a proxy's is short.
const maxCommandLine = 4 << 10

func readBounded(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxCommandLine))
	return string(b), err
}

// open returns a pidfd of the process, or -1 on kernels without pidfds (before
// Linux 5.3). It returns false if the process no longer has the socket.
func (h holder) open() (pidfd int, ok bool) {
	pidfd, err := unix.PidfdOpen(h.pid, 0)
	if err != nil {
		pidfd = -1
	}
	if err == unix.ESRCH || !h.holds() { // checked last: another process may have the number by now
		closeFD(pidfd)
		return -1, false
	}
	return pidfd, true
}

func closeFD(fd int) {
	if fd >= 0 {
		unix.Close(fd)
	}
}
