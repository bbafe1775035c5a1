package api

const (
	// Version is the version of this implementation (semver 2.0).
	Version = "3.4.0-dev"
	// APIVersion is the version of the REST API that is described by OpenAPI
	// (semver 2.0). The minor number grows with every addition, the major one
	// with a change that breaks clients, and with it the path's /v1.
	APIVersion = "1.2.0"
)
