package launch

import (
	"fmt"

	"rootlesskit/internal/seccomp"
	"rootlesskit/internal/wire"
)

// One run, as messages between the two halves of the program:
//
//	parent                                   child (a new user namespace, ids unmapped)
//	  clone+exec ------------------------------>
//	  newuidmap, newgidmap
//	  setup {mounts, netns, ...} -------------->
//	                                           mounts, netns, loopback up
//	  <------------------------------- ready, or failed {error}
//	                                           serves calls from here on
//	  network driver attaches --- calls ------->  e.g. open a TAP, set addresses
//	  etc {resolv.conf, hosts} --- call ------->  bind mounts over /etc
//	  port driver starts, -p is published ----->  e.g. make sockets
//	  child_pid, then api.sock appear
//	  exec {taken sockets} -------- call ------>  the command starts
//	  <---- the child's exit code is the command's
//
// Each side sees the death of the other as an end of file on the wire: the
// parent fails the step in progress, the child kills everything it started. So
// no step can hang, and nothing outlives either.

// The kinds of message before the child serves calls.
const (
	kindSetup  = "setup"
	kindReady  = "ready"
	kindFailed = "failed"
)

// The launcher's own calls.
const (
	etcMethod  wire.Method[etcRequest, wire.None]  = "launch.etc"
	execMethod wire.Method[execRequest, execReply] = "launch.exec"
)

// childSetup is everything the child needs to know; it never parses flags. The
// command and its environment are the child's own arguments and environment,
// since they may be larger than a message.
type childSetup struct {
	StateDir string `json:"stateDir"`
	// StateDirID identifies the directory itself, whatever is at its path now.
	StateDirID fileID `json:"stateDirID"`
	// WipeStateDir says that an earlier run left files that only the child may remove.
	WipeStateDir bool `json:"wipeStateDir,omitempty"`
	NewNetns     bool `json:"newNetns,omitempty"`
	DetachNetns  bool `json:"detachNetns,omitempty"`
	MountSys     bool `json:"mountSys,omitempty"`
	// MountCgroup2 shows the command its own cgroups.
	MountCgroup2 bool     `json:"mountCgroup2,omitempty"`
	Propagation  string   `json:"propagation"`
	CopyUp       []string `json:"copyUp,omitempty"`
	// PIDNS says that the child is the first process of a PID namespace.
	PIDNS bool `json:"pidns,omitempty"`
	// Setsid makes the command a session leader. It is not set if the caller has a
	// terminal: the new session could not have that terminal, and a shell without
	// a terminal has no job control.
	Setsid bool `json:"setsid,omitempty"`
	// Activation says that LISTEN_PID named the parent (sd_listen_fds(3)).
	Activation bool `json:"activation,omitempty"`
	Debug      bool `json:"debug,omitempty"`
}

// etcRequest asks the child to mount files of the state directory over those of /etc.
type etcRequest struct {
	Files []string `json:"files"`
}

// execRequest starts the command. Taken are the inherited descriptors that
// serve published ports.
type execRequest struct {
	Taken []int `json:"taken,omitempty"`
	// Policy says which calls of the command the port driver supervises; nil: none.
	Policy *seccomp.Policy `json:"policy,omitempty"`
}

// execReply comes with the listener of a seccomp filter, if one was asked for.
type execReply struct {
	// PolicyError says why there is no listener.
	PolicyError string `json:"policyError,omitempty"`
}

func newChildSetup(cfg *Config, state *stateDir) childSetup {
	return childSetup{
		StateDir:     state.path,
		StateDirID:   state.id,
		WipeStateDir: state.leftovers,
		NewNetns:     cfg.Network != nil || cfg.DetachNetns,
		DetachNetns:  cfg.DetachNetns,
		MountSys:     cfg.joinsNetns() && !cfg.Isolated,
		MountCgroup2: cfg.EvacuateCgroup2 != "",
		Propagation:  cfg.Propagation,
		CopyUp:       cfg.CopyUp,
		Setsid:       cfg.Reaper && !hasTerminal(),
		PIDNS:        cfg.PIDNS,
		Activation:   activatedParent(),
		Debug:        cfg.Debug,
	}
}

// awaitReady waits for the child's answer to setup.
func awaitReady(conn *wire.Conn) error {
	m, err := conn.Recv()
	if err != nil {
		return fmt.Errorf("the child ended before it was set up: %w", err)
	}
	switch m.Kind {
	case kindReady:
		return nil
	case kindFailed:
		return fmt.Errorf("setting up the child: %s", m.Error)
	}
	return fmt.Errorf("setting up the child: unexpected message %q", m.Kind)
}
