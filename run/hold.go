package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"pqlab/agent"
	"pqlab/ipsec"
	"pqlab/lab"
	"pqlab/links/wifi"
	"pqlab/nodes"
	"pqlab/supervisor"
	"pqlab/topology"
)

// Hold makes the plan real, keys its tunnels and gives the lab to a supervisor to keep. All or nothing. With lab.Options.Reach a
// lab whose links cannot have their rates here is an UnreachedError.
func Hold(ctx context.Context, plan *topology.Plan, o lab.Options, progress func(string)) (_ supervisor.Lab, err error) {
	progress(making(plan))
	l, err := lab.Up(ctx, plan, o)
	if err != nil {
		return nil, err
	}
	guarded, release := l.Guard(ctx)
	defer release()
	watching, stop := context.WithCancel(context.Background())
	h := &held{lab: l, stop: stop, rekeys: map[string]uint64{}, failed: map[string]string{}}
	defer func() {
		if err == nil {
			return
		}
		interrupted := ctx.Err() != nil
		errDown := h.Down(context.WithoutCancel(ctx))
		if failed := l.Err(); failed != nil && !interrupted {
			err = failed // all else is its consequence
		}
		err = errors.Join(err, errDown)
	}()
	if len(l.Unreached) > 0 {
		return nil, UnreachedError(l.Unreached)
	}
	if err := l.Events(watching, h.note); err != nil {
		return nil, err
	}
	for _, t := range plan.Tunnels {
		progress("tunnel " + t.Name + ": exchanging keys")
		if _, err := l.Tunnel(t.Name).Establish(guarded); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// making says what takes time until a lab is up.
func making(p *topology.Plan) string {
	if p.Verify {
		return "making the lab and measuring its links"
	}
	return "making the lab"
}

// held is a lab that a supervisor keeps.
type held struct {
	lab  *lab.Lab
	stop context.CancelFunc

	setting sync.Mutex // held while a link is changed

	mu     sync.Mutex
	rekeys map[string]uint64
	failed map[string]string // the last failure since the last success
}

func (h *held) note(e agent.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch e.Kind {
	case ipsec.Established, ipsec.Rekeyed:
		delete(h.failed, e.Tunnel)
		if e.Initiator && e.Kind == ipsec.Rekeyed {
			h.rekeys[e.Tunnel]++
		}
	case ipsec.Failed, ipsec.Expired:
		h.failed[e.Tunnel] = fmt.Sprintf("%s at %s: %s", e.Kind, e.Node, e.Error)
	}
}

// Down takes the lab down.
func (h *held) Down(ctx context.Context) error {
	h.stop()
	return h.lab.Down(ctx)
}

// Exec starts a command in a node.
func (h *held) Exec(_ context.Context, node string, c supervisor.Command) (supervisor.Process, error) {
	n := h.lab.Node(node)
	if n == nil {
		return nil, fmt.Errorf("%w: %q", supervisor.ErrNoNode, node)
	}
	p, err := n.Start(nodes.Command{
		Path: c.Path, Args: c.Args, Env: c.Env, Dir: c.Dir, Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr, TTY: c.TTY,
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Status describes the lab.
func (h *held) Status(ctx context.Context) (supervisor.Status, error) {
	l := h.lab
	s := supervisor.Status{Topology: l.Plan.Name, Since: l.Started}
	for _, n := range l.Plan.Nodes {
		status := supervisor.NodeStatus{Name: n.Name, Kind: string(n.Kind), PID: l.Node(n.Name).PID()}
		for _, i := range n.Interfaces {
			status.Addresses = append(status.Addresses, i.Addresses...)
		}
		cpu, err := l.Node(n.Name).CPU(ctx)
		if failed := l.Node(n.Name).Err(); failed != nil {
			status.PID, err = 0, failed
		}
		if err != nil { // the rest of the lab is told of all the same
			status.Error = err.Error()
		}
		status.CPU = cpu.Seconds()
		s.Nodes = append(s.Nodes, status)
	}
	for _, p := range l.Plan.Links {
		s.Links = append(s.Links, linkStatus(p, l.Link(p.Name).State(), l.Link(p.Name).Ignored))
	}
	s.WiFi = cellsOf(l.Plan.Links, func(link string) (wifi.Cell, int, bool) { return l.Link(link).Cell() })
	h.mu.Lock()
	rekeys, failed := maps.Clone(h.rekeys), maps.Clone(h.failed)
	h.mu.Unlock()
	for _, p := range l.Plan.Tunnels {
		t := supervisor.TunnelStatus{
			Name: p.Name, A: p.A.Node, B: p.B.Node, Suite: cmp.Or(p.Suite, p.Keying), Rekeys: rekeys[p.Name], Error: failed[p.Name],
			Drops: map[string]uint64{},
		}
		for _, node := range []string{p.A.Node, p.B.Node} {
			state, err := l.Tunnel(p.Name).State(ctx, node)
			if failed := l.Node(node).Err(); failed != nil {
				err = failed
			}
			if err != nil {
				t.Error = err.Error()
				continue
			}
			t.Dataplane = state.Dataplane
			for _, sa := range []struct {
				direction string
				spi       uint32
				ipsec.Counters
			}{{"in", state.SPIs.In, state.In}, {"out", state.SPIs.Out, state.Out}} {
				t.SAs = append(t.SAs, supervisor.SAStatus{
					Node: node, Direction: sa.direction, SPI: sa.spi, Blocks: sa.Blocks, Bytes: sa.Bytes, Packets: sa.Packets,
				})
			}
			for reason, count := range dropsOf(state.Drops) {
				t.Drops[reason] += count
			}
		}
		s.Tunnels = append(s.Tunnels, t)
	}
	return s, nil
}
