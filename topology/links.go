package topology

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"time"
)

// checkLinks copies the links with their names and defaults, and joins them to the nodes.
func (p *planner) checkLinks() {
	p.links = make([]Link, len(p.t.Links))
	p.ends = make([][2]int, len(p.t.Links))
	names := newUnique()
	copy(p.links, p.t.Links)
	for i := range p.links {
		if p.links[i].Name != "" {
			names.claim(p, fmt.Sprintf("links[%d].name", i), "link", p.links[i].Name, i)
		}
	}
	for i := range p.links {
		l := &p.links[i]
		what := "link " + l.Name
		if l.Name == "" {
			what = fmt.Sprintf("link %s-%s", clip(l.A.Node), clip(l.B.Node))
		}
		if !p.oneOf(fmt.Sprintf("links[%d].kind", i), what+": kind", string(l.Kind), linkKinds(), false) {
			p.broken = true
		}
		for side, end := range []*End{&l.A, &l.B} {
			element := fmt.Sprintf("links[%d].%c", i, "ab"[side])
			n, ok := p.find(element+".node", what, end.Node)
			p.ends[i][side] = n
			if !ok {
				p.broken = true
			}
			if end.Interface != "" {
				if why := checkInterface(end.Interface); why != "" {
					p.breaks(BadValue, element+".interface", "%s: interface name %s %s", what, quote(end.Interface), why)
				}
			}
			if len(end.Addresses) > maxList {
				p.breaks(BadValue, element+".addresses", "%s: more than %d addresses", what, maxList)
			}
		}
		if p.ends[i][0] >= 0 && p.ends[i][0] == p.ends[i][1] {
			p.breaks(BadStructure, fmt.Sprintf("links[%d].b.node", i), "%s: both ends are at node %s; a link joins two nodes", what, l.A.Node)
		}
		p.checkNumbers(i, what)
		if l.Name == "" {
			l.Name = names.name(clip(l.A.Node)+"-"+clip(l.B.Node), i)
		}
		l.Seed = cmp.Or(l.Seed, seedOf(cmp.Or(p.t.Seed, 1), l.Name))
	}
	if !p.broken {
		p.addInterfaces()
	}
}

// clip bounds a name that was not checked yet.
func clip(s string) string { return s[:min(len(s), maxName)] }

func (p *planner) checkNumbers(i int, what string) {
	l := &p.links[i]
	at := func(field string) string { return fmt.Sprintf("links[%d].%s", i, field) }
	if l.MTU == 0 {
		l.MTU = defaultMTU(l.Kind)
	} else if l.MTU < minMTU || l.MTU > maxMTU {
		p.add(BadValue, at("mtu"), "%s: MTU %d is outside %d (the least that IPv6 takes) to %d", what, l.MTU, minMTU, maxMTU)
	}
	switch {
	case !(l.Length >= 0) || l.Length > 1e9:
		p.add(BadValue, at("length"), "%s: length %v is outside 0 to 1000000km", what, l.Length)
	case l.Length > 0 && l.Kind != Fibre:
		p.add(BadValue, at("length"), "%s: only a fibre has a length; give a delay", what)
	}
	switch {
	case l.Kind != Fibre && l.Attenuation != 0:
		p.add(BadValue, at("attenuation"), "%s: only a fibre has an attenuation", what)
	case !(l.Attenuation >= 0 && l.Attenuation <= 1000):
		p.add(BadValue, at("attenuation"), "%s: attenuation %v dB/km is outside 0 to 1000", what, l.Attenuation)
	case l.Kind == Fibre:
		l.Attenuation = cmp.Or(l.Attenuation, defaultAttenuation)
	}
	p.checkSlot(i, what)
	p.checkStation(i, what)
	p.checkShape(l, &l.Shape, at, what)
}

// defaultAttenuation of a fibre, in dB/km: what single-mode fibre of ITU-T G.652.D has at 1550 nm, of which its
// Recommendation wants at most 0.3 in a cable.
const defaultAttenuation = 0.2

// propagation is the delay that a fibre's length gives.
func (l *Link) propagation() time.Duration {
	if l.Kind != Fibre || !(l.Length >= 0 && l.Length <= 1e9) {
		return 0
	}
	return fibreDelay(l.Length)
}

func (p *planner) checkTime(element, what string, d, least, most time.Duration) {
	if d < least || d > most {
		p.add(BadValue, element, "%s %v is outside %v to %v", what, d, least, most)
	}
}

