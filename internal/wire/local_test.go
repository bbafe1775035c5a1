package wire_test

import (
	"context"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/wire"
)

func TestLocalCalls(t *testing.T) {
	broken := errors.New("broken")
	local := wire.Local{Handlers: wire.Handlers{
		"echo": func(_ context.Context, req wire.Message) (any, []int, error) {
			var in text
			if err := req.Decode(&in); err != nil {
				return nil, nil, err
			}
			fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
			return in, []int{fd}, err
		},
		"fail": func(context.Context, wire.Message) (any, []int, error) { return nil, nil, broken },
	}}
	var out text
	fds, err := local.Call(t.Context(), "echo", text{"hello"}, &out)
	if err != nil || out.S != "hello" || len(fds) != 1 {
		t.Fatalf("got %q, %d descriptors, %v", out.S, len(fds), err)
	}
	if err := unix.Close(fds[0]); err != nil {
		t.Errorf("the descriptor is not the caller's: %v", err)
	}
	if _, err := local.Call(t.Context(), "fail", text{}, nil); !errors.Is(err, broken) {
		t.Errorf("the error of a handler: %v", err)
	}
	if _, err := local.Call(t.Context(), "none", text{}, nil); err == nil {
		t.Error("an unknown method was answered")
	}
	var number int // a reply of another type: the descriptor that came is closed
	if fds, err := local.Call(t.Context(), "echo", text{"hello"}, &number); err == nil || fds != nil {
		t.Errorf("got %v, %v", fds, err)
	}
}
