// Package launch is one run of RootlessKit from start to end. Start reading at
// handshake.go, which draws it.
package launch

import (
	"log/slog"

	"rootlesskit/api"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/userns"
)

// Config is everything that a run is told. It is validated: Run checks nothing
// that can be known before the system is touched.
type Config struct {
	// Command is what runs inside, with its arguments.
	Command []string
	// StateDir is the state directory; empty makes a temporary one.
	StateDir string

	// NetworkName and Network are the network driver; nil shares the host's
	// network namespace.
	NetworkName string
	Network     driver.Network
	// Isolated says that the network is a loopback interface alone; /sys stays as it
	// is then.
	Isolated bool
	// NetworkReason and PortsReason say why these drivers were chosen; empty
	// where the user chose.
	NetworkReason, PortsReason string
	// DetachNetns leaves the command in the host's network namespace and makes
	// the new one as $StateDir/netns only.
	DetachNetns bool

	// PortsName and Ports are the port driver; nil is one that nobody can ask for a
	// port.
	PortsName string
	Ports     driver.Ports
	// Publish lists the ports to publish before the command starts.
	Publish []api.PortSpec

	// Propagation is the mount propagation of /, see package mounts.
	Propagation string
	// CopyUp lists the directories to make writable.
	CopyUp []string

	// PIDNS, CgroupNS, UTSNS and IPCNS ask for further namespaces.
	PIDNS, CgroupNS, UTSNS, IPCNS bool
	// Reaper makes the command a session leader below a process that reaps
	// orphans; it needs PIDNS.
	Reaper bool
	// EvacuateCgroup2 is the sub-cgroup to move the child into; empty: none.
	EvacuateCgroup2 string

	// SubIDSource says where subordinate ids are looked up.
	SubIDSource userns.Source

	// NotifySocket is where the launcher itself tells the service manager that
	// the run is ready (sd_notify(3)), in place of the command, which does not
	// get the variable then; empty: the command may.
	NotifySocket string

	// Inherited lists the descriptors above 2 that the command is to inherit,
	// see InheritedFDs.
	Inherited []int
	// Debug makes the child log debug messages.
	Debug bool
	Log   *slog.Logger
}

// joinsNetns reports whether the command lives in the new network namespace.
func (c *Config) joinsNetns() bool { return c.Network != nil && !c.DetachNetns }
