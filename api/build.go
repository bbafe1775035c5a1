package api

import (
	"cmp"
	"runtime/debug"
)

// commit names the commit of the sources. The linker sets it (see the Makefile).
var commit string

// Build is the version of this binary, with the commit that it was built from, if
// known: "1.2.3, commit 0123abc".
func Build() string {
	name := commit
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Path == "rootlesskit" {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				name = cmp.Or(name, s.Value)
			}
		}
	}
	if name == "" {
		return Version
	}
	return Version + ", commit " + name
}
