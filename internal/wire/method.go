package wire

import "context"

// Method is the name of a call ("package.verb") with the types of its request and of
// its reply: all that the two sides have in common.
type Method[Req, Reply any] string

// None is the request or the reply of a method that has none.
type None struct{}

// Call makes the call. The descriptors that come with the reply are the caller's.
func (m Method[Req, Reply]) Call(ctx context.Context, to Caller, req Req) (reply Reply, fds []int, err error) {
	fds, err = to.Call(ctx, string(m), req, &reply)
	return reply, fds, err
}

// Await is Call for what takes as long as it takes, see Client.Await.
func (m Method[Req, Reply]) Await(ctx context.Context, to *Client, req Req) (reply Reply, fds []int, err error) {
	fds, err = to.Await(ctx, string(m), req, &reply)
	return reply, fds, err
}

// Handle has f answer the call. Descriptors that f returns are sent with the reply and
// then closed; a request comes without any.
func (m Method[Req, Reply]) Handle(in Handlers, f func(context.Context, Req) (Reply, []int, error)) {
	in[string(m)] = func(ctx context.Context, msg Message) (any, []int, error) {
		closeAll(msg.FDs)
		var req Req
		if err := msg.Decode(&req); err != nil {
			return nil, nil, err
		}
		return f(ctx, req)
	}
}
