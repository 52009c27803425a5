package xfrm

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"pqlab/ipsec"
)

// TestKernelKeepsLimits sends packets of random sizes on an SA, one by one, past its soft limit and its hard one, and holds
// the kernel against the model of it that TestLimitsAreKept uses: after each packet its counters are the model's, it tells
// of the soft limit at the packet at which the model does, and refuses from the packet on which the model refuses. By what
// the cipher was given, the soft limit was told at the packet that reaches it at the latest, and what left is within the
// hard one.
func TestKernelKeepsLimits(t *testing.T) {
	t.Parallel()
	for name, c := range configs() {
		for _, limit := range []struct {
			by         ipsec.Trigger
			soft, hard ipsec.Limits
			of         func(ipsec.Counters) uint64
		}{
			// Without an interface a packet may take 4097 blocks.
			{ipsec.ByBlocks, ipsec.Limits{Blocks: 5000}, ipsec.Limits{Blocks: 6000}, func(c ipsec.Counters) uint64 { return c.Blocks }},
			{ipsec.ByBytes, ipsec.Limits{Bytes: 80_000}, ipsec.Limits{Bytes: 100_000}, func(c ipsec.Counters) uint64 { return c.Bytes }},
			{ipsec.ByPackets, ipsec.Limits{Packets: 20}, ipsec.Limits{Packets: 30}, func(c ipsec.Counters) uint64 { return c.Packets }},
			{ipsec.ByPackets, ipsec.Limits{Packets: 1}, ipsec.Limits{Packets: 2}, func(c ipsec.Counters) uint64 { return c.Packets }},
		} {
			for kind, size := range map[string]func(largest int) int{
				"mixed": func(largest int) int { return 29 + rand.IntN(largest-28) },
				"small": func(int) int { return 31 }, // the worst for blocks
				"large": func(largest int) int { return largest },
			} {
				t.Run(fmt.Sprintf("%s/%d %s/%s", name, limit.of(countersOf(limit.hard)), limit.by, kind), func(t *testing.T) {
					p := start(t, c, ipsec.UDP)
					d := p.planes[0].(*Dataplane)
					soft := softBounds(limit.soft, d.largest())
					hard, err := hardBounds(limit.hard, d.largest())
					check(t, err)
					model := kernel{soft: tightest(soft), hard: tightest(hard)}

					p.key(t, 1, nil)
					const spi = 0x1002
					in, out := sas(spi, func(sa *ipsec.SA) { sa.Soft, sa.Hard = limit.soft, limit.hard })
					in.Soft, in.Hard = ipsec.Limits{}, ipsec.Limits{}
					check(t, p.planes[1].AddInbound("t", in))
					check(t, p.planes[0].SetOutbound("t", out))

					a, b := p.listen(t, 0), p.listen(t, 1)
					told := expiries{t, d}
					largest := p.planes[0].(*Dataplane).tunnels["t"].policy.InnerMTU(1500) // in one piece
					var given ipsec.Counters
					for {
						inner := size(largest)
						payload := make([]byte, inner-headers)
						early := !model.told
						if !model.packet(inner) {
							a.WriteTo(payload, b.LocalAddr())
							break
						}
						pass(t, a, b, payload)
						counted(&given, inner)
						if model.told && early {
							told.expect(ipsec.Expiry{Tunnel: "t", SPI: spi, Trigger: limit.by})
						} else {
							told.nothing()
						}
						if !model.told && limit.of(given) >= limit.of(countersOf(limit.soft)) {
							t.Fatalf("%+v, and nothing was told", given)
						}
						state, err := d.conn.GetSA(outer[1], spi)
						check(t, err)
						if state.Bytes != model.state.Bytes || state.Packets != model.state.Packets || state.Out != model.state.Packets {
							t.Fatalf("the kernel counts %+v, the model %+v", state, model.state)
						}
					}
					told.expect(ipsec.Expiry{Tunnel: "t", SPI: spi, Trigger: limit.by, Hard: true})
					if limit.of(given) > limit.of(countersOf(limit.hard)) {
						t.Errorf("%+v left", given)
					}
					p.refuses(t, a, b, spi, model.state.Packets, 1)
				})
			}
		}
	}
}

