package xfrm

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
	"pqlab/internal/xfrmnl"
	"pqlab/ipsec"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pair is two nodes with a link between them and an address behind each, and a dataplane in each.
type pair struct {
	ns     [2]*netns.Namespace
	planes [2]ipsec.Dataplane
}

var (
	outer = [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}
	inner = [2]netip.Addr{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.1")}
)

// nodes are without dataplanes.
func nodes(t testing.TB) *pair {
	t.Helper()
	nss, err := netns.New(2)
	check(t, err)
	p := &pair{ns: [2]*netns.Namespace(nss)}
	t.Cleanup(func() { nss[0].Close(); nss[1].Close() })
	h, err := nss[0].Netlink()
	check(t, err)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "net0"
	check(t, h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "net0", PeerNamespace: netlink.NsFd(nss[1].Fd())}))
	for i, ns := range nss {
		h, err := ns.Netlink()
		check(t, err)
		for name, a := range map[string]string{"net0": outer[i].String() + "/24", "lo": inner[i].String() + "/32"} {
			l, err := h.LinkByName(name)
			check(t, err)
			check(t, h.LinkSetUp(l))
			addr, err := netlink.ParseAddr(a)
			check(t, err)
			check(t, h.AddrAdd(l, addr))
		}
	}
	return p
}

// start opens the dataplanes and adds the tunnel t. It skips where the kernel has no ESP.
func start(t testing.TB, c Config, e ipsec.Encapsulation) *pair {
	t.Helper()
	p := nodes(t)
	for i := range p.ns {
		c.Namespace = p.ns[i]
		d, err := New(c)
		if errors.Is(err, ErrNoESP) {
			t.Skipf("%v (go test -exec 'pqlab vm --' has it)", err)
		}
		check(t, err)
		t.Cleanup(func() { check(t, d.Close()) })
		check(t, d.AddTunnel(policy(i, e)))
		p.planes[i] = d
	}
	return p
}

func policy(i int, e ipsec.Encapsulation) ipsec.Policy {
	at := func(a netip.Addr) []netip.Prefix { return []netip.Prefix{netip.PrefixFrom(a, 32)} }
	return ipsec.Policy{
		Tunnel: "t", Local: at(inner[i]), Remote: at(inner[1-i]), Src: outer[i], Dst: outer[1-i], Encapsulation: e, PathMTU: 1500,
	}
}

// sas gives the same new SA twice, for its two ends.
func sas(spi uint32, edit func(*ipsec.SA)) (*ipsec.SA, *ipsec.SA) {
	a := ipsec.SA{SPI: spi}
	rand.Read(a.Key[:])
	rand.Read(a.Salt[:])
	if edit != nil {
		edit(&a)
	}
	b := a
	return &a, &b
}

// key installs SAs in both directions, of 0x1000+n from node 0 and 0x2000+n from node 1.
func (p *pair) key(t testing.TB, n uint32, edit func(*ipsec.SA)) {
	t.Helper()
	for i := range p.planes {
		in, out := sas(uint32(i+1)<<12+n, edit)
		check(t, p.planes[1-i].AddInbound("t", in))
		check(t, p.planes[i].SetOutbound("t", out))
		if in.Key != [32]byte{} || out.Key != [32]byte{} || in.Salt != [4]byte{} || out.Salt != [4]byte{} {
			t.Error("a key was not wiped")
		}
	}
}

// sent is how many packets node 0 has sent on an SA.
func (p *pair) sent(t testing.TB, spi uint32) uint64 {
	t.Helper()
	c, err := p.planes[0].Counters("t", spi)
	check(t, err)
	return c.Packets
}

func (p *pair) listen(t testing.TB, i int) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	check(t, p.ns[i].Do(func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(inner[i], 7)))
		return err
	}))
	t.Cleanup(func() { c.Close() })
	check(t, c.SetDeadline(time.Now().Add(2*time.Minute)))
	return c
}

