package wire_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/nstest"
	"rootlesskit/internal/wire"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// pair returns two connected ends.
func pair(t *testing.T) (*wire.Conn, *wire.Conn) {
	t.Helper()
	a, file, err := wire.Pair()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	file.Close()
	if err != nil {
		t.Fatal(err)
	}
	b, err := wire.NewConn(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

type text struct{ S string }

// serve answers calls on one end and returns a client on the other.
func serve(t *testing.T, handlers wire.Handlers) *wire.Client {
	t.Helper()
	a, b := pair(t)
	served := make(chan struct{})
	go func() { _ = wire.Serve(context.Background(), b, handlers); close(served) }()
	client := wire.NewClient(a)
	t.Cleanup(func() { client.Close(); <-served })
	return client
}

func TestCallCarriesBodiesAndDescriptors(t *testing.T) {
	client := serve(t, wire.Handlers{"pipe": func(_ context.Context, req wire.Message) (any, []int, error) {
		var in text
		if err := req.Decode(&in); err != nil {
			return nil, nil, err
		}
		fds := make([]int, 2)
		if err := unix.Pipe2(fds, unix.O_CLOEXEC); err != nil {
			return nil, nil, err
		}
		_, err := unix.Write(fds[1], []byte(in.S))
		return text{"sent " + in.S}, fds, err
	}})
	var out text
	fds, err := client.Call(t.Context(), "pipe", text{"hello"}, &out)
	if err != nil {
		t.Fatal(err)
	}
	if out.S != "sent hello" || len(fds) != 2 {
		t.Fatalf("reply %q with %d descriptors", out.S, len(fds))
	}
	unix.Close(fds[1])
	f := os.NewFile(uintptr(fds[0]), "pipe")
	defer f.Close()
	if b, err := io.ReadAll(f); string(b) != "hello" || err != nil {
		t.Errorf("through the descriptor: %q, %v", b, err)
	}
	if flags, _ := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
		t.Error("the descriptor is not close-on-exec")
	}
}

func TestConcurrentCallsGetTheirOwnReplies(t *testing.T) {
	client := serve(t, wire.Handlers{"echo": func(_ context.Context, req wire.Message) (any, []int, error) {
		return json.RawMessage(req.Body), nil, nil
	}})
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			want := strings.Repeat("x", i)
			var out text
			if _, err := client.Call(t.Context(), "echo", text{want}, &out); err != nil || out.S != want {
				t.Errorf("got %q, %v", out.S, err)
			}
		})
	}
	all.Wait()
}

func TestErrorsTravel(t *testing.T) {
	client := serve(t, wire.Handlers{"fail": func(context.Context, wire.Message) (any, []int, error) {
		return nil, nil, errors.New("no such thing")
	}})
	_, err := client.Call(t.Context(), "fail", nil, nil)
	var remote *wire.RemoteError
	if !errors.As(err, &remote) || err.Error() != "no such thing" {
		t.Errorf("error: %v", err)
	}
	if _, err := client.Call(t.Context(), "nosuch", nil, nil); err == nil || !strings.Contains(err.Error(), `unknown method "nosuch"`) {
		t.Errorf("error: %v", err)
	}
}

// TestTheOthersDeathEndsCalls: neither a call under way nor a later one hangs.
func TestTheOthersDeathEndsCalls(t *testing.T) {
	a, b := pair(t)
	client := wire.NewClient(a)
	defer client.Close()
	called := make(chan error, 1)
	go func() {
		_, err := client.Call(t.Context(), "never answered", nil, nil)
		called <- err
	}()
	if _, err := b.Recv(); err != nil {
		t.Fatal(err)
	}
	b.Close()
	if err := <-called; err == nil {
		t.Error("the call under way succeeded")
	}
	<-client.Done()
	if _, err := client.Call(t.Context(), "later", nil, nil); err == nil {
		t.Error("a later call succeeded")
	}
}

func TestACallEndsWithItsContext(t *testing.T) {
	release := make(chan struct{})
	client := serve(t, wire.Handlers{"slow": func(context.Context, wire.Message) (any, []int, error) {
		<-release
		fds := make([]int, 2)
		return nil, fds, unix.Pipe2(fds, unix.O_CLOEXEC) // must not leak at the caller
	}, "ping": func(context.Context, wire.Message) (any, []int, error) { return nil, nil, nil }})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.Call(ctx, "slow", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error: %v", err)
	}
	close(release)
	if _, err := client.Call(t.Context(), "ping", nil, nil); err != nil {
		t.Error(err)
	}
}

// TestAnAnswerThatMeetsTheEndOfItsContext has both at the same time: the
// descriptors are the caller's, or closed.
func TestAnAnswerThatMeetsTheEndOfItsContext(t *testing.T) {
	before := nstest.OpenFDs()
	t.Run("race", func(t *testing.T) {
		cancels := make(chan context.CancelFunc, 1)
		client := serve(t, wire.Handlers{"fast": func(context.Context, wire.Message) (any, []int, error) {
			fds := make([]int, 2)
			err := unix.Pipe2(fds, unix.O_CLOEXEC)
			go (<-cancels)()
			return nil, fds, err
		}})
		for range 5000 {
			ctx, cancel := context.WithCancel(t.Context())
			cancels <- cancel
			fds, _ := client.Call(ctx, "fast", nil, nil)
			for _, fd := range fds {
				unix.Close(fd)
			}
		}
	})
	if leaked := nstest.LeakedFDs(before); len(leaked) > 0 {
		t.Errorf("left open: %d, such as %s", len(leaked), leaked[0])
	}
}

