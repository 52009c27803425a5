package lab

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pqlab/agent"
	"pqlab/internal/journal"
	"pqlab/internal/netns"
	"pqlab/internal/rootless"
	"pqlab/links"
	"pqlab/nodes"
	"pqlab/topology"
)

func TestMain(m *testing.M) {
	nodes.InitMain()
	agent.Main()
	journal.SweeperMain()
	// Where it fails the tests that need it skip, and say why.
	_ = rootless.Enter()
	os.Exit(m.Run())
}

func needNamespaces(t testing.TB) {
	t.Helper()
	made, err := netns.New(1)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	made[0].Close()
}

func up(t testing.TB, b *topology.Builder, o Options) *Lab {
	t.Helper()
	needNamespaces(t)
	plan, err := b.Plan()
	if err != nil {
		t.Fatal(err)
	}
	l, err := Up(t.Context(), plan, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return l
}

// Down takes back the newest first, goes on after errors, and reports each with its name. A second does nothing.
func TestDown(t *testing.T) {
	t.Parallel()
	l := &Lab{}
	var done []string
	errs := map[string]error{"b": errors.New("b stays"), "c": errors.New("c stays")}
	for _, name := range []string{"a", "b", "c", "d"} {
		l.onDown("the "+name, func(context.Context) error {
			done = append(done, name)
			return errs[name]
		})
	}
	err := l.Down(t.Context())
	if want := []string{"d", "c", "b", "a"}; !slices.Equal(done, want) {
		t.Errorf("took back %v, want %v", done, want)
	}
	var down *DownError
	if !errors.As(err, &down) || len(down.Errs) != 2 {
		t.Fatalf("%v", err)
	}
	for name, cause := range errs {
		if !errors.Is(err, cause) || !strings.Contains(err.Error(), "the "+name+": ") {
			t.Errorf("%v does not tell of the %s", err, name)
		}
	}
	if err := l.Down(t.Context()); err != nil || len(done) != 4 {
		t.Errorf("again: %v, %v", err, done)
	}
	if _, err := l.commands(); err == nil {
		t.Error("commands run in a lab that is down")
	}
}

// An agent that is killed ends every wait for the lab, with the node's name; one that Down stops is no failure.
func TestAgentEnds(t *testing.T) {
	two := func() *topology.Builder {
		return topology.New("x").Host("a").Host("b").Ethernet("a", "b").UDP("a", "b")
	}
	l := up(t, two(), Options{})
	ctx, release := l.Guard(t.Context())
	defer release()
	if l.Err() != nil || l.Node("b").Err() != nil || ctx.Err() != nil {
		t.Fatalf("%v, %v, %v", l.Err(), l.Node("b").Err(), ctx.Err())
	}
	if err := l.Node("b").process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ctx.Done():
	case <-time.After(2 * time.Minute):
		t.Fatal("the context goes on")
	}
	for _, err := range []error{context.Cause(ctx), l.Err(), l.Node("b").Err()} {
		var ended *AgentError
		var exit *exec.ExitError
		if !errors.As(err, &ended) || ended.Node != "b" || !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Errorf("%v", err)
		}
	}
	if err := l.Node("a").Err(); err != nil {
		t.Error(err)
	}
	again, release := l.Guard(t.Context())
	defer release()
	<-again.Done()

	l = up(t, two(), Options{})
	ctx, release = l.Guard(t.Context())
	defer release()
	if err := l.Down(t.Context()); err != nil || l.Err() != nil || ctx.Err() != nil {
		t.Errorf("taken down: %v, %v, %v", err, l.Err(), ctx.Err())
	}
	release()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		t.Error(cause)
	}
}

// Whoever sees a call fail because the agent is gone, and takes the lab down at once, is told of the agent.
func TestAgentEndsBeforeDown(t *testing.T) {
	l := up(t, topology.New("x").Host("a").Host("b").Ethernet("a", "b").UDP("a", "b"), Options{})
	if err := l.Node("b").process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := l.Down(t.Context()); err != nil {
		t.Error(err)
	}
	var ended *AgentError
	if err := l.Err(); !errors.As(err, &ended) || ended.Node != "b" {
		t.Errorf("%v", err)
	}
}

// What no lab can be made of is refused before anything is made.
func TestCheck(t *testing.T) {
	t.Parallel()
	plan, err := topology.New("x").Host("a").Host("b").Ethernet("a", "b").Plan()
	if err != nil {
		t.Fatal(err)
	}
	plan.Nodes[0].Profile = "xeno"
	l, err := Up(t.Context(), plan, Options{})
	if l != nil || !errors.Is(err, nodes.ErrUnknownProfile) || !strings.Contains(err.Error(), "xeon") {
		t.Errorf("%v", err)
	}
}

