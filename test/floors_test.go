package test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestFloors compares the table of docs/ARCHITECTURE.md with the imports of the
// program: each package is on a floor, and imports packages on lower floors only.
func TestFloors(t *testing.T) {
	floors := documentedFloors(t)
	imports := programImports(t)
	for pkg := range floors {
		if _, ok := imports[pkg]; !ok {
			t.Errorf("docs/ARCHITECTURE.md has a row for %s, which is no package", pkg)
		}
	}
	for pkg, imported := range imports {
		floor, ok := floors[pkg]
		if !ok {
			t.Errorf("docs/ARCHITECTURE.md has no row for %s", pkg)
			continue
		}
		for _, other := range imported {
			if at, ok := floors[other]; ok && at >= floor {
				t.Errorf("%s is on floor %d and imports %s, which is on floor %d", pkg, floor, other, at)
			}
		}
	}
}

// documentedFloors reads the rows "| floor | packages | contents |".
func documentedFloors(t *testing.T) map[string]int {
	t.Helper()
	text, err := os.ReadFile("../docs/ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	floors := map[string]int{}
	for _, row := range regexp.MustCompile(`(?m)^\| (\d) \| (.*?) \|`).FindAllStringSubmatch(string(text), -1) {
		floor, _ := strconv.Atoi(row[1])
		for _, pkg := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[2], -1) {
			floors[pkg[1]] = floor
		}
	}
	return floors
}

// onlyForTests are the packages that only tests import.
var onlyForTests = map[string]bool{
	"internal/completion": true, "internal/driver/drivertest": true, "internal/manpage": true,
	"internal/nstest": true, "internal/ports/portstest": true,
}

// programImports returns each package of the program with those that it imports.
func programImports(t *testing.T) map[string][]string {
	t.Helper()
	imports := map[string][]string{}
	for _, dir := range []string{"api", "cmd", "internal"} {
		err := filepath.WalkDir(filepath.Join("..", dir), func(path string, _ fs.DirEntry, err error) error {
			pkg := strings.TrimPrefix(filepath.Dir(path), "../")
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || onlyForTests[pkg] {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			imports[pkg] = append(imports[pkg], "")
			for _, spec := range file.Imports {
				if own, ok := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), "rootlesskit/"); ok {
					imports[pkg] = append(imports[pkg], own)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return imports
}
