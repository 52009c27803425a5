package topology

import (
	"net/netip"
	"slices"
)

// hop is a neighbour on a segment.
type hop struct{ node, seg int }

// table says where a node sends what is for a segment it is not in.
type table struct {
	all   *hop        // for everything: only one neighbour leads anywhere
	bySeg map[int]hop // else, for each segment that can be reached
}

func (t *table) next(seg int) (hop, bool) {
	if t.all != nil {
		return *t.all, true
	}
	h, ok := t.bySeg[seg]
	return h, ok
}

// routeAll makes every node's table. Only DPUs forward, so a lab without them costs nothing here.
func (p *planner) routeAll() {
	search := search{p: p, seen: make([]int, len(p.segs)), connected: make([]int, len(p.segs))}
	p.reach = newSets(len(p.segs))
	for n := range p.nodes {
		if p.nodes[n].Kind == DPU {
			for _, nic := range p.nodes[n].nics {
				p.reach.join(nic.seg, p.nodes[n].nics[0].seg)
			}
		}
	}
	for n := range p.nodes {
		if p.nodes[n].bridge() {
			continue
		}
		p.nodes[n].table = search.from(n)
		p.routes += 2 * len(p.nodes[n].table.bySeg)
		if p.routes > maxRoutes {
			p.breaks(BadValue, "nodes", "the lab needs more than %d routes; join fewer DPUs", maxRoutes)
			return
		}
	}
}

// search finds shortest paths over segments, breadth first, in the order of the author's links.
type search struct {
	p               *planner
	epoch           int
	seen, connected []int // epoch in which a segment was expanded, or is the node's own
	queue           []arrival
}

// arrival is a segment and the first hop that led to it; the node's own segments have none.
type arrival struct {
	seg   int
	first hop
}

func (s *search) from(n int) table {
	if h, only := s.onlyNeighbour(n); only {
		return table{all: h}
	}
	s.epoch++
	nics := s.p.nodes[n].nics
	for _, nic := range nics {
		s.connected[nic.seg] = s.epoch
	}
	t := table{bySeg: map[int]hop{}}
	// A host sends everything that its own DPUs can reach through them, and only the rest another way.
	for _, own := range []bool{true, false} {
		for _, nic := range nics {
			if s.p.ownDPU(n, nic) == own && s.seen[nic.seg] != s.epoch {
				s.seen[nic.seg] = s.epoch
				s.queue = append(s.queue, arrival{nic.seg, hop{-1, nic.seg}})
			}
		}
		s.spread(n, &t)
	}
	return t.simplify()
}

// spread empties the queue.
func (s *search) spread(n int, t *table) {
	for i := 0; i < len(s.queue); i++ {
		at := s.queue[i]
		for _, d := range s.p.segs[at.seg].dpus {
			if d.node == n {
				continue
			}
			first := at.first
			if first.node < 0 {
				first.node = d.node
			}
			for _, nic := range s.p.nodes[d.node].nics {
				if s.seen[nic.seg] == s.epoch {
					continue
				}
				s.seen[nic.seg] = s.epoch
				s.queue = append(s.queue, arrival{nic.seg, first})
				if s.connected[nic.seg] != s.epoch {
					t.bySeg[nic.seg] = first
				}
			}
		}
	}
	s.queue = s.queue[:0]
}

// onlyNeighbour spares the search where one DPU at most is in reach.
func (s *search) onlyNeighbour(n int) (*hop, bool) {
	var only *hop
	nics := s.p.nodes[n].nics
	for _, nic := range nics {
		for _, d := range s.p.segs[nic.seg].dpus {
			if d.node == n {
				continue
			}
			if only != nil && only.node != d.node {
				return nil, false
			}
			if only == nil {
				only = &hop{d.node, nic.seg}
			}
		}
	}
	if only == nil {
		return nil, true
	}
	for _, far := range s.p.nodes[only.node].nics {
		if !slices.ContainsFunc(nics, func(near nic) bool { return near.seg == far.seg }) {
			return only, true
		}
	}
	return nil, false // nothing new in it, but perhaps behind it
}

