package fdswap

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/netns"
	"rootlesskit/internal/nstest"
)

// What the process does whose calls are intercepted. It is this test program,
// executed with programEnv, and it executes itself no more.

// programEnv has the name of a program and a network.
const programEnv = "FDSWAP_PROGRAM"

// program is the process's own view. A line on its standard output is a result.
type program struct {
	network string // tcp4, tcp6, udp4 or udp6
	input   *bufio.Reader
}

var programs = map[string]func(*program) error{
	"serve":     (*program).serve,
	"options":   (*program).options,
	"epoll":     (*program).epoll,
	"duplicate": (*program).duplicate,
	// the same, with a swap that is interrupted after the first descriptor
	"interrupted": (*program).duplicate,
	"thread":      (*program).thread,
	"own table":   (*program).ownTable,
	"share":       (*program).share,
	"no socket":   (*program).noSocket,
	"connect":     (*program).connect,
	"wait":        (*program).wait,
}

// runProgram runs one until its standard input ends.
func runProgram(env string) int {
	name, network, _ := strings.Cut(env, "/")
	p := &program{network: network, input: bufio.NewReader(os.Stdin)}
	err := netns.Own().LoopbackUp()
	if run := programs[name]; err == nil && run != nil {
		nstest.OpenFDs() // by which Go's runtime opens what it keeps
		err = run(p)
	}
	if err != nil {
		p.say("%s: %v", name, err)
		return 1
	}
	p.pause()
	return 0
}

func (p *program) say(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// pause waits for a line from the test, or the end.
func (p *program) pause() { _, _ = p.input.ReadString('\n') }

func (p *program) tcp() bool { return strings.HasPrefix(p.network, "tcp") }
func (p *program) v6() bool  { return strings.HasSuffix(p.network, "6") }

func (p *program) socket() int {
	family, kind := unix.AF_INET, unix.SOCK_DGRAM
	if p.v6() {
		family = unix.AF_INET6
	}
	if p.tcp() {
		kind = unix.SOCK_STREAM
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	return fd
}

// loopback is an address of the namespace.
func (p *program) loopback(port int) unix.Sockaddr {
	if p.v6() {
		return &unix.SockaddrInet6{Port: port, Addr: [16]byte{15: 1}}
	}
	return &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}
}

// bind binds a socket, and listens. It returns whether the descriptor is another
// socket's afterwards.
func (p *program) bind(fd int) (swapped bool, err error) {
	descriptors, inode := openDescriptors(), inodeOf(fd)
	if err := unix.Bind(fd, p.loopback(serverPort)); err != nil {
		return false, fmt.Errorf("bind: %w", err)
	}
	if now := openDescriptors(); !slices.Equal(now, descriptors) {
		return false, fmt.Errorf("the descriptors are %v, were %v", now, descriptors)
	}
	if p.tcp() {
		err = os.NewSyscallError("listen", unix.Listen(fd, 10))
	}
	return inodeOf(fd) != inode, err
}

const serverPort = 80

// openDescriptors are those of the thread.
func openDescriptors() (numbers []string) {
	for number, link := range nstest.OpenFDs() {
		if !strings.HasPrefix(link, "/proc/") {
			numbers = append(numbers, number)
		}
	}
	slices.Sort(numbers)
	return numbers
}

func inodeOf(fd int) uint64 {
	n, err := Inode(fd)
	if err != nil {
		panic(err)
	}
	return n
}

// serveOn binds a socket and answers one client.
func (p *program) serveOn(fd int) error {
	swapped, err := p.bind(fd)
	if err != nil {
		return err
	}
	p.say("swapped: %v", swapped)
	return p.answer(fd)
}

// answer answers one client with what it sends.
func (p *program) answer(fd int) error {
	if p.tcp() {
		conn, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		defer unix.Close(conn)
		fd = conn
	}
	b := make([]byte, 100)
	n, from, err := unix.Recvfrom(fd, b, 0)
	if err != nil {
		return fmt.Errorf("recvfrom: %w", err)
	}
	if p.tcp() {
		from = nil
	}
	return os.NewSyscallError("sendto", unix.Sendto(fd, b[:n], 0, from))
}

func (p *program) serve() error { return p.serveOn(p.socket()) }

// options sets what a server can set.
func (p *program) options() error {
	fd := p.socket()
	before, err := setOptions(fd, p.tcp(), p.v6())
	if err != nil {
		return err
	}
	swapped, err := p.bind(fd)
	if err != nil {
		return err
	}
	p.say("swapped: %v", swapped)
	now := readOptions(fd)
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if before[name] != now[name] {
			p.say("%s is %s, was %s", name, now[name], before[name])
		}
	}
	p.say("compared")
	return nil
}

