package wire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"rootlesskit/internal/sockio"
)

// Handler answers a call. The descriptors that it returns are sent with the
// reply and then closed. It owns the descriptors of the request.
type Handler func(ctx context.Context, req Message) (reply any, fds []int, err error)

// Handlers are the methods that a Server knows, by name ("package.verb").
type Handlers map[string]Handler

// Caller makes calls. It is implemented by Client, Local and fakes in tests.
type Caller interface {
	// Call runs method on the other side and decodes its reply, unless reply is
	// nil. The caller owns the descriptors that come with the reply. Call always
	// returns, whatever the other side does.
	Call(ctx context.Context, method string, request, reply any) (fds []int, err error)
}

// RemoteError is a failure that the other side reported.
type RemoteError struct {
	Method, Message string
}

func (e *RemoteError) Error() string { return e.Message }

// replyKind marks the answer to a call.
const replyKind = "reply"

// Serve answers calls, each in its own goroutine, until the connection or ctx
// ends, and returns when all handlers have returned. If the other side ends, it
// returns io.EOF.
func Serve(ctx context.Context, c *Conn, handlers Handlers) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	for {
		req, err := c.Recv()
		if err != nil {
			return err
		}
		running.Go(func() { answer(ctx, c, handlers, req) })
	}
}

func answer(ctx context.Context, c *Conn, handlers Handlers, req Message) {
	reply, fds, err := dispatch(ctx, handlers, req)
	defer sockio.CloseAll(fds)
	m := Message{Kind: replyKind, ID: req.ID, FDs: fds}
	if err == nil && reply != nil {
		m.Body, err = json.Marshal(reply)
	}
	if err != nil {
		m = Message{Kind: replyKind, ID: req.ID, Error: bounded(err.Error())}
	}
	// The caller waits for an answer, so report that it could not be sent, for
	// example because it is too long. If the other side has gone, Serve sees that
	// too.
	if err := c.Send(m); err != nil {
		_ = c.Send(Message{Kind: replyKind, ID: req.ID, Error: bounded(err.Error())})
	}
}

// maxError bounds the text of a failure, so that it can always be sent.
const maxError = 4 << 10

func bounded(text string) string { return text[:min(len(text), maxError)] }

func dispatch(ctx context.Context, handlers Handlers, req Message) (any, []int, error) {
	if req.Error != "" {
		return nil, nil, errors.New(req.Error)
	}
	h, ok := handlers[req.Kind]
	if !ok {
		sockio.CloseAll(req.FDs)
		return nil, nil, fmt.Errorf("unknown method %q", req.Kind)
	}
	return h(ctx, req)
}

// Client makes calls over a Conn and owns its receiving side.
type Client struct {
	conn     *Conn
	done     chan struct{}
	patience time.Duration

	mu      sync.Mutex
	nextID  uint64
	waiting map[uint64]chan Message
	err     error
}

// patience is how long the other side may take for a call. It needs much less
// time, but the command, which is root next to it, may stop its process.
const patience = time.Minute

// NewClient takes over the connection; the client ends when the connection does.
func NewClient(conn *Conn) *Client {
	c := &Client{conn: conn, done: make(chan struct{}), patience: patience, waiting: map[uint64]chan Message{}}
	go c.receive()
	return c
}

// Done is closed when the connection has ended.
func (c *Client) Done() <-chan struct{} { return c.done }

// Close ends the connection and waits for the receiver.
func (c *Client) Close() {
	c.conn.Close()
	<-c.done
}

// Call implements Caller.
func (c *Client) Call(ctx context.Context, method string, request, reply any) ([]int, error) {
	bounded, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	fds, err := c.Await(bounded, method, request, reply)
	late := bounded.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) // the timer of ctx may run later
	if err != nil && late && ctx.Err() == nil {
		err = fmt.Errorf("the child has not answered %q within %v", method, c.patience)
	}
	return fds, err
}

// Await is like Call, but only ctx bounds its time.
func (c *Client) Await(ctx context.Context, method string, request, reply any) ([]int, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("encoding %q: %w", method, err)
	}
	id, answer, err := c.register()
	if err != nil {
		return nil, err
	}
	if err := c.conn.sendWithin(ctx, c.patience, Message{Kind: method, ID: id, Body: body}); err != nil {
		c.forget(id, answer)
		return nil, err
	}
	select {
	case m, ok := <-answer:
		if !ok {
			return nil, c.failure()
		}
		return m.result(method, reply)
	case <-ctx.Done():
		c.forget(id, answer)
		return nil, ctx.Err()
	}
}

// result turns an answer into what Call returns.
func (m Message) result(method string, reply any) ([]int, error) {
	if m.Error != "" {
		sockio.CloseAll(m.FDs)
		return nil, &RemoteError{Method: method, Message: m.Error}
	}
	if reply != nil {
		if err := m.Decode(reply); err != nil {
			sockio.CloseAll(m.FDs)
			return nil, err
		}
	}
	return m.FDs, nil
}

func (c *Client) register() (uint64, chan Message, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, nil, c.err
	}
	c.nextID++
	answer := make(chan Message, 1)
	c.waiting[c.nextID] = answer
	return c.nextID, answer, nil
}

// forget abandons a call; it closes the descriptors of an answer that has
// arrived in the meantime.
func (c *Client) forget(id uint64, answer <-chan Message) {
	c.mu.Lock()
	delete(c.waiting, id)
	c.mu.Unlock()
	select {
	case m := <-answer: // delivered before the call was abandoned, or the end of the connection
		sockio.CloseAll(m.FDs)
	default:
	}
}

func (c *Client) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *Client) receive() {
	defer close(c.done)
	for {
		m, err := c.conn.Recv()
		if err != nil {
			c.conn.Close() // also if the other side is alive, but sends malformed messages
			c.fail(err)
			return
		}
		c.deliver(m)
	}
}

func (c *Client) deliver(m Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	answer := c.waiting[m.ID]
	delete(c.waiting, m.ID)
	if answer == nil {
		sockio.CloseAll(m.FDs)
		return
	}
	answer <- m // never blocks: one answer per call, room for one
}

func (c *Client) fail(err error) {
	if errors.Is(err, io.EOF) {
		err = errors.New("the child has ended")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	for id, answer := range c.waiting {
		close(answer)
		delete(c.waiting, id)
	}
}
