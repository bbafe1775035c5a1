//go:build !no_lxcusernic

package all

import "rootlesskit/internal/driver/lxcusernic"

func init() { include(lxcusernic.Driver) }
