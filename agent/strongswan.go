package agent

import (
	"context"
	"fmt"

	"pqlab/ipsec"
	"pqlab/ipsec/keying"
	"pqlab/ipsec/strongswan"
	"pqlab/pqc/exchange"
	"pqlab/traffic"
)

// Log gives what the node's keying daemon has written; empty where it has none.
func (c *Client) Log(ctx context.Context) (string, error) {
	return invoke[string](ctx, c, "Log", struct{}{})
}

func (s *Server) log(context.Context, struct{}) (string, error) {
	if d := s.charon(); d != nil {
		return d.Log(), nil
	}
	return "", nil
}

// charon is nil as long as the node has had no tunnel that strongSwan keys.
func (s *Server) charon() *strongswan.Daemon {
	s.keying.mu.Lock()
	defer s.keying.mu.Unlock()
	return s.keying.charon
}

// startCharon runs charon, once. The lock of changes is held.
func (s *Server) startCharon(ctx context.Context) error {
	k := &s.keying
	if k.closed {
		return ipsec.ErrClosed
	}
	if s.charon() != nil {
		return nil
	}
	d, err := strongswan.New(ctx, *s.config.Strongswan)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.charon = d
	k.serving.Go(func() { s.watchCharon(d) })
	return nil
}

func (s *Server) addByCharon(ctx context.Context, want Tunnel) (Identity, error) {
	k := &s.keying
	k.changing.Lock()
	defer k.changing.Unlock()
	if err := s.startCharon(ctx); err != nil {
		return Identity{}, fmt.Errorf("tunnel %s: %w", want.Policy.Tunnel, err)
	}
	public, err := s.charon().Add(ctx, strongswan.Tunnel{
		Policy: want.Policy, Limits: want.Limits, Deadline: want.Deadline, OnTraffic: want.OnTraffic,
	})
	return Identity{SigningKey: public}, err
}

func (s *Server) byCharon(ctx context.Context, name string,
	how func(*strongswan.Daemon, context.Context, string) (strongswan.Exchange, ipsec.SPIPair, error)) (keying.Report, error) {
	d := s.charon()
	if d == nil {
		return keying.Report{}, fmt.Errorf("there is no tunnel %q at node %s", name, s.config.Node)
	}
	x, spis, err := how(d, ctx, name)
	if err != nil {
		return keying.Report{}, exchangeError(ctx, err)
	}
	return *reportOfIKE(name, true, spis, x), nil
}

// reportOfIKE says of an exchange of IKE what there is to say. Both ends have signed; there is nothing to combine.
func reportOfIKE(tunnel string, initiator bool, spis ipsec.SPIPair, x strongswan.Exchange) *keying.Report {
	return &keying.Report{
		Tunnel: tunnel, Initiator: initiator, In: spis.In, Out: spis.Out, Suite: strongswan.Suite,
		Timings: exchange.Timings{Total: x.Took},
		Traffic: exchange.Traffic{
			Sent: int(x.Sent), Received: int(x.Received), MessagesSent: int(x.MessagesSent), MessagesReceived: int(x.MessagesReceived),
		},
	}
}

func (s *Server) stateByCharon(name string) (TunnelState, error) {
	d := s.charon()
	if d == nil {
		return TunnelState{}, nil
	}
	state, err := d.State(name)
	return TunnelState{
		Keying: "strongswan " + d.Version(), Dataplane: d.Name(), SPIs: state.SPIs, In: state.In, Out: state.Out, Drops: state.Drops,
	}, err
}

// watchCharon passes on what happens to the tunnels, until charon is closed.
func (s *Server) watchCharon(d *strongswan.Daemon) {
	for e := range d.Events() {
		out := Event{
			Node: s.config.Node, Tunnel: e.Tunnel, Kind: e.Kind, Trigger: e.Trigger, Initiator: e.Initiator,
			At: traffic.InstantOf(e.At), Old: e.Old, New: e.New, Triggered: e.Triggered, Replaced: e.Replaced, Duration: e.Duration,
			Missed: d.LostEvents(),
		}
		if e.Err != nil {
			out.Error = e.Err.Error()
		}
		if e.Kind == ipsec.Established || e.Kind == ipsec.Rekeyed {
			out.Exchange = reportOfIKE(e.Tunnel, e.Initiator, e.New, e.Exchange)
		}
		s.events.send(out)
	}
}

// closeCharon ends charon. The lock of changes is held.
func (k *keyingState) closeCharon() error {
	err := k.charon.Close()
	k.serving.Wait()
	return err
}
