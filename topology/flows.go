package topology

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// minFrame leaves room for IPv6, UDP and what a flow writes into each packet to find it again.
const minFrame = 96

// place is an address and where it is: on a segment, or inside its node.
type place struct {
	node, seg int // seg is -1 for an inner address
	addr      netip.Addr
}

// trace is the way of packets through the lab.
type trace struct {
	links   []int
	tunnels []int // in the order in which they are passed, those below others not included
	mtu     int   // bytes of IP packet that pass whole
	blocked bool  // by a tunnel in which a mistake was reported
}

// follow traces packets from an address of node n as the routes and policies carry them.
func (p *planner) follow(n int, src netip.Addr, to place) (trace, bool) {
	t := trace{mtu: 65535}
	for steps := 0; n != to.node; steps++ {
		if steps > len(p.nodes)+len(p.tunnels) {
			return t, false
		}
		if i, ok := p.protects(n, src, to.addr); ok {
			if !p.resolve(i) {
				t.blocked = true
				return t, false
			}
			tun := &p.tunnels[i]
			t.tunnels = append(t.tunnels, i)
			t.links = append(t.links, tun.links...)
			t.mtu = min(t.mtu, innerMTU(tun.MTU, tun.Encapsulation, tun.Family))
			n = tun.ends[0] + tun.ends[1] - n
			continue
		}
		h, ok := p.nextHop(n, to)
		if !ok {
			return t, false
		}
		links := p.across(h.seg, n, h.node)
		t.links = append(t.links, links...)
		t.mtu = min(t.mtu, p.links[links[0]].MTU)
		n = h.node
	}
	return t, true
}

func (p *planner) nextHop(n int, to place) (hop, bool) {
	if to.seg < 0 {
		h, ok := p.nodes[n].inside[to.addr]
		return h, ok
	}
	if _, ok := p.nicOn(n, to.seg); ok {
		return hop{to.node, to.seg}, true
	}
	h, ok := p.nodes[n].table.next(to.seg)
	return h, ok && p.sameReach(n, to.seg)
}

// protects returns the tunnel of node n that takes packets from src to dst.
func (p *planner) protects(n int, src, dst netip.Addr) (int, bool) {
	for _, i := range p.nodes[n].tunnels {
		local, remote := p.tunnels[i].seenFrom(n)
		if !p.tunnels[i].bad && contains(local, src) && contains(remote, dst) {
			return i, true
		}
	}
	return 0, false
}

// resolve finds the links and MTU of a tunnel's path. Its ESP packets may pass other tunnels, but not itself, be it
// within another: that would have no end.
func (p *planner) resolve(i int) bool {
	t := &p.tunnels[i]
	if t.state == 1 {
		p.add(NoPath, fmt.Sprintf("tunnels[%d]", i), "tunnel %s: its ESP packets and key exchange, between %v and %v, would have to pass through itself, at once or by another tunnel; "+
			"give its ends subnets without these addresses, or a client or host inner addresses", t.Name, t.OuterA, t.OuterB)
		t.bad = true
		return false
	}
	if t.state == 2 || t.bad {
		return !t.bad
	}
	t.state = 1
	way, ok := p.follow(t.ends[0], t.OuterA, place{t.ends[1], p.segOf(t.ends[1], t.OuterB), t.OuterB})
	t.state = 2
	if !ok && !way.blocked {
		p.add(NoPath, fmt.Sprintf("tunnels[%d]", i), "tunnel %s: its ESP packets do not reach %s", t.Name, t.B.Node)
	}
	if !ok || t.bad {
		t.bad = true
		return false
	}
	t.links, t.MTU = way.links, way.mtu
	for _, l := range way.links {
		t.Links = append(t.Links, p.links[l].Name)
	}
	if least := t.leastMTU(); t.MTU < least {
		p.add(BadValue, fmt.Sprintf("tunnels[%d]", i), "tunnel %s: its path carries packets of %d bytes; with what ESP adds it has to carry %d", t.Name, t.MTU, least)
		t.bad = true
	}
	return !t.bad
}

