package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/urfave/cli/v3"

	"rootlesskit/api"
)

func infoCommand() *cli.Command {
	return &cli.Command{
		Name:  "info",
		Usage: "Show info",
		Description: "Prints the versions, the state directory, the child's process ID, and the network and\n" +
			"port drivers in use: as text, or with --json as an indented JSON object.",
		Flags:  []cli.Flag{jsonFlag()},
		Action: info,
	}
}

func info(ctx context.Context, cmd *cli.Command) error {
	if err := noArguments(cmd); err != nil {
		return err
	}
	client, err := newClient(cmd)
	if err != nil {
		return err
	}
	info, err := client.Info(ctx)
	if err != nil {
		return err
	}
	text := infoText(info)
	if cmd.Bool("json") {
		if text, err = json.MarshalIndent(info, "", "    "); err != nil {
			return err
		}
		text = append(text, '\n')
	}
	_, err = cmd.Root().Writer.Write(text)
	return err
}

func infoText(info *api.Info) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "- REST API version: %s\n", info.APIVersion)
	fmt.Fprintf(&b, "- Implementation version: %s\n", info.Version)
	fmt.Fprintf(&b, "- State Directory: %s\n", info.StateDir)
	fmt.Fprintf(&b, "- Child PID: %d\n", info.ChildPID)
	if n := info.NetworkDriver; n != nil {
		fmt.Fprintf(&b, "- Network Driver: %s\n", n.Driver)
		fmt.Fprintf(&b, "  - DNS: %v\n", n.DNS)
		if n.ChildIP != "" {
			fmt.Fprintf(&b, "  - IP: %s\n", n.ChildIP)
		}
	}
	if p := info.PortDriver; p != nil {
		fmt.Fprintf(&b, "- Port Driver: %s\n", p.Driver)
		fmt.Fprintf(&b, "  - Supported protocols: %v\n", p.Protos)
	}
	return b.Bytes()
}
