package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The LAN of the group outbound: a network namespace that stands for another
// host, which serves the loads and answers DNS queries. The measuring process and
// its launchers are in a second one, whose default route and name server it is.
//
//	namespace of the launchers (lan0 .1) --- veth --- the other host (lan1 .2)

// lanArg makes this program the other host: `bench lan`. It serves until the end
// of its standard input.
const lanArg = "lan"

// lanEnv tells the measuring process that it is in such a network.
const lanEnv = "ROOTLESSKIT_BENCH_LAN"

const lanPort = 9000

var (
	lanHost   = netip.MustParsePrefix("198.51.100.1/24") // for documentation (RFC 5737)
	lanServer = netip.MustParsePrefix("198.51.100.2/24")
)

// lanAddr is the other host's server, invalid without one.
func lanAddr() netip.AddrPort {
	if os.Getenv(lanEnv) == "" {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(lanServer.Addr(), lanPort)
}

// onLAN calls f, whose processes are in the namespaces of a LAN. It takes root.
func onLAN(ctx context.Context, t tools, f func() error) error {
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespaces
		ended <- enterLAN(ctx, t, f)
	}()
	return <-ended
}

// enterLAN moves the thread into a LAN.
func enterLAN(ctx context.Context, t tools, f func() error) error {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("new network and mount namespaces: %w", err)
	}
	if err := nameLANServer(t.dir); err != nil {
		return err
	}
	other := exec.CommandContext(ctx, t.bench(), lanArg)
	other.Stderr = os.Stderr
	other.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	in, err := other.StdinPipe()
	if err != nil {
		return err
	}
	out, err := other.StdoutPipe()
	if err != nil {
		return err
	}
	if err := other.Start(); err != nil {
		return err
	}
	defer func() {
		in.Close()
		_ = other.Wait()
	}()
	if err := connectLAN(other.Process.Pid); err != nil {
		return err
	}
	if _, err := in.Write([]byte{'\n'}); err != nil { // its interface is there
		return err
	}
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
		return fmt.Errorf("the other host of the LAN did not start: %w", err)
	}
	return f()
}

// nameLANServer makes the other host the name server of the mount namespace.
func nameLANServer(dir string) error {
	path := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(path, fmt.Appendf(nil, "nameserver %s\n", lanServer.Addr()), 0o644); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	target, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if err != nil {
		return err
	}
	if err := unix.Mount(path, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mounting %s: %w", target, err)
	}
	return nil
}

// connectLAN joins the thread's namespace with that of a process.
func connectLAN(pid int) error {
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lan0"}, PeerName: "lan1", PeerNamespace: netlink.NsPid(pid)}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("the LAN's cable: %w", err)
	}
	if err := configureLAN("lan0", lanHost); err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{Gw: lanServer.Addr().AsSlice()})
}

// configureLAN sets an interface and lo up.
func configureLAN(name string, address netip.Prefix) error {
	for _, ifname := range []string{"lo", name} {
		link, err := netlink.LinkByName(ifname)
		if err != nil {
			return fmt.Errorf("interface %q: %w", ifname, err)
		}
		if ifname == name {
			ip := &net.IPNet{IP: address.Addr().AsSlice(), Mask: net.CIDRMask(address.Bits(), 32)}
			if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ip}); err != nil {
				return fmt.Errorf("address %s: %w", address, err)
			}
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("bringing %q up: %w", ifname, err)
		}
	}
	return nil
}

// runLANServer is the other host.
func runLANServer() error {
	if _, err := io.ReadFull(os.Stdin, make([]byte, 1)); err != nil {
		return err
	}
	if err := configureLAN("lan1", lanServer); err != nil {
		return err
	}
	s, err := startServer(netip.AddrPortFrom(lanServer.Addr(), lanPort).String())
	if err != nil {
		return err
	}
	defer s.close()
	dns, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(lanServer.Addr(), dnsPort)))
	if err != nil {
		return err
	}
	go answerQueries(dns)
	if _, err := os.Stdout.Write([]byte{'\n'}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// answerQueries sends each query back as its own answer.
func answerQueries(dns *net.UDPConn) {
	buf := make([]byte, 4096)
	for {
		n, from, err := dns.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil && n >= dnsHeaderSize {
			buf[2] |= 0x80 // QR: this is an answer
			_, _ = dns.WriteToUDPAddrPort(buf[:n], from)
		}
	}
}
