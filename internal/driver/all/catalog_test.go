package all_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/all"
)

// TestCatalog: the catalog says of every driver what the driver says of itself, and
// has no other.
func TestCatalog(t *testing.T) {
	drivers := map[string]*driver.Driver{}
	for d := range all.Registry().Drivers {
		drivers[d.Name] = d
	}
	for _, known := range all.Catalog() {
		d := drivers[known.Name]
		delete(drivers, known.Name)
		if d == nil {
			if known.Retired == "" && known.Tag == "" {
				t.Errorf("%s is not registered, and no build tag leaves it out", known.Name)
			}
			continue
		}
		var ports []string
		for _, p := range d.Ports {
			ports = append(ports, p.Name)
		}
		if known.Network != (d.Network != nil) || !slices.Equal(known.Ports, ports) {
			t.Errorf("the catalog has %s with a network: %v, and port drivers %v: it has %v", known.Name, known.Network, known.Ports, ports)
		}
		if got, want := flagLines(known.Flags), flagLines(d.Flags); !slices.Equal(got, want) {
			t.Errorf("the catalog has the flags of %s as %v: they are %v", known.Name, got, want)
		}
	}
	for name := range drivers {
		t.Errorf("the catalog does not have %s", name)
	}
}

// flagLines are flags, as much as the catalog has of them.
func flagLines(flags []driver.Flag) []string {
	var lines []string
	for _, f := range flags {
		lines = append(lines, fmt.Sprintf("--%s=%s kind %d hidden %v strict %v", f.Name, f.Default, f.Kind, f.Hidden, f.Strict))
	}
	slices.Sort(lines)
	return lines
}

// TestTableOfTags: the documentation of the build tags is the catalog's.
func TestTableOfTags(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/BUILDING.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, known := range all.Catalog() {
		if known.Tag == "" {
			continue
		}
		var network []string
		if known.Network && known.Retired == "" {
			network = []string{known.Name}
		}
		row := fmt.Sprintf("| `%s` | %s |%s|%s|\n", known.Tag, known.Summary, code(network), code(known.Ports))
		if !strings.Contains(string(doc), row) {
			t.Errorf("docs/BUILDING.md has no row %s", row)
		}
	}
}

// code is a cell of a table.
func code(names []string) string {
	if len(names) == 0 {
		return " "
	}
	return " `" + strings.Join(names, "`, `") + "` "
}
