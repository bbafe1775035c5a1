package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"rootlesskit/api"
	"rootlesskit/internal/apiserver"
	"rootlesskit/internal/ports"
	"rootlesskit/internal/ports/portstest"
	"rootlesskit/internal/unixsock"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"rootlessctl": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                "testdata",
		RequireUniqueNames: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serve":   serve,
			"respond": respond,
			"status":  status,
		},
	})
}

// serve [full|bare] runs a server on api.sock: with a network and a port
// driver (the fake one, which forwards tcp, tcp4 and udp), or with neither.
func serve(ts *testscript.TestScript, _ bool, args []string) {
	cfg := apiserver.Config{Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	info := api.Info{APIVersion: "1.2.0", Version: "3.4.0", StateDir: "/run/user/1000/kit", ChildPID: 4242}
	if args[0] == "full" {
		cfg.Ports = ports.New(&portstest.Driver{})
		info.NetworkDriver = &api.NetworkDriverInfo{Driver: "slirp4netns", DNS: []string{"10.0.2.3", "fd00::3"}, ChildIP: "10.0.2.100", DynamicChildIP: true, IPv6: true}
		info.PortDriver = &api.PortDriverInfo{Driver: "builtin", Protos: []api.Proto{"tcp", "udp"}, Extra: map[string]string{"sourceIPTransparentBackend": "nft"}}
	}
	cfg.Info = func() (api.Info, error) { return info, nil }
	l, err := unixsock.Listen(context.Background(), ts.MkAbs("api.sock"))
	ts.Check(err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- apiserver.New(cfg).Serve(ctx, l) }()
	ts.Defer(func() { stop(); ts.Check(<-done) })
}

// respond STATUS BODY runs a server on api.sock that has but one answer.
func respond(ts *testscript.TestScript, _ bool, args []string) {
	code, err := strconv.Atoi(args[0])
	ts.Check(err)
	l, err := unixsock.Listen(context.Background(), ts.MkAbs("api.sock"))
	ts.Check(err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, strings.Join(args[1:], " "))
	})}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	ts.Defer(func() { server.Close(); <-done })
}

// status CODE ARGUMENT... runs rootlessctl, and compares the exit status.
func status(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec("rootlessctl", args[1:]...)
	code := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit status %d, want %s", code, args[0])
	}
}

// A result that could not be written is a failure.
func TestFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	if err := printTable(full, nil); err == nil {
		t.Error("no error from list-ports")
	}
	if err := printJSON(full, 1); err == nil {
		t.Error("no error from list-ports --json")
	}
}
