package all

import (
	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/none"
)

func init() {
	registrations = append(registrations, func(r *driver.Registry) {
		r.Networks = append(r.Networks, driver.NetworkDriver{Name: none.Name, MTU: 1500, New: none.New})
	})
}
