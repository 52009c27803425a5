// Package interop verifies that two implementations of ESP that share no code, the gateway and the kernel's IPsec, are two
// ends of one tunnel: each takes what the other sends, and refuses what it should.
package interop

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/agent"
	"pqlab/ipsec"
	"pqlab/ipsec/xfrm"
	"pqlab/lab"
	"pqlab/probe"
	"pqlab/suites/testlab"
	"pqlab/topology"
)

// Specs of the claim.
func Specs(e testlab.Env) {
	missing := sync.OnceValue(func() error {
		_, err := probe.Dataplane(probe.XFRM)
		return err
	})
	Describe("interop", Label("emu", "vm", testlab.Provokes), func() {
		BeforeEach(func() {
			err := missing()
			var lacks *probe.NotSupported
			if errors.As(err, &lacks) { // else nobody knows
				Skip(err.Error())
			}
			Expect(err).NotTo(HaveOccurred())
		})
		for i, o := range testlab.Carriages() {
			// A lab is made once for each, because in a guest without KVM that takes longer than the specs do.
			Context(o.String(), Ordered, func() {
				e.GuardAll()
				var r *rig
				BeforeAll(func(ctx SpecContext) { r = up(ctx, e, describe(o)) }, NodeTimeout(timeout))
				BeforeEach(func(ctx SpecContext) { r.renew(ctx) }, NodeTimeout(timeout))
				rig := func() *rig { return r }
				v6 := i%2 == 0 // inside, where one family will do: the other one than outside
				order(rig, v6)
				sizes(rig)
				fragments(rig, v6)
				marks(rig, v6)
				rekeys(rig, v6)
				if i%3 == 0 { // each encapsulation and family once
					altered(rig, v6)
				}
			})
		}
		Context("as hosts", func() {
			e.Guard()
			hosts(e)
		})
	})
}

const timeout = 2 * time.Minute

// The ends of the tunnel, and the hosts behind them.
const (
	gatewayEnd = "d1"
	kernelEnd  = "d2"
	fibreLink  = "fibre"
	tunnelName = "ew"
	fibreMTU   = 1500
	pcieMTU    = 9100 // so that 9000 bytes reach the ends in one piece

	// Every SA begins so many packets before 2^32, at both ends, so that every spec passes it.
	before = 16
	start  = 1<<32 - before
)

// describe is the lab h1 – d1 – fibre – d2 – h2.
func describe(o testlab.Carriage) *topology.Builder {
	return topology.New("interop").
		Host("h1").DPU(gatewayEnd, topology.On("h1")).
		Host("h2").DPU(kernelEnd, topology.On("h2")).
		PCIe("h1", gatewayEnd, topology.MTU(pcieMTU)).
		Fibre(gatewayEnd, kernelEnd, topology.Name(fibreLink), topology.MTU(fibreMTU)).
		PCIe("h2", kernelEnd, topology.MTU(pcieMTU)).
		Tunnel(tunnelName, gatewayEnd, kernelEnd, topology.Suite("mldsa44+mlkem512"),
				topology.Encapsulation(o.Encapsulation), topology.Family(o.Family)).
		TCP("h1", "h2") // so that agents run in the hosts
}

// rig is a lab with a tunnel between a gateway and the kernel's IPsec.
type rig struct {
	*lab.Lab
	tunnel          *lab.Tunnel
	events          *testlab.Events
	gateway, kernel string // nodes
	protocol50      bool
	begins          int // of renew

	patience time.Duration // how long a datagram may take

	// What the ends are to have refused until now, of the tunnel and of none, and what the kernel is to have counted of it.
	refusals, strays map[string]ipsec.Drops
	counted          xfrm.Statistics
}

// patience is what a rig begins with, on a machine with a processor of its own.
const patience = time.Minute

// up makes a lab and keys its tunnel.
func up(ctx context.Context, e testlab.Env, t testlab.Planner) *rig {
	GinkgoHelper()
	plan, err := t.Plan()
	Expect(err).NotTo(HaveOccurred())
	p := plan.Tunnels[0]
	r := &rig{
		gateway: p.A.Node, kernel: p.B.Node, protocol50: p.Encapsulation == "esp",
		patience: testlab.Patience(patience), refusals: map[string]ipsec.Drops{}, strays: map[string]ipsec.Drops{}, counted: xfrm.Statistics{},
	}
	r.Lab = e.Up(ctx, t, func(o *lab.Options) {
		o.Seq = start
		o.ManualClock = true // so that the grace of what was replaced need not be waited for
		o.DataplaneOf = map[string]string{r.gateway: probe.Gateway, r.kernel: probe.XFRM}
	})
	r.tunnel, r.events = r.Lab.Tunnel(p.Name), testlab.Collect(r.Lab)
	_, err = r.tunnel.Establish(ctx)
	Expect(err).NotTo(HaveOccurred())
	for node, plane := range map[string]string{r.gateway: probe.Gateway, r.kernel: probe.XFRM} {
		Expect(strings.Split(r.state(ctx, node).Dataplane, "/")[0]).To(Equal(plane), "node %s", node)
	}
	r.events.Established(ctx)
	return r
}

