package hygiene

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"pqlab/agent"
	"pqlab/lab"
	"pqlab/links"
	"pqlab/nodes"
	"pqlab/probe"
	"pqlab/suites/testlab"
	"pqlab/topology"
)

// failures are starts that go wrong, at each stage one. The plan is broken after it was checked: by then only the kernel
// and the agents are left to refuse it.
func failures(e testlab.Env) {
	type broken struct {
		plan    *topology.Plan
		options lab.Options
	}
	node := func(p *topology.Plan, name string) *topology.PlannedNode {
		i := slices.IndexFunc(p.Nodes, func(n topology.PlannedNode) bool { return n.Name == name })
		return &p.Nodes[i]
	}
	DescribeTable("leaves nothing and says what failed",
		func(ctx SpecContext, breakIt func(*broken), reason error, names string) {
			plan, err := small().Plan()
			Expect(err).NotTo(HaveOccurred())
			b := broken{plan, e.Lab}
			breakIt(&b)
			l, err := lab.Up(ctx, b.plan, b.options)
			if err == nil {
				DeferCleanup(l.Down)
			}
			Expect(err).To(HaveOccurred())
			Expect(l == nil).To(BeTrue(), "no lab")
			Expect(err).To(MatchError(ContainSubstring(names)), "it does not name the thing")
			if reason != nil {
				Expect(err).To(MatchError(reason))
			}
			var down *lab.DownError
			Expect(errors.As(err, &down)).To(BeFalse(), "%v", err)
		},
		Entry("a shaper that there is not", func(b *broken) { b.options.Shaper = "magic" }, links.ErrUnknownShaper, "magic"),
		Entry("a shaper that cannot do it", func(b *broken) {
			b.options.Shaper, b.plan.Links[0].Delay = "tbf", time.Millisecond
		}, errors.ErrUnsupported, "d1-s"),
		Entry("a dataplane that this machine has not got", func(b *broken) { b.plan.Tunnels[0].Dataplane = "offload" }, errors.ErrUnsupported, "tunnel t"),
		Entry("an unknown profile", func(b *broken) { node(b.plan, "d2").Profile = "abacus" }, nodes.ErrUnknownProfile, "node d2"),
		Entry("an interface's name taken", func(b *broken) {
			b.plan.Links[2].A, b.plan.Links[3].A = b.plan.Links[0].A, b.plan.Links[0].A
		}, unix.EEXIST, "h1"),
		Entry("an address taken", func(b *broken) {
			i := &node(b.plan, "h2").Interfaces[0]
			i.Addresses = append(i.Addresses, i.Addresses[0])
		}, unix.EEXIST, "node h2"),
		Entry("a route to nowhere", func(b *broken) {
			n := node(b.plan, "h2")
			n.Routes = append(n.Routes, topology.Route{Dst: netip.MustParsePrefix("203.0.113.0/24"), Via: netip.MustParseAddr("203.0.113.1")})
		}, unix.ENETUNREACH, "node h2"),
		Entry("an MTU that no interface has", func(b *broken) { node(b.plan, "h2").Interfaces[0].MTU = 1 << 20 }, unix.EINVAL, "node h2"),
		Entry("a suite that the agents do not know", func(b *broken) { b.plan.Tunnels[0].Suite = "rsa+dh" }, nil, "tunnel t"),
		Entry("a port that the agents do not know", func(b *broken) {
			b.options.Dataplane, b.options.Port = probe.Gateway, "serial" // the kernel's IPsec has none
		}, nil, "tunnel t"),
		Entry("an outer address that is nobody's", func(b *broken) { b.plan.Tunnels[0].OuterB = netip.MustParseAddr("203.0.113.1") }, nil, "node d2"),
		Entry("a CA that is not there", func(b *broken) { b.plan.Tunnels[0].CA = "/nonexistent/ca.pem" }, fs.ErrNotExist, "tunnel t"),
	)

	It("leaves nothing when it is called off at a random moment", func(ctx SpecContext) {
		plan, err := small().Plan()
		Expect(err).NotTo(HaveOccurred())
		began := time.Now()
		l, err := lab.Up(ctx, plan, e.Lab)
		Expect(err).NotTo(HaveOccurred())
		took := time.Since(began)
		Expect(l.Down(ctx)).To(Succeed())

		called := 0
		for _, part := range append(moments(kills()), 0) {
			moment := time.Duration(part * float64(took))
			up, cancel := context.WithTimeout(ctx, moment)
			l, err := lab.Up(up, plan, e.Lab)
			if err != nil {
				called++
				Expect(err).To(Or(MatchError(context.DeadlineExceeded), BeAssignableToTypeOf(&agent.Error{})), "after %v", moment)
				Expect(l).To(BeNil())
				var down *lab.DownError
				Expect(errors.As(err, &down)).To(BeFalse(), "after %v: %v", moment, err)
			} else {
				Expect(l.Down(ctx)).To(Succeed())
			}
			cancel()
		}
		Expect(called).To(BeNumerically(">", 0))
	})
}

// agents are killed under a lab.
func agents(e testlab.Env) {
	It("is reported with its node's name, and the lab goes down", func(ctx SpecContext) {
		l := e.Up(ctx, small(), nil)
		_, err := l.Tunnel("t").Establish(ctx)
		Expect(err).NotTo(HaveOccurred())
		pid := l.Node("d2").PID()
		Expect(pid).To(BeNumerically(">", 1))
		Expect(unix.Kill(pid, unix.SIGKILL)).To(Succeed())

		named := func(err error) {
			GinkgoHelper()
			var failed *agent.Error
			Expect(errors.As(err, &failed)).To(BeTrue(), "%v", err)
			Expect(failed.Node).To(Equal("d2"))
		}
		_, err = l.Tunnel("t").State(ctx, "d2")
		named(err)
		_, err = l.Node("d2").Agent().Usage(ctx)
		named(err)
		_, err = l.Tunnel("t").Rekey(ctx, "d2")
		named(err)
		Expect(l.Down(ctx)).To(Succeed())
	})

	It("ends the traffic that it was part of, with an error that names the node", func(ctx SpecContext) {
		l := e.Up(ctx, small(), nil)
		_, err := l.Tunnel("t").Establish(ctx)
		Expect(err).NotTo(HaveOccurred())
		pid := l.Node("h2").PID()
		Expect(pid).To(BeNumerically(">", 1))
		ended := make(chan error, 1)
		go func() {
			_, err := l.Send(ctx, l.Plan.Traffic[0], time.Minute)
			ended <- err
		}()
		// The flow runs when the sink has spent time on it.
		Eventually(func() (time.Duration, error) { return l.Node("h2").CPU(ctx) }, testlab.Patience(time.Minute), 5*time.Millisecond).
			Should(BeNumerically(">", 100*time.Millisecond))
		Expect(unix.Kill(pid, unix.SIGKILL)).To(Succeed())
		var sent error
		Eventually(ended, testlab.Patience(time.Minute)).Should(Receive(&sent))
		Expect(sent).To(MatchError(ContainSubstring("node h2")))
		Expect(l.Down(ctx)).To(Succeed())
	})
}
