package main

import (
	"fmt"
	"slices"
	"strings"

	"rootlesskit/internal/driver"
)

// description is the description in the help. Its example names the best drivers of
// this binary.
func description(reg *driver.Registry) string {
	best := "--net=" + driver.AutoName + " --disable-host-loopback --port-driver=" + driver.AutoName
	if c, err := bestDrivers(reg); err == nil {
		best = fmt.Sprintf("--net=%s --disable-host-loopback --port-driver=%s", c.Network, c.Ports)
	}
	return `RootlessKit runs a command as "fake root", using user_namespaces(7).

Examples:
  # a shell in a new user namespace and a mount namespace
  rootlesskit bash

  # make /etc writable
  rootlesskit --copy-up=/etc bash

  # a new network namespace, with its port 80 published as port 8080 of the host
  rootlesskit --copy-up=/etc \
    ` + best + ` \
    -p 127.0.0.1:8080:80/tcp bash

/etc/subuid and /etc/subgid should list subordinate ids for the user, see subuid(5).`
}

// bestDrivers returns the drivers that auto chooses if all of them work.
func bestDrivers(reg *driver.Registry) (driver.Choice, error) {
	want := driver.Want{Network: driver.AutoName, Ports: driver.AutoName, Isolate: true}
	return driver.Choose(reg, want, func(string, string) error { return nil })
}

// networksThat returns the names of the networks that have a property.
func networksThat(reg *driver.Registry, has func(*driver.NetworkRole) bool) []string {
	var names []string
	for _, name := range reg.Networks() {
		if has(reg.Network(name)) {
			names = append(names, name)
		}
	}
	return names
}

// defaults lists the default values of the networks, the most common first:
// "tap0; eth0 for lxc-user-nic".
func defaults(reg *driver.Registry, of func(*driver.NetworkRole) string) string {
	var values []string
	having := map[string][]string{}
	for _, name := range reg.Networks() {
		role := reg.Network(name)
		value := of(role)
		if role.Isolated {
			continue
		}
		if having[value] == nil {
			values = append(values, value)
		}
		having[value] = append(having[value], name)
	}
	slices.SortStableFunc(values, func(a, b string) int { return len(having[b]) - len(having[a]) })
	for i, value := range values[min(1, len(values)):] {
		values[i+1] = value + " for " + enumerate(having[value], "and")
	}
	return strings.Join(values, "; ")
}

// enumerate joins words: "a, b and c".
func enumerate(words []string, conjunction string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " " + conjunction + " " + words[last]
}