// leastMTU is what the path of a tunnel has to carry so that a packet of the least MTU passes inside: 1280 bytes of
// IPv6 (RFC 8200 section 5), or 68 of IPv4 (RFC 791).
func (t *tunnel) leastMTU() int {
	least, outer := 68, 68
	if t.Family == "ipv6" {
		outer = minMTU
	}
	for _, s := range t.A.Subnets {
		if s.Addr().Is6() {
			least = minMTU
		}
	}
	mtu := outer
	for innerMTU(mtu, t.Encapsulation, t.Family) < least {
		mtu++
	}
	return mtu
}

// innerMTU is the largest inner packet whose ESP packet (RFC 4303, tunnel mode, AES-GCM with an 8-byte IV and a 16-byte
// ICV) is no larger than mtu.
func innerMTU(mtu int, encapsulation, family string) int {
	overhead := 20 + 8 + 8 + 16 // IPv4, ESP header, IV, ICV
	if family == "ipv6" {
		overhead += 20
	}
	if encapsulation == "udp" {
		overhead += 8
	}
	return (mtu-overhead)&^3 - 2 // padding to 4 bytes; pad length and next header
}

// checkFlows copies the flows with their defaults and checks each alone.
func (p *planner) checkFlows() {
	p.flows = make([]PlannedFlow, len(p.t.Traffic))
	names := newUnique()
	for i, f := range p.t.Traffic {
		if f.Name != "" {
			names.claim(p, fmt.Sprintf("traffic[%d].name", i), "flow", f.Name, i)
		}
	}
	for i := range p.t.Traffic {
		before := len(p.found)
		p.flows[i].Flow = p.t.Traffic[i]
		f := &p.flows[i]
		at := func(field string) string { return fmt.Sprintf("traffic[%d].%s", i, field) }
		f.Proto = cmp.Or(f.Proto, "tcp")
		f.Streams = cmp.Or(f.Streams, 1)
		f.Family = cmp.Or(f.Family, "ipv4")
		if f.Name == "" {
			f.Name = names.name(fmt.Sprintf("%s-%s-%s", clip(f.From), clip(f.To), clip(f.Proto)), i)
		}
		what := "flow " + clip(f.Name)
		p.oneOf(at("proto"), what+": proto", f.Proto, protos(), false)
		p.oneOf(at("family"), what+": family", f.Family, families(), false)
		p.flowEnd(at("from"), what, f.From)
		p.flowEnd(at("to"), what, f.To)
		if f.From == f.To && f.From != "" {
			p.add(NoPath, at("to"), "%s: both ends are node %s", what, quote(f.To))
		}
		p.checkVia(i, what)
		if f.Streams < 1 || f.Streams > 1024 {
			p.add(BadValue, at("streams"), "%s: streams %d is outside 1 to 1024", what, f.Streams)
		}
		if f.Proto == "udp" {
			f.Rate = cmp.Or(f.Rate, 100*Mbit)
		}
		switch {
		case f.FrameSize == 0:
		case f.Proto == "tcp":
			p.add(BadValue, at("frame_size"), "%s: frame size is for udp; TCP cuts its own", what)
		case f.FrameSize < minFrame || f.FrameSize > 65535:
			p.add(BadValue, at("frame_size"), "%s: frame size %d is outside %d to 65535", what, f.FrameSize, minFrame)
		}
		p.checkTime(at("duration"), what+": duration", f.Duration, 0, maxTime)
		if len(p.found) > before || p.full {
			f.Src = netip.IPv4Unspecified() // marks a flow that planFlows leaves alone
		}
	}
}

func (p *planner) flowEnd(element, what, name string) {
	if n, ok := p.find(element, what, name); ok && p.nodes[n].bridge() {
		p.add(BadStructure, element, "%s: %s is a %s, which only bridges; traffic is between clients, hosts and DPUs", what, name, p.nodes[n].Kind)
	} else if ok {
		p.nodes[n].service = true
	}
}

