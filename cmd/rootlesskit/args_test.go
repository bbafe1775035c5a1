package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"rootlesskit/internal/driver/all"
)

func TestSplitCommand(t *testing.T) {
	known := flags(all.Registry())
	for _, tt := range []struct{ args, own, command string }{
		{"", "", ""},
		{"bash", "", "bash"},
		{"--net=none bash -c x", "--net=none", "bash -c x"},
		{"--net none bash", "--net none", "bash"},
		{"-net none --pidns bash --pidns", "-net none --pidns", "bash --pidns"},
		{"-p 1:1/tcp -p 2:2/tcp -- --odd", "-p 1:1/tcp -p 2:2/tcp", "--odd"},
		{"env -- x", "", "env -- x"},
		{"- x", "", "- x"},
		{"--debug false", "--debug", "false"},
		{"--help bash", "--help", "bash"},
		{"--net", "--net", ""},
	} {
		own, command := splitCommand(known, strings.Fields(tt.args))
		if d := cmp.Diff([]string{tt.own, tt.command}, []string{strings.Join(own, " "), strings.Join(command, " ")}); d != "" {
			t.Errorf("%q: %s", tt.args, d)
		}
	}
}
