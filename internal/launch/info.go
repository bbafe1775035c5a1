package launch

import (
	"rootlesskit/api"
	"rootlesskit/internal/driver"
)

// info is the answer to GET /v1/info.
func (r *run) info() (api.Info, error) {
	info := api.Info{
		APIVersion: api.APIVersion,
		Version:    api.Version,
		StateDir:   r.state.path,
		ChildPID:   r.child.pid,
	}
	if r.cfg.Network != nil {
		link := r.link
		if c, ok := r.cfg.Network.(driver.Changing); ok {
			link = c.Link()
		}
		info.NetworkDriver = networkInfo(r.cfg, link)
	}
	if r.cfg.Ports != nil {
		p := r.cfg.Ports.Info()
		p.Reason = r.cfg.PortsReason
		info.PortDriver = &p
	}
	return info, nil
}

func networkInfo(cfg *Config, link driver.Link) *api.NetworkDriverInfo {
	n := &api.NetworkDriverInfo{
		Driver:         cfg.NetworkName,
		Reason:         cfg.NetworkReason,
		DynamicChildIP: link.DynamicIP,
		IPv6:           link.IPv6.IsValid(),
	}
	for _, dns := range link.DNS {
		n.DNS = append(n.DNS, dns.String())
	}
	if link.IPv4.IsValid() {
		n.ChildIP = link.IPv4.Addr().String()
	}
	return n
}