// headers of UDP over IPv4, in bytes.
const headers = 28

// countersOf are counters that have just reached limits.
func countersOf(l ipsec.Limits) ipsec.Counters {
	return ipsec.Counters{Blocks: l.Blocks, Bytes: l.Bytes, Packets: l.Packets}
}

// TestKernelKeepsTime: packets leave after the soft limit of time, and none after the hard one.
func TestKernelKeepsTime(t *testing.T) {
	t.Parallel()
	for name, c := range configs() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, c, ipsec.UDP)
			const spi, soft, hard = 0x1002, 2 * time.Second, 6 * time.Second
			in, out := sas(spi, func(sa *ipsec.SA) { sa.Soft.Time, sa.Hard.Time = soft, hard })
			in.Soft, in.Hard = ipsec.Limits{}, ipsec.Limits{}
			check(t, p.planes[1].AddInbound("t", in))
			began := time.Now()
			check(t, p.planes[0].SetOutbound("t", out))
			a, b := p.listen(t, 0), p.listen(t, 1)
			told := expiries{t, p.planes[0]}
			pass(t, a, b, []byte("at once"))
			// Of whole seconds the kernel cuts one short.
			told.expect(ipsec.Expiry{Tunnel: "t", SPI: spi, Trigger: ipsec.ByTime})
			if after := time.Since(began); after < soft-time.Second {
				t.Errorf("the soft limit came after %v", after)
			}
			pass(t, a, b, []byte("beyond the soft limit"))
			told.expect(ipsec.Expiry{Tunnel: "t", SPI: spi, Trigger: ipsec.ByTime, Hard: true})
			if after := time.Since(began); after < hard-time.Second {
				t.Errorf("the hard limit came after %v", after)
			}
			p.refuses(t, a, b, spi, 2, 0)
		})
	}
}

// TestInboundLimits: beyond the hard limit of an inbound SA nothing comes in, and the limits are told of too.
func TestInboundLimits(t *testing.T) {
	t.Parallel()
	p := start(t, Config{}, ipsec.UDP)
	const spi, n, beyond = 0x1002, 5, 4
	in, out := sas(spi, nil)
	in.Soft.Packets, in.Hard.Packets = 3, n
	check(t, p.planes[1].AddInbound("t", in))
	check(t, p.planes[0].SetOutbound("t", out))
	a, b := p.listen(t, 0), p.listen(t, 1)
	told := expiries{t, p.planes[1]}
	for i := range n {
		pass(t, a, b, []byte{byte(i)})
		if i == 2 {
			told.expect(ipsec.Expiry{Tunnel: "t", SPI: spi, Trigger: ipsec.ByPackets})
		}
	}
	for range beyond {
		send(t, a, b, []byte("beyond"))
	}
	told.expect(ipsec.Expiry{Tunnel: "t", SPI: spi, Trigger: ipsec.ByPackets, Hard: true})
	p.key(t, 3, nil)
	pass(t, a, b, []byte("goes on")) // and nothing beyond came before it
	if c, err := p.planes[1].Counters("t", spi); err != nil || c.Packets != n {
		t.Errorf("%+v %v", c, err)
	}
	// The first of them met the SA at its limit, and the last may have met none.
	rest, err := p.planes[1].Drops("")
	if err != nil || rest.Expired == 0 || rest.Expired+rest.UnknownSPI != beyond {
		t.Errorf("%+v %v", rest, err)
	}
}

