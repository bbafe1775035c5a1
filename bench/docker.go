package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Rootless Docker as it is by default, userland proxy and all, with the agent in a
// container that has its port published by `docker run -p`. The programs on PATH are
// taken.

// dockerArg makes this program the command of the launcher, which runs dockerd and
// the container: `bench docker PORT`.
const dockerArg = "docker"

var dockerPrograms = []string{"dockerd", "docker", "docker-proxy", "containerd", "runc", "iptables"}

// dockerFigures are for a server behind `docker run -p`, beside the same server on the
// host.
func dockerFigures() []Figure {
	latency := []Metric{rate("/s"), cost("p50", "µs"), cost("p99", "µs")}
	figures := []Figure{
		inward("docker-up", "docker", "docker run -p: TCP to the container, 1 stream", Load{Kind: upload, Clients: 1}, rate("Gbit/s")),
		inward("docker-down", "docker", "docker run -p: TCP from the container, 1 stream", Load{Kind: download, Clients: 1}, rate("Gbit/s")),
		inward("docker-conns-8", "docker", "docker run -p: connections a second, 8 workers", Load{Kind: connections, Clients: 8}, rate("/s"), loss("failed", "/s")),
		inward("docker-rr-8", "docker", "docker run -p: requests a second, 8 connections", Load{Kind: requests, Clients: 8}, latency...),
		inward("docker-udp-echo-8", "docker", "docker run -p: UDP echo, 8 clients", Load{Kind: udpEcho, Clients: 8}, rate("/s")),
	}
	figures = append(figures,
		Figure{ID: "docker-start", Group: "docker", Title: "docker run -p: until the first answer", Metrics: []Metric{cost("time", "ms")}, Sample: startOfContainer},
		toLAN("docker-lan-down", "docker", "docker run: TCP from another host, 1 stream", Load{Kind: download, Clients: 1}, rate("Gbit/s")))
	for i := range figures {
		figures[i].For = func(t Target) bool { return t.Engine != "" || t.Launcher == "" && figures[i].ID != "docker-start" }
	}
	return figures
}

// startOfContainer is the time from `docker run` to the first answer on its port.
func startOfContainer(ctx context.Context, r *runner, t Target) (Values, error) {
	s, err := r.open(ctx, t)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if err := waitServing(ctx, false, s.addr(), startTimeout); err != nil {
		return nil, err
	}
	return Values{"time": float64(time.Since(s.agent.hello.Began).Microseconds()) / 1000}, nil
}

// dockerFlags are those of dockerd-rootless.sh.
func dockerFlags(stateDir string, t Target) []string {
	return append([]string{"--state-dir=" + stateDir, "--net=" + t.Net, "--port-driver=" + t.Ports, "--disable-host-loopback",
		"--copy-up=/etc", "--copy-up=/run", "--propagation=rslave"}, t.Flags...)
}

// runDocker starts dockerd, and runs the agent in a container until that ends.
func runDocker(port string) (err error) {
	// What the distribution's daemon has there is not this one's.
	for _, name := range []string{"/run/docker", "/run/containerd", "/run/xtables.lock"} {
		_ = os.RemoveAll(name)
	}
	dir, err := os.MkdirTemp("/run", "bench-docker-")
	if err != nil {
		return err
	}
	host := "unix://" + filepath.Join(dir, "docker.sock")
	if err := os.Setenv("DOCKER_HOST", host); err != nil {
		return err
	}
	dockerd := exec.Command("dockerd", "--host="+host, "--data-root="+filepath.Join(dir, "data"), "--exec-root="+filepath.Join(dir, "exec"),
		"--pidfile="+filepath.Join(dir, "pid"), "--storage-driver=vfs")
	dockerd.Stdout, dockerd.Stderr = os.Stderr, os.Stderr
	dockerd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir, "HOME="+dir)
	if err := dockerd.Start(); err != nil {
		return err
	}
	defer func() {
		_ = dockerd.Process.Signal(syscall.SIGTERM)
		err = errors.Join(err, dockerd.Wait())
	}()
	if err := importAgent(); err != nil {
		return err
	}
	run := exec.Command("docker", "run", "-i", "--rm", "-p", port+":"+port, "-p", port+":"+port+"/udp",
		"bench", "/bench", agentArg, "0.0.0.0:"+port)
	run.Stdin, run.Stderr = os.Stdin, os.Stderr
	out, err := run.StdoutPipe()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := run.Start(); err != nil {
		return err
	}
	return errors.Join(passOn(out, began), run.Wait())
}

// passOn copies what the agent says, and when it was asked for.
func passOn(out io.Reader, began time.Time) error {
	in := bufio.NewReader(out)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("the container did not start: %w", err)
	}
	var h hello
	if err := json.Unmarshal(line, &h); err != nil {
		return err
	}
	h.Began = began
	if err := json.NewEncoder(os.Stdout).Encode(h); err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, in)
	return err
}

// importAgent makes an image of this program, as soon as dockerd answers.
func importAgent() error {
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	var image bytes.Buffer
	w := tar.NewWriter(&image)
	err = errors.Join(w.WriteHeader(&tar.Header{Name: "bench", Mode: 0o755, Size: int64(len(program))}), second(w.Write(program)), w.Close())
	if err != nil {
		return fmt.Errorf("making an image: %w", err)
	}
	var out []byte
	for end := time.Now().Add(startTimeout); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		cmd := exec.Command("docker", "import", "-", "bench")
		cmd.Stdin = io.LimitReader(bytes.NewReader(image.Bytes()), int64(image.Len()))
		if out, err = cmd.CombinedOutput(); err == nil {
			return nil
		}
	}
	return fmt.Errorf("docker import: %w: %s", err, out)
}

func second(_ int, err error) error { return err }
