package agent

import (
	"context"
	"fmt"

	"pqlab/ipsec"
	"pqlab/pqc/exchange"
)

// Secrets are what the latest exchange of a tunnel was made of and what was installed after it. An agent keeps them
// only if it was started with Config.Reveal.
type Secrets struct {
	Domain     string
	Transcript []byte
	Sources    []SecretSource
	In, Out    InstalledSA
}

// SecretSource is one of the secrets that were combined.
type SecretSource struct {
	Name   string
	Secret []byte
	Public [][]byte
}

// InstalledSA is an SA as the dataplane was given it.
type InstalledSA struct {
	SPI  uint32
	Key  []byte
	Salt []byte
}

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
	return *secrets, nil
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
		k.revealed[tunnel] = new(Secrets)
	}
	return k.revealed[tunnel]
}

// revealing is a dataplane that remembers the keys that it was given.
type revealing struct {
	ipsec.Dataplane
	state *keyingState
}

func (r *revealing) AddInbound(tunnel string, sa ipsec.SA) error {
	r.state.mu.Lock()
	r.state.of(tunnel).In = installed(sa)
	r.state.mu.Unlock()
	return r.Dataplane.AddInbound(tunnel, sa)
}

func (r *revealing) SetOutbound(tunnel string, sa ipsec.SA) error {
	r.state.mu.Lock()
	r.state.of(tunnel).Out = installed(sa)
	r.state.mu.Unlock()
	return r.Dataplane.SetOutbound(tunnel, sa)
}

func installed(sa ipsec.SA) InstalledSA {
	return InstalledSA{SPI: sa.SPI, Key: sa.Key[:], Salt: sa.Salt[:]}
}
