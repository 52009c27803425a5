// Package baseline verifies the tunnel that post-quantum ones are compared with: keyed by strongSwan, by classical IKEv2, it
// carries the same traffic under the same checks.
package baseline

import (
	"context"
	"errors"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/agent"
	"pqlab/internal/vm/guest"
	"pqlab/ipsec"
	"pqlab/lab"
	"pqlab/suites/testlab"
	"pqlab/topology"
	"pqlab/traffic"
)

// Specs of the claim.
func Specs(e testlab.Env) {
	missing := sync.OnceValue(lab.Strongswan)
	Describe("baseline", Label("emu", "vm"), func() {
		e.Guard()
		BeforeEach(func() {
			if err := missing(); errors.Is(err, errors.ErrUnsupported) {
				Skip(err.Error())
			} else {
				Expect(err).NotTo(HaveOccurred())
			}
		})
		carries(e)
		refuses(e)
		rekeys(e)
		ends(e)
	})
}

const (
	timeout    = 2 * time.Minute
	tunnelName = "ew"
	fibreLink  = "fibre"
)

// gateways are the ends of the tunnel.
func gateways() [2]string { return [2]string{"d1", "d2"} }

// describe is the lab h1 – d1 – fibre – d2 – h2.
func describe(options ...topology.TunnelOption) *topology.Builder {
	rate := 5 * topology.Mbit / topology.Rate(slowly())
	return topology.New("baseline").
		Host("h1").DPU("d1", topology.On("h1")).
		Host("h2").DPU("d2", topology.On("h2")).
		PCIe("h1", "d1", topology.MTU(1500)).
		Fibre("d1", "d2", topology.Name(fibreLink), topology.MTU(1500)).
		PCIe("h2", "d2", topology.MTU(1500)).
		Tunnel(tunnelName, "d1", "d2", append(options, topology.Keying(topology.Strongswan))...).
		TCP("h1", "h2").TCP("h2", "h1", topology.Family("ipv6")).
		UDP("h1", "h2", rate, topology.FrameSize(600), topology.Family("ipv6")).
		UDP("h2", "h1", rate, topology.FrameSize(1418))
}

// slowly is by how much traffic goes slower on an emulated processor. A rekey has to be done before the SA that it replaces
// has carried four times its limit, which ends it, and charon takes a second for one there when the machine is busy.
func slowly() int {
	if guest.Emulated() {
		return 2
	}
	return 1
}

// rig is a lab whose tunnel is not keyed yet.
type rig struct {
	*lab.Lab
	tunnel *lab.Tunnel
	events *testlab.Events
}

func up(ctx context.Context, e testlab.Env, t testlab.Planner, change func(*lab.Options)) *rig {
	GinkgoHelper()
	l := e.Up(ctx, t, change)
	DeferCleanup(func(ctx SpecContext) {
		for _, node := range gateways() {
			if log, err := l.Node(node).Agent().Log(ctx); CurrentSpecReport().Failed() && err == nil {
				GinkgoWriter.Printf("charon at %s:\n%s\n", node, log)
			}
		}
	}, NodeTimeout(timeout))
	return &rig{l, l.Tunnel(tunnelName), testlab.Collect(l)}
}

// establish keys the tunnel, and waits until both ends know.
func (r *rig) establish(ctx context.Context) {
	GinkgoHelper()
	_, err := r.tunnel.Establish(ctx)
	Expect(err).NotTo(HaveOccurred())
	r.events.Established(ctx)
}

func (r *rig) state(ctx context.Context, node string) agent.TunnelState {
	GinkgoHelper()
	s, err := r.tunnel.State(ctx, node)
	Expect(err).NotTo(HaveOccurred())
	return s
}

// send sends a flow of the plan, and fails if it does not arrive whole.
func (r *rig) send(ctx context.Context, f topology.PlannedFlow, d time.Duration) traffic.Result {
	GinkgoHelper()
	got, err := r.Send(ctx, f, d)
	Expect(err).NotTo(HaveOccurred())
	Expect(got.Bytes).NotTo(BeZero(), f.Name)
	Expect(got.Lost).To(BeZero(), f.Name)
	Expect(got.Duplicated).To(BeZero(), f.Name)
	return got
}

// clean checks that neither end has refused a packet.
func (r *rig) clean(ctx context.Context) {
	GinkgoHelper()
	for _, node := range gateways() {
		Expect(r.state(ctx, node).Drops).To(Equal(ipsec.Drops{}), node)
		rest, err := r.Node(node).Agent().TunnelState(ctx, "")
		Expect(err).NotTo(HaveOccurred())
		Expect(rest.Drops).To(Equal(ipsec.Drops{}), node)
	}
}