// simplify replaces routes that all go to one neighbour by one.
func (t table) simplify() table {
	var only *hop
	for _, h := range t.bySeg {
		if only == nil {
			only = &h
		} else if *only != h {
			return t
		}
	}
	return table{all: only}
}

// ownDPU says whether nic joins host n to its own DPU.
func (p *planner) ownDPU(n int, nic nic) bool {
	return p.nodes[n].Kind == Host && p.links[nic.link].Kind == PCIe
}

// nicOn returns the node's interface on a segment.
func (p *planner) nicOn(n, seg int) (*nic, bool) {
	nics := p.nodes[n].nics
	for i := range nics {
		if nics[i].seg == seg {
			return &nics[i], true
		}
	}
	return nil, false
}

// routesOf returns the routes of a node: the default ones first, then by segment, IPv4 before IPv6.
func (p *planner) routesOf(n int) []Route {
	t := &p.nodes[n].table
	var routes []Route
	via := func(h hop, f family) netip.Addr {
		nic, _ := p.nicOn(h.node, h.seg)
		return nic.first[f]
	}
	if t.all != nil {
		routes = append(routes,
			Route{Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Via: via(*t.all, v4)},
			Route{Dst: netip.PrefixFrom(netip.IPv6Unspecified(), 0), Via: via(*t.all, v6)})
	}
	segs := make([]int, 0, len(t.bySeg))
	for s := range t.bySeg {
		segs = append(segs, s)
	}
	slices.Sort(segs)
	for _, s := range segs {
		for _, f := range []family{v4, v6} {
			routes = append(routes, Route{Dst: p.segs[s].prefix[f], Via: via(t.bySeg[s], f)})
		}
	}
	return append(routes, p.nodes[n].innerRt...)
}

// walk returns the hops from node from to the address of node to on segment seg: each the node that is reached next
// and the segment it is reached on.
func (p *planner) walk(from, to, seg int) ([]hop, bool) {
	var hops []hop
	if len(p.nodes[from].nics) == 0 {
		return nil, false
	}
	for n := from; n != to; {
		if _, ok := p.nicOn(n, seg); ok {
			return append(hops, hop{to, seg}), true
		}
		h, ok := p.nodes[n].table.next(seg)
		if !ok || !p.sameReach(n, seg) || len(hops) > len(p.nodes) {
			return nil, false
		}
		hops = append(hops, h)
		n = h.node
	}
	return hops, true
}

// sameReach says whether any of the node's segments is joined to seg by DPUs.
func (p *planner) sameReach(n, seg int) bool {
	root := p.reach.find(seg)
	return slices.ContainsFunc(p.nodes[n].nics, func(nic nic) bool { return p.reach.find(nic.seg) == root })
}

// nearest returns the way from one node to another: to the address of the interface that the shortest walk enters by.
func (p *planner) nearest(from, to int) ([]hop, bool) {
	var best []hop
	for _, own := range []bool{true, false} {
		for _, nic := range p.nodes[to].nics {
			if p.ownDPU(to, nic) != own {
				continue
			}
			if w, ok := p.walk(from, to, nic.seg); ok && (best == nil || len(w) < len(best)) {
				best = w
			}
		}
		if best != nil {
			return best, true
		}
	}
	return nil, false
}

// across returns the links that a packet passes within a segment, from one member's node to another's.
func (p *planner) across(seg, from, to int) []int {
	links := p.segs[seg].links
	if len(links) == 1 {
		return links
	}
	// Segments have no loops: a search that does not turn back finds the one way.
	type step struct{ node, link, prev int }
	queue := []step{{from, -1, -1}}
	for i := 0; i < len(queue); i++ {
		at := queue[i]
		if at.node == to {
			var way []int
			for s := at; s.link >= 0; s = queue[s.prev] {
				way = append(way, s.link)
			}
			slices.Reverse(way)
			return way
		}
		if i > 0 && !p.nodes[at.node].bridge() {
			continue
		}
		for _, nic := range p.nodes[at.node].nics {
			if nic.seg != seg || nic.link == at.link {
				continue
			}
			e := p.ends[nic.link]
			queue = append(queue, step{e[0] + e[1] - at.node, nic.link, i})
		}
	}
	return nil
}
