package wire

import (
	"context"

	"rootlesskit/internal/sockio"
)

// Method is the name of a call ("package.verb") with the types of its request and
// reply, which is all that the two sides share.
type Method[Req, Reply any] string

// None is the request or reply of a method that has none.
type None struct{}

// Call makes the call. The caller owns the descriptors that come with the reply.
func (m Method[Req, Reply]) Call(ctx context.Context, to Caller, req Req) (reply Reply, fds []int, err error) {
	fds, err = to.Call(ctx, string(m), req, &reply)
	return reply, fds, err
}

// Await is like Call, but only ctx bounds its time, see Client.Await.
func (m Method[Req, Reply]) Await(ctx context.Context, to *Client, req Req) (reply Reply, fds []int, err error) {
	fds, err = to.Await(ctx, string(m), req, &reply)
	return reply, fds, err
}

// Handle makes f answer the call. The descriptors that f returns are sent with the
// reply and then closed; descriptors of a request are closed.
func (m Method[Req, Reply]) Handle(in Handlers, f func(context.Context, Req) (Reply, []int, error)) {
	in[string(m)] = func(ctx context.Context, msg Message) (any, []int, error) {
		sockio.CloseAll(msg.FDs)
		var req Req
		if err := msg.Decode(&req); err != nil {
			return nil, nil, err
		}
		return f(ctx, req)
	}
}
