package mounts_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"rootlesskit/internal/mounts"
)

// inNamespaces runs a stage as root of a user namespace with mounts and a
// network of its own, and returns what it reports.
func inNamespaces(t *testing.T, name string, env ...string) string {
	t.Helper()
	cmd := stage(name, &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	})
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// layouts are the mounts below /sys/fs/cgroup of the kinds of hosts, and more
// below them.
var layouts = map[string][]string{
	"v1":     {"", "/cpu,cpuacct", "/memory", "/memory/nested", "/systemd"},
	"hybrid": {"", "/cpu,cpuacct", "/unified", "/unified/nested", "/systemd"},
	"v2":     {"", "/nested", "/nested/deeper"},
	"twice":  {"", "", "/nested"},
}

// TestSys: every mount below /sys is there again over the fresh one, with its
// flags, whatever the host's cgroups look like.
func TestSys(t *testing.T) {
	for name := range layouts {
		if out := inNamespaces(t, "sys", "LAYOUT="+name); out != "" {
			t.Errorf("%s: %s", name, out)
		}
	}
}

// sysStage reports the mounts that are lost or changed.
func sysStage() (string, error) {
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return "", err
	}
	for i, below := range layouts[os.Getenv("LAYOUT")] {
		path := "/sys/fs/cgroup" + below
		if err := os.MkdirAll(path, 0o755); err != nil {
			return "", err
		}
		flags := []uintptr{0, unix.MS_NOSUID | unix.MS_NOEXEC, unix.MS_NODEV}[i%3]
		if err := unix.Mount("none", path, "tmpfs", flags, fmt.Sprintf("size=%dk", 64*(i+1))); err != nil {
			return "", fmt.Errorf("mounting at %s: %w", path, err)
		}
	}
	last := layouts[os.Getenv("LAYOUT")][len(layouts[os.Getenv("LAYOUT")])-1]
	if err := unix.Mount("", "/sys/fs/cgroup"+last, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID, ""); err != nil {
		return "", err
	}
	before, err := below("/sys/")
	if err != nil {
		return "", err
	}
	if !strings.Contains(before, "/sys/fs/cgroup ") {
		return "the layout was not made: " + before, nil
	}
	if err := mounts.Sys(); err != nil {
		return "", err
	}
	after, err := below("/sys/")
	if before != after || err != nil {
		return fmt.Sprintf("%v\nbefore:\n%safter:\n%s", err, before, after), nil
	}
	links, err := filepath.Glob("/sys/class/net/*")
	if len(links) != 1 || filepath.Base(links[0]) != "lo" {
		return fmt.Sprintf("devices: %v, %v", links, err), nil
	}
	return "", nil
}

// below lists the mounts below a directory as who goes there meets them:
// mountinfo has covered ones too.
func below(dir string) (string, error) {
	infos, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		return !strings.HasPrefix(i.Mountpoint, dir), false
	})
	var points []string
	for _, i := range infos {
		if !slices.Contains(points, i.Mountpoint) {
			points = append(points, i.Mountpoint)
		}
	}
	return fileSystems(points...), err
}

// fileSystems describes those at some paths, with the flags of their mounts.
func fileSystems(paths ...string) string {
	var b strings.Builder
	for _, path := range paths {
		var st unix.Stat_t
		var fs unix.Statfs_t
		if err := errors.Join(unix.Stat(path, &st), unix.Statfs(path, &fs)); err != nil {
			continue // covered
		}
		fmt.Fprintf(&b, "%s type %#x device %#x flags %#x\n", path, fs.Type, st.Dev, fs.Flags)
	}
	return b.String()
}

// TestCgroup2: what was mounted below the old /sys/fs/cgroup is over the own one.
func TestCgroup2(t *testing.T) {
	if out := inNamespaces(t, "cgroup2"); out != "" {
		t.Error(out)
	}
}

func cgroup2Stage() (string, error) {
	const file = "/sys/fs/cgroup/cgroup.stat" // every cgroup but the root of all has it
	for _, m := range []struct{ source, target, fs string }{{"none", "/", ""}, {"none", "/sys/fs/cgroup", "tmpfs"}, {file, file, ""}} {
		flags := map[string]uintptr{"/": unix.MS_REC | unix.MS_PRIVATE, file: unix.MS_BIND}[m.target]
		if m.target == file {
			if err := os.WriteFile(file, []byte("mine"), 0o644); err != nil {
				return "", err
			}
		}
		if err := unix.Mount(m.source, m.target, m.fs, flags, ""); err != nil {
			return "", fmt.Errorf("mounting at %s: %w", m.target, err)
		}
	}
	if err := mounts.Cgroup2(); err != nil {
		return "", err
	}
	var st unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &st); err != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
		return fmt.Sprintf("the file system has type %#x, %v", st.Type, err), nil
	}
	if got := read(file); got != "mine" {
		return fmt.Sprintf("the file reads %q", got), nil
	}
	return "", nil
}

