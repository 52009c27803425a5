package ipsec

import (
	"errors"
	"fmt"
	"sync"
	"testing"
)

// plane is a dataplane in memory. It keeps the books that a network cannot: whether the peer can read what is sent,
// whether an SA is removed too early, whether a key is used twice.
type plane struct {
	name     string
	peer     *plane
	expiries chan Expiry
	fail     func(op string) error // injected; nil: nothing fails

	mu       *sync.Mutex // shared with the peer, so that both ends are seen at one moment
	tunnels  map[string]*planeTunnel
	outKeys  map[[32]byte]bool // ever given to SetOutbound
	faults   []string
	lenient  bool // a teardown is under way: traffic may be cut
	mostHeld int  // inbound SAs at once
}

type planeTunnel struct {
	in, out map[uint32]*planeSA
	current *planeSA
	drops   Drops
}

type planeSA struct {
	SA
	Counters
	inbound  bool
	seen     map[uint64]bool
	told     map[Expiry]bool
	inFlight int // packets sealed and not received yet
}

type packet struct {
	from *planeSA
	spi  uint32
	key  [32]byte
	seq  uint64
	size int
}

var (
	errNoSA    = errors.New("no outbound SA")
	errExpired = errors.New("hard limit")
)

// newPlanes gives the dataplanes of two nodes.
func newPlanes() (a, b *plane) {
	mu := new(sync.Mutex)
	build := func(name string) *plane {
		return &plane{name: name, mu: mu, expiries: make(chan Expiry, 1024), tunnels: make(map[string]*planeTunnel), outKeys: make(map[[32]byte]bool)}
	}
	a, b = build("A"), build("B")
	a.peer, b.peer = b, a
	return a, b
}

func (p *plane) fault(format string, args ...any) {
	p.faults = append(p.faults, p.name+": "+fmt.Sprintf(format, args...))
}

func (p *plane) injected(op string) error {
	if p.fail == nil {
		return nil
	}
	return p.fail(op)
}

func (p *plane) Name() string { return "model" }

func (p *plane) AddTunnel(policy Policy) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.injected("AddTunnel"); err != nil {
		return err
	}
	p.tunnels[policy.Tunnel] = &planeTunnel{in: make(map[uint32]*planeSA), out: make(map[uint32]*planeSA)}
	return nil
}

func (p *plane) install(sa *SA, inbound bool) *planeSA {
	if sa.Key == [32]byte{} || sa.Salt == [4]byte{} {
		p.fault("SA %#x installed with wiped keys", sa.SPI)
	}
	if sa.Soft.Time != 0 || sa.Hard.Time != 0 {
		p.fault("SA %#x: time is not the dataplane's to watch", sa.SPI)
	}
	return &planeSA{SA: *sa, inbound: inbound, seen: make(map[uint64]bool), told: make(map[Expiry]bool)}
}

func (p *plane) AddInbound(tunnel string, sa *SA) error {
	defer sa.Wipe()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.injected("AddInbound"); err != nil {
		return err
	}
	for name, t := range p.tunnels {
		if t.in[sa.SPI] != nil || name == tunnel && t.out[sa.SPI] != nil {
			p.fault("SPI %#x collides", sa.SPI)
		}
	}
	t := p.tunnels[tunnel]
	if t == nil {
		return errors.New("no such tunnel")
	}
	t.in[sa.SPI] = p.install(sa, true)
	p.mostHeld = max(p.mostHeld, len(t.in))
	return nil
}

func (p *plane) SetOutbound(tunnel string, sa *SA) error {
	defer sa.Wipe()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.injected("SetOutbound"); err != nil {
		return err
	}
	t := p.tunnels[tunnel]
	if t == nil {
		return errors.New("no such tunnel")
	}
	if t.in[sa.SPI] != nil || t.out[sa.SPI] != nil {
		p.fault("SPI %#x collides", sa.SPI)
	}
	if len(t.out) > 1 {
		p.fault("more than one replaced outbound SA")
	}
	if p.outKeys[sa.Key] {
		p.fault("SA %#x: outbound key used again", sa.SPI)
	}
	p.outKeys[sa.Key] = true
	if p.peer != nil && !p.lenient {
		if in := p.peer.inbound(tunnel, sa.SPI); in == nil || in.Key != sa.Key {
			p.fault("outbound switched to %#x, which the peer cannot read", sa.SPI)
		}
	}
	t.current = p.install(sa, false)
	t.out[sa.SPI] = t.current
	return nil
}

func (p *plane) inbound(tunnel string, spi uint32) *planeSA {
	if t := p.tunnels[tunnel]; t != nil {
		return t.in[spi]
	}
	return nil
}

