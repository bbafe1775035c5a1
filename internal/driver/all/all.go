// Package all lists the drivers that this binary is built with. Each driver has
// a file here with its build tag, and an entry in the catalog, which also
// describes drivers that were left out.
package all

import "rootlesskit/internal/driver"

// Registry returns the drivers, in the order of the catalog.
func Registry() *driver.Registry {
	r := driver.NewRegistry(Catalog()...)
	for _, describe := range included {
		r.Register(describe())
	}
	return r
}

// included are the drivers of this build.
var included []func() driver.Driver

func include(describe func() driver.Driver) { included = append(included, describe) }
