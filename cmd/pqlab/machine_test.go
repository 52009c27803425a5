package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"pqlab/agent"
	"pqlab/internal/netns"
	"pqlab/internal/rootless"
	"pqlab/ipsec/gateway"
	"pqlab/ipsec/gateway/port"
	"pqlab/lab"
	"pqlab/links"
	"pqlab/nodes"
	"pqlab/probe"
	"pqlab/supervisor"
)

const delayed = `
nodes: [{name: a, kind: host}, {name: b, kind: host}]
links: [{name: slow, kind: ethernet, a: a, b: b, delay: 5ms, loss: 1%}]
tunnels: [{name: ab, a: a, b: b}]
traffic: [{proto: udp, from: a, to: b, rate: 1Mbit/s}]
`

// A machine that cannot make network namespaces says why and what would help.
func TestNoNamespaces(t *testing.T) {
	for _, args := range []string{"run pair", "up pair", "bench labs --runs 1", "test", "doctor"} {
		t.Run(args, func(t *testing.T) {
			clean(t)
			c := command(t, strings.Fields(args)...)
			prepared(noNamespaces)(c)
			r := finish(t, c)
			if r.code != exitUnsupported {
				t.Errorf("exit status %d, want %d: %s", r.code, exitUnsupported, r.err)
			}
			for _, want := range []string{"max_user_namespaces = 0", "sysctl user.max_user_namespaces="} {
				if !strings.Contains(r.err, want) {
					t.Errorf("no %q in %s", want, r.err)
				}
			}
		})
	}
}

// Without TUN the gateway takes its other port, unless it is told not to.
func TestNoTUN(t *testing.T) {
	needLabs(t)
	clean(t)
	run := func(kind string) result {
		c := command(t, "run", "pair", "--duration", "50ms", "--json", "--dataplane", "gateway", "--gateway-port", kind)
		prepared(noTUN)(c)
		return finish(t, c)
	}
	r := run("tun")
	if r.code != exitUnsupported || r.out != "" || !strings.Contains(r.err, "/dev/net/tun") {
		t.Errorf("exit status %d, %s%s", r.code, r.out, r.err)
	}
	r = run("auto")
	if plane := parse[struct{ Dataplane string }](t, r.out).Dataplane; r.code != exitOK || plane != "gateway/packet" {
		t.Errorf("exit status %d, dataplane %s: %s", r.code, plane, r.err)
	}
}

// found says whether pqlab finds a capability here. It is asked, and not package probe, because it makes itself the user
// namespace that most of them take.
func found(t *testing.T, name string) bool {
	t.Helper()
	type capability struct {
		Name, Why    string
		Found, Known bool
	}
	all := parse[[]capability](t, pqlab(t, "doctor", "--json").out)
	i := slices.IndexFunc(all, func(c capability) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("doctor knows no %s", name)
	}
	if !all[i].Known {
		t.Fatal(all[i].Why)
	}
	return all[i].Found
}

// A delay that nothing here can make is never ignored, unless that is asked for; and then the result says so.
func TestDelay(t *testing.T) {
	needLabs(t)
	clean(t)
	file := write(t, delayed)
	refused, chosen := []string{"tbf"}, ""
	switch {
	case found(t, "netem"):
		chosen = "netem"
	case found(t, "tun"):
		chosen = "wire"
	default:
		refused = append(refused, "auto")
	}
	if chosen != "" {
		r := pqlab(t, "run", file, "--duration", "50ms", "--json")
		if got := parse[struct{ Shaper string }](t, r.out); r.code != exitOK || got.Shaper != chosen {
			t.Errorf("--shaper auto: exit status %d, shaper %s, want %s: %s", r.code, got.Shaper, chosen, r.err)
		}
	}
	for _, shaper := range refused {
		r := pqlab(t, "run", file, "--shaper", shaper)
		if r.code != exitUnsupported || r.out != "" {
			t.Errorf("--shaper %s: exit status %d, %s", shaper, r.code, r.out)
		}
		for _, want := range []string{"slow", "delay 5ms", "loss 1%", "--shaper=none"} {
			if !strings.Contains(r.err, want) {
				t.Errorf("--shaper %s: no %q in %s", shaper, want, r.err)
			}
		}
	}
	r := pqlab(t, "run", file, "--shaper", "none", "--duration", "50ms", "--json")
	got := parse[struct {
		Shaper   string
		Warnings []string
	}](t, r.out)
	if r.code != exitOK || got.Shaper != "none" {
		t.Errorf("exit status %d, %+v, %s", r.code, got, r.err)
	}
	all := strings.Join(got.Warnings, "\n")
	for _, want := range []string{"slow", "delay 5ms", "loss 1%"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in the warnings %q", want, got.Warnings)
		}
	}
}

