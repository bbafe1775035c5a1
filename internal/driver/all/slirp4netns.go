//go:build !no_slirp4netns

package all

import (
	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/slirp4netns"
)

func init() {
	registrations = append(registrations, func(r *driver.Registry) {
		r.Networks = append(r.Networks, driver.NetworkDriver{Name: slirp4netns.Name, MTU: 65520, Ifname: "tap0", IPv6: true, New: slirp4netns.New})
		r.Ports = append(r.Ports, driver.PortDriver{Name: slirp4netns.Name, Networks: []string{slirp4netns.Name}, New: slirp4netns.NewPorts})
	})
}
