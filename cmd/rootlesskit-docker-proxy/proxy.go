package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"rootlesskit/api"
)

const (
	stateDirEnv = "ROOTLESSKIT_STATE_DIR"
	realProxy   = "docker-proxy"
	// stopTimeout bounds the work after SIGINT.
	stopTimeout = 10 * time.Second
)

// run publishes the port and runs docker-proxy until ctx ends or docker-proxy
// does. It closes status once docker-proxy has it.
func run(ctx context.Context, args []string, status *os.File) error {
	opts, err := parseOptions(args)
	if err != nil {
		return err
	}
	dir := os.Getenv(stateDirEnv)
	if dir == "" {
		return fmt.Errorf("$%s is not set: dockerd must run inside rootlesskit", stateDirEnv)
	}
	client := api.NewClient(filepath.Join(dir, "api.sock"))
	defer client.Close()
	info, err := client.Info(ctx)
	if err != nil {
		return fmt.Errorf("asking rootlesskit for its port driver: %w", err)
	}
	if info.PortDriver == nil {
		return become(args)
	}
	spec, err := opts.spec(info)
	if err != nil {
		return err
	}
	if !slices.Contains(info.PortDriver.Protos, spec.Proto) {
		// Docker publishes a port on both families at once, and would fail if either
		// failed.
		log.Printf("port driver %q does not support %s: not publishing %s", info.PortDriver.Driver, spec.Proto, opts.hostAddr())
		if status != nil {
			_, err = fmt.Fprint(status, "0\n")
		}
		return err
	}
	return publish(ctx, client, spec, opts, status)
}

// become turns this process into docker-proxy, if there is nothing to publish.
func become(args []string) error {
	path, err := exec.LookPath(realProxy)
	if err != nil {
		return fmt.Errorf("error while starting %s: %w", realProxy, err)
	}
	return fmt.Errorf("error while starting %s: %w", path, syscall.Exec(path, append([]string{realProxy}, args...), os.Environ()))
}

func publish(ctx context.Context, client *api.Client, spec api.PortSpec, opts options, status *os.File) error {
	port, err := client.AddPort(ctx, spec)
	if err != nil {
		return fmt.Errorf("error while calling PortManager.AddPort(): %w", err)
	}
	err = forward(ctx, opts.proxyArgs(spec.ChildIP), status)
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if removeErr := client.RemovePort(stop, port.ID); removeErr != nil {
		err = errors.Join(err, fmt.Errorf("error while calling PortManager.RemovePort(): %w", removeErr))
	}
	return err
}

// forward runs docker-proxy. If docker-proxy ends on its own, that is an error.
func forward(ctx context.Context, args []string, status *os.File) error {
	cmd := exec.CommandContext(ctx, realProxy, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = stopTimeout
	if status != nil {
		cmd.ExtraFiles = []*os.File{status} // becomes statusFD
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("error while starting %s: %w", realProxy, err)
	}
	if status != nil {
		status.Close()
	}
	err := cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return fmt.Errorf("%s ended: %w", realProxy, err)
	default:
		return fmt.Errorf("%s ended unexpectedly", realProxy)
	}
}
