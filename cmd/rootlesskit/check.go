package main

import (
	"cmp"
	"context"
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"rootlesskit/internal/check"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/launch"
	"rootlesskit/internal/userns"
)

// helperProgram is a program that a driver executes.
type helperProgram struct {
	network, ports string // the driver: a network's, or that of ports on it
	pkg            string // the distributions' package
	limits         string // what it cannot do, and no version can; may be empty
}

var helperPrograms = []helperProgram{
	{network: "slirp4netns", pkg: "slirp4netns"},
	{network: "pasta", pkg: "passt", limits: "with --port-driver=implicit, a server on 127.0.0.2 and such inside has TCP, not UDP"},
	{network: "pasta", ports: "pesto", pkg: "passt", limits: "a server on 127.0.0.1 inside is not reached by its ports"},
	{network: "lxc-user-nic", pkg: "lxc"},
}

// networksOnTAP need /dev/net/tun.
var networksOnTAP = []string{"gvisor-tap-vsock", "slirp4netns", "pasta"}

// check reports on the host. What only a driver needs is an error where the
// options ask for that driver, else a warning.
func (a *app) check(ctx context.Context, c *cli.Command) error {
	source, err := userns.ParseSource(c.String("subid-source"))
	if err != nil { // checkOptions says so
		source = userns.SourceAuto
	}
	host, err := check.ThisHost(source)
	if err != nil {
		return err
	}
	host.NeedsTUN = slices.Contains(networksOnTAP, c.String("net"))
	results := host.Results(ctx)
	for _, h := range helperPrograms {
		if d := a.registry.Network(h.network); d != nil {
			results = append(results, a.checkHelper(ctx, c, h, d))
		}
	}
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

// checkOptions judges the options as a run does.
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
		if text, fix := overlap(cfg.NetworkName, cidr); text != "" {
			results = append(results, check.Result{Name: "cidr", Status: check.Warning, Message: text, Fix: fix})
		}
	}
	return results
}

// checkHelper lets the driver itself judge whether it can use the program.
func (a *app) checkHelper(ctx context.Context, c *cli.Command, h helperProgram, d *driver.NetworkDriver) check.Result {
	cidr, _ := parseCIDR("") // the default
	network, err := d.New(driver.NetworkConfig{MTU: d.MTU, Ifname: d.Ifname, CIDR: cidr}, c)
	result := check.Result{Name: h.network, Status: check.OK}
	chosen := c.String("net") == h.network
	if h.ports != "" {
		result.Name = h.ports
		chosen = c.String("port-driver") == h.ports
		if err == nil {
			_, err = a.registry.PortDriver(h.ports).New(network, c)
		}
	}
	if err != nil {
		result.Status, result.Message, result.Fix = check.Warning, err.Error(), "install a current version of the package "+h.pkg
		if chosen {
			result.Status = check.Error
		}
		return result
	}
	result.Message = version(ctx, c.String(result.Name+"-binary"))
	if h.limits != "" {
		result.Message += "; " + h.limits
	}
	if text := leak(result.Name); text != "" && chosen && c.Bool("disable-host-loopback") {
		result.Status, result.Fix = check.Warning, "choose --net=gvisor-tap-vsock or --net=pasta for commands that are not trusted"
		result.Message += "; " + text
	}
	if h.limits != "" {
		result.Message += "; " + h.limits
	}
	return result
}

// version is the first line that a program prints of itself.
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
