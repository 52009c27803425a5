package interop

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/ipsec"
	"pqlab/suites/testlab"
)

// way is a direction through the tunnel, with a socket at each end of it.
type way struct {
	*rig
	sealer, opener string // nodes at which the tunnel ends
	from, to       socket
}

// socket is a socket of a spec that waits no longer than its rig, and tells then what the ends have refused.
type socket struct {
	testlab.Mailbox
	rig *rig
}

// ways are the two directions between the hosts, or between the ends themselves where they are hosts.
func (r *rig) ways(ctx context.Context, v6 bool) []*way {
	GinkgoHelper()
	near, far := r.behind(ctx, r.gateway, v6), r.behind(ctx, r.kernel, v6)
	return []*way{{r, r.gateway, r.kernel, near, far}, {r, r.kernel, r.gateway, far, near}}
}

func (w *way) String() string { return "from " + w.sealer + " to " + w.opener }

// behind opens a socket at an address that an end protects.
func (r *rig) behind(ctx context.Context, end string, v6 bool) socket {
	GinkgoHelper()
	return socket{testlab.Open(ctx, r.Lab, r.host(end), r.protected(end, v6)), r}
}

// host is the node whose traffic an end protects.
func (r *rig) host(end string) string {
	if h := r.Node(end).Plan.Host; h != "" {
		return h
	}
	return end
}

// protected is the address that an end protects.
func (r *rig) protected(end string, v6 bool) netip.Addr {
	GinkgoHelper()
	plan := r.Node(r.host(end)).Plan
	addresses := plan.Inner
	if r.host(end) != end {
		addresses = plan.Interfaces[0].Addresses
	}
	for _, a := range addresses {
		if a.Addr().Is6() == v6 {
			return a.Addr()
		}
	}
	Fail(fmt.Sprintf("%s protects no %s address", end, version(v6)))
	return netip.Addr{}
}

func (s socket) expect(payload []byte) {
	GinkgoHelper()
	s.limit()
	s.Expect(payload, s.rig.tells)
}

func (s socket) expectMarked(payload []byte, tos uint8) {
	GinkgoHelper()
	s.limit()
	s.ExpectMarked(payload, tos, s.rig.tells)
}

func (s socket) limit() {
	GinkgoHelper()
	Expect(s.SetReadDeadline(time.Now().Add(s.rig.patience))).To(Succeed())
}

// pass sends through the tunnel and waits for the arrival.
func (w *way) pass(payload []byte) {
	GinkgoHelper()
	w.from.Send(w.to.Mailbox, payload)
	w.to.expect(payload)
}

// outerSource is the address that the sealer's ESP packets come from.
func (w *way) outerSource() netip.Addr {
	if w.sealer == w.tunnel.Plan.A.Node {
		return w.tunnel.Plan.OuterA
	}
	return w.tunnel.Plan.OuterB
}

// held sends what the sealer seals and the opener has never seen, and returns the ESP packets.
func (w *way) held(ctx context.Context, payloads ...[]byte) (testlab.Outer, [][]byte) {
	GinkgoHelper()
	held := testlab.Held{Link: fibreLink, Node: w.sealer, From: w.outerSource()}
	return held.Packets(ctx, w.Lab, w.from.Mailbox, w.to.Mailbox, payloads...)
}

// injector sends in the sealer's place.
func (w *way) injector() *testlab.Injector {
	GinkgoHelper()
	return testlab.Inject(w.Lab, fibreLink, w.sealer)
}

// room is the largest inner packet that passes.
func (w *way) room() int {
	p := ipsec.Policy{Dst: w.tunnel.Plan.OuterB}
	if w.protocol50 {
		p.Encapsulation = ipsec.ESP
	}
	return p.InnerMTU(w.tunnel.Plan.MTU)
}
