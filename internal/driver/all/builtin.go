package all

import "rootlesskit/internal/driver/builtin"

func init() { include(builtin.Driver) }