func pass(t testing.TB, from, to *net.UDPConn, payload []byte) {
	t.Helper()
	send(t, from, to, payload)
	buf := make([]byte, 65536)
	n, err := to.Read(buf)
	check(t, err)
	if string(buf[:n]) != string(payload) {
		t.Fatalf("%d bytes came of %d", n, len(payload))
	}
}

func send(t testing.TB, from, to *net.UDPConn, payload []byte) {
	t.Helper()
	_, err := from.WriteTo(payload, to.LocalAddr())
	check(t, err)
}

func configs() map[string]Config {
	return map[string]Config{"interface": {}, "policy": {NoInterface: true}}
}

func TestTraffic(t *testing.T) {
	t.Parallel()
	for name, c := range configs() {
		for e, what := range map[ipsec.Encapsulation]string{ipsec.UDP: "udp", ipsec.ESP: "esp"} {
			t.Run(name+"/"+what, func(t *testing.T) {
				p := start(t, c, e)
				p.key(t, 1, func(sa *ipsec.SA) { sa.Seq = 1<<32 - 3 })
				a, b := p.listen(t, 0), p.listen(t, 1)
				for _, n := range []int{1, 2, 3, 100, 1410, 5000} { // across 2^32
					payload := make([]byte, n)
					rand.Read(payload)
					pass(t, a, b, payload)
					pass(t, b, a, payload)
				}
				out, err := p.planes[0].Counters("t", 0x1001)
				check(t, err)
				in, err := p.planes[1].Counters("t", 0x1001)
				check(t, err)
				if out.Seq != 1<<32-3+out.Packets || in.Packets != out.Packets || in.Seq != out.Seq || in.Bytes != out.Bytes || out.Packets < 6 {
					t.Errorf("%+v sent, %+v received", out, in)
				}
				for i, d := range p.planes {
					for _, name := range []string{"t", ""} {
						if drops, err := d.Drops(name); err != nil || drops != (ipsec.Drops{}) {
							t.Errorf("node %d, %q: %+v %v", i, name, drops, err)
						}
					}
				}
			})
		}
	}
}

// TestRekey replaces SAs under traffic: none is lost, each packet is under one SA, and the counters of a replaced one are
// final.
func TestRekey(t *testing.T) {
	t.Parallel()
	for name, c := range configs() {
		t.Run(name, func(t *testing.T) {
			p := start(t, c, ipsec.UDP)
			p.key(t, 0, nil)
			a, b := p.listen(t, 0), p.listen(t, 1)
			stop, sent := make(chan struct{}), make(chan uint64)
			go func() {
				n := uint64(0)
				for ; ; n++ {
					select {
					case <-stop:
						sent <- n
						return
					default:
						a.WriteTo([]byte("x"), b.LocalAddr())
					}
				}
			}()
			received := uint64(0)
			go func() {
				for buf := make([]byte, 10); ; {
					if _, err := b.Read(buf); err != nil {
						return
					}
				}
			}()
			const rekeys = 20
			// With policies alone a program's packet is looked up when the program has yet to be asked for its bytes, and so may
			// leave under an SA that was replaced a while ago. Nothing is lost where that stays for a grace.
			lag := uint32(0)
			if c.NoInterface {
				lag = 4
			}
			for n := uint32(1); n <= rekeys+lag; n++ {
				before := p.sent(t, 0x1000+min(n-1, rekeys))
				for p.sent(t, 0x1000+min(n-1, rekeys)) < before+5 { // some traffic for each
					time.Sleep(time.Millisecond)
				}
				if n <= rekeys {
					p.key(t, n, nil)
				}
				if n <= lag {
					continue
				}
				n := n - 1 - lag
				out, err := p.planes[0].Counters("t", 0x1000+n)
				check(t, err)
				check(t, p.planes[0].RemoveOutbound("t", 0x1000+n))
				check(t, p.planes[1].RemoveOutbound("t", 0x2000+n))
				in := settled(t, p.planes[1], 0x1000+n, out.Packets)
				if in != out.Packets {
					t.Errorf("SA %d: %d packets left and %d came", n, out.Packets, in)
				}
				received += in
				check(t, p.planes[1].RemoveInbound("t", 0x1000+n))
				check(t, p.planes[0].RemoveInbound("t", 0x2000+n))
			}
			close(stop)
			all := <-sent
			last := settled(t, p.planes[1], 0x1000+rekeys, all-received)
			if received+last != all || received == 0 {
				t.Errorf("%d packets were sent, %d came", all, received+last)
			}
			for _, d := range p.planes {
				if drops, err := d.Drops(""); err != nil || drops != (ipsec.Drops{}) {
					t.Errorf("%+v %v", drops, err)
				}
			}
		})
	}
}

