package wire

import (
	"context"
	"encoding/json"
	"fmt"

	"rootlesskit/internal/sockio"
)

// Local is a Caller whose handlers run in this process.
type Local struct {
	Handlers Handlers
}

// Call implements Caller. Bodies are encoded and decoded as between processes,
// and the caller owns the descriptors that a handler returns.
func (l Local) Call(ctx context.Context, method string, request, reply any) ([]int, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("encoding %q: %w", method, err)
	}
	answer, fds, err := dispatch(ctx, l.Handlers, Message{Kind: method, Body: body})
	if err == nil && reply != nil {
		err = transcode(method, answer, reply)
	}
	if err != nil {
		sockio.CloseAll(fds)
		return nil, err
	}
	return fds, nil
}

func transcode(method string, from, to any) error {
	body, err := json.Marshal(from)
	if err != nil {
		return fmt.Errorf("encoding the reply to %q: %w", method, err)
	}
	return Message{Kind: method, Body: body}.Decode(to)
}
