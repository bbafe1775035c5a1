// Package all is the list of the drivers that this binary is built with. Each
// driver has a file here that holds its registration and its build tag, and
// nothing else does.
package all

import "rootlesskit/internal/driver"

// Registry returns the drivers in the order in which help lists them.
func Registry() *driver.Registry {
	r := &driver.Registry{}
	for _, register := range registrations {
		register(r)
	}
	return r
}

var registrations []func(*driver.Registry)
