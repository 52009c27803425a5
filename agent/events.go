package agent

import (
	"context"
	"errors"
	"io"
	"sync"
	"syscall"
	"time"

	"pqlab/ipsec"
	"pqlab/ipsec/keying"
	"pqlab/traffic"
)

// Event is something that happened to a tunnel at this node.
type Event struct {
	Node      string
	Tunnel    string
	Kind      ipsec.EventKind
	Trigger   ipsec.Trigger `json:",omitempty"`
	Initiator bool
	At        traffic.Instant // by the machine's clock, also where the tunnel waits by a manual one
	Old, New  ipsec.SPIPair
	Triggered ipsec.Usage
	Replaced  ipsec.Usage
	Duration  time.Duration
	Exchange  *keying.Report `json:",omitempty"` // of Established and Rekeyed
	Error     string         `json:",omitempty"`
	Missed    uint64         `json:",omitempty"` // events before this one that found no room
}

// Events calls f with every event of the node's tunnels from now on, until ctx ends.
func (c *Client) Events(ctx context.Context, f func(Event)) error {
	_, err := receive(ctx, c, "Events", struct{}{}, f)
	return err
}

func (s *Server) streamEvents(struct{}) func(context.Context, func(Event) error) error {
	events := s.events.subscribe()
	return func(ctx context.Context, send func(Event) error) error {
		defer s.events.unsubscribe(events)
		for {
			select {
			case e := <-events:
				if err := send(e); err != nil {
					return err
				}
			case <-ctx.Done():
				return nil
			case <-s.running.Done():
				return nil
			}
		}
	}
}

// watchTunnels passes on what the tunnels say, until they are closed.
func (s *Server) watchTunnels(tunnels *ipsec.Tunnels) {
	for e := range tunnels.Events() {
		out := Event{
			Node: s.config.Node, Tunnel: e.Tunnel, Kind: e.Kind, Trigger: e.Trigger, Initiator: e.Initiator,
			At: traffic.Now(), Old: e.Old, New: e.New, Triggered: e.Triggered, Replaced: e.Replaced, Duration: e.Duration,
			Missed: tunnels.LostEvents(),
		}
		if s.manual == nil {
			out.At = traffic.InstantOf(e.At)
		}
		if e.Err != nil {
			out.Error = e.Err.Error()
		}
		if e.Kind == ipsec.Established || e.Kind == ipsec.Rekeyed {
			if r, ok := s.keying.reportOf(e.Tunnel, e.New.In); ok {
				out.Exchange = &r
			}
		}
		s.events.send(out)
	}
}

// exchangeFailed tells of an exchange that a peer, or somebody who is none, began and that came to nothing, unless the
// tunnel tells of it. That a tunnel was busy is no failure, nor that the peer gave its exchange up.
func (s *Server) exchangeFailed(err error) {
	var accepted *keying.AcceptedError
	if errors.As(err, &accepted) || errors.Is(err, ipsec.ErrBusy) || errors.Is(err, ipsec.ErrAbandoned) {
		return
	}
	// A peer whose exchange gave way to ours hangs up wherever it is, also before it has said what tunnel it is after.
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return
	}
	s.events.send(Event{Node: s.config.Node, Kind: ipsec.Failed, At: traffic.Now(), Error: err.Error()})
}

// broadcast gives each event to every subscriber. Nobody waits for a slow one.
type broadcast struct {
	mu          sync.Mutex
	subscribers map[chan Event]*uint64 // with the events that each missed
}

func (b *broadcast) subscribe() chan Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.subscribers == nil {
		b.subscribers = map[chan Event]*uint64{}
	}
	c := make(chan Event, 4096)
	b.subscribers[c] = new(uint64)
	return c
}

func (b *broadcast) unsubscribe(c chan Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.subscribers, c)
}

func (b *broadcast) send(e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c, missed := range b.subscribers {
		each := e
		each.Missed += *missed
		select {
		case c <- each:
		default:
			*missed++
		}
	}
}
