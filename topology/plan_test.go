package topology_test

import (
	"fmt"
	"net/netip"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"pqlab/internal/race"
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
				if l.Loses() || l.Random() {
					t.Errorf("link %s is impaired", l.Name)
				}
				if air, radio := l.WiFi != nil, l.Kind == topology.WiFi; air != radio {
					t.Errorf("link %s of kind %s: airtime %v", l.Name, l.Kind, air)
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
	n := race.Times(1500, 300)
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
	if tunnelled < n/15 {
		t.Errorf("only %d flows through tunnels in the sample", tunnelled)
	}
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
	want := topology.Tunnel{Name: "t", Keying: "pqlab", Suite: "mldsa65+mlkem768", Combiner: "xor", Identity: "fresh", TLSGroups: []string{"X25519"},
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
	if !slices.Equal(p.Traffic[0].Links, inner.Links) {
		t.Errorf("flow passes links %v", p.Traffic[0].Links)
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
