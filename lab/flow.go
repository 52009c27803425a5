package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"
	"time"

	"pqlab/agent"
	"pqlab/topology"
	"pqlab/traffic"
)

// defaultUDPRate keeps a UDP flow whose rate nobody gave from drowning the lab, in bit/s.
const defaultUDPRate = 100 * topology.Mbit

// Asked is what a flow is to send: at what rate in bit/s (0: as fast as it goes), and for how long, if d is for flows that do not
// say it themselves.
func Asked(f topology.PlannedFlow, d time.Duration) (rate topology.Rate, duration time.Duration) {
	rate = f.Rate
	if rate == 0 && f.Proto == traffic.UDP {
		rate = defaultUDPRate
	}
	if f.Duration > 0 {
		d = f.Duration
	}
	return rate, d
}

// Send runs a planned flow through the lab for d, unless the flow has a duration of its own, and measures it. Of a flow that
// the network did not carry (agent.ErrNotCarried) the result is what had been sent and received when it was given up.
func (l *Lab) Send(ctx context.Context, f topology.PlannedFlow, d time.Duration) (result traffic.Result, err error) {
	rate, d := Asked(f, d)
	from, to := l.nodes[f.From].agent, l.nodes[f.To].agent
	id := fnv.New64a()
	fmt.Fprint(id, l.Plan.Seed, f.Name)
	var relays []func() error
	closing := func(at *agent.Client, id uint64) func() error {
		return func() error {
			return l.ask(context.WithoutCancel(ctx), func(ctx context.Context) error { return at.CloseTraffic(ctx, id) })
		}
	}
	closeSink := func() error { return nil }
	defer func() {
		var others []error
		for _, end := range slices.Backward(relays) {
			others = append(others, end())
		}
		if of := closeSink(); err == nil {
			err = of // all has arrived, whatever the relays have to say
		} else {
			err = blame(err, append(others, of)...)
		}
		if err != nil {
			err = fmt.Errorf("flow %s: %w", f.Name, err)
		}
		result.Name, result.From, result.To, result.Proto = f.Name, f.From, f.To, f.Proto
	}()

	sink, err := to.OpenSink(ctx, agent.Sink{
		Proto: f.Proto, Listen: netip.AddrPortFrom(f.Dst, 0), Flow: id.Sum64(), Streams: f.Streams, Quiet: l.options.Quiet,
	})
	if err != nil {
		return result, err
	}
	closeSink = closing(to, sink.ID)
	// The relays open from the sink backwards, so that each knows where it leads.
	next := sink.Addr
	for i := len(f.Via) - 1; i >= 0; i-- {
		node := l.nodes[f.Via[i]].agent
		relay, err := node.OpenRelay(ctx, agent.Relay{Listen: netip.AddrPortFrom(f.Hops[i], 0), To: next})
		if err != nil {
			return result, err
		}
		relays = append(relays, closing(node, relay.ID))
		next = relay.Addr
	}
	sent, failed := from.Send(ctx, agent.Source{
		Proto: f.Proto, From: f.Src, To: next, Flow: id.Sum64(), Streams: f.Streams, Rate: uint64(rate),
		FrameSize: f.FrameSize, Duration: d,
	})
	if failed != nil && sent.Start == 0 {
		return result, failed
	}
	finish := func(ctx context.Context) (err error) {
		result, err = to.FinishSink(ctx, agent.Finish{ID: sink.ID, Sent: sent, Broken: failed != nil})
		return err
	}
	if failed == nil {
		err = finish(ctx)
		return result, err
	}
	if err = l.ask(ctx, finish); err != nil {
		return result, blame(failed, err)
	}
	return result, failed
}

// patience is how long an agent that is well may take to answer at once, on a machine that is busy.
const patience = 30 * time.Second

// ask bounds a question to an agent that may be stuck: then that is why others heard nothing of it.
func (l *Lab) ask(ctx context.Context, question func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, cmp.Or(l.patience, patience))
	defer cancel()
	err := question(bounded)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		err = fmt.Errorf("%w: its agent does not answer", err)
	}
	return err
}

// blame is why a flow failed, by what its source says and what the others who take part do. What an agent did, or that it has
// ended, comes before what the network did: who waits for an agent that is gone hears nothing either. And where a relay found no
// way, all that the source knows is that its connection was ended.
func blame(source error, others ...error) error {
	others = slices.DeleteFunc(others, func(err error) bool { return err == nil })
	isNetwork := func(err error) bool { return errors.Is(err, agent.ErrNotCarried) }
	own := slices.DeleteFunc(slices.Clone(others), isNetwork)
	switch {
	case len(own) > 0 && !isNetwork(source) && strings.Contains(source.Error(), own[0].Error()):
		return source
	case len(own) > 0:
		return fmt.Errorf("%w; the end that began says: %v", errors.Join(own...), source)
	case len(others) > 0:
		return fmt.Errorf("%w; the end that began says: %v", others[0], source)
	}
	return source
}