func TestDataplaneNotHere(t *testing.T) {
	clean(t)
	missing := []string{"xfrm", "offload"}
	if found(t, "xfrm policies") && found(t, "esp") && found(t, "nftables") {
		missing = []string{"offload"}
		r := pqlab(t, "run", "pair", "--dataplane", "xfrm", "--duration", "50ms", "--json")
		if got := parse[struct{ Dataplane string }](t, r.out); r.code != exitOK || !strings.HasPrefix(got.Dataplane, "xfrm/") {
			t.Errorf("xfrm: exit status %d, dataplane %s: %s", r.code, got.Dataplane, r.err)
		}
	}
	for _, plane := range missing {
		words := []string{"dataplane gateway"}
		if plane == "xfrm" {
			words = append(words, "CONFIG_", "pqlab vm --")
		}
		r := pqlab(t, "run", "pair", "--dataplane", plane)
		if r.code != exitUnsupported {
			t.Errorf("%s: exit status %d", plane, r.code)
		}
		for _, w := range words {
			if !strings.Contains(r.err, w) {
				t.Errorf("%s: no %q in %s", plane, w, r.err)
			}
		}
	}
	if r := pqlab(t, "test", "--mode", "hw"); r.code != exitUnsupported {
		t.Errorf("--mode hw: exit status %d, %s", r.code, r.err)
	}
}

// Every error that says what a machine has not got ends with 3, also from far below.
func TestExitCode(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want int
	}{
		{errors.New("broken"), exitFailed},
		{&agent.Error{Node: "a", Reason: "broken"}, exitFailed},
		{&links.UnsupportedError{}, exitUnsupported},
		{&links.MissingError{What: "netem"}, exitUnsupported},
		{&rootless.UnavailableError{Err: unix.EPERM}, exitUnsupported},
		{&netns.UnavailableError{Err: unix.EPERM}, exitUnsupported},
		{&probe.NotSupported{What: "tun"}, exitUnsupported},
		{gateway.ErrNoPort, exitUnsupported},
		{gateway.ErrNoFilter, exitUnsupported},
		{gateway.ErrNoRouting, exitUnsupported},
		{port.ErrUnavailable, exitUnsupported},
		{unsupported(errors.New("not in this version")), exitUnsupported},
		{&supervisor.StartError{Exit: exitUnsupported}, exitUnsupported},
		{&supervisor.StartError{Exit: exitUsage}, exitUsage},
		{usageError{errors.New("wrong")}, exitUsage},
		{fmt.Errorf("in a lab: %w", lab.ErrUnshaped), exitUsage},
		{links.ErrUnknownShaper, exitUsage},
		{nodes.ErrUnknownProfile, exitUsage},
		{supervisor.ErrName, exitUsage},
		{supervisor.ErrExists, exitUsage},
		{supervisor.ErrNotFound, exitUsage},
	} {
		for _, err := range []error{c.err, fmt.Errorf("far above: %w", c.err), errors.Join(errors.New("beside"), c.err)} {
			if got := exitCode(err); got != c.want {
				t.Errorf("%v: %d, want %d", err, got, c.want)
			}
		}
	}
	if errors.Is(gateway.ErrNoFilter, gateway.ErrNoRouting) || errors.Is(gateway.ErrNoPort, gateway.ErrNoFilter) {
		t.Error("what is missing cannot be told apart")
	}
}
