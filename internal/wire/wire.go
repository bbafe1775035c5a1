// Package wire carries typed messages, with file descriptors, between the
// parent and the child over a pair of SOCK_SEQPACKET sockets.
//
// One packet is one message: a JSON header that names what it is, and the
// descriptors in SCM_RIGHTS. The kernel keeps packet boundaries, so no framing
// is needed, and the death of either side is an end of file on the other.
package wire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/sockio"
)

// MaxMessage bounds a message; MaxFDs is the kernel's SCM_MAX_FD.
const (
	MaxMessage = 64 << 10
	MaxFDs     = 253
)

// Message is one packet.
type Message struct {
	// Kind says what Body is: a step of the handshake or the method of a call.
	Kind string `json:"kind"`
	// ID pairs a reply with its call; 0 outside of calls.
	ID uint64 `json:"id,omitempty"`
	// Error is the failure that a reply reports.
	Error string          `json:"error,omitempty"`
	Body  json.RawMessage `json:"body,omitempty"`
	// FDs are owned by the receiver.
	FDs []int `json:"-"`
}

// Conn is one end of the pair. Sends may come from several goroutines,
// receives from one.
type Conn struct {
	uc   *net.UnixConn
	send chan struct{} // held by the goroutine that sends
	buf  []byte
	oob  []byte
}

// Pair returns a connected pair of sockets: the parent's end as a Conn, and the
// child's end as a file to be inherited.
func Pair() (*Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("making a socket pair: %w", err)
	}
	conn, err := NewConn(fds[0])
	if err != nil {
		unix.Close(fds[1])
		return nil, nil, err
	}
	return conn, os.NewFile(uintptr(fds[1]), "wire"), nil
}

// NewConn makes a Conn from a SOCK_SEQPACKET descriptor, and takes over the descriptor.
func NewConn(fd int) (*Conn, error) {
	f := os.NewFile(uintptr(fd), "wire")
	defer f.Close() // FileConn duplicates the descriptor
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d is not a socket: %w", fd, err)
	}
	uc, ok := c.(*net.UnixConn)
	if !ok || uc.LocalAddr().Network() != "unixpacket" {
		c.Close()
		return nil, fmt.Errorf("descriptor %d is not a unixpacket socket", fd)
	}
	return &Conn{uc: uc, send: make(chan struct{}, 1), buf: make([]byte, MaxMessage), oob: make([]byte, unix.CmsgSpace(MaxFDs*4))}, nil
}

// Close closes the connection; a Recv in progress returns.
func (c *Conn) Close() error { return c.uc.Close() }

// Send sends one message. The caller keeps the descriptors.
func (c *Conn) Send(m Message) error { return c.sendWithin(context.Background(), 0, m) }

// sendWithin is Send to a side that may not read: it takes no longer than patience,
// unless that is 0, and stops waiting for other senders when ctx ends.
func (c *Conn) sendWithin(ctx context.Context, patience time.Duration, m Message) error {
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encoding %q: %w", m.Kind, err)
	}
	if len(b) > MaxMessage {
		return fmt.Errorf("message %q of %d bytes is over the limit of %d", m.Kind, len(b), MaxMessage)
	}
	if len(m.FDs) > MaxFDs {
		return fmt.Errorf("message %q with %d descriptors is over the limit of %d", m.Kind, len(m.FDs), MaxFDs)
	}
	var oob []byte
	if len(m.FDs) > 0 {
		oob = unix.UnixRights(m.FDs...)
	}
	select {
	case c.send <- struct{}{}:
		defer func() { <-c.send }()
	case <-ctx.Done():
		return fmt.Errorf("sending %q: %w", m.Kind, ctx.Err())
	}
	var deadline time.Time
	if patience > 0 {
		deadline = time.Now().Add(patience)
	}
	_ = c.uc.SetWriteDeadline(deadline)
	if _, _, err := c.uc.WriteMsgUnix(b, oob, nil); err != nil {
		return fmt.Errorf("sending %q: %w", m.Kind, err)
	}
	return nil
}

// SendBody encodes body and sends it with the given kind. The caller keeps the
// descriptors.
func (c *Conn) SendBody(kind string, body any, fds ...int) error {
	b, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encoding %q: %w", kind, err)
	}
	return c.Send(Message{Kind: kind, Body: b, FDs: fds})
}

// ends is how often the end may be told while a message still waits. The kernel tells
// it ahead of messages where the other side closed with something unread
// (ECONNRESET), and where a message and the end come between its look for the one and
// its look for the other.
const ends = 2

// Recv waits for the next message. The other side's end is io.EOF.
func (c *Conn) Recv() (Message, error) {
	m, err := c.recv()
	for range ends {
		if err == io.EOF {
			m, err = c.recv()
		}
	}
	return m, err
}

func (c *Conn) recv() (Message, error) {
	n, oobn, flags, _, err := c.uc.ReadMsgUnix(c.buf, c.oob)
	if err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
			return Message{}, io.EOF
		}
		return Message{}, fmt.Errorf("receiving: %w", err)
	}
	fds, err := ParseRights(c.oob[:oobn])
	lost := flags&unix.MSG_CTRUNC != 0
	if err == nil && n == 0 && len(fds) == 0 && !lost {
		return Message{}, io.EOF
	}
	if err == nil && flags&unix.MSG_TRUNC != 0 {
		err = errors.New("message was truncated")
	}
	var m Message
	if err == nil {
		m, err = Parse(c.buf[:n])
	}
	if err != nil {
		sockio.CloseAll(fds)
		return Message{}, err
	}
	if lost {
		// The process has no room for all descriptors, so it gets none. Only this
		// message fails.
		sockio.CloseAll(fds)
		m.Error = fmt.Sprintf("descriptors of %q were lost: %v", m.Kind, unix.EMFILE)
		return m, nil
	}
	m.FDs = fds
	return m, nil
}

// Parse decodes the data part of a packet.
func Parse(b []byte) (Message, error) {
	var m Message
	if err := json.Unmarshal(b, &m); err != nil {
		return Message{}, fmt.Errorf("malformed message: %w", err)
	}
	if m.Kind == "" {
		return Message{}, errors.New("malformed message: no kind")
	}
	return m, nil
}

// Decode reads the body of a message.
func (m Message) Decode(v any) error {
	if err := json.Unmarshal(m.Body, v); err != nil {
		return fmt.Errorf("malformed body of %q: %w", m.Kind, err)
	}
	return nil
}

// ParseRights returns the descriptors in control messages, which the caller must
// close. If it fails, it leaves none open. (*net.UnixConn).ReadMsgUnix has set
// close-on-exec on them.
func ParseRights(oob []byte) ([]int, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	cmsgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("malformed control message: %w", err)
	}
	var fds []int
	for _, cm := range cmsgs {
		if cm.Header.Level != unix.SOL_SOCKET || cm.Header.Type != unix.SCM_RIGHTS {
			continue
		}
		got, err := unix.ParseUnixRights(&cm)
		if err != nil {
			sockio.CloseAll(fds)
			return nil, fmt.Errorf("malformed SCM_RIGHTS: %w", err)
		}
		fds = append(fds, got...)
	}
	return fds, nil
}
