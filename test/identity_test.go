package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"rootlesskit/internal/nstest"
)

// groupFileEnv names a file that only a supplementary group of the test user
// may read. Root makes it, as nobody else can.
const groupFileEnv = "ROOTLESSKIT_TEST_GROUP_FILE"

func makeGroupFile(dir string) error {
	path := filepath.Join(dir, "for-the-group")
	if err := os.WriteFile(path, []byte("for the group\n"), 0o640); err != nil {
		return err
	}
	if err := os.Chown(path, 0, nstest.ExtraGroup); err != nil {
		return err
	}
	return os.Setenv(groupFileEnv, path)
}

// TestGroups: the caller's supplementary groups are kept, and still open what
// only they may read.
func TestGroups(t *testing.T) {
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	others := len(slices.DeleteFunc(groups, func(g int) bool { return g == os.Getgid() }))
	if others == 0 {
		t.Skip("this user has no supplementary group; as root, the tests give the test user one")
	}
	for _, flags := range [][]string{{"--net=host"}, {"--net=none", "--pidns"}, {"--net=gvisor-tap-vsock", "--detach-netns"}, {"--copy-up=/etc"}} {
		r := runKit(t, append(flags, "sh", "-c", `sed -n 's/^Groups://p' /proc/self/status; cat "$`+groupFileEnv+`"`)...)
		seen, content, _ := strings.Cut(r.stdout, "\n")
		if strings.Count(seen, "65534") != others {
			t.Errorf("%v: groups inside: %q, the caller has %d", flags, seen, others)
		}
		if os.Getenv(groupFileEnv) != "" && content != "for the group\n" {
			t.Errorf("%v: the group's file reads %q: %s", flags, content, r.stderr)
		}
	}
}

// TestUserWithoutName: a user of no database starts, with the own id.
func TestUserWithoutName(t *testing.T) {
	const outer, passwd = "unshare", "mount -t tmpfs none /mnt && grep -v ^%s: /etc/passwd >/mnt/passwd && mount --bind /mnt/passwd /etc/passwd && "
	script := fmt.Sprintf(passwd, nstest.TestUser)
	// The user is changed back, so that newuidmap sees the nameless one too.
	inner := fmt.Sprintf("%[1]s --net=none sh -c 'id -u; cat /proc/self/uid_map' && %[1]s --check", bin("rootlesskit"))
	r := runCmd(t, exec.CommandContext(t.Context(), outer, "--user", "--map-root-user", "--mount", "sh", "-c",
		script+fmt.Sprintf("exec unshare --user --map-user=%d --map-group=%d sh -c %s", os.Getuid(), os.Getgid(), shellQuote(inner))))
	if r.code != 0 || !strings.HasPrefix(r.stdout, "0\n") {
		t.Fatalf("code %d: %q, %s", r.code, r.stdout, r.stderr)
	}
	fields := strings.Fields(r.stdout)
	if len(fields) < 4 || fields[2] != strconv.Itoa(os.Getuid()) || fields[3] != "1" {
		t.Errorf("the map is %q", r.stdout)
	}
	if !strings.Contains(r.stdout, "no user "+fields[2]) || strings.Contains(r.stdout, "\nerror") {
		t.Errorf("the report is %s", r.stdout)
	}
	if !strings.Contains(r.stderr, "only the user's own id is mapped") {
		t.Errorf("it is not said: %s", r.stderr)
	}
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// TestMapToolFails: one line says why, and what to do.
func TestMapToolFails(t *testing.T) {
	copied := filepath.Join(t.TempDir(), "newuidmap")
	program, err := exec.LookPath("newuidmap")
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied, content, 0o755); err != nil {
		t.Fatal(err)
	}
	kit := bin("rootlesskit")
	for name, tt := range map[string]struct {
		command []string
		want    string
	}{
		"no_new_privs": {[]string{"setpriv", "--no-new-privs", kit, "true"},
			"failed: no_new_privs is set, so " + filepath.Dir(program)},
		"no setuid bit": {[]string{"env", "PATH=" + filepath.Dir(copied) + ":" + os.Getenv("PATH"), kit, "true"},
			"newuidmap failed: " + copied + " is neither setuid root nor has file capabilities: sudo chown root " + copied + " && sudo chmod u+s " + copied},
	} {
		t.Run(name, func(t *testing.T) {
			r := runCmd(t, exec.CommandContext(t.Context(), tt.command[0], tt.command[1:]...))
			if r.code != 1 || !strings.HasPrefix(r.stderr, "[rootlesskit:parent] error: new") || !strings.Contains(r.stderr, tt.want) || strings.Count(r.stderr, "\n") != 1 {
				t.Errorf("code %d: %s", r.code, r.stderr)
			}
		})
	}
}