// epoll has the socket registered under two numbers, in one instance each.
func (p *program) epoll() error {
	fd := p.socket()
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	instances := map[int]int32{} // and their data
	for i, number := range []int{fd, dup} {
		instance, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			return err
		}
		data := int32(7 + i)
		if err := unix.EpollCtl(instance, unix.EPOLL_CTL_ADD, number, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: data, Pad: -data}); err != nil {
			return err
		}
		instances[instance] = data
	}
	swapped, err := p.bind(fd)
	if err != nil {
		return err
	}
	p.say("swapped: %v", swapped)
	for instance, data := range instances {
		events := make([]unix.EpollEvent, 2)
		n, err := unix.EpollWait(instance, events, patience)
		want := unix.EpollEvent{Events: unix.EPOLLIN, Fd: data, Pad: -data}
		if err != nil || n != 1 || events[0] != want {
			return fmt.Errorf("%d events: %v, want %v (%v)", n, events, want, err)
		}
	}
	return p.answer(dup)
}

// patience is for what happens at once on an idle machine, in milliseconds.
const patience = 60_000

// duplicate has the socket under three descriptors.
func (p *program) duplicate() error {
	fd := p.socket()
	kept, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD, 0)
	if err != nil {
		return err
	}
	closed, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	swapped, err := p.bind(fd)
	if err != nil {
		return err
	}
	for number, want := range map[int]int{fd: unix.FD_CLOEXEC, kept: 0, closed: unix.FD_CLOEXEC} {
		flags, err := unix.FcntlInt(uintptr(number), unix.F_GETFD, 0)
		if err != nil || flags != want || inodeOf(number) != inodeOf(fd) {
			return fmt.Errorf("descriptor %d is socket %d with flags %d, want socket %d with flags %d (%v)", number, inodeOf(number), flags, inodeOf(fd), want, err)
		}
	}
	p.say("swapped: %v", swapped)
	return p.answer(kept)
}

// thread binds in a thread that is not the process's first.
func (p *program) thread() error { return p.inThread(func() error { return nil }) }

// ownTable binds in a thread with a table of descriptors of its own.
func (p *program) ownTable() error {
	return p.inThread(func() error { return os.NewSyscallError("unshare", unix.Unshare(unix.CLONE_FILES)) })
}

func (p *program) inThread(prepare func() error) error {
	ended := make(chan error)
	go func() {
		runtime.LockOSThread() // it ends with the goroutine
		err := prepare()
		if unix.Gettid() == os.Getpid() {
			err = errors.New("it is the first thread")
		}
		if err == nil {
			err = p.serveOn(p.socket())
		}
		ended <- err
	}()
	return <-ended
}

// share has another process that has the socket too.
func (p *program) share() error {
	fd := p.socket()
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	other := exec.Command("cat")
	other.ExtraFiles = []*os.File{os.NewFile(uintptr(dup), "socket")}
	end, err := other.StdinPipe()
	if err == nil {
		err = other.Start()
	}
	if err != nil {
		return err
	}
	p.say("shared with PID %d", other.Process.Pid)
	p.pause()
	err = p.serveOn(fd)
	end.Close()
	return errors.Join(err, other.Wait())
}

// noSocket binds what is none.
func (p *program) noSocket() error {
	file, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	fd := int(file.Fd())
	p.say("file: %v", unix.Bind(fd, p.loopback(serverPort)))
	file.Close()
	p.say("closed: %v", unix.Bind(fd, p.loopback(serverPort)))
	return nil
}
