package all

import (
	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/builtin"
)

func init() {
	registrations = append(registrations, func(r *driver.Registry) {
		r.Ports = append(r.Ports, driver.PortDriver{Name: "builtin", New: builtin.New})
	})
}
