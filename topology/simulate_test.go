package topology_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pqlab/topology"
)

// network simulates IP forwarding over a plan.
type network struct {
	plan  *topology.Plan
	nodes map[string]*topology.PlannedNode
	owner map[netip.Addr]string
	links map[string]topology.PlannedLink
}

func newNetwork(t *testing.T, p *topology.Plan) *network {
	n := &network{p, map[string]*topology.PlannedNode{}, map[netip.Addr]string{}, map[string]topology.PlannedLink{}}
	for _, l := range p.Links {
		n.links[l.Name] = l
	}
	for i := range p.Nodes {
		node := &p.Nodes[i]
		n.nodes[node.Name] = node
		names := map[string]bool{}
		for _, itf := range node.Interfaces {
			if names[itf.Name] || len(itf.Name) > 15 || itf.Name == "" {
				t.Errorf("%s: interface name %q is taken or bad", node.Name, itf.Name)
			}
			names[itf.Name] = true
			for _, a := range itf.Addresses {
				if other, ok := n.owner[a.Addr()]; ok {
					t.Errorf("%s and %s both have %v", node.Name, other, a)
				}
				n.owner[a.Addr()] = node.Name
			}
		}
	}
	return n
}

// segment returns the nodes with addresses in the same layer-2 network as an interface.
func (n *network) segment(link string) (members []string, links []string) {
	queue, seen := []string{link}, map[string]bool{link: true}
	for len(queue) > 0 {
		l := n.links[queue[0]]
		queue = queue[1:]
		links = append(links, l.Name)
		for _, end := range []topology.End{l.A, l.B} {
			if node := n.nodes[end.Node]; !node.Bridge {
				members = append(members, end.Node)
			} else {
				for _, itf := range node.Interfaces {
					if !seen[itf.Link] {
						seen[itf.Link] = true
						queue = append(queue, itf.Link)
					}
				}
			}
		}
	}
	return members, links
}

// next is the node that a packet goes to from node, by longest prefix.
func (n *network) next(node string, dst netip.Addr) (string, topology.Interface, bool) {
	for _, itf := range n.nodes[node].Interfaces {
		for _, a := range itf.Addresses {
			if a.Contains(dst) && itf.Link != "" {
				return n.owner[dst], itf, true
			}
		}
	}
	best, bits := netip.Addr{}, -1
	for _, r := range n.nodes[node].Routes {
		if r.Dst.Contains(dst) && r.Dst.Bits() > bits {
			best, bits = r.Via, r.Dst.Bits()
		}
	}
	if bits < 0 {
		return "", topology.Interface{}, false
	}
	for _, itf := range n.nodes[node].Interfaces {
		for _, a := range itf.Addresses {
			if a.Contains(best) && itf.Link != "" {
				return n.owner[best], itf, true
			}
		}
	}
	return "", topology.Interface{}, false
}

