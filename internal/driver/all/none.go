package all

import "rootlesskit/internal/driver/none"

func init() { include(none.Driver) }
