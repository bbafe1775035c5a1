//go:build !no_bypass4netns

package all

import "rootlesskit/internal/driver/bypass"

func init() { include(bypass.Driver) }