// defaultMTU lets a full-size inner packet pass through ESP over fibre.
func defaultMTU(k LinkKind) int {
	if k == Fibre {
		return 9000
	}
	return 1500
}

func interfacePrefix(k LinkKind) string {
	switch k {
	case Fibre:
		return "fib"
	case PCIe:
		return "pcie"
	case WiFi:
		return "wlan"
	}
	return "eth"
}

// addInterfaces gives each node its interfaces, in the order of the links.
func (p *planner) addInterfaces() {
	taken := make([]map[string]bool, len(p.nodes))
	next := make([]map[string]int, len(p.nodes))
	for i := range p.nodes {
		taken[i], next[i] = map[string]bool{}, map[string]int{}
	}
	for i, l := range p.links {
		for side, end := range []End{l.A, l.B} {
			n := p.ends[i][side]
			if end.Interface != "" && taken[n][end.Interface] {
				p.breaks(Duplicate, fmt.Sprintf("links[%d].%c.interface", i, "ab"[side]), "link %s: interface %s of node %s is taken", l.Name, end.Interface, end.Node)
			}
			taken[n][end.Interface] = true
		}
	}
	for i, l := range p.links {
		for side, end := range []End{l.A, l.B} {
			n := p.ends[i][side]
			name := end.Interface
			for prefix := interfacePrefix(l.Kind); name == ""; {
				name = prefix + strconv.Itoa(next[n][prefix])
				next[n][prefix]++
				if taken[n][name] {
					name = ""
				}
			}
			p.nodes[n].nics = append(p.nodes[n].nics, nic{name: name, link: i, side: side})
		}
	}
}

// checkOwnership sees that each DPU sits in a host and is joined to it by PCIe, and that PCIe joins nothing else.
func (p *planner) checkOwnership() {
	joined := map[[2]int]bool{}
	whole := !p.broken
	for i, l := range p.links {
		a, b := p.ends[i][0], p.ends[i][1]
		if l.Kind != PCIe || a < 0 || b < 0 || a == b {
			continue
		}
		host, dpu := a, b
		if p.nodes[host].Kind == DPU {
			host, dpu = dpu, host
		}
		if p.nodes[host].Kind != Host || p.nodes[dpu].Kind != DPU || p.nodes[dpu].Host != p.nodes[host].Name {
			p.breaks(BadStructure, fmt.Sprintf("links[%d].kind", i), "link %s: pcie joins a host and its own dpu, and not %s (%s) and %s (%s)",
				l.Name, l.A.Node, p.nodes[a].Kind, l.B.Node, p.nodes[b].Kind)
		}
		joined[[2]int{host, dpu}] = true
	}
	for i := range p.nodes {
		n := &p.nodes[i]
		element := fmt.Sprintf("nodes[%d].host", i)
		if n.Kind != DPU {
			if n.Host != "" {
				p.breaks(BadStructure, element, "node %s: a %s is not plugged into a host; only a dpu is", n.Name, n.Kind)
			}
			continue
		}
		if n.Host == "" {
			p.breaks(Missing, element, "dpu %s: is in no host; name it with host", n.Name)
			continue
		}
		host, ok := p.find(element, "dpu "+n.Name, n.Host)
		switch {
		case !ok:
			p.broken = true
		case p.ownsItself(i):
			p.breaks(BadStructure, element, "dpu %s: its hosts form a loop; a dpu is in a node of kind host", n.Name)
		case p.nodes[host].Kind != Host:
			p.breaks(BadStructure, element, "dpu %s: %s is a %s; a dpu is in a node of kind host", n.Name, n.Host, p.nodes[host].Kind)
		case whole && !joined[[2]int{host, i}]:
			p.breaks(Missing, fmt.Sprintf("nodes[%d]", i), "dpu %s: has no pcie link to its host %s", n.Name, n.Host)
		}
	}
}

// ownsItself follows the hosts of a DPU and says whether they lead back to it. A loop longer than it looks is still
// refused, as a DPU within a DPU.
func (p *planner) ownsItself(dpu int) bool {
	n := dpu
	for range 64 {
		next, ok := p.index[p.nodes[n].Host]
		if !ok {
			return false
		}
		if next == dpu {
			return true
		}
		n = next
	}
	return false
}

