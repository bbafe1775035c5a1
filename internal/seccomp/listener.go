package seccomp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Call is a system call that needs an answer. The caller is stopped until then.
type Call struct {
	// TID is the calling thread, in the PID namespace of the reader; 0 if it has
	// none there.
	TID int
	// Connect says that the call is connect(2); otherwise it is bind(2).
	Connect bool
	// FD is the descriptor; Addr and Len are the address in the caller's memory.
	FD   int
	Addr uint64
	Len  int

	listener *Listener
	id       uint64
}

// Listener is the descriptor of a filter.
type Listener struct {
	// Calls are received through receive, which Stop replaces, and answered through fd.
	fd, receive int
	watching    sync.WaitGroup

	mu      sync.Mutex
	stop    int // an eventfd
	stopped bool
	// receiver is the thread of the goroutine that calls Receive; 0 if not yet known.
	receiver int
	waiting  bool // in the kernel
}

// notification is struct seccomp_notif.
type notification struct {
	id    uint64
	pid   uint32
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

// answer is struct seccomp_notif_resp.
type answer struct {
	id    uint64
	val   int64
	error int32
	flags uint32
}

// NewListener takes over the descriptor of a filter. It fails for any other
// descriptor, and then closes it. The owner calls Stop, waits for Receive to
// return, and calls Close.
func NewListener(fd int) (*Listener, error) {
	// IDs begin at a random number, so a listener answers that it has no
	// notification 0; any other descriptor does not know the request.
	var none uint64
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_ID_VALID, uintptr(unsafe.Pointer(&none))); errno != unix.ENOENT {
		unix.Close(fd)
		return nil, fmt.Errorf("the descriptor is not the listener of a seccomp filter: %w", errno)
	}
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("eventfd", err)
	}
	receive, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		unix.Close(fd)
		unix.Close(stop)
		return nil, os.NewSyscallError("fcntl", err)
	}
	// One thread hands the processor directly to the other (Linux 6.6), so a call
	// is answered in a third of the time.
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_SET_FLAGS, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
	l := &Listener{fd: fd, receive: receive, stop: stop}
	l.watching.Go(l.watch)
	return l, nil
}

// watch stops the listener when no process has the filter any more. Only from
// Linux 6.11 on does that by itself wake up Receive.
func (l *Listener) watch() {
	fds := []unix.PollFd{{Fd: int32(l.fd)}, {Fd: int32(l.stop), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err != unix.EINTR {
			l.Stop()
			return
		}
	}
}

// Stop makes Receive return. A thread that waits in the kernel for a call has to be
// interrupted: Go handles the signal, and the kernel then restarts the call
// (SA_RESTART), by now on a descriptor that receives nothing.
func (l *Listener) Stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return
	}
	l.stopped = true
	_, _ = unix.Write(l.stop, binary.NativeEndian.AppendUint64(nil, 1))
	_ = unix.Dup3(l.stop, l.receive, unix.O_CLOEXEC)
	if l.waiting {
		_ = unix.Tgkill(os.Getpid(), l.receiver, unix.SIGURG)
	}
}

// Close closes the descriptor: filtered calls fail with ENOSYS from then on.
func (l *Listener) Close() {
	l.Stop()
	l.watching.Wait()
	unix.Close(l.fd)
	unix.Close(l.receive)
	unix.Close(l.stop)
}

// ErrEnded is the error of Receive after Stop, and after all processes with the
// filter have ended.
var ErrEnded = errors.New("no process is left to answer")

// Receive waits for a call. Only one goroutine may call it, which is locked to
// its thread from then on.
//
// It waits in the ioctl that receives, instead of polling the descriptor: until
// the kernel has delivered a call, a signal may interrupt the caller (see
// setFilter), so no step of this program should come before that.
func (l *Listener) Receive() (Call, error) {
	if l.receiver == 0 {
		l.becomeReceiver()
	}
	for {
		var n notification
		if !l.wait(true) {
			return Call{}, ErrEnded
		}
		errno := ioctl(l.receive, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n))
		goesOn := l.wait(false)
		switch {
		case errno == 0:
			return l.call(&n)
		case !goesOn, errno == unix.ENOENT && l.abandoned():
			return Call{}, ErrEnded
		case errno != unix.EINTR && errno != unix.ENOENT: // else the caller was killed or interrupted
			return Call{}, fmt.Errorf("receiving a seccomp notification: %w", errno)
		}
	}
}

