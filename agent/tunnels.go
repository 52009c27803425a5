package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"pqlab/ipsec"
	"pqlab/ipsec/keying"
	"pqlab/ipsec/strongswan"
	"pqlab/pqc"
	"pqlab/pqc/exchange"
)

// Tunnel asks for this node's end of a tunnel.
type Tunnel struct {
	Policy ipsec.Policy
	Limits ipsec.Limits
	Grace  time.Duration // 0: the default
	Seed   uint64
	// OnTraffic makes a packet that finds no SA begin an exchange.
	OnTraffic bool

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
	Keying    string // "pqlab", "strongswan" and its version
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
	changing sync.Mutex // held while tunnels are added or removed; taken before mu
	closed   bool

	mu        sync.Mutex // never held in a call that waits for an exchange
	plane     ipsec.Dataplane
	tunnels   *ipsec.Tunnels
	service   *keying.Service
	listeners map[netip.Addr]net.Listener
	serving   sync.WaitGroup
	ends      map[string]*end // by tunnel
	removed   []*end          // keys to wipe when nothing runs any more
	revealed  map[string]*Secrets

	charon *strongswan.Daemon // keys the tunnels in the place of all that; nil in most nodes
}

// end is this node's end of a tunnel.
type end struct {
	peer    keying.Peer // incomplete until it is trusted
	trusted bool
	signing pqc.SigningKey // nil unless the tunnel is pinned
	scheme  pqc.Signature
	reports []keying.Report // of the latest exchanges, the newest last
}

// maxReports of a tunnel are kept: an exchange may be over, or even fail, before the one before it has been told of.
const maxReports = 8

func (k *keyingState) report(r keying.Report) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.ends[r.Tunnel]
	if e == nil {
		return
	}
	if len(e.reports) == maxReports {
		e.reports = slices.Delete(e.reports, 0, 1)
	}
	e.reports = append(e.reports, r)
}

// reportOf gives what the exchange took that made an inbound SA.
func (k *keyingState) reportOf(tunnel string, spi uint32) (keying.Report, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e := k.ends[tunnel]; e != nil {
		for _, r := range slices.Backward(e.reports) {
			if r.In == spi {
				return r, true
			}
		}
	}
	return keying.Report{}, false
}

// started gives the dataplane and its tunnels; both are nil as long as the node has had no tunnel.
func (k *keyingState) started() (ipsec.Dataplane, *ipsec.Tunnels) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.plane, k.tunnels
}

// wipe overwrites the signature key, which must not be in use any more.
func (e *end) wipe() {
	if e.signing != nil {
		e.signing.Wipe()
	}
}

// startKeying makes the dataplane and what keys it, once. The lock of changes is held.
func (s *Server) startKeying() error {
	k := &s.keying
	if k.closed {
		return ipsec.ErrClosed
	}
	if plane, _ := k.started(); plane != nil {
		return nil
	}
	plane, err := s.plane()
	if err != nil {
		return err
	}
	if s.config.Seq != 0 {
		plane = &numbered{plane, s.config.Seq}
	}
	plane = newExporting(plane, &s.exports)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.plane = plane
	if s.config.Reveal {
		k.revealed = map[string]*Secrets{}
		k.plane = &revealing{Dataplane: plane, state: k}
	}
	tunnels := ipsec.NewTunnels(k.plane, s.clock, nil)
	k.tunnels = tunnels
	k.listeners = map[netip.Addr]net.Listener{}
	k.ends = map[string]*end{}
	k.service = keying.New(exchange.Endpoint{Certificate: s.certificate, KeyLog: &s.exports}, tunnels.Get, k.report)
	k.serving.Go(func() { s.watchTunnels(tunnels) })
	return nil
}

