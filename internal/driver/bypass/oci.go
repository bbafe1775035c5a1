package bypass

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/seccomp"
	"rootlesskit/internal/unixsock"
	"rootlesskit/internal/wire"
)

// The route of OCI runtimes. A container's seccomp profile says listenerPath; the
// runtime connects there and sends one message: the state of the container as
// JSON, and the listener of its filter (the OCI Runtime Specification,
// config-linux.md, "The Container Process State").

// ociSocket is the listenerPath for whoever is below the launcher.
const ociSocket = "bypass4netns.sock"

// ociRoute takes containers in.
type ociRoute struct {
	driver *Ports
	bypasses
}

func newOCIRoute(p *Ports) *ociRoute {
	return &ociRoute{driver: p, bypasses: bypasses{byID: map[string]*bypassed{}}}
}

// start listens for containers without a name, whose ports are in the metadata, or
// which are in the namespace itself.
func (o *ociRoute) start(ctx context.Context) error {
	return o.listen(ctx, filepath.Join(o.driver.sb.StateDir, ociSocket), o.unnamed)
}

// listen hands the containers that come in at a socket over, until ctx ends.
func (o *ociRoute) listen(ctx context.Context, path string, take func(containerState, int) error) error {
	l, err := unixsock.Listen(ctx, path)
	if err != nil {
		return fmt.Errorf("listening for containers: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	o.driver.sessions.Go(func() {
		defer stop()
		defer l.Close()
		for {
			conn, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil { // a shortage
				time.Sleep(shortagePause)
				continue
			}
			if err := receive(conn.(*net.UnixConn), take); err != nil {
				o.driver.log().Warn("a container's filter was not taken over", "error", err)
			}
			conn.Close()
		}
	})
	return nil
}

const (
	shortagePause = 100 * time.Millisecond
	// runtimePatience is how long a runtime that has connected may take.
	runtimePatience = 5 * time.Second
	maxState        = 64 << 10
)

// containerState is what is used of the ContainerProcessState.
type containerState struct {
	FDs      []string `json:"fds"`
	PID      int      `json:"pid"`
	Metadata string   `json:"metadata"`
	State    struct {
		ID string `json:"id"`
	} `json:"state"`
}

// receive reads the one message of a runtime.
func receive(conn *net.UnixConn, take func(containerState, int) error) error {
	uid, err := unixsock.PeerUID(conn)
	if err != nil {
		return err
	}
	if !unixsock.OwnerOrRoot(uid) {
		return fmt.Errorf("uid %d may not hand a container over", uid)
	}
	_ = conn.SetDeadline(time.Now().Add(runtimePatience))
	buf, oob := make([]byte, maxState), make([]byte, unix.CmsgSpace(4*maxFDs))
	n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return err
	}
	fds, err := wire.ParseRights(oob[:oobn])
	if err != nil {
		return err
	}
	state, fd, err := parseState(buf[:n], fds)
	if err != nil {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return err
	}
	for _, other := range fds {
		if other != fd {
			unix.Close(other)
		}
	}
	return take(state, fd)
}

const maxFDs = 16

// parseState finds the listener among the descriptors.
func parseState(b []byte, fds []int) (s containerState, fd int, err error) {
	if err := json.Unmarshal(b, &s); err != nil {
		return s, -1, fmt.Errorf("the state of the container: %w", err)
	}
	for i, name := range s.FDs {
		if name == "seccompFd" && i < len(fds) {
			if s.PID <= 0 {
				return s, -1, fmt.Errorf("the state of the container has PID %d", s.PID)
			}
			return s, fds[i], nil
		}
	}
	return s, -1, errors.New("the state of the container comes without the descriptor seccompFd")
}

// unnamed takes a container in that the socket in the state directory was given
// for: with the ports of its metadata, else for the namespace's.
func (o *ociRoute) unnamed(s containerState, fd int) error {
	specs, err := parseMappings(s.Metadata)
	if err == nil && len(specs) == 0 {
		return o.shared(s, fd)
	}
	c := newContainer(o.driver)
	if err == nil {
		err = c.publish(specs)
	}
	if err != nil {
		c.cancel()
		return errors.Join(err, o.relayed(fd))
	}
	return c.supervise(fd, s.PID, true, c.close)
}

// relayed takes a container in that has no native ports.
func (o *ociRoute) relayed(fd int) error {
	l, err := seccomp.NewListener(fd)
	if err == nil {
		o.driver.letGo(l, func() {})
	}
	return err
}

// shared takes a container in that is in the namespace itself: the published ports
// are its.
func (o *ociRoute) shared(_ containerState, fd int) error {
	p := o.driver
	if p.containersRelayed() != nil {
		return o.relayed(fd)
	}
	l, err := seccomp.NewListener(fd)
	if err != nil {
		return err
	}
	p.run(&session{driver: p, netns: p.child, published: p.published}, l, func(error) {})
	return nil
}

func writePIDFile(path string) error {
	if path == "" {
		return nil
	}
	return os.WriteFile(path, fmt.Appendf(nil, "%d", os.Getpid()), 0o644)
}
