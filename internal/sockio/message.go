package sockio

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Message is struct mmsghdr: a datagram, or several in one with UDP_GRO or
// UDP_SEGMENT. The zero value is empty. It refers to buffers, which must not
// move while it is in use.
type Message struct {
	hdr unix.Msghdr
	n   uint32
}

// SetData sets the payload: n buffers, of which iov is the first.
func (m *Message) SetData(iov *unix.Iovec, n int) {
	m.hdr.Iov = iov
	m.hdr.SetIovlen(n)
}

// SetAddr sets the destination; nil means the peer of a connected socket.
func (m *Message) SetAddr(a *Addr) {
	if a == nil {
		m.hdr.Name, m.hdr.Namelen = nil, 0
		return
	}
	m.hdr.Name = (*byte)(unsafe.Pointer(&a.raw))
	m.hdr.Namelen = a.size
}

// SetControl sets the control messages, or the room for them, which may be empty.
func (m *Message) SetControl(b []byte) {
	m.hdr.Control = nil
	if len(b) > 0 {
		m.hdr.Control = &b[0]
	}
	m.hdr.SetControllen(len(b))
}

// SetRoom prepares a message for receiving: the kernel writes the sender to a, and
// control messages to control.
func (m *Message) SetRoom(a *Addr, control []byte) {
	m.hdr.Name = (*byte)(unsafe.Pointer(&a.raw))
	m.hdr.Namelen = unix.SizeofSockaddrInet6
	m.SetControl(control)
}

// Len returns the number of bytes received.
func (m *Message) Len() int { return int(m.n) }

// Received completes the sender's address, and returns the part of control that
// the kernel has written; both were passed to SetRoom.
func (m *Message) Received(a *Addr, control []byte) []byte {
	a.size = m.hdr.Namelen
	return control[:min(int(m.hdr.Controllen), len(control))]
}

// ReceiveAll receives messages, and returns their number.
func ReceiveAll(fd int, msgs []Message, flags int) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(msgs))),
			uintptr(len(msgs)), uintptr(unix.MSG_DONTWAIT|flags), 0, 0)
		if errno != unix.EINTR {
			return count(n, errno)
		}
	}
}

// SendAll sends messages, and returns how many the socket took. It only returns
// an error if the socket did not take the first.
func SendAll(fd int, msgs []Message) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(msgs))),
			uintptr(len(msgs)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		if errno != unix.EINTR {
			return count(n, errno)
		}
	}
}

// SendTo sends one datagram.
func SendTo(fd int, payload, control []byte, to *Addr) unix.Errno {
	// The fields are set here, and not by methods, so that nothing escapes to the heap.
	var iov unix.Iovec
	iov.Base = unsafe.SliceData(payload)
	iov.SetLen(len(payload))
	var hdr unix.Msghdr
	hdr.Iov = &iov
	hdr.SetIovlen(1)
	hdr.Name = (*byte)(unsafe.Pointer(&to.raw))
	hdr.Namelen = to.size
	if len(control) > 0 {
		hdr.Control = unsafe.SliceData(control)
		hdr.SetControllen(len(control))
	}
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&hdr)), unix.MSG_NOSIGNAL)
		if errno != unix.EINTR {
			return errno
		}
	}
}
