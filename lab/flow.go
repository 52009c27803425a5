package lab

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"time"

	"pqlab/agent"
	"pqlab/topology"
	"pqlab/traffic"
)

// defaultUDPRate keeps a UDP flow whose rate nobody gave from drowning the lab, in bit/s.
const defaultUDPRate = 100 * topology.Mbit

// Send runs a planned flow through the lab for d, unless the flow has a duration of its own, and measures it.
func (l *Lab) Send(ctx context.Context, f topology.PlannedFlow, d time.Duration) (_ traffic.Result, err error) {
	if f.Duration > 0 {
		d = f.Duration
	}
	from, to := l.nodes[f.From].agent, l.nodes[f.To].agent
	id := fnv.New64a()
	fmt.Fprint(id, l.Plan.Seed, f.Name)
	fail := func(err error) (traffic.Result, error) {
		return traffic.Result{}, fmt.Errorf("flow %s: %w", f.Name, err)
	}

	sink, err := to.OpenSink(ctx, agent.Sink{
		Proto: f.Proto, Listen: netip.AddrPortFrom(f.Dst, 0), Flow: id.Sum64(), Streams: f.Streams, Quiet: l.options.Quiet,
	})
	if err != nil {
		return fail(err)
	}
	defer func() { err = errors.Join(err, to.CloseTraffic(context.WithoutCancel(ctx), sink.ID)) }()
	// The relays open from the sink backwards, so that each knows where it leads.
	next := sink.Addr
	for i := len(f.Via) - 1; i >= 0; i-- {
		node := l.nodes[f.Via[i]].agent
		relay, err := node.OpenRelay(ctx, agent.Relay{Listen: netip.AddrPortFrom(f.Hops[i], 0), To: next})
		if err != nil {
			return fail(err)
		}
		defer node.CloseTraffic(context.WithoutCancel(ctx), relay.ID)
		next = relay.Addr
	}
	rate := f.Rate
	if rate == 0 && f.Proto == traffic.UDP {
		rate = defaultUDPRate
	}
	sent, err := from.Send(ctx, agent.Source{
		Proto: f.Proto, From: f.Src, To: next, Flow: id.Sum64(), Streams: f.Streams, Rate: uint64(rate),
		FrameSize: f.FrameSize, Duration: d,
	})
	if err != nil {
		return fail(err)
	}
	result, err := to.FinishSink(ctx, agent.Finish{ID: sink.ID, Sent: sent})
	if err != nil {
		return fail(err)
	}
	result.Name, result.From, result.To = f.Name, f.From, f.To
	return result, nil
}