func (p *planner) checkVia(i int, what string) {
	f := &p.flows[i]
	f.Via = slices.Clone(f.Via)
	if len(f.Via) == 0 {
		return
	}
	if f.Proto == "udp" {
		p.add(BadValue, fmt.Sprintf("traffic[%d].via", i), "%s: only tcp is relayed", what)
	}
	if len(f.Via) > maxList {
		p.add(BadValue, fmt.Sprintf("traffic[%d].via", i), "%s: more than %d relays", what, maxList)
		return
	}
	last := f.From
	for j, via := range f.Via {
		element := fmt.Sprintf("traffic[%d].via[%d]", i, j)
		p.flowEnd(element, what, via)
		if via == last || j == len(f.Via)-1 && via == f.To {
			p.add(NoPath, element, "%s: %s would relay to itself", what, quote(via))
		}
		last = via
	}
}

// planFlows finds the addresses and tunnels of each flow.
func (p *planner) planFlows() {
	for i := range p.flows {
		f := &p.flows[i]
		if f.Src.IsValid() {
			continue
		}
		stops := slices.Concat([]string{f.From}, f.Via, []string{f.To})
		mtu := 65535
		ok := true
		for k := 1; k < len(stops) && ok; k++ {
			var src netip.Addr
			var dst place
			var way trace
			src, dst, way, ok = p.leg(p.index[stops[k-1]], p.index[stops[k]], familyNamed(f.Family))
			if !ok {
				p.add(NoPath, fmt.Sprintf("traffic[%d]", i), "flow %s: there is no path from %s to %s", f.Name, stops[k-1], stops[k])
				break
			}
			if k == 1 {
				f.Src = src
			}
			if k < len(stops)-1 {
				f.Hops = append(f.Hops, dst.addr)
			} else {
				f.Dst = dst.addr
			}
			for _, t := range way.tunnels {
				f.Tunnels = append(f.Tunnels, p.tunnels[t].Name)
			}
			for _, l := range way.links {
				if name := p.links[l].Name; !slices.Contains(f.Links, name) {
					f.Links = append(f.Links, name)
				}
			}
			mtu = min(mtu, way.mtu)
		}
		if err := checkFast(f.Rate); err != nil {
			p.add(BadValue, fmt.Sprintf("traffic[%d].rate", i), "flow %s: rate %v %v", f.Name, f.Rate, err)
		}
		if ok && f.Proto == "udp" {
			f.FrameSize = cmp.Or(f.FrameSize, mtu)
			if f.Rate < Rate(f.Streams) {
				p.add(BadValue, fmt.Sprintf("traffic[%d].rate", i), "flow %s: rate %v is too little for %d streams", f.Name, f.Rate, f.Streams)
			}
		}
	}
}

// leg chooses the addresses of one connection: the first pair that a tunnel protects, inner addresses before others;
// if none does, those of the shortest way.
func (p *planner) leg(from, to int, f family) (netip.Addr, place, trace, bool) {
	sources := []netip.Addr{}
	if in := p.nodes[from].inner[f]; in.IsValid() {
		sources = append(sources, in.Addr())
	}
	var dsts []place
	if in := p.nodes[to].inner[f]; in.IsValid() {
		dsts = append(dsts, place{to, -1, in.Addr()})
	}
	if way, ok := p.nearest(from, to); ok {
		seg := way[len(way)-1].seg
		nic, _ := p.nicOn(to, seg)
		dsts = append(dsts, place{to, seg, nic.first[f]})
	}
	for _, nic := range p.nodes[to].nics {
		dst := place{to, nic.seg, nic.first[f]}
		if !slices.Contains(dsts, dst) {
			dsts = append(dsts, dst)
		}
	}
	var plainSrc netip.Addr
	var plainDst place
	var plain trace
	found := false
	for _, dst := range dsts {
		candidates := sources
		if h, ok := p.nextHop(from, dst); ok {
			if nic, ok := p.nicOn(from, h.seg); ok {
				candidates = append(slices.Clone(sources), nic.first[f])
			}
		}
		for k, src := range candidates {
			way, ok := p.follow(from, src, dst)
			if !ok {
				continue
			}
			if len(way.tunnels) > 0 {
				return src, dst, way, true
			}
			if inner := k < len(sources) || dst.seg < 0; !inner && !found {
				plainSrc, plainDst, plain, found = src, dst, way, true
			}
		}
	}
	return plainSrc, plainDst, plain, found
}