func (s *Server) addTunnel(ctx context.Context, want Tunnel) (_ Identity, err error) {
	if s.config.Strongswan != nil {
		return s.addByCharon(ctx, want)
	}
	name := want.Policy.Tunnel
	e, err := s.endOf(want)
	if err != nil {
		return Identity{}, fmt.Errorf("tunnel %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			e.wipe()
		}
	}()
	k := &s.keying
	k.changing.Lock()
	defer k.changing.Unlock()
	if err := s.startKeying(); err != nil {
		return Identity{}, fmt.Errorf("tunnel %s: %w", name, err)
	}
	t, err := k.tunnels.Add(ipsec.Config{
		Policy: want.Policy, Limits: want.Limits, Grace: want.Grace, Seed: want.Seed, OnTraffic: want.OnTraffic, Keyer: k.service.Keyer(name),
	})
	if err != nil {
		return Identity{}, err
	}
	if err := s.listen(want.Policy.Src); err != nil {
		return Identity{}, errors.Join(fmt.Errorf("tunnel %s: %w", name, err), t.Close())
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ends[name] = e
	var id Identity
	if e.signing != nil {
		id.SigningKey = e.signing.PublicKey()
	}
	return id, nil
}

// endOf prepares this end, complete but for whom to trust.
func (s *Server) endOf(want Tunnel) (*end, error) {
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
	}
	if config.Encapsulation, err = encapsulation(want.Policy.Encapsulation); err != nil {
		return nil, err
	}
	for _, g := range want.TLSGroups {
		group, err := exchange.ParseTLSGroup(g)
		if err != nil {
			return nil, err
		}
		config.TLSGroups = append(config.TLSGroups, group)
	}
	e := &end{scheme: suite.Signature}
	if want.Pinned {
		if e.signing, err = suite.Signature.GenerateKey(); err != nil {
			return nil, err
		}
	}
	name := want.Policy.Tunnel
	if s.config.Reveal {
		config.Reveal = func(secrets exchange.Secrets) { s.keying.reveal(name, secrets) }
	}
	e.peer = keying.Peer{Tunnel: name, Local: want.Policy.Src, Remote: want.Policy.Dst, Config: config}
	return e, nil
}

// encapsulation is what both ends of an exchange have to agree on for a policy's encapsulation.
func encapsulation(e ipsec.Encapsulation) (exchange.Encapsulation, error) {
	switch e {
	case ipsec.UDP:
		return exchange.UDP, nil
	case ipsec.ESP:
		return exchange.ESP, nil
	}
	return 0, fmt.Errorf("unknown encapsulation %d", e)
}

// listen answers exchanges at an outer address of the node. The lock of changes is held.
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
	k.serving.Go(func() {
		if err := k.service.Serve(s.running, l, s.exchangeFailed); err != nil {
			s.exchangeFailed(fmt.Errorf("no more key exchanges are answered at %v: %w", at, err))
		}
	})
	return nil
}

func (s *Server) trust(ctx context.Context, t Trust) (struct{}, error) {
	if d := s.charon(); d != nil {
		return struct{}{}, d.Trust(ctx, t.Tunnel, t.SigningKey)
	}
	k := &s.keying
	k.changing.Lock()
	defer k.changing.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.ends[t.Tunnel]
	if e == nil || e.trusted {
		return struct{}{}, fmt.Errorf("tunnel %s is not here, or knows its peer already", t.Tunnel)
	}
	peer := e.peer
	if len(t.CA) > 0 {
		peer.Config.Peer.CAs, peer.Config.Peer.Name = x509.NewCertPool(), t.Name
		if !peer.Config.Peer.CAs.AppendCertsFromPEM(t.CA) {
			return struct{}{}, fmt.Errorf("tunnel %s: no certificate in the CA file", t.Tunnel)
		}
	} else {
		peer.Config.Peer.Pin = t.Pin
	}
	if e.signing != nil {
		public, err := e.scheme.ParsePublicKey(t.SigningKey)
		if err != nil {
			return struct{}{}, fmt.Errorf("tunnel %s: the peer's pinned key: %w", t.Tunnel, err)
		}
		peer.Config.Pinned = &exchange.Pinned{Own: e.signing, Peer: public}
	}
	e.trusted = true
	k.service.Trust(peer)
	return struct{}{}, nil
}

func (s *Server) tunnel(name string) (*ipsec.Tunnel, error) {
	if _, tunnels := s.keying.started(); tunnels != nil {
		if t := tunnels.Get(name); t != nil {
			return t, nil
		}
	}
	return nil, fmt.Errorf("there is no tunnel %q at node %s", name, s.config.Node)
}