// settled waits until so many packets have come on an SA, and returns how many did.
func settled(t testing.TB, d ipsec.Dataplane, spi uint32, want uint64) uint64 {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		c, err := d.Counters("t", spi)
		check(t, err)
		if c.Packets >= want || time.Now().After(deadline) {
			return c.Packets
		}
		time.Sleep(time.Millisecond)
	}
}

func TestLimitsInTheKernel(t *testing.T) {
	t.Parallel()
	p := start(t, Config{}, ipsec.UDP)
	p.key(t, 1, nil)
	in, out := sas(0x1002, func(sa *ipsec.SA) { sa.Soft.Packets, sa.Hard.Packets = 3, 5 })
	in.Soft, in.Hard = ipsec.Limits{}, ipsec.Limits{}
	check(t, p.planes[1].AddInbound("t", in))
	check(t, p.planes[0].SetOutbound("t", out))
	a, b := p.listen(t, 0), p.listen(t, 1)
	told := p.planes[0].Expiries()
	expect := func(want ipsec.Expiry) {
		t.Helper()
		select {
		case got := <-told:
			if got != want {
				t.Fatalf("told %+v, not %+v", got, want)
			}
		case <-time.After(2 * time.Minute):
			t.Fatalf("%+v was not told", want)
		}
	}
	pass(t, a, b, []byte("1"))
	pass(t, a, b, []byte("2"))
	select {
	case got := <-told:
		t.Fatalf("told %+v early", got)
	default:
	}
	pass(t, a, b, []byte("3"))
	expect(ipsec.Expiry{Tunnel: "t", SPI: 0x1002, Trigger: ipsec.ByPackets})
	pass(t, a, b, []byte("4"))
	pass(t, a, b, []byte("5"))
	for range 4 {
		a.WriteTo([]byte("beyond"), b.LocalAddr())
	}
	expect(ipsec.Expiry{Tunnel: "t", SPI: 0x1002, Trigger: ipsec.ByPackets, Hard: true})
	c, err := p.planes[0].Counters("t", 0x1002)
	check(t, err)
	if c.Packets != 5 || c.Seq != 5 {
		t.Errorf("%+v", c)
	}
	if drops, err := p.planes[0].Drops("t"); err != nil || drops != (ipsec.Drops{Expired: 4}) {
		t.Errorf("%+v %v", drops, err)
	}
	p.key(t, 3, nil)
	pass(t, a, b, []byte("goes on")) // and nothing beyond came before it
}

