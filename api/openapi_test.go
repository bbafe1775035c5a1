package api_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"rootlesskit/api"
)

func loadOpenAPI(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(api.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestOpenAPIIsValid(t *testing.T) {
	doc := loadOpenAPI(t)
	if err := doc.Validate(t.Context(), openapi3.EnableExamplesValidation()); err != nil {
		t.Fatal(err)
	}
	if doc.Info.Version != api.APIVersion {
		t.Errorf("it describes version %s, the API's is %s", doc.Info.Version, api.APIVersion)
	}
}

// The document's schemas and the Go types have the same fields, and every
// field is described.
func TestOpenAPIFollowsTheTypes(t *testing.T) {
	doc := loadOpenAPI(t)
	for _, v := range []any{
		api.Info{}, api.NetworkDriverInfo{}, api.PortDriverInfo{},
		api.PortSpec{}, api.PortStatus{}, api.PortDetails{},
	} {
		typ := reflect.TypeOf(v)
		schema := doc.Components.Schemas[typ.Name()]
		if schema == nil {
			t.Errorf("%s has no schema", typ.Name())
			continue
		}
		var fields []string
		for field := range typ.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			fields = append(fields, name)
			if p := schema.Value.Properties[name]; p == nil || p.Value.Description == "" {
				t.Errorf("%s.%s is not described", typ.Name(), name)
			}
		}
		for name := range schema.Value.Properties {
			if !slices.Contains(fields, name) {
				t.Errorf("%s.%s is described, but is not there", typ.Name(), name)
			}
		}
	}
}