// becomeReceiver makes the thread run as soon as it is woken up, even next to busy
// threads: with a short time slice, the scheduler picks it early (Linux 6.12,
// sched_setattr(2)). This made bind ten times less likely to be interrupted.
func (l *Listener) becomeReceiver() {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	l.mu.Lock()
	defer l.mu.Unlock()
	l.receiver = unix.Gettid()
	if attr, err := unix.SchedGetAttr(0, 0); err == nil {
		attr.Runtime = uint64(shortSlice)
		_ = unix.SchedSetAttr(0, attr, 0)
	}
}

const shortSlice = 100 * time.Microsecond // the minimum

// wait records whether the receiver is about to wait in the kernel, and reports
// whether it may.
func (l *Listener) wait(waiting bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = waiting
	return !l.stopped
}

// abandoned reports whether no process has the filter.
func (l *Listener) abandoned() bool {
	fds := []unix.PollFd{{Fd: int32(l.fd)}}
	n, _ := unix.Poll(fds, 0)
	return n > 0
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
	return errno
}

// call reads the arguments of a call. Those of socketcall are an array of 32-bit numbers.
func (l *Listener) call(n *notification) (Call, error) {
	c := Call{TID: int(n.pid), listener: l, id: n.id}
	for _, t := range []table{syscalls, compat} {
		if n.arch != t.audit {
			continue
		}
		if t.socketcall != 0 && uint32(n.nr) == t.socketcall {
			return c.socketcall(n)
		}
		c.Connect = uint32(n.nr) == t.connect
		if !c.Connect && uint32(n.nr) != t.bind { // asked for by a profile of someone else
			c.TID = 0
		}
	}
	c.FD, c.Addr, c.Len = int(int32(n.args[0])), n.args[1], int(int32(n.args[2]))
	return c, nil
}

func (c Call) socketcall(n *notification) (Call, error) {
	c.Connect = n.args[0] == callConnect
	var args [12]byte
	if err := c.read(args[:], n.args[1]); err != nil {
		c.Len = -1 // the kernel will reject it
		return c, nil
	}
	c.FD = int(int32(binary.NativeEndian.Uint32(args[0:])))
	c.Addr = uint64(binary.NativeEndian.Uint32(args[4:]))
	c.Len = int(int32(binary.NativeEndian.Uint32(args[8:])))
	return c, nil
}

// maxSockaddr is the size of struct sockaddr_storage.
const maxSockaddr = 128

// Sockaddr reads the address. The caller may change it afterwards, so it says
// nothing about a call that continues.
func (c Call) Sockaddr() ([]byte, error) {
	if c.Len < 0 || c.Len > maxSockaddr {
		return nil, unix.EINVAL
	}
	b := make([]byte, c.Len)
	return b, c.read(b, c.Addr)
}

// read copies the caller's memory.
func (c Call) read(b []byte, addr uint64) error {
	if len(b) == 0 {
		return nil
	}
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	remote := []unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}
	n, err := unix.ProcessVMReadv(c.TID, local, remote, 0)
	if err == nil && n != len(b) {
		err = unix.EFAULT
	}
	return os.NewSyscallError("process_vm_readv", err)
}

// Valid reports whether the caller still waits. If so, everything that was
// found with its TID before is about the caller, and not about another thread
// with the same number.
func (c Call) Valid() bool {
	id := c.id
	return ioctl(c.listener.fd, unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&id)) == 0
}

// Continue lets the kernel do the call.
func (c Call) Continue() {
	_ = c.answer(&answer{id: c.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE})
}

// Return answers the call with a result: 0 means success. It fails if the
// caller no longer waits.
func (c Call) Return(errno unix.Errno) error {
	return c.answer(&answer{id: c.id, error: -int32(errno)})
}

func (c Call) answer(a *answer) error {
	if errno := ioctl(c.listener.fd, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(a)); errno != 0 {
		return errno
	}
	return nil
}

// ReplaceFD makes a descriptor of the caller refer to fd's file, whatever it
// referred to before.
func (c Call) ReplaceFD(fd, number int, closeOnExec bool) error {
	add := struct {
		id                              uint64
		flags, srcfd, newfd, newfdFlags uint32
	}{c.id, unix.SECCOMP_ADDFD_FLAG_SETFD, uint32(fd), uint32(number), 0}
	if closeOnExec {
		add.newfdFlags = unix.O_CLOEXEC
	}
	if errno := ioctl(c.listener.fd, unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(&add)); errno != 0 {
		return errno
	}
	return nil
}
