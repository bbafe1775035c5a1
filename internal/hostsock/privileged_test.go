package hostsock_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/caps"
	"rootlesskit/internal/hostsock"
	"rootlesskit/internal/netns"
	"rootlesskit/internal/nstest"
	"rootlesskit/internal/sockio"
	"rootlesskit/internal/wire"
)

// TestPrivilegedPort runs in a namespace, where the first unprivileged port is
// 1024 whatever the host has.
func TestPrivilegedPort(t *testing.T) {
	child := nstest.NewChild(t)
	for proto, listen := range map[api.Proto]string{
		"tcp":  `listen tcp :81`,
		"udp4": `listen udp4 :81`,
		"tcp6": `listen tcp6 :81`,
	} {
		fds, err := child.Call(t.Context(), restrictedMethod, restricted{Proto: proto, Port: 81}, nil)
		sockio.CloseAll(fds)
		want := regexp.MustCompile(`^cannot expose privileged port 81, .*net\.ipv4\.ip_unprivileged_port_start=81.*\(currently 1024\).*` +
			`setcap cap_net_bind_service=ep /.*>= 1024: ` + listen + `: bind: permission denied$`)
		if err == nil || !want.MatchString(err.Error()) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// What a file capability gives is played inside a namespace, whose root has
// CAP_NET_BIND_SERVICE over the namespace's ports.
type restricted struct {
	Proto     api.Proto
	Permitted bool // CAP_NET_BIND_SERVICE stays in the permitted set
	NoIPv6    bool // socket(AF_INET6) fails as with ipv6.disable=1
	Port      int
}

const (
	restrictedMethod = "test.restricted"
	dropMethod       = "test.drop"
)

func privilegeHandlers(_ context.Context, _ *netns.Namespace) wire.Handlers {
	return wire.Handlers{
		dropMethod: func(context.Context, wire.Message) (any, []int, error) { return nil, nil, dropOnAllThreads() },
		restrictedMethod: func(_ context.Context, msg wire.Message) (any, []int, error) {
			var req restricted
			if err := msg.Decode(&req); err != nil {
				return nil, nil, err
			}
			var fds []int
			err := onOwnThread(func() (err error) {
				fds, err = listenRestricted(req)
				return err
			})
			return nil, fds, err
		},
	}
}

// onOwnThread runs f on a thread that ends with it.
func onOwnThread(f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		result <- f()
	}()
	return <-result
}

func listenRestricted(req restricted) ([]int, error) {
	own, err := caps.Get()
	if err != nil {
		return nil, err
	}
	own = own.Without(unix.CAP_NET_BIND_SERVICE)
	if !req.Permitted {
		own[0].Permitted &^= 1 << unix.CAP_NET_BIND_SERVICE
	}
	if err := own.Set(); err != nil {
		return nil, err
	}
	if req.NoIPv6 {
		if err := forbidIPv6Sockets(); err != nil {
			return nil, err
		}
	}
	fds, err := hostsock.Listen(req.Proto, "", req.Port)
	var privileged *hostsock.PrivilegedPortError
	if errors.Is(err, os.ErrPermission) && !errors.As(err, &privileged) {
		return nil, fmt.Errorf("%T instead of a %T", err, privileged)
	}
	if err != nil {
		return nil, err
	}
	after, err := caps.Get()
	if err == nil && after != own {
		err = fmt.Errorf("capabilities were %v and are %v", own, after)
	}
	if err != nil {
		sockio.CloseAll(fds)
		return nil, err
	}
	return fds, nil
}

// forbidIPv6Sockets makes socket(AF_INET6) fail on this thread.
func forbidIPv6Sockets() error {
	const (
		offsetNr, offsetArg0 = 0, 16 // struct seccomp_data, little-endian
		retErrno             = unix.SECCOMP_RET_ERRNO | uint32(unix.EAFNOSUPPORT)
	)
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offsetNr},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_SOCKET, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offsetArg0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.AF_INET6, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: retErrno},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0)
}

func TestPermittedCapabilityIsRaised(t *testing.T) {
	child := nstest.NewChild(t)
	for i, proto := range []api.Proto{"tcp", "tcp4", "tcp6", "udp", "udp4", "udp6"} {
		port := 80 + i // the child may not have closed its copies of the sockets before
		fds, err := child.Call(t.Context(), restrictedMethod, restricted{Proto: proto, Permitted: true, Port: port}, nil)
		sockio.CloseAll(fds)
		if err != nil {
			t.Errorf("%s: %v", proto, err)
		}
		fds, err = child.Call(t.Context(), restrictedMethod, restricted{Proto: proto, Port: port}, nil)
		sockio.CloseAll(fds)
		if err == nil {
			t.Errorf("%s: bound a privileged port without the capability", proto)
		}
	}
}

func TestHostWithoutIPv6(t *testing.T) {
	child := nstest.NewChild(t)
	for _, proto := range []api.Proto{"tcp", "udp"} {
		fds, err := child.Call(t.Context(), restrictedMethod, restricted{Proto: proto, NoIPv6: true, Port: 8080}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(fds) != 1 || localAddr(t, fds[0]) != "0.0.0.0" {
			t.Errorf("%s: got %d sockets", proto, len(fds))
		}
		sockio.CloseAll(fds)
	}
	fds, err := child.Call(t.Context(), restrictedMethod, restricted{Proto: "tcp6", NoIPv6: true, Port: 8080}, nil)
	sockio.CloseAll(fds)
	if err == nil || err.Error() != "listen tcp6 :8080: socket: address family not supported by protocol" {
		t.Errorf("got %v", err)
	}
}

// TestDropBindCapability has the child drop it, on all of its threads.
func TestDropBindCapability(t *testing.T) {
	child := nstest.NewChild(t)
	_, err := child.Call(t.Context(), dropMethod, nil, nil)
	if cgo() {
		if err == nil || !strings.Contains(err.Error(), unix.ENOTSUP.Error()) {
			t.Errorf("with cgo it cannot work, but got %v", err)
		}
		return
	}
	if err != nil {
		t.Error(err)
	}
	fds, err := child.Call(t.Context(), restrictedMethod, restricted{Proto: "tcp", Permitted: true, Port: 80}, nil)
	sockio.CloseAll(fds)
	if err != nil {
		t.Errorf("the capability is not permitted any more: %v", err)
	}
}

func cgo() bool {
	info, _ := debug.ReadBuildInfo()
	return slices.Contains(info.Settings, debug.BuildSetting{Key: "CGO_ENABLED", Value: "1"})
}

func dropOnAllThreads() error {
	if err := hostsock.DropBindCapability(); err != nil {
		return err
	}
	tasks, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil || len(tasks) < 2 {
		return fmt.Errorf("threads %v: %w", tasks, err)
	}
	for _, task := range tasks {
		status, err := os.ReadFile(task)
		if err != nil {
			continue // the thread has ended
		}
		_, after, _ := strings.Cut(string(status), "CapEff:\t")
		hex, _, _ := strings.Cut(after, "\n")
		effective, err := strconv.ParseUint(hex, 16, 64)
		if err != nil || effective&(1<<unix.CAP_NET_BIND_SERVICE) != 0 {
			return fmt.Errorf("%s: effective %q: %w", task, hex, err)
		}
	}
	return nil
}
