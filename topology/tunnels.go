package topology

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Defaults of a tunnel.
const (
	DefaultRekeyTime   = 10 * time.Minute
	DefaultRekeyBlocks = 1 << 30
	DefaultDeadline    = 5 * time.Second
)

// Least rekey limits: below them a tunnel would be busy with nothing but its keys.
const (
	minRekeyTime    = time.Second
	minRekeyBlocks  = 1000
	minRekeyBytes   = 16 * minRekeyBlocks
	minRekeyPackets = 100
)

type tunnel struct {
	PlannedTunnel
	ends  [2]int // nodes
	bad   bool   // not to be planned, because a mistake in it was reported
	state int    // of resolve: 0 not begun, 1 begun, 2 done
	links []int
}

// checkTunnels copies the tunnels with their defaults and checks each alone.
func (p *planner) checkTunnels() {
	p.tunnels = make([]tunnel, len(p.t.Tunnels))
	names := newUnique()
	for i := range p.t.Tunnels {
		before := len(p.found)
		t := &p.tunnels[i]
		t.Tunnel = p.t.Tunnels[i]
		at := func(field string) string { return fmt.Sprintf("tunnels[%d].%s", i, field) }
		names.claim(p, at("name"), "tunnel", t.Name, i)
		what := "tunnel " + clip(t.Name)
		for side, end := range []*TunnelEnd{&t.A, &t.B} {
			element := at("ab"[side : side+1])
			n, ok := p.find(element+".node", what, end.Node)
			t.ends[side] = n
			if ok && p.nodes[n].bridge() {
				p.add(BadStructure, element+".node", "%s: %s is a %s, which only bridges; a tunnel ends at a client, host or dpu", what, end.Node, p.nodes[n].Kind)
			} else if ok {
				p.nodes[n].service = true
			}
			p.checkSubnets(element+".subnets", what, end.Subnets)
		}
		if t.ends[0] >= 0 && t.ends[0] == t.ends[1] {
			p.add(NoPath, at("b.node"), "%s: both ends are at node %s", what, t.A.Node)
		}
		t.TLSGroups = slices.Clone(t.TLSGroups)
		p.checkKeying(i, at, what)
		t.fill()
		p.oneOf(at("encapsulation"), what+": encapsulation", t.Encapsulation, encapsulations(), false)
		p.oneOf(at("dataplane"), what+": dataplane", t.Dataplane, dataplanes(), false)
		p.oneOf(at("family"), what+": family", t.Family, families(), false)
		for j, g := range t.TLSGroups {
			p.oneOf(fmt.Sprintf("%s[%d]", at("tls_groups"), j), what+": TLS group", g, TLSGroups(), false)
			if j == maxList {
				break
			}
		}
		p.checkCA(i, at("ca"), what)
		p.checkTime(at("deadline"), what+": deadline", t.Deadline, time.Millisecond, time.Hour)
		p.checkTime(at("rekey.time"), what+": rekey time", t.Rekey.Time, minRekeyTime, maxTime)
		for _, l := range []struct {
			field      string
			value, min uint64
		}{{"blocks", t.Rekey.Blocks, minRekeyBlocks}, {"bytes", t.Rekey.Bytes, minRekeyBytes}, {"packets", t.Rekey.Packets, minRekeyPackets}} {
			if l.value != 0 && l.value < l.min {
				p.add(BadValue, at("rekey."+l.field), "%s: a rekey after %d %s would leave no time for traffic; give at least %d", what, l.value, l.field, l.min)
			}
		}
		t.bad = len(p.found) > before || p.full
	}
}

