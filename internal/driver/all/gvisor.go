//go:build !no_gvisortapvsock

package all

import (
	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/gvisor"
)

const gvisorName = "gvisor-tap-vsock"

func init() {
	registrations = append(registrations, func(r *driver.Registry) {
		r.Networks = append(r.Networks, driver.NetworkDriver{
			Name: gvisorName, MTU: 65520, Ifname: "tap0", IPv6: true, New: gvisor.New,
		})
		r.Ports = append(r.Ports, driver.PortDriver{Name: gvisorName, New: gvisor.NewPorts})
	})
}
