package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"rootlesskit/api"
)

// config is the configuration that Podman writes to standard input.
type config struct {
	Mappings []mapping
	// NetNSPath names the container's network namespace.
	NetNSPath string
	// ExitFD reaches end of file when the container ends. ReadyFD receives a byte
	// when all ports are open.
	ExitFD, ReadyFD int
	// TmpDir and ContainerID name the socket for changes of the address. RootlessCNI
	// says that there is one: the container is on a bridge network, which may change.
	TmpDir, ContainerID string
	RootlessCNI         bool
	// ChildIP is the container's address, at which the server is reached.
	ChildIP string
}

// mapping is a range of published ports.
type mapping struct {
	HostIP        string `json:"host_ip"`
	ContainerPort int    `json:"container_port"`
	HostPort      int    `json:"host_port"`
	Range         int    `json:"range"`    // how many; 0 is one
	Protocol      string `json:"protocol"` // several with commas between
}

// maxConfig is enough for every port of every protocol.
const maxConfig = 64 << 20

func readConfig(r io.Reader) (*config, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	if len(text) > maxConfig {
		return nil, fmt.Errorf("the configuration is longer than %d bytes", maxConfig)
	}
	cfg := &config{}
	if err := json.Unmarshal(text, cfg); err != nil {
		return nil, fmt.Errorf("the configuration on the standard input: %w", err)
	}
	if cfg.NetNSPath == "" {
		return nil, errors.New("missing NetNSPath")
	}
	if cfg.RootlessCNI && (cfg.TmpDir == "" || cfg.ContainerID == "" || strings.Contains(cfg.ContainerID, "/")) {
		return nil, fmt.Errorf("TmpDir %q and ContainerID %q name no socket", cfg.TmpDir, cfg.ContainerID)
	}
	return cfg, nil
}

// childIP returns the container's address, or the unspecified address if none is known.
func (c *config) childIP() (netip.Addr, error) { return parseChildIP(c.ChildIP) }

func parseChildIP(s string) (netip.Addr, error) {
	if s == "" {
		return netip.IPv4Unspecified(), nil
	}
	ip, err := netip.ParseAddr(s)
	if err != nil {
		return ip, fmt.Errorf("invalid child IP %q", s)
	}
	return ip.Unmap(), nil
}

// specs returns the ports of all mappings.
func (c *config) specs() ([]api.PortSpec, error) {
	var all []api.PortSpec
	for _, m := range c.Mappings {
		if err := m.check(); err != nil {
			return nil, err
		}
		for proto := range strings.SplitSeq(m.Protocol, ",") {
			for i := range max(m.Range, 1) {
				all = append(all, api.PortSpec{Proto: api.Proto(proto), ParentIP: m.HostIP, ParentPort: m.HostPort + i, ChildPort: m.ContainerPort + i})
			}
		}
	}
	return all, nil
}

// check also brings the host's address into the form that errors use.
func (m *mapping) check() error {
	if m.HostIP == "" {
		m.HostIP = "0.0.0.0"
	}
	for proto := range strings.SplitSeq(m.Protocol, ",") {
		if proto != "tcp" && proto != "udp" {
			return fmt.Errorf("unsupported port protocol %q: tcp and udp can be published", proto)
		}
	}
	last := max(m.Range, 1) - 1
	for _, first := range []int{m.HostPort, m.ContainerPort} {
		if first < 1 || m.Range < 0 || last > maxPort || first+last > maxPort {
			return fmt.Errorf("ports %d to %d are not in 1-%d", first, first+last, maxPort)
		}
	}
	return nil
}

const maxPort = 1<<16 - 1
