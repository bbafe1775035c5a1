package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"

	"rootlesskit/internal/unixsock"
)

// peer is the user who connected, or why that is not known.
type peer struct {
	uid uint32
	err error
}

type peerKey struct{}

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

// withPeer adds the peer of the connection.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	uid, err := unixsock.PeerUID(conn)
	return context.WithValue(ctx, peerKey{}, peer{uid, err})
}
