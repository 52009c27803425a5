// Package keying keys tunnels by the post-quantum exchange over TCP: it is the Keyer of a tunnel at the end that begins,
// and the listener that answers at the other.
package keying

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"pqlab/ipsec"
	"pqlab/pqc/exchange"
)

// Port is the TCP port that nodes listen on for exchanges: the one of IKE in TCP (RFC 9329 section 2), as 4500/udp is
// the one of ESP.
const Port = 4500

// Peer is the other end of one tunnel.
type Peer struct {
	Tunnel        string
	Local, Remote netip.Addr // outer addresses; the exchange goes between them, beside the ESP packets
	Config        exchange.Config
}

// Report is what one exchange took. It holds no secrets.
type Report struct {
	Tunnel     string
	Initiator  bool
	In, Out    uint32 // SPIs
	Suite      string
	Combiner   string
	TLSGroup   string
	Transcript [exchange.TranscriptSize]byte
	Timings    exchange.Timings
	Traffic    exchange.Traffic
}

// Service runs the exchanges of one node.
type Service struct {
	// Dial connects to a peer, if the way is another than TCP from its Local address to Port of its Remote one. Its context
	// ends when the deadline of a step has passed, and with Dial. It is set before the service is used.
	Dial func(context.Context, Peer) (net.Conn, error)

	endpoint exchange.Endpoint
	tunnels  func(name string) *ipsec.Tunnel
	report   func(Report)

	mu    sync.Mutex
	peers map[string]Peer // by tunnel
}

// New makes a service that presents the endpoint's certificate. tunnels finds the tunnel that a peer asks for; report is
// told of each exchange before its keys are used by the tunnel's events, and must not block.
func New(endpoint exchange.Endpoint, tunnels func(name string) *ipsec.Tunnel, report func(Report)) *Service {
	return &Service{endpoint: endpoint, tunnels: tunnels, report: report, peers: map[string]Peer{}}
}

// Format keeps every verb from printing the keys that the service holds.
func (s *Service) Format(f fmt.State, _ rune) { fmt.Fprint(f, "keying service") }

// Trust lets the peer key its tunnel from now on, and makes Initiate know where it is.
func (s *Service) Trust(p Peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peers[p.Tunnel] = p
}

// Distrust forgets the peer of a tunnel.
func (s *Service) Distrust(tunnel string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.peers, tunnel)
}

func (s *Service) peer(tunnel string) (Peer, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.peers[tunnel]
	return p, ok
}

// Keyer begins exchanges for a tunnel.
func (s *Service) Keyer(tunnel string) ipsec.Keyer { return keyer{s, tunnel} }

type keyer struct {
	service *Service
	tunnel  string
}

func (k keyer) Initiate(ctx context.Context, p ipsec.Proposal, install func(*ipsec.Keys) error) error {
	peer, ok := k.service.peer(k.tunnel)
	if !ok {
		return fmt.Errorf("tunnel %s: its peer is not trusted yet", k.tunnel)
	}
	conn, err := k.service.connect(ctx, peer)
	if err != nil {
		return fmt.Errorf("key exchange: %w", err)
	}
	return k.service.initiate(ctx, conn, peer, p, install)
}

// connect is the first step of an exchange, with the deadline of each: without one a silent peer would hold it up for
// minutes.
func (s *Service) connect(ctx context.Context, peer Peer) (net.Conn, error) {
	dial := s.Dial
	if dial == nil {
		dial = dialTCP
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(peer.Config.Deadline, s.endpoint.Deadline, exchange.DefaultDeadline))
	defer cancel()
	return dial(ctx, peer)
}

func dialTCP(ctx context.Context, p Peer) (net.Conn, error) {
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.Local, 0))}
	return dialer.DialContext(ctx, "tcp", netip.AddrPortFrom(p.Remote, Port).String())
}

func (s *Service) initiate(ctx context.Context, conn net.Conn, peer Peer, p ipsec.Proposal, install func(*ipsec.Keys) error) error {
	session, err := exchange.Initiate(ctx, conn, s.endpoint, peer.Config, exchange.Proposal{
		Tunnel: peer.Tunnel, SPI: p.SPI, Trigger: string(p.Trigger), Replaces: p.Replaces,
	})
	if err != nil {
		return busy(err)
	}
	defer session.Wipe()
	defer session.Close()
	s.report(reportOf(session))
	if err := install(keysOf(session)); err != nil {
		return err
	}
	return session.Done(ctx)
}
