package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// peer is who connected, or why that is not known.
type peer struct {
	uid uint32
	err error
}

type peerKey struct{}

// isOwnerOrRoot is the rule: this process's own user and root. A process in
// the child's user namespace is seen here with the uid that its own maps to:
// its root is our own user, while the others are subordinate ids.
func isOwnerOrRoot(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }

// checkPeer refuses requests of peers that are not allowed.
func (s *Server) checkPeer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, ok := r.Context().Value(peerKey{}).(peer)
		switch {
		case !ok:
			s.refuse(w, errors.New("the peer is not known"))
		case p.err != nil:
			s.refuse(w, fmt.Errorf("reading the peer's credentials: %w", p.err))
		case !s.peerAllowed(p.uid):
			s.refuse(w, fmt.Errorf("uid %d may not use this API: only uid %d and root may", p.uid, os.Geteuid()))
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func (s *Server) refuse(w http.ResponseWriter, err error) {
	s.cfg.Log.Warn("refused an API request", "reason", err)
	w.Header().Set("Connection", "close")
	s.sendError(w, http.StatusForbidden, err)
}

// withPeer adds who has connected.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	uid, err := peerUID(conn)
	return context.WithValue(ctx, peerKey{}, peer{uid, err})
}

// peerUID returns the effective uid of the process that connected, at the time
// it did (SO_PEERCRED, unix(7)).
func peerUID(conn net.Conn) (uint32, error) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return 0, fmt.Errorf("%T is not a socket", conn)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	ctlErr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if ctlErr != nil {
		return 0, ctlErr
	}
	if err != nil {
		return 0, os.NewSyscallError("getsockopt", err)
	}
	return cred.Uid, nil
}
