package api

const (
	// Version is the version of this implementation (semver 2.0).
	Version = "3.4.0-dev"
	// APIVersion is the version of the REST API that OpenAPI describes (semver
	// 2.0). Every addition increases the minor number. A change that breaks
	// clients increases the major number, and with it the /v1 of the paths.
	APIVersion = "1.2.0"
)
