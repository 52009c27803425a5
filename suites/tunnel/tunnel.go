// Package tunnel verifies that what a tunnel protects passes its links as ESP and nothing else does, and that everything
// which belongs through it comes out of it unchanged.
package tunnel

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/agent"
	"pqlab/ipsec"
	"pqlab/lab"
	"pqlab/suites/testlab"
	"pqlab/topology"
)

// Specs of the claim.
func Specs(e testlab.Env) {
	Describe("tunnel", Label("emu", "vm"), func() {
		e.Guard()
		onlyESP(e)
		unkeyed(e)
		begins(e)
		refused(e)
		plaintext(e)
		sizes(e)
		marks(e)
		many(e)
	})
}

const timeout = 2 * time.Minute

// overhead is the bytes that the outer headers add before the ESP header.
func overhead(o testlab.Carriage) int {
	n := 20
	if o.Family == "ipv6" {
		n = 40
	}
	if o.Encapsulation == "udp" {
		n += 8
	}
	return n
}

// eastWest is the lab of most specs: h1 – d1 – fibre – d2 – h2.
func eastWest(o testlab.Carriage) *topology.Builder { return sized(o, 0, 0) }

// sized is eastWest with MTUs of its fibre and of PCIe; 0 is the default.
func sized(o testlab.Carriage, fibre, pcie int) *topology.Builder {
	return topology.New("tunnel").
		Host("h1").DPU("d1", topology.On("h1")).
		Host("h2").DPU("d2", topology.On("h2")).
		PCIe("h1", "d1", topology.Name(pcieLink), topology.MTU(pcie)).
		Fibre("d1", "d2", topology.Name(fibreLink), topology.MTU(fibre)).
		PCIe("h2", "d2", topology.MTU(pcie)).
		Tunnel(tunnelName, "d1", "d2", topology.Suite("mldsa44+mlkem512"),
				topology.Encapsulation(o.Encapsulation), topology.Family(o.Family)).
		TCP("h1", "h2") // so that agents run in the hosts
}

const (
	fibreLink  = "fibre"
	pcieLink   = "pcie" // of h1
	tunnelName = "ew"
)

// rig is a lab of eastWest.
type rig struct {
	*lab.Lab
	kernel bool // its tunnels are the kernel's
	tunnel *lab.Tunnel
}

// up makes the lab and keys its tunnel. The exchange's secrets are revealed, for specs that forge packets.
func up(ctx context.Context, e testlab.Env, t testlab.Planner) *rig {
	GinkgoHelper()
	l := e.Up(ctx, t, func(o *lab.Options) { o.Reveal = true })
	r := &rig{l, e.Kernel(), l.Tunnel(tunnelName)}
	_, err := r.tunnel.Establish(ctx)
	Expect(err).NotTo(HaveOccurred())
	return r
}

func (r *rig) state(ctx context.Context, node string) agent.TunnelState {
	GinkgoHelper()
	s, err := r.tunnel.State(ctx, node)
	Expect(err).NotTo(HaveOccurred())
	return s
}

// drops gives what a node refused: of the tunnel, and of none.
func (r *rig) drops(ctx context.Context, node string) (ofTunnel, rest ipsec.Drops) {
	GinkgoHelper()
	s, err := r.Node(node).Agent().TunnelState(ctx, "")
	Expect(err).NotTo(HaveOccurred())
	return r.state(ctx, node).Drops, s.Drops
}

// host is a node's address of a family on its first link.
func (r *rig) host(node string, v6 bool) netip.Addr {
	GinkgoHelper()
	return address(r.Lab, node, v6)
}

func address(l *lab.Lab, node string, v6 bool) netip.Addr {
	GinkgoHelper()
	for _, i := range l.Node(node).Plan.Interfaces {
		for _, a := range i.Addresses {
			if a.Addr().Is6() == v6 {
				return a.Addr()
			}
		}
	}
	Fail(fmt.Sprintf("node %s has no such address", node))
	return netip.Addr{}
}
