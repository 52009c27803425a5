package topology_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"pqlab/topology"
)

// random makes a topology of hosts with and without DPUs, switches and clients, mostly one that can be planned.
func random(r *rand.Rand) *topology.Topology {
	t := &topology.Topology{Name: "random", Seed: r.Uint64N(3)}
	if r.IntN(2) == 0 {
		t.Description = []string{"a lab", "it's: \"quoted\" # é\n, [x]", "null", "1e3", "- a", "ends in space "}[r.IntN(6)]
	}
	add := func(kind topology.NodeKind, prefix string, n int) (names []string) {
		for i := range n {
			name := fmt.Sprintf("%s%d", prefix, i)
			t.Nodes = append(t.Nodes, topology.Node{Name: name, Kind: kind})
			names = append(names, name)
		}
		return names
	}
	hosts := add(topology.Host, "h", 2+r.IntN(5))
	clients := add(topology.Client, []string{"c", "1e", "0x"}[r.IntN(3)], r.IntN(3))
	switches := add(topology.Switch, "s", r.IntN(3))
	var dpus []string
	for i, h := range hosts {
		if r.IntN(3) > 0 {
			d := fmt.Sprintf("d%d", i)
			t.Nodes = append(t.Nodes, topology.Node{Name: d, Kind: topology.DPU, Host: h, Profile: []string{"", "xeon"}[r.IntN(2)]})
			t.Links = append(t.Links, topology.Link{Kind: topology.PCIe, A: topology.End{Node: h}, B: topology.End{Node: d},
				Generation: []int{0, 3, 6}[i%3], Lanes: []int{0, 16, 1}[i%3]})
			dpus = append(dpus, d)
		}
	}
	pick := func(from ...[]string) string {
		var all []string
		for _, f := range from {
			all = append(all, f...)
		}
		return all[r.IntN(len(all))]
	}
	joined := map[[2]string]bool{}
	link := func(a, b string) {
		if a == b || joined[[2]string{a, b}] || joined[[2]string{b, a}] {
			return
		}
		joined[[2]string{a, b}] = true
		l := topology.Link{Kind: topology.Ethernet, A: topology.End{Node: a}, B: topology.End{Node: b}}
		if r.IntN(3) == 0 {
			l.Kind, l.Length = topology.Fibre, []float64{0, 80, 10_000, 0.1, 1.0 / 3}[r.IntN(5)]
		}
		l.Rate = []topology.Rate{0, topology.Gbit, 2500 * topology.Mbit, 1}[r.IntN(4)]
		if r.IntN(3) == 0 {
			l.Delay, l.Jitter = time.Duration(1e7+r.IntN(1e9)), time.Duration(r.IntN(1e6))
			l.Reordering = []float64{0, 0.5}[r.IntN(2)]
		}
		if l.Jitter > 0 {
			l.Unordered = r.IntN(2) == 0
			if l.Distribution = []string{"", "uniform", "normal", "pareto", "paretonormal"}[r.IntN(5)]; l.Distribution == "" && r.IntN(2) == 0 {
				l.Table = []float64{r.NormFloat64(), 0, -1.0 / 3, 1e12}
			}
		}
		if l.Loss = []float64{0, 0.01, 1, 1e-9, 1.0 / 3}[r.IntN(5)]; l.Loss > 0 {
			l.LossCorrelation = []float64{0, 0.25}[r.IntN(2)]
		} else if r.IntN(2) == 0 {
			l.GilbertElliott = topology.GilbertElliott{P: 1 - r.Float64(), R: 1 - r.Float64(), Bad: []float64{0, 1, 0.9}[r.IntN(3)], Good: r.Float64() / 2}
		}
		l.Duplication, l.Corruption = r.Float64()*float64(r.IntN(2)), r.Float64()*float64(r.IntN(2))
		if l.Loss == 0 && l.GilbertElliott == (topology.GilbertElliott{}) && r.IntN(2) == 0 {
			l.LossTrace = [][]int{{3, 1}, {0, 2, 1}, {1 << 30, 7, 5, 1}}[r.IntN(3)]
		}
		if l.Rate == 0 && r.IntN(2) == 0 {
			l.RateTrace = []topology.RateStep{{Length: time.Duration(1e6 + r.IntN(1e12)), Rate: 1 + topology.Rate(r.Uint64N(uint64(topology.MaxRate)))}, {Length: time.Millisecond}}
		}
		if (l.Rate > 0 || l.RateTrace != nil) && r.IntN(2) == 0 {
			l.Queue = []topology.Queue{{Kind: "codel"}, {Kind: "drop-tail", Bytes: 12345}, {Time: 7 * time.Millisecond},
				{Kind: "codel", Bytes: 1 << 20, Target: 1, Interval: time.Second}}[r.IntN(4)]
		}
		if r.IntN(3) == 0 {
			l.Outages = []topology.Outage{{Start: time.Duration(r.IntN(1e9)), Length: time.Duration(1 + r.IntN(1e9)), Every: time.Duration(r.IntN(2)) * 2 * time.Second}}
		}
		if l.Kind == topology.Fibre {
			l.Attenuation = []float64{0, 0.18, 1.0 / 3}[r.IntN(3)]
		}
		l.MTU = []int{0, 0, 1400, 9000}[r.IntN(4)]
		l.Seed = r.Uint64N(2) * r.Uint64()
		if r.IntN(4) == 0 {
			l.Name = fmt.Sprintf("link-%d", len(t.Links))
			l.A.Interface = fmt.Sprintf("p%d", len(t.Links))
		}
		if r.IntN(4) == 0 && a[0] != 's' && b[0] != 's' {
			l.A.Addresses = []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("192.168.%d.7/24", len(t.Links)))}
			l.B.Addresses = []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("fd00:%d::7/64", len(t.Links)))}
		}
		t.Links = append(t.Links, l)
	}
	for _, s := range switches {
		for range 1 + r.IntN(4) {
			link(s, pick(hosts, clients, dpus))
		}
	}
	for i := 1; i < len(dpus); i++ {
		if r.IntN(4) > 0 {
			link(dpus[i], dpus[r.IntN(i)])
		}
	}
	for _, c := range clients {
		link(c, pick(hosts, dpus, switches))
	}
	for range r.IntN(3) {
		link(pick(hosts), pick(hosts, dpus))
	}
	if len(clients) > 0 && r.IntN(2) == 0 {
		cell := &topology.Cell{Width: []int{0, 20, 160}[r.IntN(3)], Exponent: []float64{0, 2.5}[r.IntN(2)]}
		for range r.IntN(3) {
			cell.Interferers = append(cell.Interferers, topology.Interferer{Duty: (1 - r.Float64()) / 3, Power: -100 * r.Float64()})
		}
		t.Nodes = append(t.Nodes, topology.Node{Name: "ap", Kind: topology.AP, WiFi: []*topology.Cell{nil, cell}[r.IntN(2)]})
		for _, c := range clients {
			s := &topology.Station{Profile: topology.Radios()[r.IntN(len(topology.Radios()))], MaxAMPDU: r.IntN(2) * r.IntN(65)}
			if mcs := r.IntN(16); mcs < 8 {
				s.MCS = &mcs
			}
			if r.IntN(2) == 0 {
				s.Distance, s.Walls = []float64{0, 1.0 / 3, 100}[r.IntN(3)], r.IntN(3)
			} else {
				s.Path = []topology.Waypoint{{At: time.Duration(r.IntN(2)), Distance: 1 + r.Float64(), Walls: r.IntN(2)}, {At: time.Hour, Distance: 0.1}}
			}
			t.Links = append(t.Links, topology.Link{Kind: topology.WiFi, A: topology.End{Node: c}, B: topology.End{Node: "ap"}, WiFi: s,
				Shape: topology.Shape{Delay: time.Duration(r.IntN(2)) * time.Millisecond}})
		}
	}
	if t.Verify = r.IntN(2) == 0; t.Verify {
		t.Tolerance = topology.Tolerance{Rate: 0.5 * r.Float64(), Delay: time.Duration(r.IntN(1e9)), Jitter: time.Duration(r.IntN(2)), Tail: time.Duration(r.IntN(3)), Confidence: []float64{0, 0.9}[r.IntN(2)]}
	}
	for i := range r.IntN(3) {
		tun := topology.Tunnel{Name: fmt.Sprintf("t%d", i), A: topology.TunnelEnd{Node: pick(dpus, hosts, clients)}, B: topology.TunnelEnd{Node: pick(dpus, hosts, clients)}}
		tun.Suite = []string{"", "dilithium5+kyber1024"}[r.IntN(2)]
		tun.Family = []string{"", "ipv6"}[r.IntN(2)]
		tun.Encapsulation = []string{"", "esp"}[r.IntN(2)]
		tun.Mutual = r.IntN(2) == 0
		if r.IntN(2) == 0 {
			tun.TLSGroups = []string{"X25519MLKEM768", "X25519"}
			tun.CA = "certs/my ca.pem"
			for i, n := range t.Nodes {
				if n.Name == tun.A.Node || n.Name == tun.B.Node {
					t.Nodes[i].Certificate = n.Name + ".pem"
				}
			}
			tun.Rekey = topology.Limits{Time: time.Minute, Blocks: 1 << 20, Bytes: 3 << 20, Packets: 12345}
			tun.Deadline = 1500 * time.Millisecond
		}
		t.Tunnels = append(t.Tunnels, tun)
	}
	for range r.IntN(4) {
		f := topology.Flow{From: pick(hosts, clients), To: pick(hosts, clients), Proto: []string{"", "tcp", "udp"}[r.IntN(3)]}
		if len(t.Tunnels) > 0 && r.IntN(4) > 0 { // between what the first tunnel protects
			behind := func(n string) string { return strings.Replace(n, "d", "h", 1) }
			f.From, f.To = behind(t.Tunnels[0].A.Node), behind(t.Tunnels[0].B.Node)
		}
		f.Family = []string{"", "ipv4", "ipv6"}[r.IntN(3)]
		f.Rate = []topology.Rate{0, 5 * topology.Mbit}[r.IntN(2)]
		f.Streams = r.IntN(3)
		f.Duration = time.Duration(r.IntN(2)) * 1500 * time.Millisecond
		if f.Proto == "udp" {
			f.FrameSize = []int{0, 1000}[r.IntN(2)]
		} else if r.IntN(3) == 0 {
			f.Via = []string{pick(hosts)}
		}
		t.Traffic = append(t.Traffic, f)
	}
	return t
}

// planned returns n random topologies and their plans. Few random ones cannot be planned: far more would mean that the
// planner refuses what is right.
func planned(n int, visit func(i int, t *topology.Topology, p *topology.Plan)) (refused int) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		t := random(r)
		// What cannot be planned for its tunnels or flows is tried without them.
		for _, cut := range []func(){func() {}, func() { t.Traffic = nil }, func() { t.Tunnels = nil }} {
			cut()
			if p, err := t.Plan(); err == nil {
				visit(i, t, p)
				refused--
				break
			}
		}
		refused++
	}
	return refused
}
