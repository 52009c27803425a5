package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"pqlab/traffic"
)

// Sink asks for the receiving end of a flow.
type Sink struct {
	Proto   string // traffic.TCP or traffic.UDP
	Listen  netip.AddrPort
	Flow    uint64 // UDP: as the source's
	Streams int
	Quiet   time.Duration // UDP: as in traffic.UDPSinkConfig
}

// Relay asks for an application relay.
type Relay struct {
	Listen, To netip.AddrPort
	From       netip.Addr
}

// Listening is a sink or a relay that is open.
type Listening struct {
	ID   uint64
	Addr netip.AddrPort
}

// Source asks for the sending end of a flow. Fields mean what they mean in traffic.TCPSource and traffic.UDPSource.
type Source struct {
	Proto     string
	From      netip.Addr
	To        netip.AddrPort
	Flow      uint64
	Streams   int
	Rate      uint64
	FrameSize int
	Duration  time.Duration
	Bytes     uint64 // TCP
	Packets   uint64 // UDP
}

// Finish tells a sink what was sent to it.
type Finish struct {
	ID   uint64
	Sent traffic.Sent
}

type sink interface {
	io.Closer
	Addr() netip.AddrPort
	Finish(context.Context, traffic.Sent) (traffic.Result, error)
}

// OpenSink opens the receiving end of a flow, which stays until FinishSink or CloseTraffic.
func (c *Client) OpenSink(ctx context.Context, s Sink) (Listening, error) {
	return invoke[Listening](ctx, c, "OpenSink", s)
}

// OpenRelay opens an application relay, which stays until CloseTraffic.
func (c *Client) OpenRelay(ctx context.Context, r Relay) (Listening, error) {
	return invoke[Listening](ctx, c, "OpenRelay", r)
}

// Send runs a source until it is done or ctx ends. What the network does not let through is ErrNotCarried.
func (c *Client) Send(ctx context.Context, s Source) (traffic.Sent, error) {
	return invoke[traffic.Sent](ctx, c, "Send", s)
}

// FinishSink waits for what was sent and gives the flow's result. The sink is closed.
func (c *Client) FinishSink(ctx context.Context, f Finish) (traffic.Result, error) {
	return invoke[traffic.Result](ctx, c, "FinishSink", f)
}

// CloseTraffic closes a sink or relay; one that is closed already is no error.
func (c *Client) CloseTraffic(ctx context.Context, id uint64) error {
	_, err := invoke[struct{}](ctx, c, "CloseTraffic", id)
	return err
}

func (s *Server) openSink(_ context.Context, want Sink) (Listening, error) {
	var opened sink
	var err error
	switch want.Proto {
	case traffic.TCP:
		opened, err = traffic.ListenTCP(s.running, want.Listen)
	case traffic.UDP:
		opened, err = traffic.ListenUDP(s.running, traffic.UDPSinkConfig{Listen: want.Listen, Flow: want.Flow, Streams: want.Streams, Quiet: want.Quiet})
	default:
		err = fmt.Errorf("no sink for protocol %q", want.Proto)
	}
	if err != nil {
		return Listening{}, err
	}
	return Listening{ID: s.keep(opened), Addr: opened.Addr()}, nil
}

func (s *Server) openRelay(_ context.Context, want Relay) (Listening, error) {
	relay, err := traffic.ListenRelay(s.running, want.Listen, want.To, want.From)
	if err != nil {
		return Listening{}, err
	}
	return Listening{ID: s.keep(relay), Addr: relay.Addr()}, nil
}

func (s *Server) send(ctx context.Context, want Source) (traffic.Sent, error) {
	switch want.Proto {
	case traffic.TCP:
		sent, err := traffic.TCPSource{
			From: want.From, To: want.To, Streams: want.Streams, Rate: want.Rate, Duration: want.Duration, Bytes: want.Bytes,
		}.Run(ctx)
		if errors.Is(err, traffic.ErrUndelivered) {
			err = notCarried{err}
		}
		return sent, err
	case traffic.UDP:
		return traffic.UDPSource{
			From: want.From, To: want.To, Flow: want.Flow, Streams: want.Streams, Rate: want.Rate,
			FrameSize: want.FrameSize, Duration: want.Duration, Packets: want.Packets,
		}.Run(ctx)
	default:
		return traffic.Sent{}, fmt.Errorf("no source for protocol %q", want.Proto)
	}
}

func (s *Server) finishSink(ctx context.Context, f Finish) (traffic.Result, error) {
	s.mu.Lock()
	opened, ok := s.open[f.ID].(sink) // a relay stays
	if ok {
		delete(s.open, f.ID)
	}
	s.mu.Unlock()
	if !ok {
		return traffic.Result{}, fmt.Errorf("sink %d is not open", f.ID)
	}
	return opened.Finish(ctx, f.Sent)
}

func (s *Server) closeTraffic(_ context.Context, id uint64) (struct{}, error) {
	s.mu.Lock()
	opened := s.open[id]
	delete(s.open, id)
	s.mu.Unlock()
	if opened == nil {
		return struct{}{}, nil
	}
	return struct{}{}, opened.Close()
}

func (s *Server) keep(c io.Closer) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastID++
	s.open[s.lastID] = c
	return s.lastID
}