func (n *network) tunnelAt(node string, src, dst netip.Addr) (string, string) {
	holds := func(subnets []netip.Prefix, a netip.Addr) bool {
		return slices.ContainsFunc(subnets, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	for _, t := range n.plan.Tunnels {
		if t.A.Node == node && holds(t.A.Subnets, src) && holds(t.B.Subnets, dst) {
			return t.Name, t.B.Node
		}
		if t.B.Node == node && holds(t.B.Subnets, src) && holds(t.A.Subnets, dst) {
			return t.Name, t.A.Node
		}
	}
	return "", ""
}

// send follows a packet and returns the tunnels it passes and the smallest MTU it meets outside them.
func (n *network) send(node string, src, dst netip.Addr) (tunnels []string, mtu int, err error) {
	mtu = 1 << 20
	for hops := 0; n.owner[dst] != node; hops++ {
		if hops > 0 && hops > 2*len(n.plan.Nodes) {
			return nil, 0, errors.New("goes in a loop")
		}
		if name, peer := n.tunnelAt(node, src, dst); name != "" {
			tunnels = append(tunnels, name)
			node = peer
			continue
		}
		if hops > 0 && !n.nodes[node].Forward {
			return nil, 0, fmt.Errorf("ends at %s, which does not forward", node)
		}
		next, itf, ok := n.next(node, dst)
		if !ok {
			return nil, 0, fmt.Errorf("has no route at %s", node)
		}
		members, _ := n.segment(itf.Link)
		if !slices.Contains(members, next) {
			return nil, 0, fmt.Errorf("%s routes to %q, which is not its neighbour", node, next)
		}
		mtu = min(mtu, itf.MTU)
		node = next
	}
	return tunnels, mtu, nil
}

func checkPlan(t *testing.T, p *topology.Plan) {
	t.Helper()
	n := newNetwork(t, p)
	subnets := map[netip.Prefix]string{} // to the first link of its segment
	names := map[string]bool{}
	for _, l := range p.Links {
		if names[l.Name] || l.Name == "" || l.Seed == 0 || l.MTU < 1280 {
			t.Errorf("link %q: name taken, or seed %d or MTU %d not filled in", l.Name, l.Seed, l.MTU)
		}
		names[l.Name] = true
		_, links := n.segment(l.Name)
		slices.Sort(links)
		for _, other := range links {
			if n.links[other].MTU != l.MTU {
				t.Errorf("links %s and %s are bridged and have MTU %d and %d", l.Name, other, l.MTU, n.links[other].MTU)
			}
		}
		for _, end := range []topology.End{l.A, l.B} {
			if n.nodes[end.Node].Bridge {
				if len(end.Addresses) > 0 {
					t.Errorf("bridge %s has addresses", end.Node)
				}
				continue
			}
			var has [2]bool
			for _, a := range end.Addresses {
				has[0], has[1] = has[0] || a.Addr().Is4(), has[1] || a.Addr().Is6()
				for s, other := range subnets {
					if s.Overlaps(a) && (s != a.Masked() || other != links[0]) {
						t.Errorf("%v of link %s overlaps %v of %s", a, l.Name, s, other)
					}
				}
				subnets[a.Masked()] = links[0]
			}
			if has != [2]bool{true, true} {
				t.Errorf("link %s at %s has addresses %v, want both families", l.Name, end.Node, end.Addresses)
			}
		}
	}
	// Whatever is routed arrives, and a host that has a DPU sends it there.
	for _, node := range p.Nodes {
		dpu := ""
		for _, d := range p.Nodes {
			if d.Kind == topology.DPU && d.Host == node.Name {
				dpu = d.Name
			}
		}
		for _, r := range node.Routes {
			via := n.owner[r.Via]
			for _, itf := range node.Interfaces {
				for _, a := range itf.Addresses {
					if a.Masked() == r.Dst {
						t.Errorf("%s has a route to %v, which it is in", node.Name, r.Dst)
					}
				}
			}
			if !n.nodes[via].Forward && !r.Dst.IsSingleIP() {
				t.Errorf("%s routes %v through %s, which does not forward", node.Name, r.Dst, via)
			}
		}
		for a, owner := range n.owner {
			if len(p.Tunnels) > 0 || node.Bridge || owner == node.Name {
				continue
			}
			next, _, ok := n.next(node.Name, a)
			_, _, err := n.send(node.Name, netip.Addr{}, a)
			if reached := err == nil; reached != n.reachable(node.Name, owner, a) {
				t.Errorf("%s to %v of %s: %v, reachable %v", node.Name, a, owner, err, !reached)
			}
			if ok && err == nil && dpu != "" && next != owner && next != dpu && n.reachable(dpu, owner, a) && !n.neighbour(node.Name, dpu, a) {
				t.Errorf("%s sends %v of %s through %s, not its DPU %s", node.Name, a, owner, next, dpu)
			}
		}
	}
	for _, tun := range p.Tunnels {
		if n.owner[tun.OuterA] != tun.A.Node || n.owner[tun.OuterB] != tun.B.Node {
			t.Errorf("tunnel %s: outer addresses %v %v are not its ends'", tun.Name, tun.OuterA, tun.OuterB)
		}
		if tun.OuterA.Is4() != (tun.Family == "ipv4") {
			t.Errorf("tunnel %s of %s has outer address %v", tun.Name, tun.Family, tun.OuterA)
		}
		if len(tun.A.Subnets) == 0 || len(tun.B.Subnets) == 0 || len(tun.Links) == 0 || tun.MTU < 1280 {
			t.Errorf("tunnel %s is not filled in: %+v", tun.Name, tun)
		}
		there, mtu, err := n.send(tun.A.Node, tun.OuterA, tun.OuterB)
		if err != nil || slices.Contains(there, tun.Name) || mtu < tun.MTU {
			t.Errorf("tunnel %s: ESP to B: %v, through %v, MTU %d where %d is planned", tun.Name, err, there, mtu, tun.MTU)
		}
		if back, _, err := n.send(tun.B.Node, tun.OuterB, tun.OuterA); err != nil || slices.Contains(back, tun.Name) {
			t.Errorf("tunnel %s: ESP to A: %v, through %v", tun.Name, err, back)
		}
		if !n.nodes[tun.A.Node].Services || !n.nodes[tun.B.Node].Services {
			t.Errorf("tunnel %s: its ends have no services", tun.Name)
		}
	}
	for _, f := range p.Traffic {
		stops := slices.Concat([]netip.Addr{f.Src}, f.Hops, []netip.Addr{f.Dst})
		var tunnels []string
		for i := 1; i < len(stops); i++ {
			src := stops[i-1]
			if i > 1 { // a relay sends from its own choice; the plan's tunnels tell
				continue
			}
			passed, _, err := n.send(n.owner[src], src, stops[i])
			if err != nil {
				t.Errorf("flow %s: %v to %v: %v", f.Name, src, stops[i], err)
			}
			tunnels = append(tunnels, passed...)
		}
		if len(stops) == 2 && !slices.Equal(tunnels, f.Tunnels) {
			t.Errorf("flow %s passes tunnels %v, planned %v", f.Name, tunnels, f.Tunnels)
		}
		if n.owner[f.Src] != f.From || n.owner[f.Dst] != f.To || f.Streams == 0 || len(f.Hops) != len(f.Via) {
			t.Errorf("flow %s is not filled in: %+v", f.Name, f)
		}
		if f.Proto == "udp" && (f.Rate == 0 || f.FrameSize == 0) {
			t.Errorf("flow %s: rate %v, frame size %d", f.Name, f.Rate, f.FrameSize)
		}
	}
}

// reachable says by plain search whether a packet can get from node to owner: through nodes that forward.
func (n *network) reachable(node, owner string, a netip.Addr) bool {
	if slices.ContainsFunc(n.nodes[owner].Interfaces, func(i topology.Interface) bool {
		return i.Name == "lo" && slices.ContainsFunc(i.Addresses, func(p netip.Prefix) bool { return p.Addr() == a })
	}) {
		return false // inner: through tunnels only
	}
	queue, seen := []string{node}, map[string]bool{node: true}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		for _, itf := range n.nodes[at].Interfaces {
			if itf.Link == "" {
				continue
			}
			members, _ := n.segment(itf.Link)
			for _, m := range members {
				if m == owner && n.neighbour(at, owner, a) {
					return true
				}
				if !seen[m] && n.nodes[m].Forward {
					seen[m] = true
					queue = append(queue, m)
				}
			}
		}
		if at == owner {
			return true
		}
	}
	return false
}

// neighbour says whether a is in a network that node is in.
func (n *network) neighbour(node, _ string, a netip.Addr) bool {
	for _, itf := range n.nodes[node].Interfaces {
		for _, p := range itf.Addresses {
			if itf.Link != "" && p.Contains(a) {
				return true
			}
		}
	}
	return false
}
