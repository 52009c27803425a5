package run

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pqlab/agent"
	"pqlab/ipsec"
	"pqlab/ipsec/keying"
	"pqlab/topology"
	"pqlab/traffic"
)

// history is what the ends of some tunnels tell, in the order of each node, and what it comes to.
type history struct {
	plan   *topology.Plan
	byNode map[string][]agent.Event
	want   []rekey // of those whose SAs are counted at both ends
}

// newHistory makes up rekeys of tunnels between four nodes, begun by either end. Of some, the last ones, the SAs are not
// counted at both ends.
func newHistory(r *rand.Rand) history {
	h := history{plan: new(topology.Plan), byNode: map[string][]agent.Event{}}
	names := []string{"n0", "n1", "n2", "n3"}
	var spi uint32 = 256
	fresh := func() ipsec.SPIPair { spi += 2; return ipsec.SPIPair{In: spi, Out: spi + 1} }
	at := traffic.Instant(0)
	tell := func(node string, e agent.Event) {
		e.Node = node
		h.byNode[node] = append(h.byNode[node], e)
	}
	for i := range 1 + r.IntN(4) {
		a, b := names[i%4], names[(i+1)%4]
		name := fmt.Sprintf("t%d", i)
		h.plan.Tunnels = append(h.plan.Tunnels, planned(name, a, b))
		pair := fresh() // as A sees it
		tell(a, agent.Event{Tunnel: name, Kind: ipsec.Established, Initiator: true, New: pair})
		tell(b, agent.Event{Tunnel: name, Kind: ipsec.Established, New: ipsec.SPIPair{In: pair.Out, Out: pair.In}})
		for range r.IntN(6) {
			old, reverse := pair, ipsec.SPIPair{In: pair.Out, Out: pair.In}
			pair = fresh()
			var sent, got [2]uint64 // by A, by B; and what of it arrived
			for i := range sent {
				sent[i] = r.Uint64N(1000)
				got[i] = sent[i] - r.Uint64N(sent[i]/4+1)
			}
			byA := r.IntN(2) == 0
			at += traffic.Instant(1 + r.IntN(1000))
			rekeyed := func(old ipsec.SPIPair, initiator bool, sent uint64) agent.Event {
				trigger := ipsec.ByPeer
				if initiator {
					trigger = ipsec.ByBlocks
				}
				// What arrived until now is less than what will have.
				return agent.Event{
					Tunnel: name, Kind: ipsec.Rekeyed, Trigger: trigger, Initiator: initiator, At: at, Old: old, Duration: time.Duration(at),
					Replaced: ipsec.Usage{Out: ipsec.Counters{Packets: sent}, In: ipsec.Counters{Packets: 1}},
				}
			}
			retired := func(spi uint32, got uint64) agent.Event {
				return agent.Event{
					Tunnel: name, Kind: ipsec.Retired, Old: ipsec.SPIPair{In: spi}, Replaced: ipsec.Usage{In: ipsec.Counters{Packets: got}},
				}
			}
			tell(a, rekeyed(old, byA, sent[0]))
			tell(b, rekeyed(reverse, !byA, sent[1]))
			if r.IntN(8) == 0 { // one of its SAs is not counted
				if r.IntN(2) == 0 {
					tell(a, retired(old.In, got[1]))
				} else {
					tell(b, retired(reverse.In, got[0]))
				}
				continue
			}
			tell(a, retired(old.In, got[1]))
			tell(b, retired(reverse.In, got[0]))
			h.want = append(h.want, rekey{
				tunnel: name, trigger: ipsec.ByBlocks, at: at, took: time.Duration(at), lost: sent[0] - got[0] + sent[1] - got[1],
			})
		}
	}
	return h
}

// interleaved gives the events in some order that keeps each node's.
func (h history) interleaved(r *rand.Rand) []agent.Event {
	var all []agent.Event
	rest := map[string][]agent.Event{}
	var nodes []string
	for node, events := range h.byNode {
		rest[node] = events
		nodes = append(nodes, node)
	}
	slices.Sort(nodes)
	for len(nodes) > 0 {
		i := r.IntN(len(nodes))
		node := nodes[i]
		all, rest[node] = append(all, rest[node][0]), rest[node][1:]
		if len(rest[node]) == 0 {
			nodes = slices.Delete(nodes, i, i+1)
		}
	}
	return all
}

// In whatever order the ends are heard, each rekey is told once, with exactly what was lost.
func TestLedger(t *testing.T) {
	t.Parallel()
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 1))
		h := newHistory(r)
		for range 4 {
			l := newLedger(h.plan)
			for _, e := range h.interleaved(r) {
				l.note(e)
			}
			got := l.rekeys()
			for i := range got {
				got[i].old = [2]sa{}
			}
			if !slices.Equal(got, h.want) {
				t.Fatalf("seed %d:\n got %+v\nwant %+v", seed, got, h.want)
			}
			if again := l.rekeys(); len(again) != len(got) || len(got) > 0 && again[0].lost != got[0].lost {
				t.Fatalf("seed %d: a second look sees %+v", seed, again)
			}
			if f := l.failures(); len(f) > 0 {
				t.Fatalf("seed %d: failures %q", seed, f)
			}
		}
	}
}

