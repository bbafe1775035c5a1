package main

import (
	"cmp"
	"context"
	"encoding/json"
	"os/exec"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"rootlesskit/internal/check"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/launch"
	"rootlesskit/internal/userns"
)

// check reports on the host. A missing requirement of a driver is an error if
// the options ask for that driver, and a warning otherwise.
func (a *app) check(ctx context.Context, c *cli.Command) error {
	source, err := userns.ParseSource(c.String("subid-source"))
	if err != nil { // checkOptions says so
		source = userns.SourceAuto
	}
	host, err := check.ThisHost(source)
	if err != nil {
		return err
	}
	role := a.registry.Network(c.String("net"))
	host.NeedsTUN = role != nil && role.TUN
	results := append(host.Results(ctx), a.checkHelpers(ctx, c)...)
	report := check.NewReport(append(results, a.checkOptions(ctx, c)...))
	if !report.OK {
		a.code = 1
	}
	if c.Bool("json") {
		enc := json.NewEncoder(a.stdout)
		enc.SetIndent("", "    ")
		enc.SetEscapeHTML(false)
		return enc.Encode(report)
	}
	report.Print(a.stdout)
	return nil
}

// checkOptions checks the options as a run does.
func (a *app) checkOptions(ctx context.Context, c *cli.Command) []check.Result {
	cfg, err := a.config(c)
	if err != nil {
		fix := cmp.Or(hint(err), "change the option, see rootlesskit --help")
		return []check.Result{{Name: "options", Status: check.Error, Message: err.Error(), Fix: fix}}
	}
	var results []check.Result
	for _, err := range launch.Preflight(ctx, cfg) {
		results = append(results, check.Result{Name: "options", Status: check.Error, Message: err.Error(), Fix: "mend what the message names, or choose another value for the option"})
	}
	if len(results) == 0 {
		results = []check.Result{{Name: "options", Status: check.OK, Message: "a run accepts them"}}
	}
	if cidr, err := parseCIDR(c.String("cidr")); err == nil {
		if text, fix := a.overlap(cfg.NetworkName, cidr); text != "" {
			results = append(results, check.Result{Name: "cidr", Status: check.Warning, Message: text, Fix: fix})
		}
	}
	return results
}

// helperUse is a program that a driver executes, and the drivers that use it.
type helperUse struct {
	*driver.Helper
	name, network, ports string
	chosen               bool
}

func (a *app) checkHelpers(ctx context.Context, c *cli.Command) []check.Result {
	var results []check.Result
	for d := range a.registry.Drivers {
		if d.Network != nil && d.Network.Helper != nil {
			h := helperUse{d.Network.Helper, d.Name, d.Name, driver.NoPorts, c.String("net") == d.Name}
			results = append(results, a.checkHelper(ctx, c, h))
		}
		for _, p := range d.Ports {
			if p.Helper != nil {
				h := helperUse{p.Helper, p.Name, networkOf(d), p.Name, c.String("port-driver") == p.Name}
				results = append(results, a.checkHelper(ctx, c, h))
			}
		}
	}
	return results
}

// networkOf returns the network for trying out a driver's ports.
func networkOf(d *driver.Driver) string {
	if d.Network == nil {
		return driver.Host
	}
	return d.Name
}

// checkHelper asks the driver itself whether it can use the program.
func (a *app) checkHelper(ctx context.Context, c *cli.Command, h helperUse) check.Result {
	result := check.Result{Name: h.name, Status: check.OK}
	cidr, _ := parseCIDR("") // the default
	network, err := a.registry.NewNetwork(h.network, driver.NetworkConfig{CIDR: cidr, Ports: h.ports}, c)
	if err == nil {
		_, err = a.registry.NewPorts(h.ports, network, driver.PortsConfig{}, c)
	}
	if err != nil {
		result.Status, result.Message, result.Fix = check.Warning, err.Error(), "install a current version of the package "+h.Package
		if h.chosen {
			result.Status = check.Error
		}
		return result
	}
	result.Message = version(ctx, c.String(h.Flag))
	if h.Limits != "" {
		result.Message += "; " + h.Limits
	}
	if text := a.leak(h.name); text != "" && h.chosen && c.Bool("disable-host-loopback") {
		result.Status = check.Warning
		result.Fix = "for commands that are not trusted, choose --net=" + enumerate(a.registry.Isolating(), "or")
		result.Message += "; " + text
	}
	return result
}

// version returns the first line that a program prints about itself.
func version(ctx context.Context, program string) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "--version")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	line, _, _ := strings.Cut(string(out), "\n")
	if err != nil || line == "" {
		return "found"
	}
	return line
}
