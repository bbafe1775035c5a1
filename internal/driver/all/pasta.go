//go:build !no_pasta

package all

import "rootlesskit/internal/driver/pasta"

func init() { include(pasta.Driver) }
