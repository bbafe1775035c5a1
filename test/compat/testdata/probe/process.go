package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// process reports what a command inherits from who started it. Go's runtime
// changes signals and limits, so /proc/self/status and limits were noted by the
// shell that executed the probe.
func process(notes string) {
	descriptors()
	for _, line := range strings.Split(content(filepath.Join(notes, "status")), "\n") {
		name, value, _ := strings.Cut(line, ":")
		if inherited[name] {
			say("status."+name, strings.TrimSpace(value))
		}
	}
	for _, line := range strings.Split(content(filepath.Join(notes, "limits")), "\n")[1:] {
		if len(line) > 26 {
			say("limit."+strings.TrimSpace(line[:26]), strings.Join(strings.Fields(line[26:]), " "))
		}
	}
	for _, name := range []string{
		"cgroup", "oom_score_adj", "coredump_filter", "timerslack_ns", "personality", "loginuid", "sessionid",
		"uid_map", "gid_map", "setgroups", "cmdline", "comm", "attr/current", "autogroup", "timens_offsets",
	} {
		say("self."+name, strings.TrimRight(strings.ReplaceAll(content("/proc/self/"+name), "\x00", " "), " \n"))
	}
	for _, name := range []string{"cwd", "root", "exe"} {
		target, err := os.Readlink("/proc/self/" + name)
		say("self."+name, target+" "+reason(err))
	}
	session()
	namespaces()
	attributes()
}

var inherited = map[string]bool{
	"Umask": true, "State": true, "Uid": true, "Gid": true, "Groups": true, "SigBlk": true, "SigIgn": true, "SigCgt": true,
	"ShdPnd": true, "SigPnd": true, "CapInh": true, "CapPrm": true, "CapEff": true, "CapBnd": true, "CapAmb": true, "NoNewPrivs": true,
	"Seccomp": true, "Seccomp_filters": true, "Cpus_allowed": true, "Mems_allowed": true, "CoreDumping": true, "THP_enabled": true,
	"TracerPid": true, "Speculation_Store_Bypass": true, "SpeculationIndirectBranch": true, "untag_mask": true,
}

// descriptors reports what is open, before the probe opens anything that stays.
func descriptors() {
	names, _ := filepath.Glob("/proc/self/fd/*")
	for _, name := range names {
		fd := filepath.Base(name)
		target, err := os.Readlink(name)
		if err != nil || ofRuntime(target) {
			continue
		}
		info := strings.Join(strings.Fields(content("/proc/self/fdinfo/"+fd)), " ")
		_, flags, _ := strings.Cut(info, "flags: ")
		flags, _, _ = strings.Cut(flags, " ")
		say("fd."+fd, target+" flags "+flags)
	}
}

// ofRuntime reports whether Go's runtime opened the file.
func ofRuntime(target string) bool {
	return strings.HasPrefix(target, "/proc/") || strings.HasPrefix(target, "/sys/fs/cgroup/") || strings.HasPrefix(target, "anon_inode:[event")
}

// session reports how the process stands to its session, group and terminal.
func session() {
	pid, sid := unix.Getpid(), -1
	if s, err := unix.Getsid(0); err == nil {
		sid = s
	}
	kind := func(id int) string {
		switch id {
		case pid:
			return "itself"
		case 0:
			return "outside"
		case 1:
			return "1"
		case unix.Getppid():
			return "parent"
		}
		return "another"
	}
	say("session.pid is 1", pid == 1)
	say("session.ppid", kind(unix.Getppid()))
	say("session.sid", kind(sid))
	say("session.pgid", kind(unix.Getpgrp()))
	stat := content("/proc/self/stat")
	if fields := strings.Fields(stat[strings.LastIndex(stat, ")")+1:]); len(fields) > 38 {
		say("session.terminal", fields[4] != "0")
		say("session.exit signal", fields[35])
		say("session.nice", fields[16])
		say("session.policy", fields[38])
	}
	var commands []string
	names, _ := filepath.Glob("/proc/[0-9]*/comm")
	if pid < 100 { // a PID namespace of its own
		for _, name := range names {
			commands = append(commands, strings.TrimSpace(content(name)))
		}
	}
	sort.Strings(commands)
	say("session.processes", commands)
}

// namespaces tells which are not the caller's, whose are in the environment.
func namespaces() {
	for _, name := range []string{"user", "mnt", "net", "pid", "pid_for_children", "ipc", "uts", "cgroup", "time", "time_for_children"} {
		link, err := os.Readlink("/proc/self/ns/" + name)
		if err != nil {
			link = reason(err)
		} else if strings.Contains(os.Getenv("PROBE_NAMESPACES"), link) {
			link = "the caller's"
		} else {
			link = "its own"
		}
		say("namespace."+name, link)
	}
}

// attributes reports those that have a system call alone.
func attributes() {
	for name, option := range map[string]int{
		"securebits": unix.PR_GET_SECUREBITS, "keepcaps": unix.PR_GET_KEEPCAPS, "dumpable": unix.PR_GET_DUMPABLE,
		"no_new_privs": unix.PR_GET_NO_NEW_PRIVS, "timerslack": unix.PR_GET_TIMERSLACK, "thp_disable": unix.PR_GET_THP_DISABLE,
	} {
		r, err := unix.PrctlRetInt(option, 0, 0, 0, 0)
		say("prctl."+name, fmt.Sprint(r, " ", reason(err)))
	}
	for name, option := range map[string]int{
		"pdeathsig": unix.PR_GET_PDEATHSIG, "subreaper": unix.PR_GET_CHILD_SUBREAPER, "timing": unix.PR_GET_TSC,
	} {
		var value int32
		err := unix.Prctl(option, uintptr(unsafe.Pointer(&value)), 0, 0, 0)
		say("prctl."+name, fmt.Sprint(value, " ", reason(err)))
	}
	prio, _ := unix.Getpriority(unix.PRIO_PROCESS, 0)
	say("priority", prio)
	ioprio, _, _ := unix.Syscall(unix.SYS_IOPRIO_GET, 1, 0, 0)
	say("ioprio", ioprio)
	var set unix.CPUSet
	_ = unix.SchedGetaffinity(0, &set)
	say("affinity", set.Count())
}

// environment reports all variables but those that are the probe's.
func environment() {
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		switch {
		case strings.HasPrefix(name, "PROBE_"):
		case name == "LISTEN_PID":
			say("env."+name+" is the command's", value == fmt.Sprint(unix.Getpid()))
		default:
			say("env."+name, value)
		}
	}
}

func identity() {
	var uname unix.Utsname
	_ = unix.Uname(&uname)
	say("uts.nodename", unix.ByteSliceToString(uname.Nodename[:]))
	say("uts.domainname", unix.ByteSliceToString(uname.Domainname[:]))
	ruid, euid, suid := unix.Getresuid()
	rgid, egid, sgid := unix.Getresgid()
	say("ids.users", []int{ruid, euid, suid})
	say("ids.groups", []int{rgid, egid, sgid})
	fsuid, _ := unix.SetfsuidRetUid(-1)
	fsgid, _ := unix.SetfsgidRetGid(-1)
	say("ids.fs", []int{fsuid, fsgid})
	groups, err := unix.Getgroups()
	sort.Ints(groups)
	say("ids.supplementary", fmt.Sprint(groups, " ", reason(err)))
}