// TestNoSA: a packet without an SA is refused, and told of once, and again after the next SA is gone.
func TestNoSA(t *testing.T) {
	t.Parallel()
	for name, c := range configs() {
		t.Run(name, func(t *testing.T) {
			p := start(t, c, ipsec.UDP)
			a, b := p.listen(t, 0), p.listen(t, 1)
			for round := range 2 {
				const n = 3
				for range n {
					a.WriteTo([]byte("lost"), b.LocalAddr())
				}
				select {
				case got := <-p.planes[0].Expiries():
					if want := (ipsec.Expiry{Tunnel: "t", Trigger: ipsec.ByTraffic}); got != want {
						t.Fatalf("%+v", got)
					}
				case <-time.After(2 * time.Minute):
					t.Fatal("not told")
				}
				drops, err := p.planes[0].Drops("t")
				if err != nil || drops != (ipsec.Drops{NoSA: uint64(n * (round + 1))}) {
					t.Errorf("%+v %v", drops, err)
				}
				p.key(t, uint32(round), nil)
				pass(t, a, b, []byte("found"))
				check(t, p.planes[0].RemoveOutbound("t", 0x1000+uint32(round)))
			}
		})
	}
}

// TestPlaintext sends in the clear what only a tunnel may carry. It needs no ESP: policies refuse.
func TestPlaintext(t *testing.T) {
	t.Parallel()
	for name, c := range configs() {
		t.Run(name, func(t *testing.T) {
			p := nodes(t)
			c.Namespace = p.ns[1]
			d, err := open(c, func(*xfrmnl.Conn, bool) error { return nil })
			if errors.Is(err, errors.ErrUnsupported) {
				t.Skip(err)
			}
			check(t, err)
			defer func() { check(t, d.Close()) }()
			h, err := p.ns[0].Netlink()
			check(t, err)
			l, err := h.LinkByName("net0")
			check(t, err)
			to := netlink.NewIPNet(inner[1].AsSlice())
			check(t, h.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: to, Gw: outer[1].AsSlice(), Src: inner[0].AsSlice()}))
			a, b := p.listen(t, 0), p.listen(t, 1)
			pass(t, a, b, []byte("nothing protects it yet"))
			check(t, d.AddTunnel(policy(1, ipsec.UDP)))
			for range 5 {
				send(t, a, b, []byte("in the clear"))
			}
			deadline := time.Now().Add(2 * time.Minute)
			for {
				drops, err := d.Drops("t")
				check(t, err)
				if drops == (ipsec.Drops{Plaintext: 5}) {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("%+v", drops)
				}
				time.Sleep(time.Millisecond)
			}
			check(t, d.RemoveTunnel("t"))
			pass(t, a, b, []byte("nothing protects it any more"))
		})
	}
}

// TestCloseLeavesNothing compares a node before and after. It needs no ESP.
func TestCloseLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, c := range configs() {
		t.Run(name, func(t *testing.T) {
			p := nodes(t)
			before := seen(t, p.ns[0])
			c.Namespace = p.ns[0]
			d, err := open(c, func(*xfrmnl.Conn, bool) error { return nil })
			if errors.Is(err, errors.ErrUnsupported) {
				t.Skip(err)
			}
			check(t, err)
			bad := policy(0, ipsec.UDP)
			bad.Src = netip.MustParseAddr("192.0.2.77") // not the node's: its socket cannot be bound
			if err := d.AddTunnel(bad); err == nil {
				t.Error("a tunnel from an address of nobody's was added")
			}
			bad.Encapsulation = ipsec.UDP
			check(t, d.AddTunnel(policy(0, ipsec.UDP)))
			if err := d.AddTunnel(policy(0, ipsec.UDP)); !errors.Is(err, ipsec.ErrExists) {
				t.Error(err)
			}
			again := policy(0, ipsec.UDP)
			again.Tunnel = "again"
			if err := d.AddTunnel(again); !errors.Is(err, ipsec.ErrPolicy) {
				t.Error(err)
			}
			if seen(t, p.ns[0]) == before {
				t.Error("nothing was made")
			}
			check(t, d.Close())
			check(t, d.Close())
			if after := seen(t, p.ns[0]); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
			if _, ok := <-d.Expiries(); ok {
				t.Error("something was told")
			}
			if err := d.AddTunnel(policy(0, ipsec.UDP)); !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
		})
	}
}

