//go:build !no_gvisortapvsock

package all

import "rootlesskit/internal/driver/gvisor"

func init() { include(gvisor.Driver) }
