package containers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/seccomp"
	"rootlesskit/internal/sockio"
	"rootlesskit/internal/unixsock"
	"rootlesskit/internal/wire"
)

// A container's seccomp profile has a listenerPath. The runtime connects there and
// sends one message: the state of the container as JSON, with the listener of the
// filter (OCI Runtime Specification, config-linux.md, "The Container Process State").

// state is the part of ContainerProcessState that is used.
type state struct {
	// FDs names the descriptors that come with the state.
	FDs []string `json:"fds"`
	// PID is the process that has the filter: the container's first process, or
	// one that is executed in it later.
	PID      int    `json:"pid"`
	Metadata string `json:"metadata"`
	State    struct {
		ID string `json:"id"`
		// PID is the container's first process.
		PID int `json:"pid"`
	} `json:"state"`
}

// first is the PID of the container's first process.
func (s *state) first() int {
	if s.State.PID > 0 {
		return s.State.PID
	}
	return s.PID
}

const (
	shortagePause = 100 * time.Millisecond
	// runtimePatience bounds how long a runtime may take once it has connected.
	runtimePatience = 5 * time.Second
	// maxRuntimes bounds the runtimes that are connected at the same time.
	maxRuntimes = 256
	// maxState bounds a state, which contains the annotations of the container.
	maxState = 1 << 20
	// maxFDs bounds the descriptors that come with a state.
	maxFDs = 16
)

// take serves a process of a container, and owns its listener. An error is for the
// log.
type take func(s state, l *seccomp.Listener) error

// listen has runtimes hand processes over at a socket, until ctx ends.
func (cs *Containers) listen(ctx context.Context, path string, take take) error {
	l, err := unixsock.Listen(ctx, path)
	if err != nil {
		return fmt.Errorf("listening for containers: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	cs.work.Go(func() {
		defer stop()
		defer l.Close()
		cs.accept(ctx, l, take)
	})
	return nil
}

func (cs *Containers) accept(ctx context.Context, l net.Listener, take take) {
	room := make(chan struct{}, maxRuntimes)
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // a shortage
			time.Sleep(shortagePause)
			continue
		}
		room <- struct{}{}
		cs.work.Go(func() {
			defer func() { <-room }()
			defer conn.Close()
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			if err := receive(conn.(*net.UnixConn), take); err != nil && ctx.Err() == nil {
				cs.sb.Log.Warn("the ports of a container are not native", "error", err)
			}
		})
	}
}

// receive reads the one message of a runtime.
func receive(conn *net.UnixConn, take take) error {
	uid, err := unixsock.PeerUID(conn)
	if err != nil {
		return err
	}
	if !unixsock.OwnerOrRoot(uid) {
		return fmt.Errorf("uid %d may not hand a container over", uid)
	}
	_ = conn.SetDeadline(time.Now().Add(runtimePatience))
	raw, fds, err := readState(conn)
	if len(raw) == 0 && errors.Is(err, io.EOF) {
		sockio.CloseAll(fds)
		return nil // a test whether anybody listens
	}
	if err != nil {
		sockio.CloseAll(fds)
		return fmt.Errorf("reading the state of a container: %w", err)
	}
	s, fd, err := parseState(raw, fds)
	for _, other := range fds {
		if other != fd {
			unix.Close(other)
		}
	}
	if err != nil {
		return err
	}
	l, err := seccomp.NewListener(fd)
	if err != nil {
		return fmt.Errorf("the descriptor of the container %q: %w", s.State.ID, err)
	}
	return take(s, l)
}

// readState reads up to the end of the JSON: the kernel may deliver a long message
// in parts. The caller owns the descriptors, even where readState fails.
func readState(conn *net.UnixConn) (raw []byte, fds []int, err error) {
	buf, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4*maxFDs))
	for {
		n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
		if err != nil {
			return raw, fds, err
		}
		raw = append(raw, buf[:n]...)
		more, err := wire.ParseRights(oob[:oobn])
		fds = append(fds, more...)
		switch {
		case err != nil:
			return raw, fds, err
		case len(raw) > maxState:
			return raw, fds, fmt.Errorf("it is longer than %d bytes", maxState)
		case len(fds) > maxFDs:
			return raw, fds, fmt.Errorf("it comes with more than %d descriptors", maxFDs)
		case json.Valid(raw):
			return raw, fds, nil
		}
	}
}

// parseState reads the state, and finds the listener among the descriptors.
func parseState(raw []byte, fds []int) (s state, fd int, err error) {
	if err := json.Unmarshal(raw, &s); err != nil {
		return s, -1, fmt.Errorf("the state of the container: %w", err)
	}
	if s.first() <= 0 {
		return s, -1, fmt.Errorf("the state of the container has PID %d", s.PID)
	}
	for i, name := range s.FDs {
		if name == "seccompFd" && i < len(fds) {
			return s, fds[i], nil
		}
	}
	return s, -1, errors.New("the state of the container comes without the descriptor seccompFd")
}
