package topology

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"sort"
)

// Segments are numbered out of 10.0.0.0/8 and fd70:716c:6162::/48 ("pqlab" in hex), each with the next free IPv4 /24
// (larger if it has more than 254 members) and IPv6 /64, from the first. Inner addresses come from the last /16 of the
// one and the last /64 of the other.
const (
	firstV4 = 10 << 24
	innerV4 = 10<<24 | 255<<16
	limitV4 = 11 << 24
	innerV6 = 0xffff
)

func v4Addr(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

func v6Addr(subnet uint16, host uint64) netip.Addr {
	b := []byte{0xfd, 0x70, 'q', 'l', 'a', 'b'}
	b = binary.BigEndian.AppendUint16(b, subnet)
	return netip.AddrFrom16([16]byte(binary.BigEndian.AppendUint64(b, host)))
}

// checkUnicast says what keeps an address from being an interface's.
func checkUnicast(a netip.Addr) string {
	switch {
	case a.Is4In6():
		return "is an IPv4 address written as IPv6; write it as IPv4"
	case a.IsUnspecified():
		return "is the unspecified address"
	case a.IsLoopback():
		return "is a loopback address"
	case a.IsMulticast():
		return "is a multicast address"
	case a.IsLinkLocalUnicast():
		return "is a link-local address, which is not routed"
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "is the broadcast address"
	}
	return ""
}

// block is a prefix that the author gave, and where.
type block struct {
	netip.Prefix
	element, what string
}

// allocate checks the addresses that were given and gives every interface the rest.
func (p *planner) allocate() {
	given := p.givenBlocks()
	owner := map[netip.Addr]string{}
	p.eachGiven(func(element, what string, a netip.Prefix) {
		if other, ok := owner[a.Addr()]; ok {
			p.breaks(BadAddress, element, "%s: address %v is taken by %s", what, a.Addr(), other)
		}
		owner[a.Addr()] = what
	})
	if p.broken {
		return
	}
	pool := newPool(given)
	for s := range p.segs {
		seg := &p.segs[s]
		for _, f := range []family{v4, v6} {
			if !seg.prefix[f].IsValid() {
				prefix, ok := pool.next(f, len(seg.members))
				if !ok {
					p.breaks(BadAddress, fmt.Sprintf("links[%d]", seg.links[0]), "link %s: no %v subnet is left for it and its %d members", p.links[seg.links[0]].Name, f, len(seg.members))
					return
				}
				seg.prefix[f] = prefix
			}
			p.number(s, f)
		}
	}
	p.numberInner(pool)
	for n := range p.nodes {
		for j := range p.nodes[n].nics {
			nic := &p.nodes[n].nics[j]
			for _, a := range nic.addrs {
				if f := familyOf(a.Addr()); !nic.first[f].IsValid() {
					nic.first[f] = a.Addr()
				}
			}
		}
		for _, a := range p.nodes[n].Inner {
			if f := familyOf(a.Addr()); !p.nodes[n].inner[f].IsValid() {
				p.nodes[n].inner[f] = a
			}
		}
	}
}

// eachGiven visits the addresses that the author gave to interfaces and as inner ones.
func (p *planner) eachGiven(visit func(element, what string, a netip.Prefix)) {
	for i, l := range p.links {
		for side, end := range []End{l.A, l.B} {
			for j, a := range end.Addresses {
				visit(fmt.Sprintf("links[%d].%c.addresses[%d]", i, "ab"[side], j), "link "+l.Name+" at "+end.Node, a)
			}
		}
	}
	for i, n := range p.t.Nodes {
		for j, a := range n.Inner {
			visit(fmt.Sprintf("nodes[%d].inner[%d]", i, j), "node "+n.Name, a)
		}
	}
}

// givenBlocks checks each given address alone and within its segment, and the segments' subnets against each other.
func (p *planner) givenBlocks() []block {
	var blocks []block
	for s := range p.segs {
		seg := &p.segs[s]
		var by [2]string
		for _, i := range seg.links {
			for side, end := range []End{p.links[i].A, p.links[i].B} {
				for j, a := range end.Addresses {
					element := fmt.Sprintf("links[%d].%c.addresses[%d]", i, "ab"[side], j)
					what := "link " + p.links[i].Name + " at " + end.Node
					if why := p.checkGiven(i, side, a); why != "" {
						p.breaks(BadAddress, element, "%s: address %v %s", what, a, why)
						continue
					}
					f := familyOf(a.Addr())
					if !seg.prefix[f].IsValid() {
						seg.prefix[f], by[f] = a.Masked(), what
						blocks = append(blocks, block{a.Masked(), element, what})
					} else if a.Masked() != seg.prefix[f] {
						p.breaks(BadAddress, element, "%s: address %v is outside this network's subnet %v, which %s gives", what, a, seg.prefix[f], by[f])
					}
				}
			}
		}
	}
	for i, n := range p.t.Nodes {
		for j, a := range n.Inner {
			blocks = append(blocks, block{a, fmt.Sprintf("nodes[%d].inner[%d]", i, j), "node " + n.Name})
		}
	}
	// Prefixes are nested or apart, so in this order a prefix overlaps an earlier one only if it lies within the last
	// one that was not itself within another.
	slices.SortStableFunc(blocks, func(a, b block) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	for i, outer := 1, 0; i < len(blocks); i++ {
		a, b := blocks[outer], blocks[i]
		if !a.Overlaps(b.Prefix) {
			outer = i
			continue
		}
		if a.Prefix == b.Prefix && a.IsSingleIP() {
			continue // reported as an address that is taken
		}
		p.breaks(BadAddress, b.element, "%s: subnet %v overlaps %v of %s", b.what, b.Prefix, a.Prefix, a.what)
	}
	return blocks
}

func (p *planner) checkGiven(link, side int, a netip.Prefix) string {
	if !a.IsValid() {
		return "is not an address with a prefix length, as 10.0.0.1/24"
	}
	if n := p.nodes[p.ends[link][side]]; n.bridge() {
		return fmt.Sprintf("is given to %s %s, which only bridges and has none", n.Kind, n.Name)
	}
	if why := checkUnicast(a.Addr()); why != "" {
		return why
	}
	f := familyOf(a.Addr())
	switch {
	case a.Bits() < 8:
		return "has a prefix length below 8"
	case a.IsSingleIP():
		return "leaves no room for the other end; give the subnet's prefix length"
	case a.Bits() == f.bits()-1:
	case a.Addr() == a.Masked().Addr():
		return "is the subnet's own address, not a host's"
	case f == v4 && a.Addr() == lastOf(a):
		return "is the subnet's broadcast address"
	}
	return ""
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	n := binary.BigEndian.Uint32(b[:]) | (1<<(32-p.Bits()) - 1)
	return v4Addr(n)
}

// number gives the members of a segment that have no address of a family the lowest free ones.
func (p *planner) number(s int, f family) {
	seg := &p.segs[s]
	used := map[netip.Addr]bool{}
	has := make([]bool, len(seg.members))
	for k, m := range seg.members {
		nic := &p.nodes[m.node].nics[m.nic]
		if f == v4 { // the first round
			nic.addrs = slices.Clone([]End{p.links[nic.link].A, p.links[nic.link].B}[nic.side].Addresses)
		}
		for _, a := range nic.addrs {
			if familyOf(a.Addr()) == f {
				used[a.Addr()], has[k] = true, true
			}
		}
	}
	prefix := seg.prefix[f]
	a := prefix.Addr()
	if prefix.Bits() < f.bits()-1 {
		a = a.Next()
	}
	for k, m := range seg.members {
		if has[k] {
			continue
		}
		for used[a] {
			a = a.Next()
		}
		nic := &p.nodes[m.node].nics[m.nic]
		if !prefix.Contains(a) || f == v4 && prefix.Bits() < 31 && a == lastOf(prefix) {
			p.breaks(BadAddress, fmt.Sprintf("links[%d].%c", nic.link, "ab"[nic.side]), "link %s: subnet %v has no address left for node %s", p.links[nic.link].Name, prefix, p.nodes[m.node].Name)
			return
		}
		nic.addrs = append(nic.addrs, netip.PrefixFrom(a, prefix.Bits()))
		a = a.Next()
	}
}

// innerWanted marks the nodes that need inner addresses: both ends of a tunnel between clients or hosts whose
// subnets the author left out.
func (p *planner) innerWanted() {
	for _, t := range p.t.Tunnels {
		a, okA := p.index[t.A.Node]
		b, okB := p.index[t.B.Node]
		if !okA || !okB || a == b || len(t.A.Subnets)+len(t.B.Subnets) > 0 {
			continue
		}
		if p.nodes[a].endSystem() && p.nodes[b].endSystem() {
			p.nodes[a].wantsInner, p.nodes[b].wantsInner = true, true
		}
	}
}

func (n *node) endSystem() bool { return n.Kind == Client || n.Kind == Host }

func (p *planner) numberInner(pool *pool) {
	for i := range p.nodes {
		n := &p.nodes[i]
		if !n.wantsInner {
			continue
		}
		var has [2]bool
		for _, a := range n.Inner {
			has[familyOf(a.Addr())] = true
		}
		for _, f := range []family{v4, v6} {
			if has[f] {
				continue
			}
			a, ok := pool.nextInner(f)
			if !ok {
				p.breaks(BadAddress, fmt.Sprintf("nodes[%d]", i), "node %s: no inner %v address is left for it", n.Name, f)
				return
			}
			n.Inner = append(n.Inner, a)
		}
	}
}

// pool hands out subnets in order and goes around those that were given.
type pool struct {
	given  [2][]netip.Prefix // by address, none within another
	v4, v6 uint32            // next IPv4 address; next IPv6 subnet number
	inner  [2]uint32         // last inner host number
}

func newPool(blocks []block) *pool {
	p := &pool{v4: firstV4}
	for _, b := range blocks {
		f := familyOf(b.Addr())
		if last := len(p.given[f]) - 1; last < 0 || !p.given[f][last].Overlaps(b.Prefix) {
			p.given[f] = append(p.given[f], b.Prefix)
		}
	}
	return p
}

// overlapped returns a given prefix that overlaps candidate.
func (p *pool) overlapped(f family, candidate netip.Prefix) (netip.Prefix, bool) {
	given := p.given[f]
	i := sort.Search(len(given), func(i int) bool { return given[i].Addr().Compare(candidate.Addr()) >= 0 })
	for _, k := range []int{i - 1, i} {
		if k >= 0 && k < len(given) && given[k].Overlaps(candidate) {
			return given[k], true
		}
	}
	return netip.Prefix{}, false
}

func (p *pool) next(f family, members int) (netip.Prefix, bool) {
	if f == v6 {
		for ; p.v6 < innerV6; p.v6++ {
			candidate := netip.PrefixFrom(v6Addr(uint16(p.v6), 0), 64)
			if _, ok := p.overlapped(v6, candidate); !ok {
				p.v6++
				return candidate, true
			}
		}
		return netip.Prefix{}, false
	}
	size := uint32(256)
	if members > 254 {
		size = 1 << bits.Len32(uint32(members)+1)
	}
	prefixLen := 32 - bits.TrailingZeros32(size)
	for at := (p.v4 + size - 1) &^ (size - 1); at+size <= innerV4; {
		candidate := netip.PrefixFrom(v4Addr(at), prefixLen)
		g, ok := p.overlapped(v4, candidate)
		if !ok {
			p.v4 = at + size
			return candidate, true
		}
		at += size
		if g.Bits() < prefixLen { // go past a larger one at once
			last := lastOf(g).As4()
			at = (binary.BigEndian.Uint32(last[:])/size + 1) * size
		}
	}
	return netip.Prefix{}, false
}

func (p *pool) nextInner(f family) (netip.Prefix, bool) {
	for {
		p.inner[f]++
		if p.inner[f] >= limitV4-innerV4-1 {
			return netip.Prefix{}, false
		}
		a := v4Addr(innerV4 + p.inner[v4])
		if f == v6 {
			a = v6Addr(innerV6, uint64(p.inner[v6]))
		}
		candidate := netip.PrefixFrom(a, f.bits())
		if _, ok := p.overlapped(f, candidate); !ok {
			return candidate, true
		}
	}
}