// TestCopyUp: every entry leads to what it leads to on the host, and can be
// replaced.
func TestCopyUp(t *testing.T) {
	for _, dir := range []string{"/tmp/copyup-test/etc", "/mnt/etc", "/mnt/a/b/c"} {
		if out := inNamespaces(t, "copyup", "DIR="+dir); out != "" {
			t.Errorf("%s: %s", dir, out)
		}
	}
}

func copyUpStage() (string, error) {
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return "", err
	}
	dir := os.Getenv("DIR")
	for _, at := range []string{"/tmp", "/mnt"} {
		if err := unix.Mount("none", at, "tmpfs", 0, ""); err != nil {
			return "", err
		}
	}
	outside := filepath.Join(filepath.Dir(dir), "outside")
	if err := makeTree(dir, outside); err != nil {
		return "", err
	}
	mounted := func() string { return fileSystems(dir+"/mounted", dir+"/mounted/deeper") }
	mountedBefore := mounted()
	before := snapshot(dir)
	if len(before) < 15 {
		return fmt.Sprintf("the tree was not made: %v", before), nil
	}
	if err := mounts.CopyUp(dir); err != nil {
		return "", err
	}
	var b strings.Builder
	for path, content := range before {
		if now := read(path); now != content {
			fmt.Fprintf(&b, "%s reads %q, was %q\n", path, now, content)
		}
	}
	if now := mounted(); now != mountedBefore {
		fmt.Fprintf(&b, "mounts below: %swere\n%s", now, mountedBefore)
	}
	replaceCopies(&b, dir, outside)
	return b.String(), nil
}

// makeTree makes what is copied up: files, mounts, and links of all kinds, also to the
// directory outside.
func makeTree(dir, outside string) error {
	for _, d := range []string{dir + "/ssl/deep", dir + "/plain", outside + "/real"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	files := map[string]string{dir + "/file": "file", dir + "/plain/file": "plain", dir + "/ssl/file": "ssl", outside + "/f": "f", outside + "/real/g": "g"}
	for path, content := range files {
		if err := os.WriteFile(path, []byte(content), 0o640); err != nil {
			return err
		}
	}
	links := map[string]string{ // link, target: what it reads
		"top":            "../outside/f",
		"absolute":       outside + "/f",
		"neighbour":      "file",
		"dangling":       "../nowhere",
		"ssl/certs":      "../../outside/real",
		"ssl/inner":      "file",
		"ssl/deep/out":   "../../../outside/f",
		"ssl/deep/in":    "../file",
		"plain/in":       "../file",
		"plain/absolute": outside + "/f",
	}
	for link, target := range links {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			return err
		}
	}
	for _, m := range []struct {
		path  string
		flags uintptr
	}{{"/mounted", unix.MS_NOSUID | unix.MS_NOEXEC}, {"/mounted/deeper", unix.MS_RDONLY | unix.MS_NODEV}} {
		if err := errors.Join(os.Mkdir(dir+m.path, 0o755), unix.Mount("none", dir+m.path, "tmpfs", m.flags, "")); err != nil {
			return err
		}
	}
	return nil
}

// replaceCopies tells what is wrong with writing to the copies.
func replaceCopies(b *strings.Builder, dir, outside string) {
	for _, path := range []string{"/file", "/top", "/plain", "/ssl/certs", "/ssl/file"} {
		if err := os.RemoveAll(dir + path); err != nil {
			fmt.Fprintln(b, err)
		}
		if err := os.WriteFile(dir+path, []byte("mine"), 0o644); err != nil {
			fmt.Fprintln(b, err)
		}
	}
	if got := read(outside + "/f"); got != "f" {
		fmt.Fprintf(b, "written through a link: %q\n", got)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Flags&(unix.MS_NOSUID|unix.MS_NODEV) != 0 {
		fmt.Fprintf(b, "flags %#x, %v\n", st.Flags, err)
	}
}

// snapshot reads every path below a directory, through the links.
func snapshot(dir string) map[string]string {
	found := map[string]string{}
	_ = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if path != dir {
			found[path] = read(path)
		}
		return err
	})
	return found
}

func read(path string) string {
	if entries, err := os.ReadDir(path); err == nil {
		return fmt.Sprint("directory of ", len(entries))
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