// seen is what a namespace holds that a dataplane makes.
func seen(t testing.TB, ns *netns.Namespace) string {
	t.Helper()
	h, err := ns.Netlink()
	check(t, err)
	var s strings.Builder
	links, err := h.LinkList()
	check(t, err)
	for _, l := range links {
		fmt.Fprintln(&s, l.Attrs().Name)
	}
	policies, err := h.XfrmPolicyList(netlink.FAMILY_ALL)
	check(t, err)
	states, err := h.XfrmStateList(netlink.FAMILY_ALL)
	check(t, err)
	fmt.Fprintln(&s, len(policies), "policies", len(states), "SAs")
	rules, err := h.RuleList(netlink.FAMILY_ALL)
	check(t, err)
	routes, err := h.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	check(t, err)
	fmt.Fprintln(&s, len(rules), "rules", routes)
	check(t, ns.Do(func() error {
		c, err := net.ListenUDP("udp", &net.UDPAddr{Port: ipsec.UDPPort})
		if err != nil {
			fmt.Fprintln(&s, "port in use")
			return nil
		}
		return c.Close()
	}))
	return s.String()
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	p := start(t, Config{}, ipsec.UDP)
	d := p.planes[0]
	p.key(t, 1, nil)
	for _, c := range []struct {
		want error
		edit func(*ipsec.SA)
	}{
		{ipsec.ErrSPI, func(sa *ipsec.SA) { sa.SPI = 255 }},
		{ipsec.ErrExists, func(sa *ipsec.SA) { sa.SPI = 0x1001 }},
		{ipsec.ErrExists, func(sa *ipsec.SA) { sa.SPI = 0x2001 }},
		{ErrLimit, func(sa *ipsec.SA) { sa.Hard.Blocks = 10 }},
		{ErrLimit, func(sa *ipsec.SA) { sa.Hard.Bytes = 1000 }},
	} {
		in, out := sas(0x5000, c.edit)
		if err := d.AddInbound("t", in); !errors.Is(err, c.want) || in.Key != [32]byte{} {
			t.Errorf("inbound: %v, not %v", err, c.want)
		}
		if err := d.SetOutbound("t", out); !errors.Is(err, c.want) || out.Key != [32]byte{} {
			t.Errorf("outbound: %v, not %v", err, c.want)
		}
	}
	in, _ := sas(0x5000, func(sa *ipsec.SA) { sa.ReplayWindow = 4097 })
	if err := d.AddInbound("t", in); !errors.Is(err, ErrWindow) {
		t.Error(err)
	}
	if _, err := d.Counters("t", 0x5000); !errors.Is(err, ipsec.ErrUnknown) {
		t.Error(err)
	}
	a, b := p.listen(t, 0), p.listen(t, 1)
	pass(t, a, b, []byte("what was there goes on"))
}

// TestWithoutESP is for kernels that have none.
func TestWithoutESP(t *testing.T) {
	t.Parallel()
	p := nodes(t)
	d, err := New(Config{Namespace: p.ns[0]})
	if err == nil {
		check(t, d.Close())
		t.Skip("the kernel has ESP")
	}
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "CONFIG_INET_ESP") || !strings.Contains(err.Error(), "--dataplane gateway") {
		t.Error(err)
	}
}

// BenchmarkPairs installs and removes pairs of SAs, each outbound one in the place of the one before. It says nothing of
// the machine where it runs in a guest without KVM.
func BenchmarkPairs(b *testing.B) {
	p := start(b, Config{}, ipsec.UDP)
	d := p.planes[0]
	n := uint32(0)
	for b.Loop() {
		n++
		in, _ := sas(1<<20+n, nil)
		out, _ := sas(1<<24+n, nil)
		check(b, d.AddInbound("t", in))
		check(b, d.SetOutbound("t", out))
		check(b, d.RemoveInbound("t", 1<<20+n))
		if n > 1 {
			check(b, d.RemoveOutbound("t", 1<<24+n-1))
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pairs/s")
}
