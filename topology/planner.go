package topology

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"math"
	"net/netip"
	"path/filepath"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits on the size of a lab. They keep a hostile file from costing more than a second and some megabytes.
const (
	maxNodes   = 10_000
	maxLinks   = 20_000
	maxTunnels = 4096
	maxFlows   = 1024
	maxList    = 256       // addresses of an end, subnets of a tunnel's end, vias of a flow
	maxRoutes  = 1_000_000 // in the whole lab
)

// minMTU is what IPv6 requires of every link (RFC 8200 section 5).
const minMTU = 1280

// maxMTU of a link, in bytes of IP packet: room for the headers around what fills it.
const maxMTU = 65000

// Plan fills in what the author left out and checks the lab as a whole. Its error is Errors.
func (t *Topology) Plan() (*Plan, error) {
	p := &planner{t: t, index: make(map[string]int, len(t.Nodes))}
	if p.run(); len(p.found) > 0 {
		return nil, p.found
	}
	return p.plan(), nil
}

// planner works in stages. A stage that needs what an earlier one found broken is left out, so that one mistake is
// reported once and not in the shape of its consequences.
type planner struct {
	problems
	t       *Topology
	index   map[string]int // of nodes, by name
	nodes   []node
	links   []Link
	ends    [][2]int // nodes of a link's ends; -1 where unknown
	segs    []segment
	tunnels []tunnel
	flows   []PlannedFlow
	broken  bool // nodes and links do not make a lab
	notes   []string
	routes  int
	reach   sets // segments that DPUs join

}

type node struct {
	Node
	nics       []nic
	inner      [2]netip.Prefix // first inner address of each family
	table      table
	inside     map[netip.Addr]hop // next hop to another node's inner address
	innerRt    []Route
	tunnels    []int // tunnels that end here
	service    bool
	wantsInner bool
}

// nic is a link's end in a node.
type nic struct {
	name  string
	link  int
	side  int // 0: A, 1: B
	seg   int
	addrs []netip.Prefix
	first [2]netip.Addr // first address of each family
}

// family indexes what exists once for IPv4 and once for IPv6.
type family int

const (
	v4 family = iota
	v6
)

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return v4
	}
	return v6
}

func familyNamed(name string) family {
	if name == "ipv6" {
		return v6
	}
	return v4
}

func (f family) String() string { return [...]string{"IPv4", "IPv6"}[f] }

// bits is the length of an address.
func (f family) bits() int { return [...]int{32, 128}[f] }

func (n *node) bridge() bool { return n.Kind == AP || n.Kind == Switch }

func (p *planner) run() {
	if !p.checkSize() {
		return
	}
	p.checkTop()
	p.checkNodes()
	p.checkLinks()
	p.checkTunnels()
	p.checkFlows()
	p.checkOwnership()
	if p.broken {
		return
	}
	p.noteSlots()
	p.makeSegments()
	if p.broken {
		return
	}
	p.innerWanted()
	p.allocate()
	if p.broken {
		return
	}
	p.routeAll()
	p.planTunnels()
	if p.broken {
		return
	}
	p.planFlows()
}

// breaks reports a mistake that leaves nothing to build on.
func (p *planner) breaks(kind ErrorKind, element, format string, args ...any) {
	p.broken = true
	p.add(kind, element, format, args...)
}

func (p *planner) checkSize() bool {
	for _, s := range []struct {
		element  string
		len, max int
	}{{"nodes", len(p.t.Nodes), maxNodes}, {"links", len(p.t.Links), maxLinks}, {"tunnels", len(p.t.Tunnels), maxTunnels}, {"traffic", len(p.t.Traffic), maxFlows}} {
		if s.len > s.max {
			p.breaks(BadValue, s.element, "%s: %d are more than the %d a lab may have", s.element, s.len, s.max)
		}
	}
	if len(p.t.Nodes) == 0 {
		p.breaks(Missing, "nodes", "the topology has no nodes; it needs at least one")
	}
	return !p.broken
}

func (p *planner) checkTop() {
	if p.t.Name != "" {
		if why := checkName(p.t.Name); why != "" {
			p.add(BadValue, "name", "topology name %s %s", quote(p.t.Name), why)
		}
	}
	checkText(&p.problems, "description", "description", p.t.Description)
	p.checkTolerance()
}