func (s *Server) establish(ctx context.Context, name string) (keying.Report, error) {
	if s.config.Strongswan != nil {
		return s.byCharon(ctx, name, (*strongswan.Daemon).Establish)
	}
	return s.exchange(ctx, name, (*ipsec.Tunnel).Establish)
}

func (s *Server) rekey(ctx context.Context, name string) (keying.Report, error) {
	if s.config.Strongswan != nil {
		return s.byCharon(ctx, name, (*strongswan.Daemon).Rekey)
	}
	return s.exchange(ctx, name, (*ipsec.Tunnel).Rekey)
}

func (s *Server) exchange(ctx context.Context, name string, how func(*ipsec.Tunnel, context.Context) error) (keying.Report, error) {
	t, err := s.tunnel(name)
	if err != nil {
		return keying.Report{}, err
	}
	if err := how(t, ctx); err != nil {
		return keying.Report{}, exchangeError(ctx, err)
	}
	r, ok := s.keying.reportOf(name, t.Current().In)
	if !ok {
		return r, fmt.Errorf("tunnel %s: was removed, or lost its keys again", name)
	}
	return r, nil
}

func (s *Server) tunnelState(ctx context.Context, name string) (TunnelState, error) {
	if s.config.Strongswan != nil {
		return s.stateByCharon(name)
	}
	plane, _ := s.keying.started()
	if name == "" {
		if plane == nil {
			return TunnelState{}, nil
		}
		drops, err := plane.Drops("")
		return TunnelState{Dataplane: plane.Name(), Drops: drops}, err
	}
	t, err := s.tunnel(name)
	if err != nil {
		return TunnelState{}, err
	}
	for {
		state, err := read(plane, name, t.Current())
		// A rekey may have removed an SA before it was read.
		if err == nil || ctx.Err() != nil || state.SPIs == t.Current() {
			return state, err
		}
	}
}

func read(plane ipsec.Dataplane, tunnel string, spis ipsec.SPIPair) (TunnelState, error) {
	state := TunnelState{Keying: "pqlab", Dataplane: plane.Name(), SPIs: spis}
	var errs [3]error
	if spis.In != 0 {
		state.In, errs[0] = plane.Counters(tunnel, spis.In)
	}
	if spis.Out != 0 {
		state.Out, errs[1] = plane.Counters(tunnel, spis.Out)
	}
	state.Drops, errs[2] = plane.Drops(tunnel)
	return state, errors.Join(errs[:]...)
}

func (s *Server) removeTunnel(ctx context.Context, name string) (struct{}, error) {
	k := &s.keying
	k.changing.Lock()
	defer k.changing.Unlock()
	if d := s.charon(); d != nil {
		return struct{}{}, d.Remove(ctx, name)
	}
	t, err := s.tunnel(name)
	if err != nil {
		return struct{}{}, err
	}
	k.service.Distrust(name)
	err = t.Close()
	return struct{}{}, errors.Join(err, k.forget(name))
}

// forget drops what is known of a tunnel, and the listener that only it needed. The lock of changes is held.
func (k *keyingState) forget(tunnel string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.ends[tunnel]
	at := e.peer.Local
	delete(k.ends, tunnel)
	delete(k.revealed, tunnel)
	k.removed = append(k.removed, e) // an exchange that is being answered may still sign
	for _, e := range k.ends {
		if e.peer.Local == at {
			return nil
		}
	}
	l := k.listeners[at]
	delete(k.listeners, at)
	return l.Close()
}

// close ends the exchanges, the tunnels and the dataplane, in this order, and wipes the signature keys.
func (k *keyingState) close() error {
	k.changing.Lock()
	defer k.changing.Unlock()
	plane, tunnels := k.started()
	if k.charon != nil && !k.closed {
		k.closed = true
		return k.closeCharon()
	}
	if plane == nil || k.closed {
		k.closed = true
		return nil
	}
	k.closed = true
	var errs []error
	for _, l := range k.listeners {
		errs = append(errs, l.Close())
	}
	errs = append(errs, tunnels.Close())
	k.serving.Wait()
	k.wipe()
	return errors.Join(append(errs, plane.Close())...)
}

// wipe overwrites the signature keys, when nothing runs any more that could sign.
func (k *keyingState) wipe() {
	for _, e := range k.ends {
		e.wipe()
	}
	for _, e := range k.removed {
		e.wipe()
	}
}
