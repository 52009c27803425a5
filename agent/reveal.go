package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"pqlab/ipsec"
	"pqlab/pqc/exchange"
)

// Secrets are what the latest exchange of a tunnel was made of and what was installed after it. An agent keeps them
// only if it was started with Config.Reveal.
type Secrets struct {
	Domain     string
	Transcript []byte
	Sources    []SecretSource
	In, Out    InstalledSA // the latest

	// What the tunnel has in the dataplane now, by SPI: those of earlier exchanges too, until they are removed.
	Inbound, Outbound map[uint32]InstalledSA
}

// SecretSource is one of the secrets that were combined.
type SecretSource struct {
	Name   string
	Secret []byte
	Public [][]byte
}

// InstalledSA is an SA as the dataplane was given it.
type InstalledSA struct {
	SPI        uint32
	Key        []byte
	Salt       []byte
	Soft, Hard ipsec.Limits
}

// None of them prints what is secret; to read it is to name the field.

func (s Secrets) String() string             { return "secrets of " + s.Domain }
func (s Secrets) GomegaString() string       { return s.String() }
func (s Secrets) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

func (s SecretSource) String() string             { return "secret of " + s.Name }
func (s SecretSource) GomegaString() string       { return s.String() }
func (s SecretSource) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

func (s InstalledSA) String() string             { return fmt.Sprintf("SA %#08x", s.SPI) }
func (s InstalledSA) GomegaString() string       { return s.String() }
func (s InstalledSA) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// Secrets gives the secrets of a tunnel's latest exchange, of an agent that was started with Config.Reveal.
func (c *Client) Secrets(ctx context.Context, tunnel string) (Secrets, error) {
	return invoke[Secrets](ctx, c, "Secrets", tunnel)
}

func (s *Server) secrets(_ context.Context, tunnel string) (Secrets, error) {
	k := &s.keying
	k.mu.Lock()
	defer k.mu.Unlock()
	secrets := k.revealed[tunnel]
	if secrets == nil {
		return Secrets{}, fmt.Errorf("tunnel %s: no secrets were kept; the lab has to be made with Reveal", tunnel)
	}
	out := *secrets
	out.Inbound, out.Outbound = maps.Clone(secrets.Inbound), maps.Clone(secrets.Outbound)
	return out, nil
}

func (k *keyingState) reveal(tunnel string, from exchange.Secrets) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.of(tunnel)
	s.Domain, s.Transcript, s.Sources = from.Domain, from.Transcript[:], nil
	for _, source := range from.Sources {
		s.Sources = append(s.Sources, SecretSource{Name: source.Name, Secret: source.Secret, Public: source.Public})
	}
}

func (k *keyingState) of(tunnel string) *Secrets {
	if k.revealed[tunnel] == nil {
		k.revealed[tunnel] = &Secrets{Inbound: map[uint32]InstalledSA{}, Outbound: map[uint32]InstalledSA{}}
	}
	return k.revealed[tunnel]
}

// revealing is a dataplane that remembers the keys that it was given.
type revealing struct {
	ipsec.Dataplane
	state *keyingState
}

func (r *revealing) AddInbound(tunnel string, sa *ipsec.SA) error {
	was := installed(sa) // the dataplane wipes it
	err := r.Dataplane.AddInbound(tunnel, sa)
	if err == nil {
		r.note(tunnel, func(s *Secrets) { s.In, s.Inbound[sa.SPI] = was, was })
	}
	return err
}

func (r *revealing) SetOutbound(tunnel string, sa *ipsec.SA) error {
	was := installed(sa)
	err := r.Dataplane.SetOutbound(tunnel, sa)
	if err == nil {
		r.note(tunnel, func(s *Secrets) { s.Out, s.Outbound[sa.SPI] = was, was })
	}
	return err
}

func (r *revealing) RemoveInbound(tunnel string, spi uint32) error {
	err := r.Dataplane.RemoveInbound(tunnel, spi)
	if err == nil {
		r.note(tunnel, func(s *Secrets) { delete(s.Inbound, spi) })
	}
	return err
}

func (r *revealing) RemoveOutbound(tunnel string, spi uint32) error {
	err := r.Dataplane.RemoveOutbound(tunnel, spi)
	if err == nil {
		r.note(tunnel, func(s *Secrets) { delete(s.Outbound, spi) })
	}
	return err
}

func (r *revealing) RemoveTunnel(tunnel string) error {
	err := r.Dataplane.RemoveTunnel(tunnel)
	r.note(tunnel, func(s *Secrets) {
		clear(s.Inbound)
		clear(s.Outbound)
	})
	return err
}

func (r *revealing) note(tunnel string, change func(*Secrets)) {
	r.state.mu.Lock()
	defer r.state.mu.Unlock()
	change(r.state.of(tunnel))
}

func installed(sa *ipsec.SA) InstalledSA {
	return InstalledSA{
		SPI: sa.SPI, Key: slices.Clone(sa.Key[:]), Salt: slices.Clone(sa.Salt[:]), Soft: sa.Soft, Hard: sa.Hard,
	}
}
