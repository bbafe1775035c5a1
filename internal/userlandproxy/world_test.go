package userlandproxy

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/netns"
	"rootlesskit/internal/nstest"
	"rootlesskit/internal/wire"
)

// A listener that is started as "docker-proxy", or as anything else, is this program.
const fakeEnv = "USERLANDPROXY_FAKE"

func TestMain(m *testing.M) {
	if os.Getenv(fakeEnv) != "" {
		if err := fakeMain(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	nstest.Main(m, Handlers, testHandlers)
}

// fakeMain listens as docker-proxy does with such arguments, says so, and ends with
// its standard input. SIGHUP makes another process image of it, which has the socket
// as docker-proxy has one that it did not open itself.
func fakeMain() error {
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	proto := flags.String("proto", "tcp", "")
	ip := flags.String("host-ip", "", "")
	port := flags.String("host-port", "", "")
	flags.String("container-ip", "", "")
	flags.String("container-port", "", "")
	passed := flags.Bool("use-listen-fd", false, "")
	if err := flags.Parse(os.Args[1:]); err != nil {
		return err
	}
	if !*passed {
		if err := listenFor(*proto, net.JoinHostPort(*ip, *port)); err != nil {
			return err
		}
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, unix.SIGHUP)
	go func() {
		<-hangup
		args := append([]string{"/usr/bin/docker-proxy"}, os.Args[1:]...)
		fmt.Fprintln(os.Stderr, unix.Exec("/proc/self/exe", append(args, "-use-listen-fd"), os.Environ()))
	}()
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// listenFor opens a socket that survives an execution.
func listenFor(proto, address string) error {
	var socket interface{ File() (*os.File, error) }
	if proto == "udp" {
		c, err := net.ListenPacket("udp", address)
		if err != nil {
			return err
		}
		socket = c.(*net.UDPConn)
	} else {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		socket = l.(*net.TCPListener)
	}
	f, err := socket.File()
	if err != nil {
		return err
	}
	_, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD, 0)
	return err
}

const (
	runMethod   = "test.run"
	startMethod = "test.start"
)

type startRequest struct {
	Args []string `json:"args"`
	// Elsewhere starts it in a network namespace of its own.
	Elsewhere bool `json:"elsewhere"`
}

// testHandlers run scripts and start programs beside the child.
func testHandlers(_ context.Context, ns *netns.Namespace) wire.Handlers {
	return wire.Handlers{runMethod: answerRun(ns), startMethod: answerStart}
}

func answerRun(ns *netns.Namespace) wire.Handler {
	return func(_ context.Context, msg wire.Message) (any, []int, error) {
		var script string
		if err := msg.Decode(&script); err != nil {
			return nil, nil, err
		}
		var out bytes.Buffer
		cmd := exec.Command("sh", "-ec", "PATH=$PATH:/usr/sbin:/sbin\n"+script)
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := ns.Run(cmd); err != nil {
			return nil, nil, fmt.Errorf("%w: %s", err, out.Bytes())
		}
		return nil, nil, nil
	}
}

// answerStart starts this program under other arguments, and returns its PID.
func answerStart(_ context.Context, msg wire.Message) (any, []int, error) {
	var req startRequest
	if err := msg.Decode(&req); err != nil {
		return nil, nil, err
	}
	cmd := &exec.Cmd{Path: "/proc/self/exe", Args: req.Args, Env: append(os.Environ(), fakeEnv+"=1"), Stderr: os.Stderr}
	if req.Elsewhere {
		cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if _, err = cmd.StdinPipe(); err != nil { // it ends with this process
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	line := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(out, line); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", strings.Join(req.Args, " "), err)
	}
	go func() { _ = cmd.Wait() }()
	return cmd.Process.Pid, nil, nil
}

// bridgeScript makes a bridge as engines do, and an uplink with a default route. The
// kernel makes an IPv6 address one of its own in a worker, which is waited for.
const bridgeScript = nstest.NoAddressDetection + nstest.AwaitAddresses + `
ip link add docker0 type bridge
ip addr add 172.17.0.1/16 dev docker0
ip addr add fd17::1/64 dev docker0 nodad
ip link set docker0 up
ip link add tap0 type veth peer name tap1
ip link set tap1 up
ip addr add 10.0.2.100/24 dev tap0
ip addr add fd00::100/64 dev tap0 nodad
ip link set tap0 up
ip route add default via 10.0.2.2
ip -6 route add default via fd00::2
ip route add 192.168.7.0/24 via 172.17.0.9
ip link add veth0 type veth peer name veth1
ip addr add 192.168.8.1/24 dev veth0
ip link set veth0 up
await_addresses docker0
await_addresses tap0
`

// world is a child with a network.
type world struct{ *nstest.Child }

func newWorld(t *testing.T) *world {
	w := &world{nstest.NewChild(t)}
	w.run(t, bridgeScript)
	return w
}

func (w *world) run(t *testing.T, script string) {
	t.Helper()
	if _, err := w.Call(t.Context(), runMethod, script, nil); err != nil {
		t.Fatalf("%s: %v", script, err)
	}
}

// start starts a program that has such arguments, and returns its PID.
func (w *world) start(t *testing.T, args string, elsewhere bool) (pid int) {
	t.Helper()
	if _, err := w.Call(t.Context(), startMethod, startRequest{strings.Fields(args), elsewhere}, &pid); err != nil {
		t.Fatalf("starting %s: %v", args, err)
	}
	return pid
}

// stop kills a program, and waits until its sockets have gone.
func (w *world) stop(t *testing.T, pid int) {
	t.Helper()
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err == nil {
		defer unix.Close(pidfd)
		err = unix.Kill(pid, unix.SIGKILL)
	}
	if err == nil {
		_, err = nstest.Poll(pidfd, unix.POLLIN, time.Minute)
	}
	if err != nil {
		t.Fatalf("ending process %d: %v", pid, err)
	}
}
