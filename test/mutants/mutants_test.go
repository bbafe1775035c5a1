package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestMutantsFit: each applies to the program as it is, and there are enough.
func TestMutantsFit(t *testing.T) {
	mutants, err := readAll(".", nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(mutants) < 80 {
		t.Errorf("only %d mutants", len(mutants))
	}
	for _, m := range mutants {
		files := map[string][]byte{}
		for _, h := range m.hunks {
			content := files[h.file]
			if content == nil {
				if content, err = os.ReadFile(filepath.Join("..", "..", h.file)); err != nil {
					t.Errorf("%s: %v", m.name, err)
					continue
				}
			}
			changed, err := h.applied(content)
			if err != nil {
				t.Errorf("%s: %v", m.name, err)
				continue
			}
			files[h.file] = changed
		}
	}
}

func TestHunks(t *testing.T) {
	h := hunk{file: "f", old: []string{"a", "b"}, new: []string{"c"}}
	if got, err := h.applied([]byte("x\n\ta\n\tb\ny")); err != nil || string(got) != "x\nc\ny" {
		t.Errorf("%q, %v", got, err)
	}
	for _, content := range []string{"a\nb\na\nb", "a\nx\nb", ""} {
		if _, err := h.applied([]byte(content)); err == nil {
			t.Errorf("%q: no error", content)
		}
	}
	for _, text := range []string{"", "what\nfile: f\n- a\n", "what\ntest: ./x\n", "what\ntest: ./x\n- a\n"} {
		if _, err := parse("name", text); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}