func TestTooLargeAMessageIsRefused(t *testing.T) {
	a, _ := pair(t)
	if err := a.SendBody("big", strings.Repeat("x", wire.MaxMessage)); err == nil {
		t.Error("sent")
	}
}

func TestNewConnRefusesOtherDescriptors(t *testing.T) {
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wire.NewConn(fd); err == nil {
		t.Error("/dev/null was taken for a socket")
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fds[1])
	if _, err := wire.NewConn(fds[0]); err == nil {
		t.Error("a stream socket was taken")
	}
}

// What was sent before the end arrives before it, also where the kernel tells the end
// first.
func TestMessagesBeforeTheEnd(t *testing.T) {
	for name, ahead := range map[string]func(here, there *wire.Conn) error{
		"nothing":                    func(*wire.Conn, *wire.Conn) error { return nil },
		"a reset":                    func(here, _ *wire.Conn) error { return here.Send(wire.Message{Kind: "unread"}) },
		"a look at the wrong moment": func(_, there *wire.Conn) error { return there.SendEmpty() },
	} {
		here, there := pair(t)
		if err := ahead(here, there); err != nil {
			t.Fatal(err)
		}
		if err := there.Send(wire.Message{Kind: "last"}); err != nil {
			t.Fatal(err)
		}
		there.Close()
		if m, err := here.Recv(); err != nil || m.Kind != "last" {
			t.Errorf("%s: got %+v, %v", name, m, err)
		}
		if m, err := here.Recv(); err != io.EOF {
			t.Errorf("%s: got %+v, %v after the end", name, m, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"kind":"setup","body":{"stateDir":"/x"}}`))
	f.Add([]byte(`{"kind":"reply","id":7,"error":"no"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := wire.Parse(b)
		if err == nil && m.Kind == "" {
			t.Error("a message without a kind was accepted")
		}
	})
}

// FuzzReceive sends arbitrary packets to an end that serves calls.
func FuzzReceive(f *testing.F) {
	f.Add([]byte(`{"kind":"x","id":1}`), []byte("{"))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := wire.NewConn(fds[0])
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for _, p := range [][]byte{first, second} {
			_ = unix.Send(fds[1], p, unix.MSG_DONTWAIT)
		}
		unix.Close(fds[1])
		for {
			if _, err := conn.Recv(); err == io.EOF {
				return
			}
		}
	})
}

// TestDescriptorsThatDoNotFit has room for one descriptor where two come: that
// message fails and leaks nothing, and the connection stays.
func TestDescriptorsThatDoNotFit(t *testing.T) {
	a, b := pair(t)
	two := wire.Message{Kind: "two", ID: 7, FDs: []int{0, 0}}
	before := nstest.OpenFDs()
	for range 2 {
		// The limit is also one of what all processes of the user have under way.
		if err := b.Send(two); err != nil {
			t.Fatal(err)
		}
		leaveRoomForOne(t)
		m, err := a.Recv()
		raiseLimit(t)
		if err != nil || m.ID != 7 || len(m.FDs) > 0 || !strings.Contains(m.Error, "too many open files") {
			t.Errorf("got %+v, error %v", m, err)
		}
	}
	if leaked := nstest.LeakedFDs(before); len(leaked) > 0 {
		t.Errorf("left open: %v", leaked)
	}
}

// leaveRoomForOne lowers the limit of descriptors to the lowest free one.
func leaveRoomForOne(t *testing.T) {
	fd, err := unix.Dup(0)
	if err != nil {
		t.Error(err)
	}
	unix.Close(fd)
	setLimit(t, func(l *unix.Rlimit) { l.Cur = uint64(fd) + 1 })
	t.Cleanup(func() { raiseLimit(t) })
}

func raiseLimit(t *testing.T) { setLimit(t, func(l *unix.Rlimit) { l.Cur = l.Max }) }

func setLimit(t *testing.T, change func(*unix.Rlimit)) {
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	if err == nil {
		change(&limit)
		err = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	}
	if err != nil {
		t.Error(err)
	}
}

// TestMethod: both sides have the types of a call by its name.
func TestMethod(t *testing.T) {
	const double wire.Method[int, []int] = "test.double"
	handlers := wire.Handlers{}
	double.Handle(handlers, func(_ context.Context, n int) ([]int, []int, error) { return []int{n, 2 * n}, nil, nil })
	got, fds, err := double.Call(t.Context(), wire.Local{Handlers: handlers}, 21)
	if err != nil || len(fds) > 0 || len(got) != 2 || got[1] != 42 {
		t.Errorf("%v, %v, %v", got, fds, err)
	}
	if _, err := (wire.Local{Handlers: handlers}).Call(t.Context(), string(double), "no number", nil); err == nil {
		t.Error("a request of another type is answered")
	}
	if _, _, err := wire.Method[wire.None, wire.None]("test.none").Call(t.Context(), wire.Local{Handlers: handlers}, wire.None{}); err == nil {
		t.Error("a method that nobody handles is answered")
	}
}
