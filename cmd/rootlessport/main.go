// Command rootlessport publishes the ports of a container of rootless Podman. It
// replaces Podman's own program of this name, and shows servers the addresses of their
// clients.
//
// Podman starts it in the host's network namespace, as root of the user namespace that
// owns the container's network namespace, and writes the configuration to its standard
// input (config.go). So one process has both sides of a port:
//
//	client -> listening socket of the host -> relay -> socket of the container -> server
//
// If one port cannot be published, none is: the reason is on standard output, and the
// exit status is 1. Otherwise Podman reads a "1" from ReadyFD, and the program runs
// until end of file on ExitFD.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/netns"
	"rootlesskit/internal/trim"
)

func main() {
	if err := run(os.Args[1:], os.Stdin); err != nil {
		fmt.Println(strings.ReplaceAll(err.Error(), "\n", "; ")) // Podman shows it as one line
		os.Exit(1)
	}
}

func run(args []string, stdin io.Reader) error {
	if len(args) > 0 {
		return fmt.Errorf("too many arguments: %q: rootlessport is started by podman, see rootlessport(1)", args)
	}
	cfg, err := readConfig(stdin)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	ready, ended, err := cfg.descriptors()
	if err != nil {
		return err
	}
	ns, err := netns.Open(cfg.NetNSPath)
	if err != nil {
		return err
	}
	defer ns.Close()
	ports, err := publishAll(ctx, ns, cfg)
	if err != nil {
		return err
	}
	defer ports.Close()
	if cfg.RootlessCNI {
		control, err := listenControl(ctx, cfg)
		if err != nil {
			return err
		}
		defer control.close()
		go control.serve(ports.Retarget)
	}
	if err := tellReady(ready); err != nil {
		return err
	}
	defer trim.Later()()
	awaitEnd(ctx, ended)
	return nil
}