// refuses checks that node 0 sends nothing more on an SA that has carried packets of it, and has refused some already; and
// that a new SA carries what comes then.
func (p *pair) refuses(t *testing.T, a, b *net.UDPConn, spi uint32, packets, refused uint64) {
	t.Helper()
	const more = 5
	for range more {
		a.WriteTo([]byte("beyond"), b.LocalAddr())
	}
	if drops, err := p.planes[0].Drops("t"); err != nil || drops != (ipsec.Drops{Expired: refused + more}) {
		t.Errorf("%+v %v", drops, err)
	}
	p.key(t, 3, nil)
	pass(t, a, b, []byte("goes on")) // and nothing beyond came before it
	for i, d := range p.planes {
		if c, err := d.Counters("t", spi); err != nil || c.Packets != packets {
			t.Errorf("node %d: %+v %v, not %d packets", i, c, err, packets)
		}
	}
	for _, name := range []string{"t", ""} {
		if drops, err := p.planes[1].Drops(name); err != nil || drops != (ipsec.Drops{}) {
			t.Errorf("the other end, %q: %+v %v", name, drops, err)
		}
	}
}

// expiries are what a dataplane tells.
type expiries struct {
	t *testing.T
	d ipsec.Dataplane
}

func (e expiries) expect(want ipsec.Expiry) {
	e.t.Helper()
	select {
	case got := <-e.d.Expiries():
		if got != want {
			e.t.Fatalf("told %+v, not %+v", got, want)
		}
	case <-time.After(2 * time.Minute):
		e.t.Fatalf("%+v was not told", want)
	}
}

// nothing was told until now.
func (e expiries) nothing() {
	e.t.Helper()
	select {
	case got := <-e.d.Expiries():
		e.t.Fatalf("told %+v", got)
	default:
	}
}

// TestLostMessages: what the kernel told of limits and was lost is made up for by a look at every SA, and told once. What is
// then said of an SA that has gone is not less than what it has carried.
func TestLostMessages(t *testing.T) {
	t.Parallel()
	p := start(t, Config{}, ipsec.UDP)
	d := p.planes[0].(*Dataplane)
	const spi, size = 0x1002, 1000
	in, out := sas(spi, func(sa *ipsec.SA) { sa.Soft.Bytes, sa.Hard.Bytes = 20_000, 40_000 })
	in.Soft, in.Hard = ipsec.Limits{}, ipsec.Limits{}
	check(t, p.planes[1].AddInbound("t", in))
	check(t, d.SetOutbound("t", out))
	a, b := p.listen(t, 0), p.listen(t, 1)
	told := expiries{t, d}
	sent := uint64(0)
	another := func() {
		a.WriteTo(make([]byte, size), b.LocalAddr())
		sent++
	}
	for _, hard := range []bool{false, true} {
		d.mu.Lock() // so that nobody hears the kernel
		sa := d.tunnels["t"].outbound[spi]
		for {
			another()
			if state, err := d.get(sa); err != nil || !hard && state.Bytes >= tightest(sa.soft).Bytes {
				break
			}
		}
		another() // which reaches the soft limit, or has the kernel ask for a key
		d.lookAtAll()
		if !sa.told || sa.gone() != hard {
			t.Errorf("hard %t: told %t, gone %t", hard, sa.told, sa.gone())
		}
		d.mu.Unlock()
		told.expect(ipsec.Expiry{Tunnel: "t", SPI: spi, Trigger: ipsec.ByBytes, Hard: hard})
	}
	drops, err := d.Drops("t")
	check(t, err)
	took := settled(t, p.planes[1], spi, sent-drops.Expired)
	for range took {
		if n, err := b.Read(make([]byte, 2*size)); n != size {
			t.Fatal(n, err)
		}
	}
	got, err := d.Counters("t", spi)
	check(t, err)
	if took+drops.Expired != sent || drops.Expired < 2 || took < 20 || got.Packets < took || got.Bytes < took*plainOf(size+headers) || got.Bytes > 2*40_000 {
		t.Errorf("%d sent, %d received; counted %+v and %+v", sent, took, got, drops)
	}
	told.nothing()
}
