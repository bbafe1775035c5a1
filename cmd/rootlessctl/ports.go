package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"

	"github.com/urfave/cli/v3"

	"rootlesskit/api"
)

func listPortsCommand() *cli.Command {
	return &cli.Command{
		Name:  "list-ports",
		Usage: "List ports",
		Description: "Prints the published ports in the order of their IDs: as a table, or with --json\n" +
			"as one JSON object per line.",
		Flags: []cli.Flag{jsonFlag(), &cli.BoolFlag{
			Name:  "wide",
			Usage: "show more about each port: what serves it (native, relay) and why, the connections or flows that are open and were accepted so far, and the latest error; with --json, the details",
		}},
		Action: listPorts,
	}
}

func listPorts(ctx context.Context, cmd *cli.Command) error {
	if err := noArguments(cmd); err != nil {
		return err
	}
	client, err := newClient(cmd)
	if err != nil {
		return err
	}
	list := client.ListPorts
	if cmd.Bool("wide") {
		list = client.ListPortsDetails
	}
	ports, err := list(ctx)
	if err != nil {
		return err
	}
	// Not every server sorts.
	slices.SortFunc(ports, func(a, b api.PortStatus) int { return cmp.Compare(a.ID, b.ID) })
	w := cmd.Root().Writer
	switch {
	case cmd.Bool("json"):
	case cmd.Bool("wide"):
		return printWideTable(w, ports)
	default:
		return printTable(w, ports)
	}
	for _, p := range ports {
		if err := printJSON(w, p); err != nil {
			return err
		}
	}
	return nil
}

func printTable(w io.Writer, ports []api.PortStatus) error {
	table := tabwriter.NewWriter(w, 4, 8, 4, ' ', 0)
	fmt.Fprintln(table, "ID\tPROTO\tPARENTIP\tPARENTPORT\tCHILDIP\tCHILDPORT\t")
	for _, p := range ports {
		s := p.Spec
		fmt.Fprintf(table, "%d\t%s\t%s\t%d\t%s\t%d\t\n", p.ID, s.Proto, s.ParentIP, s.ParentPort, s.ChildIP, s.ChildPort)
	}
	return table.Flush() // and reports the errors before it
}

// printWideTable adds columns such as STATE, "relay (reason)" or "native" if the
// driver has states, and VIA, for ports with a userland proxy.
func printWideTable(w io.Writer, ports []api.PortStatus) error {
	table := tabwriter.NewWriter(w, 4, 8, 4, ' ', 0)
	fmt.Fprintln(table, "ID\tPROTO\tPARENTIP\tPARENTPORT\tCHILDIP\tCHILDPORT\tSTATE\tVIA\tACTIVE\tACCEPTED\tREFUSED\tLASTERROR\t")
	for _, p := range ports {
		s, d := p.Spec, p.Details
		fmt.Fprintf(table, "%d\t%s\t%s\t%d\t%s\t%d\t", p.ID, s.Proto, s.ParentIP, s.ParentPort, s.ChildIP, s.ChildPort)
		if d == nil {
			fmt.Fprintln(table, "\t\t\t\t\t\t")
			continue
		}
		state := d.State
		if d.StateReason != "" {
			state += " (" + d.StateReason + ")"
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%s\t\n", state, d.Via, d.Active, d.Accepted, d.Refused, d.LastError)
	}
	return table.Flush()
}

func addPortsCommand() *cli.Command {
	return &cli.Command{
		Name:      "add-ports",
		Usage:     "Add ports",
		ArgsUsage: "SPEC [SPEC...]",
		Description: "Publishes ports one after the other, and prints an ID per line, or with --json a JSON\n" +
			"object per line. Stops at the first failure; the ports before it stay published.\n" +
			"Publishes nothing if a spec is malformed.\n" +
			"\n" +
			"A SPEC is [PARENTIP]:PARENTPORT:[CHILDIP:]CHILDPORT/PROTO, similar to\n" +
			"\"docker run -p\". PROTO is tcp, tcp4, tcp6, udp, udp4 or udp6; the forms with\n" +
			"a 4 or a 6 listen on that family only. IPv6 addresses are written in brackets.\n" +
			"\n" +
			"8080:80 means :8080:80/tcp, on all addresses.\n" +
			"\n" +
			"Examples: 127.0.0.1:8080:80/tcp, :8080:80/tcp, 8080:80,\n" +
			"127.0.0.1:8080:10.0.2.100:80/tcp, [::1]:5353:53/udp",
		Flags: []cli.Flag{jsonFlag(), &cli.StringFlag{
			Name: "proxy-protocol",
			Usage: "begin each connection to the namespace with a header of this version of the PROXY protocol, " +
				"which names the client (v2, only for TCP; GET /v1/info says whether the port driver supports it, and the server must expect it)",
		}},
		Action: addPorts,
	}
}

func addPorts(ctx context.Context, cmd *cli.Command) error {
	if !cmd.Args().Present() {
		return errors.New("no port specified")
	}
	specs, err := parseAll(cmd.Args().Slice(), api.ParsePortSpec)
	if err != nil {
		return err
	}
	client, err := newClient(cmd)
	if err != nil {
		return err
	}
	for _, spec := range specs {
		spec.ProxyProtocol = cmd.String("proxy-protocol")
		status, err := client.AddPort(ctx, spec)
		if err != nil {
			return err
		}
		if err := printAdded(cmd, status); err != nil {
			return err
		}
	}
	return nil
}

func printAdded(cmd *cli.Command, status *api.PortStatus) error {
	w := cmd.Root().Writer
	if cmd.Bool("json") {
		return printJSON(w, status)
	}
	_, err := fmt.Fprintln(w, status.ID)
	return err
}

func removePortsCommand() *cli.Command {
	return &cli.Command{
		Name:      "remove-ports",
		Usage:     "Remove ports",
		ArgsUsage: "ID [ID...]",
		Description: "Unpublishes the ports with these IDs one after the other, and prints each ID when its\n" +
			"port is closed. Stops at the first failure.",
		Action: removePorts,
	}
}

func removePorts(ctx context.Context, cmd *cli.Command) error {
	if !cmd.Args().Present() {
		return errors.New("no ID specified")
	}
	ids, err := parseAll(cmd.Args().Slice(), parseID)
	if err != nil {
		return err
	}
	client, err := newClient(cmd)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := client.RemovePort(ctx, id); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(cmd.Root().Writer, id); err != nil {
			return err
		}
	}
	return nil
}

func parseID(arg string) (int, error) {
	id, err := strconv.Atoi(arg)
	if err != nil {
		return 0, fmt.Errorf("not a port ID: %q (list-ports shows the IDs)", arg)
	}
	return id, nil
}

// parseAll parses all arguments before any of them is used.
func parseAll[T any](args []string, parse func(string) (T, error)) ([]T, error) {
	values := make([]T, len(args))
	for i, arg := range args {
		var err error
		if values[i], err = parse(arg); err != nil {
			return nil, err
		}
	}
	return values, nil
}
