// Package eventloop has the parts of event loops: registrations in an epoll instance
// (Set), work from other goroutines (Mailbox), and timers (Timers). A loop puts them
// together, and says how it waits. All but Mailbox belong to one goroutine at a time.
package eventloop

import (
	"fmt"
	"iter"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Handler handles the events of one descriptor, the EPOLL* bits. It must not block.
type Handler interface{ Ready(events uint32) }

// Token names one registration. The zero Token names none.
type Token struct{ slot, generation uint32 }

// Set is an epoll instance with the handlers of what is registered there. The epoll data
// of a descriptor is its Token: an event for a descriptor that an earlier handler of the
// same batch has closed is dropped, even if the number or the slot is already in use
// again.
//
// Its system calls, but for Wait, do not block, so they do not inform Go's scheduler.
type Set struct {
	fd     int
	slots  []slot
	free   []uint32 // slots not in use
	events [128]unix.EpollEvent
}

type slot struct {
	handler    Handler // nil: not in use
	generation uint32
}

// NewSet makes a Set.
func NewSet() (*Set, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	return &Set{fd: fd}, nil
}

// FD is the epoll instance.
func (s *Set) FD() int { return s.fd }

// Full is the number of events with which there may be more.
func (s *Set) Full() int { return len(s.events) }

// Close closes the epoll instance.
func (s *Set) Close() { unix.Close(s.fd) }

// Add calls h whenever one of the events happens on fd, until Remove or Forget. EPOLLERR
// and EPOLLHUP are always among them.
func (s *Set) Add(fd int, events uint32, h Handler) (Token, error) {
	if len(s.free) == 0 {
		s.slots = append(s.slots, slot{})
		s.free = append(s.free, uint32(len(s.slots)-1))
	}
	i := s.free[len(s.free)-1]
	t := Token{i, s.slots[i].generation + 1}
	if errno := s.control(unix.EPOLL_CTL_ADD, fd, events, t); errno != 0 {
		return Token{}, fmt.Errorf("epoll_ctl: adding descriptor %d: %w", fd, errno)
	}
	s.free = s.free[:len(s.free)-1]
	s.slots[i] = slot{h, t.generation}
	return t, nil
}

// Remove ends the registration of a descriptor that stays open.
func (s *Set) Remove(fd int, t Token) {
	_ = s.control(unix.EPOLL_CTL_DEL, fd, 0, t)
	s.Forget(t)
}

// Forget ends a registration whose descriptor the caller closes now: closing removes it
// from the epoll instance without another system call.
func (s *Set) Forget(t Token) {
	if e := &s.slots[t.slot]; e.generation == t.generation && e.handler != nil {
		e.handler = nil
		s.free = append(s.free, t.slot)
	}
}

// Len is the number of registrations.
func (s *Set) Len() int { return len(s.slots) - len(s.free) }

// Handlers returns all handlers.
func (s *Set) Handlers() iter.Seq[Handler] {
	return func(yield func(Handler) bool) {
		for i := range s.slots {
			if h := s.slots[i].handler; h != nil && !yield(h) {
				return
			}
		}
	}
}

// Call calls the handler of a registration, if it still exists.
func (s *Set) Call(t Token, events uint32) {
	if e := &s.slots[t.slot]; e.generation == t.generation && e.handler != nil {
		e.handler.Ready(events)
	}
}

// Dispatch calls the handlers of the first n events that Wait or Poll has got.
func (s *Set) Dispatch(n int) {
	for i := range n {
		e := &s.events[i]
		s.Call(Token{uint32(e.Fd), uint32(e.Pad)}, e.Events)
	}
}

// Wait blocks for up to timeout milliseconds, or for ever if it is -1, and returns the
// number of events. It informs Go's scheduler.
func (s *Set) Wait(timeout int) int {
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(s.fd), uintptr(unsafe.Pointer(&s.events[0])),
		uintptr(len(s.events)), uintptr(timeout), 0, 0)
	if errno != 0 { // EINTR
		return 0
	}
	return int(n)
}

// Poll returns the number of events there are.
func (s *Set) Poll() int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(s.fd), uintptr(unsafe.Pointer(&s.events[0])),
		uintptr(len(s.events)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

func (s *Set) control(op, fd int, events uint32, t Token) unix.Errno {
	e := unix.EpollEvent{Events: events, Fd: int32(t.slot), Pad: int32(t.generation)}
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(s.fd), uintptr(op), uintptr(fd),
		uintptr(unsafe.Pointer(&e)), 0, 0)
	return errno
}
