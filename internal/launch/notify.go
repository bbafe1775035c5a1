package launch

import (
	"fmt"
	"net"
	"strings"
)

// notifySocket is the variable of sd_notify(3).
const notifySocket = "NOTIFY_SOCKET"

// notify tells the service manager of a new state, where it is the launcher
// that is to tell (Config.NotifySocket). A failure is no reason to end a run.
func (r *run) notify(state ...string) {
	if r.cfg.NotifySocket == "" {
		return
	}
	if err := sdNotify(r.cfg.NotifySocket, strings.Join(state, "\n")); err != nil {
		r.cfg.Log.Warn("the service manager could not be notified", "state", state[0], "error", err)
	}
}

// sdNotify sends a message to a socket as NOTIFY_SOCKET names it: a path, or an
// abstract name after "@", which is the form of package net too.
func sdNotify(socket, message string) error {
	if !strings.HasPrefix(socket, "/") && !strings.HasPrefix(socket, "@") {
		return fmt.Errorf("%s=%q is neither an absolute path nor an abstract name", notifySocket, socket)
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte(message))
	return err
}
