//go:build !no_bypass4netns

package all

import (
	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/bypass"
)

func init() {
	registrations = append(registrations, func(r *driver.Registry) {
		r.Child = append(r.Child, bypass.Handlers)
		r.Ports = append(r.Ports, driver.PortDriver{Name: bypass.Name, New: bypass.New})
	})
}