// checkKeying checks what keys a tunnel, and that strongSwan is asked for nothing that only pqlab's exchange has.
func (p *planner) checkKeying(i int, at func(string) string, what string) {
	t := &p.tunnels[i]
	t.Keying = cmp.Or(t.Keying, Pqlab)
	p.oneOf(at("keying"), what+": keying", t.Keying, keyings(), false)
	if t.Keying != Strongswan {
		t.fillExchange()
		if why := checkSuite(t.Suite); why != "" {
			p.add(BadValue, at("suite"), "%s: suite %s %s", what, quote(t.Suite), why)
		}
		p.oneOf(at("combiner"), what+": combiner", t.Combiner, combiners(), false)
		p.oneOf(at("identity"), what+": identity", t.Identity, identities(), false)
		return
	}
	for _, f := range []struct {
		field string
		given bool
	}{
		{"suite", t.Suite != ""}, {"combiner", t.Combiner != ""}, {"identity", t.Identity != ""}, {"mutual", t.Mutual},
		{"tls_groups", len(t.TLSGroups) > 0}, {"ca", t.CA != ""},
	} {
		if f.given {
			p.add(BadValue, at(f.field), "%s: %s is of pqlab's exchange; keying strongswan is IKEv2 with X25519 and Ed25519, leave it out", what, f.field)
		}
	}
	if t.Dataplane == "gateway" || t.Dataplane == "offload" {
		p.add(BadValue, at("dataplane"), "%s: dataplane %s; strongSwan puts its SAs into the kernel: xfrm, or leave it out", what, t.Dataplane)
	}
}

// keyedBy says in short what keys the tunnel.
func (t *Tunnel) keyedBy() string {
	if t.Keying == Strongswan {
		return Strongswan
	}
	return t.Suite
}

// fillExchange sets the defaults of pqlab's exchange.
func (t *tunnel) fillExchange() {
	t.Suite = cmp.Or(t.Suite, DefaultSuite)
	t.Combiner = cmp.Or(t.Combiner, "xor")
	t.Identity = cmp.Or(t.Identity, "fresh")
	if len(t.TLSGroups) == 0 {
		t.TLSGroups = []string{"X25519"}
	}
}

// fill sets the defaults that need no other node.
func (t *tunnel) fill() {
	t.Encapsulation = cmp.Or(t.Encapsulation, "udp")
	t.Dataplane = cmp.Or(t.Dataplane, "auto")
	t.Family = cmp.Or(t.Family, "ipv4")
	t.Deadline = cmp.Or(t.Deadline, DefaultDeadline)
	t.Rekey.Time = cmp.Or(t.Rekey.Time, DefaultRekeyTime)
	t.Rekey.Blocks = cmp.Or(t.Rekey.Blocks, DefaultRekeyBlocks)
}

// checkCA finds the files of a tunnel whose ends a CA vouches for.
func (p *planner) checkCA(i int, element, what string) {
	t := &p.tunnels[i]
	checkText(&p.problems, element, what+": CA", t.CA)
	if t.CA == "" {
		return
	}
	for _, n := range t.ends {
		if n >= 0 && p.nodes[n].Certificate == "" {
			p.add(Missing, element, "%s: a CA is to vouch for node %s, which has no certificate", what, p.nodes[n].Name)
		}
	}
	t.CA = p.t.file(t.CA)
}

func (p *planner) checkSubnets(element, what string, subnets []netip.Prefix) {
	if len(subnets) > maxList {
		p.add(BadValue, element, "%s: more than %d subnets", what, maxList)
		return
	}
	for j, s := range subnets {
		element := fmt.Sprintf("%s[%d]", element, j)
		switch {
		case !s.IsValid():
			p.add(BadAddress, element, "%s: subnet is not valid", what)
			continue
		case s.Addr().Is4In6():
			p.add(BadAddress, element, "%s: subnet %v is IPv4 written as IPv6; write it as IPv4", what, s)
		case s.Masked() != s:
			p.add(BadAddress, element, "%s: subnet %v has bits beyond its prefix length; write %v", what, s, s.Masked())
		}
		for _, earlier := range subnets[:j] {
			if earlier.Overlaps(s) {
				p.add(BadAddress, element, "%s: subnet %v overlaps %v of the same end", what, s, earlier)
				break
			}
		}
	}
}

// planTunnels finds each tunnel's subnets, outer addresses and path.
func (p *planner) planTunnels() {
	for i := range p.tunnels {
		t := &p.tunnels[i]
		if t.bad {
			continue
		}
		before := len(p.found)
		p.planOuter(i)
		if len(p.found) == before {
			p.planSubnets(i)
		}
		t.bad = len(p.found) > before || p.full
		if !t.bad {
			for _, n := range t.ends {
				p.nodes[n].tunnels = append(p.nodes[n].tunnels, i)
			}
		}
	}
	p.checkOverlaps()
	for i := range p.tunnels {
		if !p.tunnels[i].bad {
			p.routeInner(i)
		}
	}
	for i := range p.tunnels {
		if !p.tunnels[i].bad {
			p.resolve(i)
		}
	}
}

