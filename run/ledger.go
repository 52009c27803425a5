package run

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"pqlab/agent"
	"pqlab/ipsec"
	"pqlab/ipsec/keying"
	"pqlab/topology"
	"pqlab/traffic"
)

// settleTimeout bounds the wait for SAs that were replaced: their grace, and the time of the events on a busy machine.
const settleTimeout = ipsec.DefaultGrace + 30*time.Second

// ledger holds the packets that were sent on each SA against those that its other end accepted.
type ledger struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each event
	peers   map[string][2]string
	first   map[string]keying.Report // by tunnel and node: of Established
	sent    map[sa]uint64            // final counts of SAs that were replaced
	got     map[sa]uint64
	began   []rekey
	failed  []string
	spent   map[string]map[ipsec.Trigger]map[uint32]bool // SAs that reached a hard limit: by tunnel, limit and SPI
	missed  map[string]uint64                            // events, by node
}

// sa names an SA by the node that it leads to.
type sa struct {
	tunnel, to string
	spi        uint32
}

type rekey struct {
	tunnel  string
	trigger ipsec.Trigger
	at      traffic.Instant
	took    time.Duration
	old     [2]sa
	lost    uint64
}

func newLedger(plan *topology.Plan) *ledger {
	l := &ledger{
		changed: make(chan struct{}), peers: map[string][2]string{}, first: map[string]keying.Report{},
		sent: map[sa]uint64{}, got: map[sa]uint64{}, missed: map[string]uint64{},
		spent: map[string]map[ipsec.Trigger]map[uint32]bool{},
	}
	for _, t := range plan.Tunnels {
		l.peers[t.Name] = [2]string{t.A.Node, t.B.Node}
	}
	return l
}

// note takes one event of a tunnel's end.
func (l *ledger) note(e agent.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer func() {
		close(l.changed)
		l.changed = make(chan struct{})
	}()
	if e.Missed > 0 { // all that were missed until now
		l.missed[e.Node] = e.Missed
	}
	peer := l.peers[e.Tunnel][0]
	if peer == e.Node {
		peer = l.peers[e.Tunnel][1]
	}
	switch e.Kind {
	case ipsec.Established:
		if e.Exchange != nil {
			l.first[e.Tunnel+" "+e.Node] = *e.Exchange
		}
	case ipsec.Rekeyed:
		out, in := sa{e.Tunnel, peer, e.Old.Out}, sa{e.Tunnel, e.Node, e.Old.In}
		l.sent[out] = e.Replaced.Out.Packets
		if e.Initiator {
			l.began = append(l.began, rekey{
				tunnel: e.Tunnel, trigger: e.Trigger, at: e.At, took: e.Duration, old: [2]sa{out, in},
			})
		}
	case ipsec.Retired:
		l.got[sa{e.Tunnel, e.Node, e.Old.In}] = e.Replaced.In.Packets
	case ipsec.Failed:
		l.failed = append(l.failed, failure(e))
	case ipsec.Expired:
		l.expired(e)
	}
}

// expired takes a hard limit that was reached. Both ends of an SA tell of it. The lock is held.
func (l *ledger) expired(e agent.Event) {
	if l.spent[e.Tunnel] == nil {
		l.spent[e.Tunnel] = map[ipsec.Trigger]map[uint32]bool{}
	}
	of := l.spent[e.Tunnel]
	if of[e.Trigger] == nil {
		of[e.Trigger] = map[uint32]bool{}
	}
	for _, spi := range []uint32{e.Old.In, e.Old.Out} {
		if spi != 0 {
			of[e.Trigger][spi] = true
		}
	}
}

// spentSAs counts the SAs of a tunnel that reached a hard limit, by the limit.
func (l *ledger) spentSAs(tunnel string) map[ipsec.Trigger]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := map[ipsec.Trigger]int{}
	for limit, of := range l.spent[tunnel] {
		n[limit] = len(of)
	}
	return n
}

// wait returns when done does, which is called with the lock held after each event.
func (l *ledger) wait(ctx context.Context, what string, limit time.Duration, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		l.mu.Lock()
		changed := l.changed
		ok := done()
		l.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, ctx.Err())
		}
	}
}

// established gives what the first exchange of a tunnel took at a node, when its event is there.
func (l *ledger) established(ctx context.Context, tunnel, node string) (r keying.Report, err error) {
	err = l.wait(ctx, fmt.Sprintf("tunnel %s: waiting for node %s", tunnel, node), settleTimeout, func() bool {
		var ok bool
		r, ok = l.first[tunnel+" "+node]
		return ok
	})
	return r, err
}

func failure(e agent.Event) string {
	what := string(e.Kind)
	if e.Trigger != "" {
		what += " (" + string(e.Trigger) + ")"
	}
	if e.Tunnel == "" { // an exchange that no tunnel accepted
		return fmt.Sprintf("node %s: exchange %s: %s", e.Node, what, e.Error)
	}
	return fmt.Sprintf("node %s, tunnel %s: %s: %s", e.Node, e.Tunnel, what, e.Error)
}

// settle waits until the SAs that were replaced until now have been counted at both ends. Further ones may be replaced
// meanwhile, where a tunnel rekeys by time.
func (l *ledger) settle(ctx context.Context) error {
	l.mu.Lock()
	n := len(l.began)
	l.mu.Unlock()
	return l.wait(ctx, "waiting for the last rekeys to be counted", settleTimeout, func() bool {
		return !slices.ContainsFunc(l.began[:n], func(r rekey) bool { return !l.counted(r) })
	})
}

// counted says whether the SAs that a rekey replaced have been counted at both ends. The lock is held.
func (l *ledger) counted(r rekey) bool {
	for _, s := range r.old {
		_, sent := l.sent[s]
		_, got := l.got[s]
		if !sent || !got {
			return false
		}
	}
	return true
}

// rekeys gives those that have been counted, in the order of their times, each with the packets that were sent on the SAs
// it replaced and not accepted.
func (l *ledger) rekeys() []rekey {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []rekey
	for _, r := range l.began {
		if !l.counted(r) {
			continue
		}
		for _, s := range r.old {
			r.lost += l.sent[s] - min(l.sent[s], l.got[s])
		}
		all = append(all, r)
	}
	slices.SortStableFunc(all, func(a, b rekey) int { return cmp.Compare(a.at, b.at) })
	return all
}

func (l *ledger) failures() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := slices.Clone(l.failed)
	for _, node := range slices.Sorted(maps.Keys(l.missed)) {
		all = append(all, fmt.Sprintf("node %s: %d events were missed, so rekeys may be", node, l.missed[node]))
	}
	return all
}
