// Package launch performs one run of RootlessKit from start to end. Start
// reading at handshake.go, which draws it.
package launch

import (
	"log/slog"

	"rootlesskit/api"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/userns"
)

// Config configures a run. It must be valid: Run checks nothing that can be
// known before it touches the system.
type Config struct {
	// Command is the command to run inside, with its arguments.
	Command []string
	// StateDir is the state directory; empty makes a temporary one.
	StateDir string

	// NetworkName and Network are the network driver; with nil, the run shares the
	// host's network namespace.
	NetworkName string
	Network     driver.Network
	// Isolated says that the network is only a loopback interface; /sys then stays
	// as it is.
	Isolated bool
	// NetworkReason and PortsReason say why auto chose these drivers; empty if the
	// user chose them.
	NetworkReason, PortsReason string
	// DetachNetns leaves the command in the host's network namespace; the new one
	// is only $StateDir/netns.
	DetachNetns bool

	// PortsName and Ports are the port driver; nil if no ports can be requested.
	PortsName string
	Ports     driver.Ports
	// Publish lists the ports to publish before the command starts.
	Publish []api.PortSpec

	// Propagation is the mount propagation of /, see package mounts.
	Propagation string
	// CopyUp lists the directories to make writable.
	CopyUp []string

	// PIDNS, CgroupNS, UTSNS and IPCNS ask for additional namespaces.
	PIDNS, CgroupNS, UTSNS, IPCNS bool
	// Reaper runs the command as a session leader, below a process that reaps
	// orphans; it needs PIDNS.
	Reaper bool
	// EvacuateCgroup2 is the sub-cgroup to move the child into; empty: none.
	EvacuateCgroup2 string

	// SubIDSource says where subordinate ids are looked up.
	SubIDSource userns.Source

	// NotifySocket is the socket on which the launcher tells the service manager
	// that the run is ready (sd_notify(3)); the command then does not get the
	// variable. Empty: the command gets the variable and does it.
	NotifySocket string

	// Inherited lists the descriptors above 2 that the command inherits, see
	// InheritedFDs.
	Inherited []int
	// Debug makes the child log debug messages.
	Debug bool
	Log   *slog.Logger
}

// joinsNetns reports whether the command runs in the new network namespace.
func (c *Config) joinsNetns() bool { return c.Network != nil && !c.DetachNetns }