// checkText accepts printable text of bounded size; it ends up in terminals and drawings.
// file finds a file that the topology names.
func (t *Topology) file(name string) string {
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(t.Dir, name)
}

func checkText(p *problems, element, what, text string) {
	bad := func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' }
	if !utf8.ValidString(text) || slices.ContainsFunc([]rune(text), bad) {
		p.add(BadValue, element, "%s: has bytes that are not printable text", what)
	} else if len(text) > 2000 {
		p.add(BadValue, element, "%s: is longer than 2000 bytes", what)
	}
}

func (p *planner) checkNodes() {
	p.nodes = make([]node, len(p.t.Nodes))
	for i := range p.t.Nodes {
		n := &p.t.Nodes[i]
		p.nodes[i].Node = *n
		at := func(field string) string { return fmt.Sprintf("nodes[%d]%s", i, field) }
		if why := checkName(n.Name); why != "" {
			p.breaks(BadValue, at(".name"), "node name %s %s", quote(n.Name), why)
		} else if first, ok := p.index[n.Name]; ok {
			p.breaks(Duplicate, at(".name"), "node %s: name is taken by node number %d; names are unique", n.Name, first+1)
		} else {
			p.index[n.Name] = i
		}
		if !p.oneOf(at(".kind"), "node "+n.Name+": kind", string(n.Kind), nodeKinds(), false) {
			p.broken = true
		}
		checkText(&p.problems, at(".certificate"), "node "+clip(n.Name)+": certificate", n.Certificate)
		p.oneOf(at(".profile"), "node "+clip(n.Name)+": profile", n.Profile, Profiles(), true)
		p.checkInner(i)
		p.checkCell(i)
	}
	for i := range p.nodes {
		p.nodes[i].Inner = slices.Clone(p.nodes[i].Inner)
	}
}

func (p *planner) checkInner(i int) {
	n := &p.t.Nodes[i]
	if len(n.Inner) > 0 && n.Kind != Client && n.Kind != Host {
		p.add(BadStructure, fmt.Sprintf("nodes[%d].inner", i), "node %s: a %s has no inner addresses; only clients and hosts have", n.Name, n.Kind)
		p.broken = true
	}
	if len(n.Inner) > maxList {
		p.breaks(BadValue, fmt.Sprintf("nodes[%d].inner", i), "node %s: more than %d inner addresses", n.Name, maxList)
		return
	}
	for j, a := range n.Inner {
		element := fmt.Sprintf("nodes[%d].inner[%d]", i, j)
		if !a.IsValid() || !a.IsSingleIP() {
			p.breaks(BadAddress, element, "node %s: inner address %v is not one address, as 192.168.7.1/32 or fd00::1/128", n.Name, a)
		} else if why := checkUnicast(a.Addr()); why != "" {
			p.breaks(BadAddress, element, "node %s: inner address %v %s", n.Name, a, why)
		}
	}
}

// oneOf reports a value that is none of the known ones. An empty one passes if it may be left out.
func (p *problems) oneOf(element, what, value string, known []string, optional bool) bool {
	if value == "" && optional || slices.Contains(known, value) {
		return true
	}
	if value == "" {
		p.add(Missing, element, "%s is missing; give one of %s", what, commas(known))
	} else {
		p.add(BadValue, element, "%s %s is none of %s%s", what, quote(value), commas(known), DidYouMean(value, known))
	}
	return false
}

// find returns the node of that name. An unknown one is reported at element.
func (p *planner) find(element, what, name string) (int, bool) {
	if i, ok := p.index[name]; ok {
		return i, true
	}
	if name == "" {
		p.add(Missing, element, "%s names no node", what)
		return -1, false
	}
	var known []string
	if len(p.found) < maxErrors {
		known = p.nodeNames()
	}
	p.add(UnknownName, element, "%s: there is no node %s%s", what, quote(name), DidYouMean(name, known))
	return -1, false
}

func (p *planner) nodeNames() []string {
	names := make([]string, len(p.t.Nodes))
	for i, n := range p.t.Nodes {
		names[i] = n.Name
	}
	return names
}

// unique holds the names of links, tunnels or flows: given ones are claimed first, then name fills in the others.
type unique struct {
	taken map[string]int // by whom
	last  map[string]int // number last given to a base
}

func newUnique() unique { return unique{map[string]int{}, map[string]int{}} }

