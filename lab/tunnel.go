package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sync/errgroup"

	"pqlab/agent"
	"pqlab/ipsec"
	"pqlab/ipsec/keying"
	"pqlab/topology"
)

// Tunnel is a tunnel of the lab with both its ends.
type Tunnel struct {
	Plan topology.PlannedTunnel
	lab  *Lab
	a, b *Node
}

// End is one end of a tunnel: the node it is at.
func (t *Tunnel) End(node string) (*Node, error) {
	switch node {
	case t.a.Plan.Name:
		return t.a, nil
	case t.b.Plan.Name:
		return t.b, nil
	}
	return nil, fmt.Errorf("tunnel %s does not end at %s but at %s and %s", t.Plan.Name, node, t.a.Plan.Name, t.b.Plan.Name)
}

// addTunnels installs the policies of all tunnels.
func (l *Lab) addTunnels(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2 * runtime.NumCPU())
	for _, p := range l.Plan.Tunnels {
		t := &Tunnel{Plan: p, lab: l, a: l.nodes[p.A.Node], b: l.nodes[p.B.Node]}
		l.tunnels[p.Name] = t
		g.Go(func() error { return t.add(ctx) })
	}
	return g.Wait()
}

// add installs the tunnel's policy at both ends and makes the ends know each other.
func (t *Tunnel) add(ctx context.Context) error {
	p := t.Plan
	var ca []byte
	if p.CA != "" {
		var err error
		if ca, err = os.ReadFile(p.CA); err != nil {
			return fmt.Errorf("tunnel %s: %w", p.Name, err)
		}
	}
	var ofA, ofB agent.Identity
	if err := both(
		func() (err error) { ofA, err = t.a.agent.AddTunnel(ctx, t.spec(p.A, p.B, p)); return err },
		func() (err error) { ofB, err = t.b.agent.AddTunnel(ctx, t.spec(p.B, p.A, p)); return err },
	); err != nil {
		return err
	}
	return both(
		func() error { return t.a.agent.Trust(ctx, trust(p, t.b, ofB, ca)) },
		func() error { return t.b.agent.Trust(ctx, trust(p, t.a, ofA, ca)) },
	)
}

// both does two things at once.
func both(a, b func() error) error {
	done := make(chan error, 1)
	go func() { done <- a() }()
	err := b()
	return errors.Join(<-done, err)
}

func trust(p topology.PlannedTunnel, peer *Node, id agent.Identity, ca []byte) agent.Trust {
	t := agent.Trust{Tunnel: p.Name, SigningKey: id.SigningKey, CA: ca}
	if ca != nil {
		t.Name = peer.Plan.Name
	} else {
		t.Pin = peer.hello.Pin
	}
	return t
}

func (t *Tunnel) spec(local, remote topology.TunnelEnd, p topology.PlannedTunnel) agent.Tunnel {
	src, dst := p.OuterA, p.OuterB
	if local.Node != p.A.Node {
		src, dst = dst, src
	}
	encapsulation := ipsec.UDP
	if p.Encapsulation == "esp" {
		encapsulation = ipsec.ESP
	}
	return agent.Tunnel{
		Policy: ipsec.Policy{
			Tunnel: p.Name, Local: local.Subnets, Remote: remote.Subnets, Src: src, Dst: dst,
			Encapsulation: encapsulation, PathMTU: p.MTU,
		},
		Limits: ipsec.Limits{Time: p.Rekey.Time, Blocks: p.Rekey.Blocks, Bytes: p.Rekey.Bytes, Packets: p.Rekey.Packets},
		Seed:   t.lab.Plan.Seed, OnTraffic: t.lab.options.OnTraffic,
		Suite: p.Suite, Combiner: p.Combiner, Pinned: p.Identity == "pinned", Mutual: p.Mutual,
		TLSGroups: p.TLSGroups, Deadline: p.Deadline,
	}
}

// Replace removes the tunnel at both ends, with its SAs, and adds what plan says in its place, without keys: of the same name
// and between the same nodes. After an error one end may have no tunnel, and refuses all its traffic.
func (t *Tunnel) Replace(ctx context.Context, plan topology.PlannedTunnel) error {
	if plan.Name != t.Plan.Name || plan.A.Node != t.Plan.A.Node || plan.B.Node != t.Plan.B.Node {
		return fmt.Errorf("tunnel %s between %s and %s cannot become tunnel %s between %s and %s",
			t.Plan.Name, t.Plan.A.Node, t.Plan.B.Node, plan.Name, plan.A.Node, plan.B.Node)
	}
	if err := both(
		func() error { return t.a.agent.RemoveTunnel(ctx, plan.Name) },
		func() error { return t.b.agent.RemoveTunnel(ctx, plan.Name) },
	); err != nil {
		return err
	}
	t.Plan = plan
	return t.add(ctx)
}

// Establish keys the tunnel. It returns when traffic flows under new keys in both directions. It is agent.ErrNotCarried if the peer
// was not heard and is well.
func (t *Tunnel) Establish(ctx context.Context) (keying.Report, error) {
	report, err := t.a.agent.Establish(ctx, t.Plan.Name)
	if errors.Is(err, agent.ErrNotCarried) { // unless there is nobody to answer
		err = blame(err, t.lab.ask(ctx, func(ctx context.Context) error {
			_, err := t.b.agent.TunnelState(ctx, t.Plan.Name)
			return err
		}))
	}
	return report, err
}

// Rekey replaces the tunnel's keys by an exchange that the given end begins.
func (t *Tunnel) Rekey(ctx context.Context, from string) (keying.Report, error) {
	end, err := t.End(from)
	if err != nil {
		return keying.Report{}, err
	}
	return end.agent.Rekey(ctx, t.Plan.Name)
}

// State of the tunnel at one of its ends.
func (t *Tunnel) State(ctx context.Context, at string) (agent.TunnelState, error) {
	end, err := t.End(at)
	if err != nil {
		return agent.TunnelState{}, err
	}
	return end.agent.TunnelState(ctx, t.Plan.Name)
}

// Secrets of the tunnel's latest exchange at one of its ends, in a lab that was made with Options.Reveal.
func (t *Tunnel) Secrets(ctx context.Context, at string) (agent.Secrets, error) {
	end, err := t.End(at)
	if err != nil {
		return agent.Secrets{}, err
	}
	return end.agent.Secrets(ctx, t.Plan.Name)
}
