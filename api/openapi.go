package api

import _ "embed"

// OpenAPI is the description of the REST API in OpenAPI 3.0 (YAML), as
// GET /v1/openapi.yaml serves it.
//
//go:embed openapi.yaml
var OpenAPI []byte
