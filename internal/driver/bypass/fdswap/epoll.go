package fdswap

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/fdlimit"
	"rootlesskit/internal/ownthread"
)

// A server may have registered its socket with an epoll instance before it binds
// the socket. The registration is of the old socket, so it has to be made again for
// the new one.

// epoll is an epoll instance of the caller that knows the socket.
type epoll struct {
	fd      int // a duplicate
	entries []epollEntry
}

// epollEntry is a line "tfd: 5 events: 19 data: 5 ..." of fdinfo.
type epollEntry struct {
	target int
	event  unix.EpollEvent
}

// epolls are the instances that have one of the descriptors registered.
func (c *Caller) epolls(of []descriptor) []epoll {
	var found []epoll
	for _, number := range fdsOf(c.TID, is(epollLink)) {
		entries := epollEntries(fdInfo(c.TID, number)["tfd"], of)
		if len(entries) == 0 {
			continue
		}
		if fd, err := unix.PidfdGetfd(c.pidfd, number, 0); err == nil {
			found = append(found, epoll{fd, entries})
		}
	}
	return found
}

// epollEntries parses the lines of fdinfo about some descriptors.
func epollEntries(lines []string, of []descriptor) []epollEntry {
	var entries []epollEntry
	for _, line := range lines {
		// "5 events: 19 data: 5  pos:0 ino:1f sdev:9", numbers but the first in hex
		fields := strings.Fields(line)
		if len(fields) < 5 || fields[1] != "events:" || fields[3] != "data:" {
			continue
		}
		target, err := strconv.Atoi(fields[0])
		events, err2 := strconv.ParseUint(fields[2], 16, 32)
		data, err3 := strconv.ParseUint(fields[4], 16, 64)
		if err != nil || err2 != nil || err3 != nil {
			continue
		}
		for _, d := range of {
			if d.number == target {
				entry := epollEntry{target: target}
				entry.event.Events = uint32(events)
				entry.event.Fd, entry.event.Pad = int32(uint32(data)), int32(uint32(data>>32))
				entries = append(entries, entry)
			}
		}
	}
	return entries
}

// moveEpolls registers the new socket in the place of the old one, whose registration
// would stay for as long as anybody has that socket: events of what is done to it
// would be reported as those of the new one. The kernel knows a registration by file
// and number, and the number has to be the caller's. So a thread does it that has a
// table of descriptors of its own, which ends with the thread.
func moveEpolls(epolls []epoll, from, to int) (err error) {
	if len(epolls) > 0 {
		ownthread.Run(func() { err = moveAll(epolls, from, to) })
	}
	return err
}

func moveAll(epolls []epoll, from, to int) error {
	if err := unix.Unshare(unix.CLONE_FILES); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	from, err := moveUp(from)
	if err != nil {
		return err
	}
	if to, err = moveUp(to); err != nil {
		return err
	}
	for _, e := range epolls {
		fd, err := moveUp(e.fd)
		if err != nil {
			return err
		}
		for i := range e.entries {
			if err := e.entries[i].move(fd, from, to); err != nil {
				return fmt.Errorf("registering descriptor %d: %w", e.entries[i].target, err)
			}
		}
	}
	return nil
}

// moveUp duplicates a descriptor: its number may be that of an entry.
func moveUp(fd int) (int, error) {
	const high = 1 << 16
	moved, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, min(high, descriptorCeiling()))
	return moved, os.NewSyscallError("fcntl", err)
}

func (e *epollEntry) move(epoll, from, to int) error {
	if err := unix.Dup3(from, e.target, unix.O_CLOEXEC); err != nil {
		return os.NewSyscallError("dup3", err)
	}
	// It fails where another thread of the caller has removed the entry meanwhile.
	_ = unix.EpollCtl(epoll, unix.EPOLL_CTL_DEL, e.target, nil)
	if err := unix.Dup3(to, e.target, unix.O_CLOEXEC); err != nil {
		return os.NewSyscallError("dup3", err)
	}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, e.target, &e.event))
}

// descriptorCeiling leaves room for a few numbers below RLIMIT_NOFILE.
func descriptorCeiling() int {
	return max(fdlimit.Get()-64, 3)
}
