package links

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/suites/testlab"
	"pqlab/topology"
)

// program is what a user does and sees: a lab that stays up, and its link changed by command.
func program(s shaper) {
	It("is changed by pqlab link set in a lab that is up, as its packets show", func(ctx SpecContext) {
		Expect(s.Binary).NotTo(BeEmpty(), "the specs are not told where pqlab is")
		const d = 300 * time.Millisecond
		t, err := topology.New("links").Host("a").Host("b").Ethernet("a", "b", topology.Name(linkName), topology.Rate(100*topology.Mbit)).Topology()
		Expect(err).NotTo(HaveOccurred())
		plan, err := t.Plan()
		Expect(err).NotTo(HaveOccurred())
		delayed := plan.Links[0]
		delayed.Delay = d
		s.need([]topology.PlannedLink{delayed})
		var to netip.Addr
		for _, n := range plan.Nodes {
			if n.Name == "b" {
				to = n.Interfaces[0].Addresses[0].Addr()
			}
		}
		u := user{s.Binary, fmt.Sprintf("links-%d", os.Getpid()), directory()}
		text, err := t.Marshal()
		Expect(err).NotTo(HaveOccurred())
		file := filepath.Join(u.dir, "links.yaml")
		Expect(os.WriteFile(file, text, 0o644)).To(Succeed())
		u.pqlab(ctx, "up", file, "--name", u.lab, "--shaper", s.name)
		DeferCleanup(func(ctx SpecContext) { u.pqlab(ctx, "down", u.lab) }, NodeTimeout(timeout))

		Expect(u.least(ctx, to)).To(BeNumerically("<", 2*d), "before")
		for _, c := range []struct {
			from        []string
			a, b        time.Duration
			delay, rate string
		}{
			{nil, d, d, d.String(), "none"},
			{[]string{"--from", "b"}, d, 0, "none", "50Mbit/s"},
			{nil, 0, 0, "none", "10Mbit/s"},
		} {
			args := append(append([]string{"link", "set", u.lab, linkName, "--json"}, c.from...), "delay="+c.delay, "rate="+c.rate)
			type way struct {
				Delay time.Duration `json:"delay_ns"`
			}
			var told struct {
				FromA way `json:"from_a"`
				FromB way `json:"from_b"`
			}
			said := u.pqlab(ctx, args...)
			Expect(json.Unmarshal([]byte(said), &told)).To(Succeed(), said)
			Expect([]time.Duration{told.FromA.Delay, told.FromB.Delay}).To(Equal([]time.Duration{c.a, c.b}), said)
			seen := u.least(ctx, to)
			Expect(seen).To(BeNumerically(">=", c.a+c.b), "after %v", args)
			Expect(seen).To(BeNumerically("<", c.a+c.b+d), "after %v", args)
		}
	}, NodeTimeout(2*timeout))
}

// user runs pqlab, for a lab whose supervisor nobody else sees.
type user struct{ binary, lab, dir string }

// pqlab runs it to its end, which is to be a good one.
func (u user) pqlab(ctx context.Context, args ...string) string {
	GinkgoHelper()
	var out, diagnostics bytes.Buffer
	c := exec.CommandContext(ctx, u.binary, args...)
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) } // it takes its lab down
	c.WaitDelay = testlab.Patience(time.Minute)
	c.Dir, c.Env = u.dir, append(os.Environ(), "XDG_RUNTIME_DIR="+u.dir)
	c.Stdout, c.Stderr = &out, &diagnostics
	Expect(c.Run()).To(Succeed(), "%s: %s%s", strings.Join(args, " "), &out, &diagnostics)
	return out.String()
}

// least is the least of some round trips: to a port where nobody listens, which is answered at once.
func (u user) least(ctx context.Context, to netip.Addr) time.Duration {
	GinkgoHelper()
	const microseconds = `for i in 1 2 3 4; do s=${EPOCHREALTIME/[.,]/}; { : >/dev/tcp/%s/9; } 2>/dev/null; e=${EPOCHREALTIME/[.,]/}; echo $((e - s)); done`
	said := u.pqlab(ctx, "exec", u.lab, "a", "--", "bash", "-c", fmt.Sprintf(microseconds, to))
	least := time.Hour
	for _, line := range strings.Fields(said) {
		n, err := strconv.ParseInt(line, 10, 64)
		Expect(err).NotTo(HaveOccurred(), said)
		least = min(least, time.Duration(n)*time.Microsecond)
	}
	return least
}

// directory is one for a spec.
func directory() string {
	GinkgoHelper()
	dir, err := os.MkdirTemp("", "links-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() error { return os.RemoveAll(dir) })
	return dir
}
