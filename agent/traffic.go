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
	Bytes     uint64        // TCP
	Drain     time.Duration // TCP
	Packets   uint64        // UDP
}

// Finish tells a sink what was sent to it.
type Finish struct {
	ID   uint64
	Sent traffic.Sent
	// Broken is for a flow that was ErrNotCarried: what has arrived of it is the result, and that its streams did not end no error.
	Broken bool
}

// sending is the answer to Source.
type sending struct {
	Sent       traffic.Sent
	NotCarried string // why; empty: it was carried
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

// Send runs a source until it is done or ctx ends. What the network does not let through is ErrNotCarried, with what was sent
// all the same; that has no Start if no connection came about.
func (c *Client) Send(ctx context.Context, s Source) (traffic.Sent, error) {
	const call = "Send"
	got, err := invoke[sending](ctx, c, call, s)
	if err == nil && got.NotCarried != "" {
		err = &Error{Node: c.node, Call: call, Reason: got.NotCarried, cause: ErrNotCarried}
	}
	return got.Sent, err
}

// FinishSink waits for what was sent and gives the flow's result. The sink is closed.
func (c *Client) FinishSink(ctx context.Context, f Finish) (traffic.Result, error) {
	return invoke[traffic.Result](ctx, c, "FinishSink", f)
}

// CloseTraffic closes a sink or relay; one that is closed already is no error. That a relay could not carry a connection on is one,
// and ErrNotCarried if it found no way onwards.
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

func (s *Server) send(ctx context.Context, want Source) (sending, error) {
	var sent traffic.Sent
	var err error
	switch want.Proto {
	case traffic.TCP:
		sent, err = traffic.TCPSource{
			From: want.From, To: want.To, Streams: want.Streams, Rate: want.Rate, Duration: want.Duration, Bytes: want.Bytes, Drain: want.Drain,
		}.Run(ctx)
	case traffic.UDP:
		sent, err = traffic.UDPSource{
			From: want.From, To: want.To, Flow: want.Flow, Streams: want.Streams, Rate: want.Rate,
			FrameSize: want.FrameSize, Duration: want.Duration, Packets: want.Packets,
		}.Run(ctx)
	default:
		err = fmt.Errorf("no source for protocol %q", want.Proto)
	}
	if errors.Is(err, traffic.ErrUndelivered) {
		return sending{sent, err.Error()}, nil
	}
	return sending{Sent: sent}, err
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
	result, err := opened.Finish(ctx, f.Sent)
	if f.Broken && result.Proto != "" {
		err = nil
	}
	return result, err
}

func (s *Server) closeTraffic(_ context.Context, id uint64) (struct{}, error) {
	s.mu.Lock()
	opened := s.open[id]
	delete(s.open, id)
	s.mu.Unlock()
	if opened == nil {
		return struct{}{}, nil
	}
	err := opened.Close()
	if relay, ok := opened.(interface{ Err() error }); ok {
		err = errors.Join(err, relay.Err())
	}
	if errors.Is(err, traffic.ErrUndelivered) {
		err = notCarried{err}
	}
	return struct{}{}, err
}

func (s *Server) keep(c io.Closer) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastID++
	s.open[s.lastID] = c
	return s.lastID
}