func pairPlan() *topology.Plan {
	return &topology.Plan{Tunnels: []topology.PlannedTunnel{planned("t", "a", "b")}}
}

func planned(name, a, b string) topology.PlannedTunnel {
	return topology.PlannedTunnel{
		Tunnel: topology.Tunnel{Name: name, A: topology.TunnelEnd{Node: a}, B: topology.TunnelEnd{Node: b}},
	}
}

// settle returns with the last count, waits no longer than it says, and ends with its context. What is replaced while it
// waits does not prolong it.
func TestLedgerSettles(t *testing.T) {
	t.Parallel()
	rekeyed := func(node string, in, out uint32, initiator bool) agent.Event {
		return agent.Event{Node: node, Tunnel: "t", Kind: ipsec.Rekeyed, Initiator: initiator, Old: ipsec.SPIPair{In: in, Out: out}}
	}
	retired := func(node string, in uint32) agent.Event {
		return agent.Event{Node: node, Tunnel: "t", Kind: ipsec.Retired, Old: ipsec.SPIPair{In: in}}
	}
	synctest.Test(t, func(t *testing.T) {
		l := newLedger(pairPlan())
		if err := l.settle(t.Context()); err != nil || len(l.rekeys()) != 0 {
			t.Errorf("nothing to wait for: %v", err)
		}
		// Every order of the four counts: only the last ends it.
		events := []agent.Event{rekeyed("a", 1, 2, true), rekeyed("b", 2, 1, false), retired("a", 1), retired("b", 2)}
		for last := range events {
			l := newLedger(pairPlan())
			l.note(events[0]) // what begins a rekey is known
			for i, e := range events[1:] {
				if i+1 != last {
					l.note(e)
				}
			}
			done := make(chan error, 1)
			go func() { done <- l.settle(t.Context()) }()
			synctest.Wait()
			select {
			case err := <-done:
				if last != 0 {
					t.Errorf("without event %d: settled, %v", last, err)
				}
			default:
				if last == 0 {
					t.Error("all is counted, and it waits")
				}
			}
			if last == 0 {
				continue
			}
			time.Sleep(settleTimeout - time.Millisecond)
			l.note(rekeyed("a", 3, 4, true)) // a further one
			l.note(events[last])
			if err := <-done; err != nil {
				t.Errorf("with event %d: %v", last, err)
			}
			if got := l.rekeys(); len(got) != 1 {
				t.Errorf("rekeys %+v", got)
			}
		}
		l = newLedger(pairPlan())
		l.note(events[0])
		began := time.Now()
		if err := l.settle(t.Context()); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != settleTimeout {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began = time.Now()
		if err := l.settle(ctx); err == nil || time.Since(began) != time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

func TestLedgerEstablished(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLedger(pairPlan())
		go func() {
			time.Sleep(time.Second)
			l.note(agent.Event{Node: "a", Tunnel: "t", Kind: ipsec.Established, Exchange: &keying.Report{In: 1}})
			l.note(agent.Event{Node: "b", Tunnel: "other", Kind: ipsec.Established, Exchange: &keying.Report{In: 2}})
			l.note(agent.Event{Node: "b", Tunnel: "t", Kind: ipsec.Established}) // whose exchange is not told
			time.Sleep(time.Second)
			l.note(agent.Event{Node: "b", Tunnel: "t", Kind: ipsec.Established, Exchange: &keying.Report{In: 3}})
		}()
		began := time.Now()
		if r, err := l.established(t.Context(), "t", "b"); err != nil || r.In != 3 || time.Since(began) != 2*time.Second {
			t.Errorf("%+v, %v after %v", r, err, time.Since(began))
		}
		if _, err := l.established(t.Context(), "none", "b"); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "none") {
			t.Errorf("%v", err)
		}
	})
}

// Failures are told with the node and the tunnel; events that were missed once for each node, however many say so.
func TestLedgerFailures(t *testing.T) {
	t.Parallel()
	l := newLedger(pairPlan())
	for i := range uint64(100) {
		l.note(agent.Event{Node: "a", Tunnel: "t", Kind: ipsec.Rekeyed, Missed: i})
	}
	l.note(agent.Event{Node: "b", Tunnel: "t", Kind: ipsec.Failed, Trigger: ipsec.ByTime, Error: "no way"})
	l.note(agent.Event{Node: "b", Kind: ipsec.Failed, Error: "stranger"})
	got := l.failures()
	if len(got) != 3 {
		t.Fatalf("%q", got)
	}
	for i, words := range [][]string{{"b", "t", "time", "no way"}, {"b", "stranger"}, {"a", "99"}} {
		for _, w := range words {
			if !strings.Contains(got[i], w) {
				t.Errorf("%q does not say %q", got[i], w)
			}
		}
	}
}