func (p *plane) RemoveInbound(tunnel string, spi uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tunnels[tunnel]
	if t == nil || t.in[spi] == nil {
		return nil
	}
	if p.peer != nil && !p.lenient {
		if pt := p.peer.tunnels[tunnel]; pt != nil {
			if pt.current != nil && pt.current.SPI == spi {
				p.fault("inbound %#x removed while the peer sends to it", spi)
			}
		}
	}
	t.in[spi].Wipe()
	delete(t.in, spi)
	return nil
}

func (p *plane) RemoveOutbound(tunnel string, spi uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tunnels[tunnel]
	if t == nil || t.out[spi] == nil {
		return nil
	}
	if t.current == t.out[spi] {
		if !p.lenient {
			p.fault("outbound %#x removed while in use", spi)
		}
		t.current = nil
	}
	t.out[spi].Wipe()
	delete(t.out, spi)
	return nil
}

func (p *plane) Counters(tunnel string, spi uint32) (Counters, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.tunnels[tunnel]; t != nil {
		for _, sa := range []*planeSA{t.in[spi], t.out[spi]} {
			if sa != nil {
				return sa.Counters, nil
			}
		}
	}
	return Counters{}, fmt.Errorf("SA %#x: not installed", spi)
}

func (p *plane) Drops(tunnel string) (Drops, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tunnels[tunnel].drops, nil
}

func (p *plane) Expiries() <-chan Expiry { return p.expiries }

func (p *plane) RemoveTunnel(tunnel string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.tunnels, tunnel)
	return p.injected("RemoveTunnel")
}

func (p *plane) Close() error { close(p.expiries); return nil }

// count adds to an SA and tells of the limits that this reaches. It sends with the lock held, on purpose: a Tunnel
// must not make the dataplane's reader wait for a call into the dataplane.
func (p *plane) count(tunnel string, sa *planeSA, blocks, bytes, packets uint64) {
	sa.Blocks += blocks
	sa.Bytes += bytes
	sa.Packets += packets
	for _, l := range []struct {
		trigger     Trigger
		is          uint64
		soft, limit uint64
	}{
		{ByBlocks, sa.Blocks, sa.Soft.Blocks, sa.Hard.Blocks},
		{ByBytes, sa.Bytes, sa.Soft.Bytes, sa.Hard.Bytes},
		{ByPackets, sa.Packets, sa.Soft.Packets, sa.Hard.Packets},
	} {
		for _, e := range []struct {
			limit uint64
			hard  bool
		}{{l.soft, false}, {l.limit, true}} {
			expiry := Expiry{Tunnel: tunnel, SPI: sa.SPI, Trigger: l.trigger, Hard: e.hard}
			if e.limit != 0 && l.is >= e.limit && !sa.told[expiry] {
				sa.told[expiry] = true
				p.expiries <- expiry
			}
		}
	}
}

func (sa *planeSA) spent() bool {
	over := func(is, hard uint64) bool { return hard != 0 && is >= hard }
	return over(sa.Blocks, sa.Hard.Blocks) || over(sa.Bytes, sa.Hard.Bytes) || over(sa.Packets, sa.Hard.Packets)
}

// send seals one packet of n bytes.
func (p *plane) send(tunnel string, n int) (packet, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tunnels[tunnel]
	if t == nil || t.current == nil {
		return packet{}, errNoSA
	}
	sa := t.current
	if sa.spent() {
		t.drops.Expired++
		return packet{}, errExpired
	}
	sa.Counters.Seq++
	sa.inFlight++
	pkt := packet{from: sa, spi: sa.SPI, key: sa.Key, seq: sa.Counters.Seq, size: n}
	p.count(tunnel, sa, Blocks(n), uint64(n), 1)
	return pkt, nil
}

// receive opens one packet.
func (p *plane) receive(tunnel string, pkt packet) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	pkt.from.inFlight--
	sa := p.inbound(tunnel, pkt.spi)
	switch {
	case sa == nil:
		return fmt.Errorf("%s: no inbound SA %#x", p.name, pkt.spi)
	case sa.Key != pkt.key:
		return fmt.Errorf("%s: SA %#x has another key", p.name, pkt.spi)
	case sa.seen[pkt.seq]:
		return fmt.Errorf("%s: SA %#x: %d came twice", p.name, pkt.spi, pkt.seq)
	case sa.spent():
		return errExpired
	}
	sa.seen[pkt.seq] = true
	sa.Counters.Seq = max(sa.Counters.Seq, pkt.seq)
	p.count(tunnel, sa, Blocks(pkt.size), uint64(pkt.size), 1)
	return nil
}

// installed gives the SPIs of a tunnel's SAs.
func (p *plane) installed(tunnel string) (in, out []uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.tunnels[tunnel]; t != nil {
		for spi := range t.in {
			in = append(in, spi)
		}
		for spi := range t.out {
			out = append(out, spi)
		}
	}
	return in, out
}

func (p *plane) check(t *testing.T) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.faults {
		t.Error(f)
	}
}
