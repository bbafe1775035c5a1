//go:build !no_pasta

package all

import (
	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/pasta"
)

func init() {
	registrations = append(registrations, func(r *driver.Registry) {
		r.Networks = append(r.Networks, driver.NetworkDriver{Name: pasta.Name, MTU: 65520, Ifname: "tap0", IPv6: true, New: pasta.New})
		r.Ports = append(r.Ports,
			driver.PortDriver{Name: "implicit", Networks: []string{pasta.Name}, New: pasta.NewImplicit},
			driver.PortDriver{Name: "pesto", Networks: []string{pasta.Name}, New: pasta.NewPorts})
	})
}
