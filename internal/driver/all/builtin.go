package all

import (
	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/builtin"
	"rootlesskit/internal/sourceip"
)

func init() {
	registrations = append(registrations, func(r *driver.Registry) {
		r.Child = append(r.Child, sourceip.Handlers)
		r.Ports = append(r.Ports, driver.PortDriver{Name: "builtin", New: builtin.New})
	})
}
