package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"rootlesskit/internal/netns"
)

// podmanArg makes this program what Podman is for a helper:
//
//	bench podman HELPER ADDRESS PORT COUNT [COMMAND...]
//
// publishes the ports until the command, which runs in the container's network
// namespace, has ended. Without one it prints how long the helper took to get ready.
const podmanArg = "podman"

// The stages are this program again, named by a variable of the environment: root of a
// user namespace, and in the container's network namespace.
const (
	stageEnv       = "BENCH_PODMAN_STAGE"
	stageRoot      = "root"
	stageContainer = "container"
)

const containerIP = "10.89.0.2"

func runPodman(args []string) error {
	if len(args) < 4 {
		return fmt.Errorf("usage: bench %s HELPER ADDRESS PORT COUNT [COMMAND...]", podmanArg)
	}
	switch os.Getenv(stageEnv) {
	case stageRoot:
		return podmanRoot(args)
	case stageContainer:
		return podmanContainer(args[4:])
	}
	cmd := podmanStage(stageRoot, unix.CLONE_NEWUSER)
	cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
	cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	return cmd.Run()
}

func podmanStage(name string, flags uintptr) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), stageEnv+"="+name)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGTERM}
	return cmd
}

// podmanRoot starts the container, then the helper, which ends after it.
func podmanRoot(args []string) error {
	up, tell, err := os.Pipe()
	if err != nil {
		return err
	}
	container := podmanStage(stageContainer, unix.CLONE_NEWNET)
	container.ExtraFiles = []*os.File{tell}
	if err := container.Start(); err != nil {
		return err
	}
	tell.Close()
	if _, err := up.Read(make([]byte, 1)); err != nil {
		return fmt.Errorf("the container's network did not come up: %w", err)
	}
	began := time.Now()
	helper, exit, err := startHelper(args, container.Process.Pid)
	if err != nil {
		_ = container.Process.Kill()
		return err
	}
	if len(args) == 4 {
		fmt.Println(time.Since(began))
		_ = container.Process.Kill()
	}
	_ = container.Wait()
	exit.Close()
	return helper.Wait()
}

// startHelper waits until the helper is ready. It ends with exit.
func startHelper(args []string, container int) (helper *exec.Cmd, exit *os.File, err error) {
	port, _ := strconv.Atoi(args[2])
	count, err := strconv.Atoi(args[3])
	if err != nil {
		return nil, nil, err
	}
	config, err := json.Marshal(map[string]any{
		"Mappings": []map[string]any{{
			"host_ip": args[1], "host_port": port, "container_port": port, "range": count, "protocol": "tcp,udp",
		}},
		"NetNSPath": fmt.Sprintf("/proc/%d/ns/net", container), "ReadyFD": 3, "ExitFD": 4,
		"TmpDir": os.TempDir(), "ChildIP": containerIP, "ContainerID": "bench",
	})
	if err != nil {
		return nil, nil, err
	}
	ready, readyW, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	exitR, exit, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	helper = exec.Command(args[0])
	helper.Args = []string{"rootlessport"}
	helper.Stdin, helper.Stdout, helper.Stderr = strings.NewReader(string(config)), os.Stderr, os.Stderr
	helper.ExtraFiles = []*os.File{readyW, exitR}
	if err := helper.Start(); err != nil {
		return nil, nil, err
	}
	readyW.Close()
	exitR.Close()
	told := make([]byte, 1) // not to the end of file: a helper's child may have it open
	if _, err := ready.Read(told); err != nil || told[0] != '1' {
		return nil, nil, fmt.Errorf("the helper did not get ready: %q, %w", told, err)
	}
	return helper, exit, nil
}

// podmanContainer makes a network like that of a bridge, and runs the command there.
func podmanContainer(command []string) error {
	if err := netns.Own().LoopbackUp(); err != nil {
		return err
	}
	eth0 := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "bridge"}
	if err := netlink.LinkAdd(eth0); err != nil {
		return fmt.Errorf("making eth0: %w", err)
	}
	addr, err := netlink.ParseAddr(containerIP + "/24")
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(eth0, addr); err != nil {
		return fmt.Errorf("the address of eth0: %w", err)
	}
	for _, name := range []string{"eth0", "bridge"} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
	}
	gateway := netip.MustParseAddr("10.89.0.1")
	if err := netlink.RouteAdd(&netlink.Route{Gw: gateway.AsSlice()}); err != nil {
		return fmt.Errorf("the default route: %w", err)
	}
	up := os.NewFile(3, "up")
	if _, err := up.Write([]byte("1")); err != nil {
		return err
	}
	up.Close()
	if len(command) == 0 {
		select {} // until it is killed
	}
	os.Unsetenv(stageEnv)
	return unix.Exec(command[0], command, os.Environ())
}
