//go:build !no_lxcusernic

package all

import (
	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/lxcusernic"
)

func init() {
	registrations = append(registrations, func(r *driver.Registry) {
		r.Networks = append(r.Networks, driver.NetworkDriver{Name: lxcusernic.Name, MTU: 1500, Ifname: "eth0", New: lxcusernic.New})
		r.Child = append(r.Child, lxcusernic.Handlers)
	})
}
