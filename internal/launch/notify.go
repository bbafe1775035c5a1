package launch

import (
	"fmt"
	"net"
	"strings"
)

// notifySocket is the variable of sd_notify(3).
const notifySocket = "NOTIFY_SOCKET"

// notify tells the service manager about a new state, if that is the launcher's
// task (Config.NotifySocket). A failure does not end the run.
func (r *run) notify(state ...string) {
	if r.cfg.NotifySocket == "" {
		return
	}
	if err := sdNotify(r.cfg.NotifySocket, strings.Join(state, "\n")); err != nil {
		r.cfg.Log.Warn("the service manager could not be notified", "state", state[0], "error", err)
	}
}

// sdNotify sends a message to a socket in the form of NOTIFY_SOCKET: a path, or
// "@" and an abstract name, which package net understands too.
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
