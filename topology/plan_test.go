package topology_test

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"pqlab/topology"
)

func builtin(t *testing.T, name string) *topology.Plan {
	t.Helper()
	top, err := topology.Builtin(name)
	if err != nil {
		t.Fatal(err)
	}
	p, err := top.Plan()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestBuiltins(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]struct {
		tunnels map[string][]string // links that each tunnel passes
		flows   map[string][]string // tunnels that each flow passes
	}{
		"pair":        {map[string][]string{"ab": {"a-b"}}, map[string][]string{"a-b-tcp": {"ab"}, "a-b-udp": {"ab"}}},
		"east-west":   {map[string][]string{"ew": {"d1-d2"}}, map[string][]string{"h1-h2-tcp": {"ew"}, "h1-h2-udp": {"ew"}}},
		"north-south": {map[string][]string{"ns": {"client-ap", "ap-d1"}}, map[string][]string{"client-h1-tcp": {"ns"}, "client-h1-udp": {"ns"}}},
		"combined": {map[string][]string{"ns": {"client-ap", "ap-d1"}, "ew": {"d1-d2"}},
			map[string][]string{"client-h2-tcp": {"ns", "ew"}, "client-h1-udp": {"ns"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := builtin(t, name)
			tunnels, flows := map[string][]string{}, map[string][]string{}
			for _, tun := range p.Tunnels {
				tunnels[tun.Name] = tun.Links
			}
			for _, f := range p.Traffic {
				flows[f.Name] = f.Tunnels
			}
			if !reflect.DeepEqual(tunnels, want.tunnels) {
				t.Errorf("tunnels %v, want %v", tunnels, want.tunnels)
			}
			if !reflect.DeepEqual(flows, want.flows) {
				t.Errorf("flows %v, want %v", flows, want.flows)
			}
			for _, l := range p.Links {
				if l.Delay != 0 || l.Loss != 0 || l.Jitter != 0 {
					t.Errorf("link %s is impaired", l.Name)
				}
			}
			checkPlan(t, p)
		})
	}
	if n := len(topology.Builtins()); n != 4 {
		t.Errorf("%d built-in labs listed, want 4", n)
	}
	if _, err := topology.Builtin("east-wets"); err == nil || !strings.Contains(err.Error(), "east-west") {
		t.Errorf("Builtin of an unknown name: %v, want one that names east-west", err)
	}
}

// TestRandomPlans holds the plan's own statements against a simulation of IP over it.
func TestRandomPlans(t *testing.T) {
	t.Parallel()
	const n = 1500
	tunnelled := 0
	refused := planned(n, func(i int, top *topology.Topology, p *topology.Plan) {
		before := t.Failed()
		checkPlan(t, p)
		for _, f := range p.Traffic {
			if len(f.Tunnels) > 0 {
				tunnelled++
			}
		}
		if t.Failed() && !before {
			text, _ := top.Marshal()
			t.Fatalf("topology %d:\n%s", i, text)
		}
	})
	if refused > n/3 {
		t.Errorf("%d of %d random topologies refused", refused, n)
	}
	if tunnelled < 100 {
		t.Errorf("only %d flows through tunnels in the sample", tunnelled)
	}
}

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

func TestDefaults(t *testing.T) {
	t.Parallel()
	p, err := topology.New("x").Seed(7).
		Host("h1").Host("h2").Switch("s").
		Fibre("h1", "h2", topology.Length(10_000), topology.Delay(time.Millisecond)).
		Ethernet("h1", "s").
		Ethernet("h2", "s", topology.MTU(1400), topology.Name("short")).
		Tunnel("t", "h1", "h2").
		UDP("h1", "h2").
		Plan()
	if err != nil {
		t.Fatal(err)
	}
	fibre, bridged := p.Links[0], p.Links[1]
	// 10 km × 1.468 / 299792458 m/s = 48.9672 µs
	if want := time.Millisecond + 48967*time.Nanosecond; fibre.Delay != want {
		t.Errorf("delay of 10 km and 1 ms: %v, want %v", fibre.Delay, want)
	}
	if fibre.MTU != 9000 || bridged.MTU != 1400 || len(p.Notes) != 1 {
		t.Errorf("MTU of the fibre %d, of a link bridged with one of 1400 %d, notes %q", fibre.MTU, bridged.MTU, p.Notes)
	}
	// Computed apart from this code. It may never change: a run is repeated by its seed.
	if fibre.Name != "h1-h2" || fibre.Seed != 0x935db8615eb91589 {
		t.Errorf("seed of %s: %#x", fibre.Name, fibre.Seed)
	}
	tun := p.Tunnels[0].Tunnel
	tun.A, tun.B = topology.TunnelEnd{}, topology.TunnelEnd{}
	want := topology.Tunnel{Name: "t", Suite: "mldsa65+mlkem768", Combiner: "xor", Identity: "fresh", TLSGroups: []string{"X25519"},
		Rekey: topology.Limits{Time: 10 * time.Minute, Blocks: 1 << 30}, Encapsulation: "udp", Dataplane: "auto", Family: "ipv4", Deadline: 5 * time.Second}
	if !reflect.DeepEqual(tun, want) {
		t.Errorf("tunnel %+v\nwant %+v", tun, want)
	}
	if f := p.Traffic[0]; f.Rate != 100*topology.Mbit || f.Proto != "udp" || f.Streams != 1 || f.Family != "ipv4" || f.FrameSize != 8938 {
		t.Errorf("flow %+v", f)
	}
}

// A topology is not changed by planning it, and its plan does not share memory with it.
func TestPlanLeavesTopologyAlone(t *testing.T) {
	t.Parallel()
	planned(300, func(i int, top *topology.Topology, p *topology.Plan) {
		before, err := top.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := top.Plan()
		if err != nil || !reflect.DeepEqual(p, again) {
			t.Fatalf("topology %d: a second plan differs (%v)", i, err)
		}
		for _, n := range p.Nodes {
			clear(n.Inner)
		}
		for _, l := range p.Links {
			clear(l.A.Addresses)
		}
		for _, tun := range p.Tunnels {
			clear(tun.A.Subnets)
			clear(tun.TLSGroups)
		}
		for _, f := range p.Traffic {
			clear(f.Via)
		}
		if after, _ := top.Marshal(); string(before) != string(after) {
			t.Fatalf("topology %d changed with its plan", i)
		}
	})
}

func TestLargeSegment(t *testing.T) {
	t.Parallel()
	b := topology.New("big").Switch("s")
	for i := range 600 {
		name := fmt.Sprintf("h%d", i)
		b.Host(name).Ethernet(name, "s")
	}
	p, err := b.Host("x").Ethernet("x", "h0").Plan()
	if err != nil {
		t.Fatal(err)
	}
	checkSubnet := func(link int, want string) {
		if got := p.Links[link].A.Addresses[0].Masked(); got != netip.MustParsePrefix(want) {
			t.Errorf("link %d: subnet %v, want %s", link, got, want)
		}
	}
	checkSubnet(0, "10.0.0.0/22")
	checkSubnet(599, "10.0.0.0/22")
	checkSubnet(600, "10.0.4.0/24")
}

// Subnets that the author gave are gone around.
func TestAllocationSkips(t *testing.T) {
	t.Parallel()
	p, err := topology.New("skip").Host("a").Host("b").
		Ethernet("a", "b").
		Ethernet("a", "b", topology.At("a", "", "10.0.0.9/22", "fd70:716c:6162::9/64")).
		Ethernet("a", "b", topology.At("b", "", "10.0.5.1/30")).
		Ethernet("a", "b").
		Plan()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range p.Links {
		got = append(got, l.A.Addresses[0].String()+" "+l.B.Addresses[0].String())
	}
	want := []string{"10.0.4.1/24 10.0.4.2/24", "10.0.0.9/22 10.0.0.1/22", "10.0.5.2/30 10.0.5.1/30", "10.0.6.1/24 10.0.6.2/24"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if a := p.Links[0].A.Addresses[1]; a != netip.MustParsePrefix("fd70:716c:6162:1::1/64") {
		t.Errorf("IPv6 of the first link %v", a)
	}
}

// A hundred tunnels between two DPUs, one inside another, and one through two.
func TestTunnels(t *testing.T) {
	t.Parallel()
	b := topology.New("many").Host("h1").DPU("d1", topology.On("h1")).Host("h2").DPU("d2", topology.On("h2")).
		PCIe("h1", "d1", topology.At("h1", "", "10.1.0.1/16")).Fibre("d1", "d2").PCIe("h2", "d2", topology.At("h2", "", "10.2.0.1/16"))
	for i := range 100 {
		b.Tunnel(fmt.Sprintf("t%d", i), "d1", "d2", topology.Protect("d1", fmt.Sprintf("10.1.%d.0/24", i)), topology.Protect("d2", "10.2.0.0/16"))
	}
	p, err := b.TCP("h1", "h2").Plan()
	if err != nil {
		t.Fatal(err)
	}
	checkPlan(t, p)
	if got := p.Traffic[0].Tunnels; !slices.Equal(got, []string{"t0"}) {
		t.Errorf("flow passes %v, want t0", got)
	}

	p, err = topology.New("nested").Host("h1").DPU("d1", topology.On("h1")).Host("h2").DPU("d2", topology.On("h2")).
		Fibre("d1", "d2").
		Tunnel("outer", "d1", "d2").
		Tunnel("end-to-end", "h1", "h2").
		TCP("h1", "h2").Plan()
	if err != nil {
		t.Fatal(err)
	}
	checkPlan(t, p)
	inner := p.Tunnels[1]
	if !slices.Equal(p.Traffic[0].Tunnels, []string{"end-to-end"}) || inner.MTU != 1500 || !slices.Equal(inner.Links, []string{"h1-d1", "d1-d2", "h2-d2"}) {
		t.Errorf("flow passes %v; the inner tunnel has MTU %d and links %v", p.Traffic[0].Tunnels, inner.MTU, inner.Links)
	}
}

// The links of a tunnel are those between its ends, not all that are bridged with them.
func TestTunnelLinks(t *testing.T) {
	t.Parallel()
	p, err := topology.New("star").Switch("s").Switch("s2").Host("a").Host("b").Host("c").Host("d").
		Ethernet("a", "s").Ethernet("b", "s").Ethernet("s", "s2").Ethernet("c", "s2").Ethernet("d", "s2").
		Tunnel("near", "a", "b").Tunnel("far", "c", "a").Plan()
	if err != nil {
		t.Fatal(err)
	}
	if near, far := p.Tunnels[0].Links, p.Tunnels[1].Links; !slices.Equal(near, []string{"a-s", "b-s"}) || !slices.Equal(far, []string{"c-s2", "s-s2", "a-s"}) {
		t.Errorf("links %v and %v", near, far)
	}
}

// The largest inner packet of which the ESP packet has at most 1500 bytes: outer header 20 or 40, UDP 8 or 0, ESP header 8, IV
// 8, the packet, padding, 2, ICV 16, the padding to a multiple of 4.
func TestFrameSize(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		family, encapsulation string
		want                  int
	}{{"ipv4", "udp", 1438}, {"ipv4", "esp", 1446}, {"ipv6", "udp", 1418}, {"ipv6", "esp", 1426}} {
		p, err := topology.New("x").Host("a").Host("b").Ethernet("a", "b").
			Tunnel("t", "a", "b", topology.Family(c.family), topology.Encapsulation(c.encapsulation)).UDP("a", "b").Plan()
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Traffic[0].FrameSize; got != c.want {
			t.Errorf("%s in %s: frame size %d, want %d", c.encapsulation, c.family, got, c.want)
		}
	}
}

// A client's tunnel to a DPU with inner addresses: the host behind the DPU is told the way.
func TestInnerBehindDPU(t *testing.T) {
	t.Parallel()
	p, err := topology.New("inner").Client("c", topology.Inner("172.16.0.1/32", "fd01::1/128")).
		Host("h1").DPU("d1", topology.On("h1")).
		Host("h2").DPU("d2", topology.On("h2")).Switch("s").
		WiFi("c", "s").Ethernet("d1", "s").Ethernet("d2", "s").
		Tunnel("t", "c", "d1").
		TCP("c", "h1").TCP("h1", "c", topology.Family("ipv6")).TCP("c", "h2").Plan()
	if err != nil {
		t.Fatal(err)
	}
	checkPlan(t, p)
	if got := [][]string{p.Traffic[0].Tunnels, p.Traffic[1].Tunnels, p.Traffic[2].Tunnels}; !reflect.DeepEqual(got, [][]string{{"t"}, {"t"}, nil}) {
		t.Errorf("flows pass %v", got)
	}
	if src := p.Traffic[0].Src.String(); src != "172.16.0.1" {
		t.Errorf("flow from the client has source %s", src)
	}
	if dst := p.Traffic[1].Dst.String(); dst != "fd01::1" {
		t.Errorf("flow to the client has destination %s", dst)
	}
}

// Time and memory of planning grow with the lab, not with its square.
func TestChain(t *testing.T) {
	if n := len(topology.Chain(0).Nodes); n != 1 {
		t.Errorf("Chain(0) has %d nodes", n)
	}
	bytes := func(n int) uint64 {
		top := topology.Chain(n)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		p, err := top.Plan()
		runtime.ReadMemStats(&after)
		if err != nil || len(p.Nodes) != n || len(p.Links) != n-1 {
			t.Fatalf("Chain(%d): %v", n, err)
		}
		for _, node := range p.Nodes {
			if len(node.Routes) > 0 {
				t.Fatalf("%s has routes %v, and nobody forwards", node.Name, node.Routes)
			}
		}
		return after.TotalAlloc - before.TotalAlloc
	}
	small, large := bytes(1000), bytes(4000)
	if small > 16<<20 || large > 8*small {
		t.Errorf("a chain of 1000 takes %d bytes, of 4000 %d", small, large)
	}
}

func BenchmarkChain(b *testing.B) {
	t := topology.Chain(1000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := t.Plan(); err != nil {
			b.Fatal(err)
		}
	}
}