// planOuter finds the addresses that the ESP packets go between.
func (p *planner) planOuter(i int) {
	t := &p.tunnels[i]
	a, b := t.ends[0], t.ends[1]
	f := familyNamed(t.Family)
	way, ok := p.nearest(a, b)
	if !ok {
		p.add(NoPath, fmt.Sprintf("tunnels[%d]", i), "tunnel %s: there is no path from %s to %s; only bridges and DPUs pass packets on", t.Name, t.A.Node, t.B.Node)
		return
	}
	near, _ := p.nicOn(a, way[0].seg)
	far, _ := p.nicOn(b, way[len(way)-1].seg)
	t.OuterA, t.OuterB = near.first[f], far.first[f]
	if _, ok := p.walk(b, a, way[0].seg); !ok {
		p.add(NoPath, fmt.Sprintf("tunnels[%d]", i), "tunnel %s: there is no path back from %s to %s", t.Name, t.B.Node, t.A.Node)
	}
}

// planSubnets fills in the protected subnets and checks them.
func (p *planner) planSubnets(i int) {
	t := &p.tunnels[i]
	for side, end := range []*TunnelEnd{&t.A, &t.B} {
		element := fmt.Sprintf("tunnels[%d].%c", i, "ab"[side])
		if len(end.Subnets) == 0 {
			end.Subnets = p.defaultSubnets(t.ends[side])
		} else {
			end.Subnets = slices.Clone(end.Subnets)
		}
		if len(end.Subnets) == 0 {
			p.add(Missing, element, "tunnel %s: %s has nothing to protect; give subnets", t.Name, end.Node)
		}
	}
	var both [2][2]bool
	for side, end := range []*TunnelEnd{&t.A, &t.B} {
		for _, s := range end.Subnets {
			both[side][familyOf(s.Addr())] = true
		}
	}
	if both[0] != both[1] {
		p.add(BadAddress, fmt.Sprintf("tunnels[%d]", i), "tunnel %s: both ends must protect the same families, IPv4, IPv6 or both", t.Name)
	}
	for j, b := range t.B.Subnets {
		if a, ok := overlapping(t.A.Subnets, b); ok {
			element := fmt.Sprintf("tunnels[%d].b.subnets[%d]", i, j)
			p.add(BadAddress, element, "tunnel %s: subnet %v of %s overlaps %v of %s", t.Name, b, t.B.Node, a, t.A.Node)
			return
		}
	}
}

func (p *planner) defaultSubnets(n int) []netip.Prefix {
	var subnets []netip.Prefix
	node := &p.nodes[n]
	switch {
	case node.Kind == DPU:
		for _, nic := range node.nics {
			if p.links[nic.link].Kind == PCIe {
				subnets = append(subnets, p.segs[nic.seg].prefix[v4], p.segs[nic.seg].prefix[v6])
			}
		}
	case len(node.Inner) > 0:
		subnets = slices.Clone(node.Inner)
	default:
		for _, nic := range node.nics {
			for _, a := range nic.addrs {
				subnets = append(subnets, netip.PrefixFrom(a.Addr(), a.Addr().BitLen()))
			}
		}
	}
	return subnets
}

func contains(subnets []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(subnets, func(s netip.Prefix) bool { return s.Contains(a) })
}

func overlapping(subnets []netip.Prefix, s netip.Prefix) (netip.Prefix, bool) {
	if i := slices.IndexFunc(subnets, s.Overlaps); i >= 0 {
		return subnets[i], true
	}
	return netip.Prefix{}, false
}