func (r *rig) state(ctx context.Context, node string) agent.TunnelState {
	GinkgoHelper()
	s, err := r.tunnel.State(ctx, node)
	Expect(err).NotTo(HaveOccurred())
	return s
}

// renew gives both ends new SAs, by an exchange that each of them begins in turn.
func (r *rig) renew(ctx context.Context) {
	GinkgoHelper()
	_, err := r.tunnel.Rekey(ctx, []string{r.kernel, r.gateway}[r.begins%2])
	Expect(err).NotTo(HaveOccurred())
	r.begins++
}

// refusal is what an end refuses: of the tunnel and of none, and by the name in the kernel's statistics where it is the
// kernel.
type refusal struct {
	tunnel, none ipsec.Drops
	name         string
}

// packets is how many they are.
func (f refusal) packets() uint64 { return total(f.tunnel) + total(f.none) }

func total(d ipsec.Drops) uint64 { return d.UnknownSPI + d.Replay + d.Integrity + d.Malformed }

func plus(a, b ipsec.Drops) ipsec.Drops {
	return ipsec.Drops{
		UnknownSPI: a.UnknownSPI + b.UnknownSPI, Replay: a.Replay + b.Replay,
		Integrity: a.Integrity + b.Integrity, Malformed: a.Malformed + b.Malformed,
	}
}

// refused checks that an end has refused these packets beside those before, that nothing else was refused anywhere, and
// that no exchange has failed.
func (r *rig) refused(ctx context.Context, node string, now refusal) {
	GinkgoHelper()
	r.refusals[node], r.strays[node] = plus(r.refusals[node], now.tunnel), plus(r.strays[node], now.none)
	if now.name != "" {
		r.counted[now.name] += now.packets()
	}
	r.refusedNothing(ctx)
}

// refusedNothing checks that nothing was refused but what was checked before, and no exchange has failed.
func (r *rig) refusedNothing(ctx context.Context) {
	GinkgoHelper()
	Eventually(ctx, func() string { return r.beyond(ctx) }).Should(BeEmpty(), "refused beyond what was expected")
	testlab.Calm(r.events.All())
}

// beyond tells where what was refused is not what was checked before; empty: nowhere.
func (r *rig) beyond(ctx context.Context) (text string) {
	GinkgoHelper()
	say := func(what, node string, got, want any) {
		if !reflect.DeepEqual(got, want) {
			text += fmt.Sprintf("%s %s: %+v, not %+v\n", node, what, got, want)
		}
	}
	for _, node := range []string{r.gateway, r.kernel} {
		say("of the tunnel", node, r.state(ctx, node).Drops, r.refusals[node])
		say("of no tunnel", node, r.stray(ctx, node), r.strays[node])
	}
	say("by its xfrm_stat", r.kernel, r.statistics(r.kernel), r.counted)
	others := r.statistics(r.gateway)
	if r.protocol50 { // of which the kernel looks for an SA of its own too
		delete(others, "XfrmInNoStates")
	}
	say("by its xfrm_stat", r.gateway, others, xfrm.Statistics{})
	return text
}

// stray is what a node has refused that is of no tunnel.
func (r *rig) stray(ctx context.Context, node string) ipsec.Drops {
	GinkgoHelper()
	rest, err := r.Node(node).Agent().TunnelState(ctx, "")
	Expect(err).NotTo(HaveOccurred())
	return rest.Drops
}

// tells is what both ends have refused, for the message of a failure.
func (r *rig) tells() string {
	GinkgoHelper()
	ctx, cancel := context.WithTimeout(context.Background(), testlab.Patience(time.Minute))
	defer cancel()
	a, b := r.state(ctx, r.gateway).Drops, r.state(ctx, r.kernel).Drops
	return fmt.Sprintf("gateway %+v; kernel %+v, by its xfrm_stat %v", a, b, r.statistics(r.kernel))
}

// statistics are what the kernel's IPsec has refused in a node since it is there.
func (r *rig) statistics(node string) xfrm.Statistics {
	GinkgoHelper()
	s, err := r.Node(node).XfrmStatistics()
	Expect(err).NotTo(HaveOccurred())
	return s
}

func version(v6 bool) string {
	if v6 {
		return "IPv6"
	}
	return "IPv4"
}