func (u unique) claim(p *planner, element, what, name string, i int) {
	if why := checkName(name); why != "" {
		p.add(BadValue, element, "%s name %s %s", what, quote(name), why)
	} else if first, ok := u.taken[name]; ok {
		p.add(Duplicate, element, "%s %s: name is taken by %s number %d; names are unique", what, name, what, first+1)
	} else {
		u.taken[name] = i
	}
}

// name returns base, or base-2, base-3 … if it is taken, and takes it.
func (u unique) name(base string, i int) string {
	for {
		u.last[base]++
		name := base
		if n := u.last[base]; n > 1 {
			name = fmt.Sprintf("%s-%d", base, n)
		}
		if _, taken := u.taken[name]; !taken {
			u.taken[name] = i
			return name
		}
	}
}

// seedOf is the seed of a link that has none: FNV-1a (64 bit) of the topology's seed, 8 bytes big-endian, and the
// link's name, mixed by the finaliser of SplitMix64 so that similar names give unrelated seeds. It is part of what a
// run with the same seed repeats, so it does not change.
func seedOf(seed uint64, link string) uint64 {
	h := fnv.New64a()
	var b [8]byte
	for i := range b {
		b[i] = byte(seed >> (56 - 8*i))
	}
	h.Write(b[:])
	h.Write([]byte(link))
	z := h.Sum64()
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return cmp.Or(z^z>>31, 1)
}

// groupIndex of a single-mode fibre at 1550 nm.
const groupIndex = 1.468

// fibreDelay is the time light takes through metres of fibre.
func fibreDelay(metres float64) time.Duration {
	const c = 299_792_458 // m/s
	return time.Duration(math.Round(metres * groupIndex / c * 1e9))
}

// plan assembles the result. Nothing in it is shared with the Topology but traces, which nobody writes to.
func (p *planner) plan() *Plan {
	plan := &Plan{Name: p.t.Name, Description: p.t.Description, Seed: cmp.Or(p.t.Seed, 1), Nodes: make([]PlannedNode, len(p.nodes)), Links: make([]PlannedLink, len(p.links)), Verify: p.t.Verify, Tolerance: p.t.Tolerance, Notes: p.notes}
	if plan.Verify {
		plan.Tolerance = plan.Tolerance.filled()
	}
	for i := range p.nodes {
		n := &p.nodes[i]
		n.Certificate = p.t.file(n.Certificate)
		if n.WiFi != nil {
			cell := n.WiFi.clone()
			n.WiFi = &cell
		}
		planned := PlannedNode{Node: n.Node, Bridge: n.bridge(), Forward: n.Kind == DPU, Services: n.service}
		if len(n.Inner) > 0 {
			planned.Interfaces = append(planned.Interfaces, Interface{Name: "lo", Addresses: n.Inner})
		}
		for j := range n.nics {
			nic := &n.nics[j]
			planned.Interfaces = append(planned.Interfaces, Interface{Name: nic.name, Link: p.links[nic.link].Name, Addresses: nic.addrs, MTU: p.links[nic.link].MTU})
		}
		planned.Routes = p.routesOf(i)
		plan.Nodes[i] = planned
	}
	cells := p.cells()
	for i, l := range p.links {
		planned := PlannedLink{}
		if i < len(p.t.at) {
			planned.At = p.t.at[i]
		}
		for side, end := range []*End{&l.A, &l.B} {
			n := &p.nodes[p.ends[i][side]]
			for j := range n.nics {
				if n.nics[j].link == i && n.nics[j].side == side {
					end.Interface, end.Addresses = n.nics[j].name, slices.Clone(n.nics[j].addrs)
				}
			}
		}
		if l.WiFi != nil {
			for _, n := range p.ends[i] {
				planned.Cell = cmp.Or(planned.Cell, cells[n])
			}
		}
		l.Table, l.Outages = slices.Clone(l.Table), slices.Clone(l.Outages)
		planned.Link = l
		plan.Links[i] = planned
	}
	for i := range p.tunnels {
		plan.Tunnels = append(plan.Tunnels, p.tunnels[i].PlannedTunnel)
	}
	plan.Traffic = p.flows
	return plan
}

func commas(names []string) string {
	s := ""
	for i, n := range names {
		if i > 0 {
			s += ", "
		}
		s += n
	}
	return s
}
