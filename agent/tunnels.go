package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"pqlab/ipsec"
	"pqlab/ipsec/gateway"
	"pqlab/ipsec/gateway/port"
	"pqlab/ipsec/keying"
	"pqlab/pqc"
	"pqlab/pqc/exchange"
)

// Tunnel asks for this node's end of a tunnel.
type Tunnel struct {
	Policy ipsec.Policy
	Limits ipsec.Limits
	Grace  time.Duration // 0: the default
	Seed   uint64

	Suite     string
	Combiner  string
	Pinned    bool // a long-lived signature key, made now and named in the answer
	Mutual    bool
	TLSGroups []string
	Deadline  time.Duration
}

// Identity is what the other end has to know of this one.
type Identity struct {
	SigningKey []byte // public; empty unless the tunnel is Pinned
}

// Trust tells one end of a tunnel who the other is.
type Trust struct {
	Tunnel     string
	Pin        exchange.Pin // of the peer's certificate, unless there is a CA
	CA         []byte       // PEM; vouches for the peer's certificate
	Name       string       // the peer's, in its certificate; with CA
	SigningKey []byte       // the peer's, public; of a Pinned tunnel
}

// TunnelState is what one end of a tunnel stands at.
type TunnelState struct {
	Dataplane string
	SPIs      ipsec.SPIPair
	In, Out   ipsec.Counters // of the SAs in use
	Drops     ipsec.Drops
}

// AddTunnel installs the policy of this node's end of a tunnel; plaintext is refused from then on.
func (c *Client) AddTunnel(ctx context.Context, t Tunnel) (Identity, error) {
	return invoke[Identity](ctx, c, "AddTunnel", t)
}

// Trust makes the tunnel answer its peer, and able to begin.
func (c *Client) Trust(ctx context.Context, t Trust) error {
	_, err := invoke[struct{}](ctx, c, "Trust", t)
	return err
}

// Establish keys a tunnel from this end, and gives what the exchange took.
func (c *Client) Establish(ctx context.Context, tunnel string) (keying.Report, error) {
	return invoke[keying.Report](ctx, c, "Establish", tunnel)
}

// Rekey replaces the keys of a tunnel from this end.
func (c *Client) Rekey(ctx context.Context, tunnel string) (keying.Report, error) {
	return invoke[keying.Report](ctx, c, "Rekey", tunnel)
}

// TunnelState reads the counters of a tunnel; an empty name gives the drops that belong to no tunnel.
func (c *Client) TunnelState(ctx context.Context, tunnel string) (TunnelState, error) {
	return invoke[TunnelState](ctx, c, "Tunnel", tunnel)
}

// RemoveTunnel removes this end of a tunnel with its SAs and its policy.
func (c *Client) RemoveTunnel(ctx context.Context, tunnel string) error {
	_, err := invoke[struct{}](ctx, c, "RemoveTunnel", tunnel)
	return err
}

// keyingState is the part of a server that exists once the node has a tunnel.
type keyingState struct {
	mu        sync.Mutex
	plane     ipsec.Dataplane
	tunnels   *ipsec.Tunnels
	service   *keying.Service
	listeners map[netip.Addr]net.Listener
	serving   sync.WaitGroup
	pending   map[string]*pending      // by tunnel, until Trust
	reports   map[string]keying.Report // by tunnel: the latest
	revealed  map[string]*Secrets
}

type pending struct {
	peer    keying.Peer
	signing pqc.SigningKey
	scheme  pqc.Signature
}

// startKeying makes the dataplane and what keys it, once.
func (s *Server) startKeying() error {
	k := &s.keying
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.plane != nil {
		return nil
	}
	plane, err := gateway.New(gateway.Config{Port: port.Kind(s.config.Port)})
	if err != nil {
		return err
	}
	k.plane = plane
	if s.config.Reveal {
		k.revealed = map[string]*Secrets{}
		k.plane = &revealing{Dataplane: plane, state: k}
	}
	k.tunnels = ipsec.NewTunnels(k.plane, s.clock, nil)
	k.listeners = map[netip.Addr]net.Listener{}
	k.pending = map[string]*pending{}
	k.reports = map[string]keying.Report{}
	k.service = keying.New(exchange.Endpoint{Certificate: s.certificate}, k.tunnels.Get, func(r keying.Report) {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.reports[r.Tunnel] = r
	})
	go s.watchTunnels()
	return nil
}

