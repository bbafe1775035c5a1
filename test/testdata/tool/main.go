// Command tool is what the tests need of programs that no distribution has.
//
//	tool true                   nothing
//	tool serve ADDR...          an HTTP server that answers with its client's address
//	tool answer ADDR...         the same, and a server that does so for datagrams
//	tool interrupted ADDR       tool serve, which signals interrupt while it binds
//	tool echo ADDR              sends back what comes, by TCP and UDP
//	tool carry ADDR FLOWS       has a server of tool echo send back data, on so many flows
//	tool deny SYSCALL CMD...    CMD, to which a system call is refused (EPERM)
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	var err error
	switch os.Args[1] {
	case "true":
		return
	case "serve":
		err = serve(os.Args[2:])
	case "answer":
		err = answer(os.Args[2:])
	case "interrupted":
		err = interrupted(os.Args[2])
	case "echo":
		err = echo(os.Args[2])
	case "carry":
		var flows int
		if flows, err = strconv.Atoi(os.Args[3]); err == nil {
			err = carry(os.Args[2], flows)
		}
		if err == nil {
			return
		}
	case "deny":
		err = deny(os.Args[2], os.Args[3:])
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func handle(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "<%s>", r.RemoteAddr) }

func serve(addrs []string) error {
	failed := make(chan error)
	for _, addr := range addrs {
		go func() { failed <- http.ListenAndServe(addr, http.HandlerFunc(handle)) }()
	}
	return <-failed
}

func answer(addrs []string) error {
	for _, addr := range addrs {
		c, err := net.ListenPacket("udp", addr)
		if err != nil {
			return err
		}
		go func() {
			buf := make([]byte, 1<<16)
			for {
				_, from, err := c.ReadFrom(buf)
				if err == nil {
					_, _ = fmt.Fprintf(writerTo{c, from}, "<%s>", from)
				}
			}
		}()
	}
	return serve(addrs)
}

type writerTo struct {
	net.PacketConn
	to net.Addr
}

func (w writerTo) Write(b []byte) (int, error) { return w.WriteTo(b, w.to) }

var numbers = map[string]uint32{
	"seccomp":                 unix.SYS_SECCOMP,
	"pidfd_getfd":             unix.SYS_PIDFD_GETFD,
	"process_vm_readv":        unix.SYS_PROCESS_VM_READV,
	"landlock_create_ruleset": unix.SYS_LANDLOCK_CREATE_RULESET,
	"landlock_restrict_self":  unix.SYS_LANDLOCK_RESTRICT_SELF,
}

// deny needs CAP_SYS_ADMIN: with no_new_privs, newuidmap would not work.
func deny(name string, command []string) error {
	path, err := exec.LookPath(command[0])
	if err != nil {
		return err
	}
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: numbers[name], Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0); err != nil {
		return fmt.Errorf("PR_SET_SECCOMP: %w", err)
	}
	return unix.Exec(path, command, os.Environ())
}