// maxPorts is how many a Linux bridge has: BR_PORT_BITS are 10, and there is no port 0.
const maxPorts = 1023

// segment is a set of links that bridges join into one network.
type segment struct {
	links   []int
	members []member // ends that have addresses, in the order of the links
	dpus    []member
	prefix  [2]netip.Prefix
}

// member is an interface of a node.
type member struct{ node, nic int }

// makeSegments joins the links of each bridge, refuses loops, and brings the MTUs of a segment together.
func (p *planner) makeSegments() {
	set := newSets(len(p.nodes) + len(p.links)) // bridges, then links
	ports := make([]int, len(p.nodes))
	linkSet := func(i int) int { return len(p.nodes) + i }
	for i := range p.links {
		joinsBoth := p.nodes[p.ends[i][0]].bridge() && p.nodes[p.ends[i][1]].bridge()
		if joinsBoth && set.find(p.ends[i][0]) == set.find(p.ends[i][1]) {
			p.breaks(BadStructure, fmt.Sprintf("links[%d]", i), "link %s: closes a loop of bridges through %s and %s; remove one link of the loop",
				p.links[i].Name, p.links[i].A.Node, p.links[i].B.Node)
		}
		for _, n := range p.ends[i] {
			if p.nodes[n].bridge() {
				set.join(n, linkSet(i))
				if ports[n]++; ports[n] == maxPorts+1 {
					p.breaks(BadStructure, fmt.Sprintf("links[%d]", i), "link %s: is one more than the %d that the %s %s can have, as a Linux bridge has no more ports; join another switch to it",
						p.links[i].Name, maxPorts, p.nodes[n].Kind, p.nodes[n].Name)
				}
			}
		}
	}
	of := map[int]int{}
	for i := range p.links {
		root := set.find(linkSet(i))
		s, ok := of[root]
		if !ok {
			s = len(p.segs)
			of[root] = s
			p.segs = append(p.segs, segment{})
		}
		p.segs[s].links = append(p.segs[s].links, i)
	}
	linkSeg := make([]int, len(p.links))
	for s := range p.segs {
		for _, l := range p.segs[s].links {
			linkSeg[l] = s
		}
		p.agreeMTU(s)
	}
	for n := range p.nodes {
		in := map[int]int{}
		for j := range p.nodes[n].nics {
			nic := &p.nodes[n].nics[j]
			nic.seg = linkSeg[nic.link]
			if p.nodes[n].bridge() {
				continue
			}
			if first, ok := in[nic.seg]; ok {
				p.breaks(BadStructure, fmt.Sprintf("links[%d].%c", nic.link, "ab"[nic.side]), "link %s: node %s is already in this network by link %s; bridged links are one network, and a node has one interface in it",
					p.links[nic.link].Name, p.nodes[n].Name, p.links[first].Name)
			}
			in[nic.seg] = nic.link
		}
	}
	// Members come in the order of the links, so that addresses do.
	nics := make([]int, len(p.nodes))
	for i := range p.links {
		for _, n := range p.ends[i] {
			m := member{n, nics[n]}
			nics[n]++
			if p.nodes[n].bridge() {
				continue
			}
			s := &p.segs[linkSeg[i]]
			s.members = append(s.members, m)
			if p.nodes[n].Kind == DPU {
				s.dpus = append(s.dpus, m)
			}
		}
	}
}

// agreeMTU gives all links of a segment the smallest MTU among them: a bridge cannot fragment.
func (p *planner) agreeMTU(s int) {
	least, by := math.MaxInt, 0
	for _, i := range p.segs[s].links {
		if p.links[i].MTU < least {
			least, by = p.links[i].MTU, i
		}
	}
	for _, i := range p.segs[s].links {
		if l := &p.links[i]; l.MTU > least {
			p.notes = append(p.notes, fmt.Sprintf("link %s: MTU %d instead of %d, because link %s is bridged with it", l.Name, least, l.MTU, p.links[by].Name))
			l.MTU = least
		}
	}
}

// sets are disjoint sets of integers (union-find with path halving).
type sets []int

func newSets(n int) sets {
	s := make(sets, n)
	for i := range s {
		s[i] = i
	}
	return s
}

func (s sets) find(i int) int {
	for s[i] != i {
		s[i] = s[s[i]]
		i = s[i]
	}
	return i
}

func (s sets) join(a, b int) { s[s.find(a)] = s.find(b) }