func (s *Server) addTunnel(_ context.Context, want Tunnel) (Identity, error) {
	name := want.Policy.Tunnel
	p, err := s.peerOf(want)
	if err != nil {
		return Identity{}, fmt.Errorf("tunnel %s: %w", name, err)
	}
	if err := s.startKeying(); err != nil {
		return Identity{}, fmt.Errorf("tunnel %s: %w", name, err)
	}
	k := &s.keying
	if _, err := k.tunnels.Add(ipsec.Config{
		Policy: want.Policy, Limits: want.Limits, Grace: want.Grace, Seed: want.Seed, Keyer: k.service.Keyer(name),
	}); err != nil {
		return Identity{}, err
	}
	var id Identity
	if p.signing != nil {
		id.SigningKey = p.signing.PublicKey()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pending[name] = p
	return id, s.listen(want.Policy.Src)
}

// peerOf prepares the exchange's configuration, complete but for whom to trust.
func (s *Server) peerOf(want Tunnel) (*pending, error) {
	suite, err := pqc.ParseSuite(want.Suite)
	if err != nil {
		return nil, err
	}
	combiner, err := pqc.ParseCombiner(want.Combiner)
	if err != nil {
		return nil, err
	}
	config := exchange.Config{
		Suites: []pqc.Suite{suite}, Combiner: combiner, Mutual: want.Mutual, Deadline: want.Deadline,
		Encapsulation: exchange.Encapsulation(want.Policy.Encapsulation),
	}
	for _, g := range want.TLSGroups {
		group, err := exchange.ParseTLSGroup(g)
		if err != nil {
			return nil, err
		}
		config.TLSGroups = append(config.TLSGroups, group)
	}
	p := &pending{scheme: suite.Signature}
	if want.Pinned {
		if p.signing, err = suite.Signature.GenerateKey(); err != nil {
			return nil, err
		}
	}
	name := want.Policy.Tunnel
	if s.config.Reveal {
		config.Reveal = func(secrets exchange.Secrets) { s.keying.reveal(name, secrets) }
	}
	p.peer = keying.Peer{Tunnel: name, Local: want.Policy.Src, Remote: want.Policy.Dst, Config: config}
	return p, nil
}

// listen answers exchanges at an outer address of the node; the lock of keying is held.
func (s *Server) listen(at netip.Addr) error {
	k := &s.keying
	if k.listeners[at] != nil {
		return nil
	}
	l, err := net.Listen("tcp", netip.AddrPortFrom(at, keying.Port).String())
	if err != nil {
		return fmt.Errorf("listening for key exchanges: %w", err)
	}
	k.listeners[at] = l
	k.serving.Go(func() { k.service.Serve(s.running, l, s.exchangeFailed) })
	return nil
}

func (s *Server) trust(_ context.Context, t Trust) (struct{}, error) {
	k := &s.keying
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.pending[t.Tunnel]
	if p == nil {
		return struct{}{}, fmt.Errorf("tunnel %s is not here, or knows its peer already", t.Tunnel)
	}
	peer := p.peer
	if len(t.CA) > 0 {
		peer.Config.Peer.CAs, peer.Config.Peer.Name = x509.NewCertPool(), t.Name
		if !peer.Config.Peer.CAs.AppendCertsFromPEM(t.CA) {
			return struct{}{}, fmt.Errorf("tunnel %s: no certificate in the CA file", t.Tunnel)
		}
	} else {
		peer.Config.Peer.Pin = t.Pin
	}
	if p.signing != nil {
		public, err := p.scheme.ParsePublicKey(t.SigningKey)
		if err != nil {
			return struct{}{}, fmt.Errorf("tunnel %s: the peer's pinned key: %w", t.Tunnel, err)
		}
		peer.Config.Pinned = &exchange.Pinned{Own: p.signing, Peer: public}
	}
	delete(k.pending, t.Tunnel)
	k.service.Trust(peer)
	return struct{}{}, nil
}

func (s *Server) tunnel(name string) (*ipsec.Tunnel, error) {
	if s.keying.tunnels != nil {
		if t := s.keying.tunnels.Get(name); t != nil {
			return t, nil
		}
	}
	return nil, fmt.Errorf("there is no tunnel %q at node %s", name, s.config.Node)
}

func (s *Server) establish(ctx context.Context, name string) (keying.Report, error) {
	return s.exchange(ctx, name, (*ipsec.Tunnel).Establish)
}

func (s *Server) rekey(ctx context.Context, name string) (keying.Report, error) {
	return s.exchange(ctx, name, (*ipsec.Tunnel).Rekey)
}

func (s *Server) exchange(ctx context.Context, name string, how func(*ipsec.Tunnel, context.Context) error) (keying.Report, error) {
	t, err := s.tunnel(name)
	if err != nil {
		return keying.Report{}, err
	}
	if err := how(t, ctx); err != nil {
		return keying.Report{}, err
	}
	s.keying.mu.Lock()
	defer s.keying.mu.Unlock()
	return s.keying.reports[name], nil
}

func (s *Server) tunnelState(_ context.Context, name string) (TunnelState, error) {
	k := &s.keying
	var state TunnelState
	if name == "" {
		if k.plane == nil {
			return state, nil
		}
		drops, err := k.plane.Drops("")
		return TunnelState{Dataplane: k.plane.Name(), Drops: drops}, err
	}
	t, err := s.tunnel(name)
	if err != nil {
		return state, err
	}
	state.Dataplane, state.SPIs = k.plane.Name(), t.Current()
	var errs [3]error
	if state.SPIs.In != 0 {
		state.In, errs[0] = k.plane.Counters(name, state.SPIs.In)
	}
	if state.SPIs.Out != 0 {
		state.Out, errs[1] = k.plane.Counters(name, state.SPIs.Out)
	}
	state.Drops, errs[2] = k.plane.Drops(name)
	return state, errors.Join(errs[:]...)
}

func (s *Server) removeTunnel(_ context.Context, name string) (struct{}, error) {
	t, err := s.tunnel(name)
	if err != nil {
		return struct{}{}, err
	}
	s.keying.service.Distrust(name)
	return struct{}{}, t.Close()
}

// close ends the exchanges, the tunnels and the dataplane, in this order.
func (k *keyingState) close() error {
	if k.plane == nil {
		return nil
	}
	var errs []error
	for _, l := range k.listeners {
		errs = append(errs, l.Close())
	}
	errs = append(errs, k.tunnels.Close())
	k.serving.Wait()
	return errors.Join(append(errs, k.plane.Close())...)
}