// A link that is not what the topology wants is told of.
func TestIgnored(t *testing.T) {
	l := up(t, topology.New("x").Host("a").Host("b").
		Ethernet("a", "b", topology.Name("slow"), 10*topology.Mbit, topology.Loss(0.5)), Options{Shaper: "none"})
	if len(l.Warnings) != 1 || !strings.Contains(l.Warnings[0], "slow") || !strings.Contains(l.Warnings[0], "loss 50%") ||
		!strings.Contains(l.Warnings[0], "rate 10Mbit/s") {
		t.Errorf("warnings: %q", l.Warnings)
	}
	if l.ShapedBy() != "none" {
		t.Errorf("shaped by %s", l.ShapedBy())
	}
}

// A link is changed as a whole or not at all, in the directions that are asked for.
func TestSetLink(t *testing.T) {
	if err := links.ProbeTBF(); err != nil {
		t.Skip(err)
	}
	l := up(t, topology.New("x").Host("a").Host("b").Ethernet("a", "b", topology.Name("ab"), 10*topology.Mbit), Options{Shaper: "tbf"})
	set := func(from string, args ...string) error {
		t.Helper()
		change, err := topology.ParseChange(args)
		if err != nil {
			t.Fatal(err)
		}
		return l.SetLink("ab", from, change)
	}
	rates := func() [2]topology.Rate {
		s := l.Link("ab").State().Shapes
		return [2]topology.Rate{s[0].Rate, s[1].Rate}
	}
	if err := errors.Join(set("", "rate=20Mbit/s"), set("b", "rate=30Mbit/s")); err != nil {
		t.Fatal(err)
	}
	want := [2]topology.Rate{20e6, 30e6}
	if rates() != want {
		t.Errorf("rates %v, want %v", rates(), want)
	}
	var mistakes topology.Errors
	if err := set("", "rate=1Mbit/s", "jitter=1ms"); !errors.As(err, &mistakes) {
		t.Errorf("jitter without delay: %v", err)
	}
	if err := set("a", "rate=1Mbit/s", "delay=1ms"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("delay by tbf: %v", err)
	}
	if err := set("c", "rate=1Mbit/s"); !errors.Is(err, ErrNoEnd) || errors.Is(err, ErrNoLink) {
		t.Errorf("from a node that is no end: %v", err)
	}
	if err := l.SetLink("ac", "", topology.Change{}); !errors.Is(err, ErrNoLink) {
		t.Errorf("no such link: %v", err)
	}
	if rates() != want {
		t.Errorf("rates %v, want %v", rates(), want)
	}
	if l.ShapedBy() != "tbf" {
		t.Errorf("shaped by %s", l.ShapedBy())
	}
}

// What there is has a name, and what there is not is nil.
func TestNames(t *testing.T) {
	l := up(t, topology.New("x").Host("a").Host("b").Host("c").Ethernet("a", "b").Ethernet("b", "c").Tunnel("ab", "a", "b"), Options{})
	if l.Node("a") == nil || l.Node("nobody") != nil || l.Link("a-b") == nil || l.Link("a-c") != nil || l.Tunnel("ab") == nil || l.Tunnel("bc") != nil {
		t.Error("wrong things are there")
	}
	if a, c := l.Node("a"), l.Node("c"); a.PID() <= 1 || a.Agent() == nil || c.PID() != 0 || c.Agent() != nil {
		t.Errorf("agents: %d, %d", a.PID(), c.PID())
	}
	if end, err := l.Tunnel("ab").End("b"); err != nil || end != l.Node("b") {
		t.Errorf("end: %v, %v", end, err)
	}
	if _, err := l.Tunnel("ab").End("c"); err == nil || !strings.Contains(err.Error(), "c") {
		t.Errorf("an end where none is: %v", err)
	}
	if _, err := l.Tunnel("ab").State(t.Context(), "c"); err == nil {
		t.Error("state of an end where none is")
	}
	if _, err := l.Tunnel("ab").Rekey(t.Context(), "c"); err == nil {
		t.Error("rekey from an end where none is")
	}
	if err := l.Advance(t.Context(), 1); err == nil {
		t.Error("the machine's clock was advanced")
	}
	if cpu, err := l.Node("c").CPU(t.Context()); cpu != 0 || err != nil {
		t.Errorf("CPU of a node without processes: %v, %v", cpu, err)
	}
}

// Who wants links verified is not offered a shaper that makes none of their shapes.
func TestVerifiedLinksAreOfferedNoShaperNone(t *testing.T) {
	needNamespaces(t)
	for _, verify := range []bool{false, true} {
		plan, err := topology.New("x").Host("a").Host("b").Ethernet("a", "b", topology.Delay(time.Millisecond)).Plan()
		if err != nil {
			t.Fatal(err)
		}
		plan.Verify = verify
		var lacks *links.UnsupportedError
		if _, err := Up(t.Context(), plan, Options{Shaper: "tbf"}); !errors.As(err, &lacks) || lacks.Shaped != verify {
			t.Errorf("verify %v: %v", verify, err)
		}
	}
}
