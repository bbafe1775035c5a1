//go:build !no_slirp4netns

package all

import "rootlesskit/internal/driver/slirp4netns"

func init() { include(slirp4netns.Driver) }