// checkOverlaps refuses two tunnels of one node that both claim the same packets.
func (p *planner) checkOverlaps() {
	for n := range p.nodes {
		for k, i := range p.nodes[n].tunnels {
			local, remote := p.tunnels[i].seenFrom(n)
			for _, j := range p.nodes[n].tunnels[:k] {
				l, r := p.tunnels[j].seenFrom(n)
				a, okA := anyOverlap(local, l)
				b, okB := anyOverlap(remote, r)
				if okA && okB && !p.tunnels[i].bad && a.Addr().Is4() == b.Addr().Is4() {
					p.add(BadAddress, fmt.Sprintf("tunnels[%d]", i), "tunnel %s: protects the same packets at %s as tunnel %s: between %v and %v; give subnets that do not overlap",
						p.tunnels[i].Name, p.nodes[n].Name, p.tunnels[j].Name, a, b)
					p.tunnels[i].bad = true
				}
			}
		}
	}
}

func anyOverlap(a, b []netip.Prefix) (netip.Prefix, bool) {
	for _, s := range a {
		if _, ok := overlapping(b, s); ok {
			return s, true
		}
	}
	return netip.Prefix{}, false
}

// seenFrom returns the subnets on the side of node n and those on the other.
func (t *tunnel) seenFrom(n int) (local, remote []netip.Prefix) {
	if t.ends[0] == n {
		return t.A.Subnets, t.B.Subnets
	}
	return t.B.Subnets, t.A.Subnets
}

// routeInner makes the inner addresses at one end of a tunnel known to the other end and to what is behind that.
func (p *planner) routeInner(i int) {
	t := &p.tunnels[i]
	for side, end := range []*TunnelEnd{&t.A, &t.B} {
		far, near := t.ends[side], t.ends[1-side]
		local, _ := t.seenFrom(near)
		for _, dst := range p.nodes[far].Inner {
			if !contains(end.Subnets, dst.Addr()) {
				continue
			}
			outer := []netip.Addr{t.OuterA, t.OuterB}[side]
			p.addInner(near, far, p.segOf(far, outer), dst, local)
			for s := range p.segs {
				if _, ok := overlapping(local, p.segs[s].prefix[familyOf(dst.Addr())]); !ok {
					continue
				}
				for _, m := range p.segs[s].members {
					if contains(local, p.nodes[m.node].nics[m.nic].first[familyOf(dst.Addr())]) && m.node != near && m.node != far {
						p.leadTo(m.node, near, dst)
					}
				}
			}
		}
	}
}

func (p *planner) segOf(n int, a netip.Addr) int {
	for _, nic := range p.nodes[n].nics {
		if nic.first[familyOf(a)] == a {
			return nic.seg
		}
	}
	return -1
}

// leadTo routes dst from node n, hop by hop, to the node where its tunnel begins.
func (p *planner) leadTo(n, begin int, dst netip.Prefix) {
	way, ok := p.nearest(n, begin)
	for i := 0; ok && i < len(way); i++ {
		p.addHop(n, way[i], dst, netip.Addr{})
		n = way[i].node
	}
}

// addInner routes dst from a tunnel's near end towards its far one, from the near end's own inner address if it has one.
func (p *planner) addInner(near, far, seg int, dst netip.Prefix, local []netip.Prefix) {
	way, ok := p.walk(near, far, seg)
	if !ok {
		return
	}
	var src netip.Addr
	if in := p.nodes[near].inner[familyOf(dst.Addr())]; in.IsValid() && contains(local, in.Addr()) {
		src = in.Addr()
	}
	p.addHop(near, way[0], dst, src)
}

func (p *planner) addHop(n int, h hop, dst netip.Prefix, src netip.Addr) {
	node := &p.nodes[n]
	if _, ok := node.inside[dst.Addr()]; ok {
		return
	}
	if node.inside == nil {
		node.inside = map[netip.Addr]hop{}
	}
	node.inside[dst.Addr()] = h
	if p.routes++; p.routes > maxRoutes {
		p.broken = true
		if p.routes == maxRoutes+1 {
			p.add(BadValue, "tunnels", "the lab needs more than %d routes", maxRoutes)
		}
		return
	}
	nic, _ := p.nicOn(h.node, h.seg)
	node.innerRt = append(node.innerRt, Route{Dst: dst, Via: nic.first[familyOf(dst.Addr())], Src: src})
}
