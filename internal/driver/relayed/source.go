package relayed

import (
	"cmp"
	"fmt"
	"slices"

	"rootlesskit/internal/driver"
)

// Flags returns the flags of every driver that uses the relay.
func Flags() []driver.Flag {
	const category = "Port"
	return []driver.Flag{
		{Name: transparentFlag, Kind: driver.Bool, Default: "true", Category: category, Usage: "show the command the real address of clients (port drivers builtin and bypass4netns)"},
		{Name: backendFlag, Default: "auto", Values: backends, Category: category, Usage: "firewall used for --source-ip-transparent"},
	}
}

const (
	transparentFlag = "source-ip-transparent"
	backendFlag     = "source-ip-transparent-backend"
)

var backends = []string{"auto", "nft", "iptables"}

// CheckFlags checks the values of Flags.
func CheckFlags(flags driver.Flags) error {
	if backend := flags.String(backendFlag); backend != "" && !slices.Contains(backends, backend) {
		return fmt.Errorf("unknown %s: %s", backendFlag, backend)
	}
	return nil
}

// readBackend returns the backend for publish.Config, according to the driver's flags.
func readBackend(flags driver.Flags) string {
	if !flags.Bool(transparentFlag) {
		return ""
	}
	return cmp.Or(flags.String(backendFlag), "auto")
}

// sourceExtra says which backend shows servers their clients, and for which protocols.
func (p *Ports) sourceExtra() map[string]string {
	backend := p.Backend()
	extra := map[string]string{"sourceIPTransparentBackend": backend}
	switch {
	case p.backend == "":
	case backend == "none":
		extra["sourceIPTransparentProtocols"] = "tcp" // to servers that are not behind NAT
	default:
		extra["sourceIPTransparentProtocols"] = "tcp,udp"
	}
	return extra
}
