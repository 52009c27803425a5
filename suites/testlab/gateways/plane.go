package gateways

import (
	"maps"
	"slices"
	"sync"

	"pqlab/ipsec"
)

// Plane is a dataplane that carries nothing and remembers what it was given, tunnel by tunnel.
type Plane struct {
	expiries chan ipsec.Expiry

	mu      sync.Mutex
	tunnels map[string]*book
}

// book is what a plane knows of a tunnel.
type book struct {
	in, out map[uint32]ipsec.SA // those that stand
	current uint32              // of out
	given   Given
}

// Given counts the SAs that a dataplane was ever given, those that were removed again included.
type Given struct{ In, Out int }

var _ ipsec.Dataplane = (*Plane)(nil)

func newPlane() *Plane {
	return &Plane{expiries: make(chan ipsec.Expiry), tunnels: map[string]*book{}}
}

// Had is what the dataplane was ever given for a tunnel.
func (p *Plane) Had(tunnel string) Given {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.of(tunnel).given
}

// Standing is what is installed: the inbound SAs, and the outbound SA that protects packets (nil if none does).
func (p *Plane) Standing(tunnel string) (in []ipsec.SA, out *ipsec.SA) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.of(tunnel)
	if sa, ok := b.out[b.current]; ok {
		out = &sa
	}
	return slices.Collect(maps.Values(b.in)), out
}

func (p *Plane) of(tunnel string) *book {
	if p.tunnels[tunnel] == nil {
		p.tunnels[tunnel] = &book{in: map[uint32]ipsec.SA{}, out: map[uint32]ipsec.SA{}}
	}
	return p.tunnels[tunnel]
}

func (p *Plane) change(tunnel string, f func(*book)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p.of(tunnel))
	return nil
}

func (p *Plane) Name() string                 { return "recording" }
func (p *Plane) AddTunnel(ipsec.Policy) error { return nil }

func (p *Plane) AddInbound(tunnel string, sa *ipsec.SA) error {
	defer sa.Wipe()
	return p.change(tunnel, func(b *book) {
		b.given.In++
		b.in[sa.SPI] = *sa
	})
}

func (p *Plane) SetOutbound(tunnel string, sa *ipsec.SA) error {
	defer sa.Wipe()
	return p.change(tunnel, func(b *book) {
		b.given.Out++
		b.out[sa.SPI] = *sa
		b.current = sa.SPI
	})
}

func (p *Plane) RemoveInbound(tunnel string, spi uint32) error {
	return p.change(tunnel, func(b *book) { delete(b.in, spi) })
}

func (p *Plane) RemoveOutbound(tunnel string, spi uint32) error {
	return p.change(tunnel, func(b *book) { delete(b.out, spi) })
}

func (p *Plane) RemoveTunnel(tunnel string) error {
	return p.change(tunnel, func(b *book) {
		clear(b.in)
		clear(b.out)
	})
}

func (p *Plane) Counters(string, uint32) (ipsec.Counters, error) { return ipsec.Counters{}, nil }
func (p *Plane) Drops(string) (ipsec.Drops, error)               { return ipsec.Drops{}, nil }
func (p *Plane) Expiries() <-chan ipsec.Expiry                   { return p.expiries }
func (p *Plane) Close() error                                    { return nil }
