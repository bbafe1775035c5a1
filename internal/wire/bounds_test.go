package wire_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"rootlesskit/internal/wire"
)

// TestLongAnswersAreErrors: a caller learns that there is no answer.
func TestLongAnswersAreErrors(t *testing.T) {
	client := serve(t, wire.Handlers{
		"long": func(context.Context, wire.Message) (any, []int, error) {
			return text{strings.Repeat("x", wire.MaxMessage)}, nil, nil
		},
		"error": func(context.Context, wire.Message) (any, []int, error) {
			return nil, nil, errors.New(strings.Repeat("x", wire.MaxMessage))
		},
		"fds": func(context.Context, wire.Message) (any, []int, error) {
			return nil, slices.Repeat([]int{-1}, wire.MaxFDs+1), nil
		},
		"bad": func(context.Context, wire.Message) (any, []int, error) { return nil, []int{1 << 20}, nil },
	})
	for method, want := range map[string]string{"long": "over the limit of 65536", "error": "xxx", "fds": "over the limit of 253", "bad": "sending"} {
		var remote *wire.RemoteError
		if _, err := client.Call(t.Context(), method, nil, nil); !errors.As(err, &remote) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %.100v, want %q", method, err, want)
		}
	}
}

// TestCallsEnd calls somebody who does not answer, and who does not even read.
func TestCallsEnd(t *testing.T) {
	a, _ := pair(t)
	client := wire.NewClient(a)
	defer client.Close()
	client.SetPatience(time.Millisecond)
	if _, err := client.Call(t.Context(), "method", nil, nil); err == nil || !strings.Contains(err.Error(), `not answered "method"`) {
		t.Errorf("one call: %v", err)
	}
	for range 100 { // more than the socket holds
		if _, err := client.Call(t.Context(), "method", text{strings.Repeat("x", wire.MaxMessage/2)}, nil); err == nil {
			t.Fatal("a call that nobody has read succeeded")
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := client.Await(ctx, "method", nil, nil); err == nil {
		t.Error("a call that nobody has read succeeded")
	}
}
