package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// attempts reports what the process may do. They leave nothing outside the
// namespaces; what could is last.
func attempts() {
	tmp, err := os.MkdirTemp("", "probe")
	if err != nil {
		say("may.make a temporary directory", reason(err))
		return
	}
	defer os.RemoveAll(tmp)
	files(tmp)
	say("may.mount tmpfs", reason(mountAt(tmp, "tmpfs", "tmpfs")))
	say("may.mount sysfs", reason(mountAt(tmp, "sysfs", "sysfs")))
	say("may.mount proc", reason(mountAt(tmp, "proc", "proc")))
	say("may.mount mqueue", reason(mountAt(tmp, "mqueue", "mqueue")))
	say("may.mount devpts", reason(mountAt(tmp, "devpts", "devpts")))
	say("may.mount cgroup2", reason(mountAt(tmp, "cgroup2", "cgroup2")))
	say("may.mount overlay", reason(overlay(tmp)))
	say("may.remount / private", reason(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")))
	say("may.write beneath /sys/fs/cgroup", reason(unix.Mkdir("/sys/fs/cgroup/probe", 0o755)))
	sockets()
	for name, attr := range map[string]*syscall.SysProcAttr{
		"user 1":                  {Credential: &syscall.Credential{Uid: 1, Gid: 1}},
		"user 65535":              {Credential: &syscall.Credential{Uid: 65535, Gid: 65535}},
		"user 65537":              {Credential: &syscall.Credential{Uid: 65537, Gid: 65537}},
		"user 1, groups kept":     {Credential: &syscall.Credential{Uid: 1, Gid: 1, NoSetGroups: true}},
		"user namespace":          {Cloneflags: unix.CLONE_NEWUSER, UidMappings: rootAlone, GidMappings: rootAlone},
		"all namespaces":          {Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP},
		"a session, a terminal's": {Setsid: true},
		"change of root":          {Chroot: "/"},
	} {
		cmd := exec.Command("/bin/true")
		cmd.SysProcAttr = attr
		say("may.run as "+name, reason(cmd.Run()))
	}
	say("may.nice", reason(unix.Setpriority(unix.PRIO_PROCESS, 0, -1)))
	say("may.hard limit", reason(raise()))
	say("may.lower oom_score_adj", reason(os.WriteFile("/proc/self/oom_score_adj", []byte("-1"), 0)))
	say("may.name the host", reason(unix.Sethostname([]byte(hostname()))))
	say("may.key ring", reason(keyring()))
	say("may.read /dev/mem", reason(unix.Access("/dev/mem", unix.R_OK)))
}

var rootAlone = []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}

func mountAt(dir, source, kind string) error {
	point := filepath.Join(dir, kind)
	if err := os.Mkdir(point, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, point, kind, 0, ""); err != nil {
		return err
	}
	return unix.Unmount(point, 0)
}

func overlay(dir string) error {
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
	}
	point := filepath.Join(dir, "merged")
	err := unix.Mount("overlay", point, "overlay", 0, "lowerdir="+dir+"/lower,upperdir="+dir+"/upper,workdir="+dir+"/work")
	if err != nil {
		return err
	}
	return unix.Unmount(point, 0)
}

// files reports what may be done with files: of the user, of the user's groups,
// and of directories that may have been copied up.
func files(tmp string) {
	name := filepath.Join(tmp, "file")
	say("may.create", reason(os.WriteFile(name, nil, 0o666)))
	say("file.of a created file", describe(name))
	say("may.chown to 1", reason(os.Chown(name, 1, 1)))
	say("may.chown to 65536", reason(os.Chown(name, 65536, 65536)))
	say("may.chown to 65537", reason(os.Chown(name, 65537, 65537)))
	say("may.make a device", reason(unix.Mknod(filepath.Join(tmp, "dev"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3)))))
	say("may.set file capabilities", reason(unix.Setxattr(name, "security.capability", []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0)))
	say("may.set a trusted attribute", reason(unix.Setxattr(name, "trusted.probe", []byte("x"), 0)))
	for _, device := range []string{"/dev/null", "/dev/net/tun", "/dev/fuse", "/dev/kvm", "/dev/ptmx", "/dev/tty"} {
		fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
		say("may.open "+device, reason(err))
		unix.Close(fd)
	}
	_, err := os.ReadFile(os.Getenv("PROBE_GROUP_FILE"))
	say("may.read a file of a supplementary group", reason(err))
	for _, dir := range []string{"/etc", "/run", "/var", "/var/lib", "/opt", "/", "/sys", "/dev", "/dev/shm"} {
		err := unix.Access(dir, unix.W_OK)
		say("may.write to "+dir, reason(err))
	}
}

func sockets() {
	l, err := net.Listen("tcp", "127.0.0.1:80")
	say("may.listen on port 80", reason(err))
	if err == nil {
		l.Close()
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	say("may.open a raw socket", reason(err))
	unix.Close(fd)
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	say("may.open a ping socket", reason(err))
	unix.Close(fd)
	fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	say("may.open a packet socket", reason(err))
	unix.Close(fd)
	for _, name := range []string{"ipv4/ip_forward", "ipv4/ip_unprivileged_port_start", "ipv4/ping_group_range", "ipv6/conf/all/forwarding"} {
		file := "/proc/sys/net/" + name
		old, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(file, old, 0)
		}
		say("may.set "+name, reason(err))
	}
}

func raise() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		return err
	}
	return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: limit.Cur, Max: unix.RLIM_INFINITY})
}

func hostname() string {
	name, _ := os.Hostname()
	return name
}

func keyring() error {
	_, err := unix.AddKey("user", "probe", []byte("x"), unix.KEY_SPEC_PROCESS_KEYRING)
	return err
}
