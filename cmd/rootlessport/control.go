package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/unixsock"
)

// control is the socket through which Podman reports a new address of the container
// (podman network connect, disconnect and reload). A client sends the address as a
// JSON string in one packet, and gets "OK" or an error.
type control struct {
	dir      *os.File
	listener net.Listener
}

const (
	// maxPacket is far more than an address takes.
	maxPacket = 1024
	// clientPatience is how long a client may take to send it.
	clientPatience = time.Minute
	acceptPause    = 100 * time.Millisecond
)

func listenControl(ctx context.Context, cfg *config) (*control, error) {
	path := filepath.Join(cfg.TmpDir, "rp")
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	l, err := unixsock.ListenPackets(ctx, dir, cfg.ContainerID)
	if err != nil {
		dir.Close()
		return nil, fmt.Errorf("listening on %s: %w", filepath.Join(path, cfg.ContainerID), err)
	}
	return &control{dir: dir, listener: l}, nil
}

// serve answers clients until the socket is closed.
func (c *control) serve(retarget func(netip.Addr)) {
	for {
		conn, err := c.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // descriptors are short
			time.Sleep(acceptPause)
			continue
		}
		go func() {
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(clientPatience))
			if _, err := conn.Write([]byte(answer(conn, retarget))); err == nil {
				awaitRead(conn)
			}
		}()
	}
}

// awaitRead waits until the client has read its answer, or is gone. A client that
// looks for it at the moment when a SOCK_SEQPACKET socket is closed may otherwise see
// the end alone: the kernel first looks for a packet, and then, without a look at
// what has come meanwhile, for the end.
func awaitRead(conn net.Conn) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Write(func(fd uintptr) bool {
		unread, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
		return err != nil || unread <= 1 // the kernel wakes writers while it still counts one byte
	})
}

// answer handles the request of a client and returns the reply.
func answer(conn net.Conn, retarget func(netip.Addr)) string {
	packet := make([]byte, maxPacket)
	n, err := conn.Read(packet)
	if err != nil {
		return err.Error()
	}
	ip, err := parseRequest(packet[:n])
	if err != nil {
		return err.Error()
	}
	retarget(ip)
	return "OK"
}

func parseRequest(packet []byte) (netip.Addr, error) {
	var ip string
	if err := json.Unmarshal(packet, &ip); err != nil {
		return netip.Addr{}, fmt.Errorf("expected a JSON string with the container's address: %w", err)
	}
	return parseChildIP(ip)
}

// close ends and removes the socket.
func (c *control) close() {
	c.listener.Close()
	c.dir.Close()
}
