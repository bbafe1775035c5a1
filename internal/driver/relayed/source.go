package relayed

import (
	"cmp"

	"rootlesskit/internal/driver"
)

// readBackend returns the backend for publish.Config, by the driver's own flags.
func readBackend(flags driver.Flags) string {
	switch {
	case flags == nil: // tests
		return "auto"
	case !flags.Bool("source-ip-transparent"):
		return ""
	}
	return cmp.Or(flags.String("source-ip-transparent-backend"), "auto")
}

// sourceExtra says by what, and for which protocols, servers see clients.
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
