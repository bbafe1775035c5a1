package test

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

// TestCheck: this host is fit, the tests run on it; then less and less so.
func TestCheck(t *testing.T) {
	kit := bin("rootlesskit")
	for _, tt := range []struct {
		name    string
		command []string
		failing string // the check that fails; empty for none
	}{
		{"fit", []string{kit, "--check", "--json"}, ""},
		{"helper chosen", []string{kit, "--check", "--json", "--net=slirp4netns"}, ""},
		{"helper missing", []string{kit, "--check", "--json", "--net=slirp4netns", "--slirp4netns-binary=/nosuch"}, "slirp4netns"},
		{"helper not needed", []string{kit, "--check", "--json", "--slirp4netns-binary=/nosuch"}, ""},
		{"no new privileges", []string{"setpriv", "--no-new-privs", kit, "--check", "--json"}, "no-new-privs"},
		{"no user namespaces", []string{"unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
			"echo 0 >/proc/sys/user/max_user_namespaces; exec " + kit + " --check --json"}, "user.max_user_namespaces"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := runCmd(t, exec.CommandContext(t.Context(), tt.command[0], tt.command[1:]...))
			var report struct {
				OK      bool
				Results []struct{ Name, Status, Message, Fix string }
			}
			if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
				t.Fatalf("%v: %q, stderr %q", err, r.stdout, r.stderr)
			}
			failed := ""
			for _, res := range report.Results {
				if res.Status == "error" && failed == "" {
					failed = res.Name
				}
				if (res.Status == "ok") != (res.Fix == "") {
					t.Errorf("%+v", res)
				}
			}
			if failed != tt.failing || report.OK != (tt.failing == "") || (r.code == 0) != report.OK || r.code > 1 {
				t.Errorf("failed %q, want %q; ok %v, code %d\n%s", failed, tt.failing, report.OK, r.code, r.stdout)
			}
		})
	}
	if r := runKit(t, "--check"); r.code != 0 || !strings.HasPrefix(r.stdout, "ok       subids: ") {
		t.Errorf("code %d: %s", r.code, r.stdout)
	}
}
