package overlinks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"pqlab/experiments"
	"pqlab/experiments/samples"
	"pqlab/internal/netns"
	"pqlab/lab"
	"pqlab/links/medium"
	"pqlab/nodes"
	"pqlab/pqc"
	"pqlab/topology"
)

// maxLabs is how many labs are up at once. What they do is mostly to wait.
const maxLabs = 24

// exchangeCPU is about what an exchange costs both ends, Falcon's keys included, and its link. Labs are at work together as
// long as they take less than half of the cores by that: an exchange that waits for a core is not what is measured.
const exchangeCPU = 30 * time.Millisecond

// queue is what waits for a link's rate: enough that no message of an exchange is dropped because it is long.
func queue() topology.Queue { return topology.Queue{Bytes: 64 << 10} }

// Measure runs the experiment. Every exchange is one between two agents over a shaped link.
func Measure(ctx context.Context, o Options) (Result, error) {
	out := Result{
		About: experiments.Begin(Name, o.Version, o.Command, o.Seed), Identity: "fresh", Repeats: o.Repeats, Lossy: o.repeats(Link{Loss: 1}),
		LimitMs: ms(o.Limit), Queue: queue().String(), Confidence: confidence,
	}
	if o.Pinned {
		out.Identity = "pinned"
	}
	m := &measurement{Options: o, queue: queue(), schedule: out.Schedule}
	if err := m.check(); err != nil {
		return out, err
	}
	if m.queue == (topology.Queue{}) {
		out.Queue = "the shaper's own"
		out.Warnings = append(out.Warnings, "the shaper has no queues of a given size: its own hold 20 ms at the rate, and at low rates may drop what is a burst of more than that")
	}
	for _, d := range o.Devices {
		cells, err := m.grid(ctx, d)
		if errors.Is(err, nodes.ErrNoCgroup) {
			out.Warnings = append(out.Warnings, fmt.Sprintf("not measured with the devices %v: %v", d, err))
			continue
		}
		if err != nil {
			return out, err
		}
		out.Cells = append(out.Cells, cells...)
	}
	if len(out.Cells) == 0 {
		return out, fmt.Errorf("%w: %s", errors.ErrUnsupported, out.Warnings[len(out.Warnings)-1])
	}
	out.Dataplane, out.Shaper = m.dataplane, m.shaper
	out.Warnings = append(out.Warnings, m.caveats()...)
	out.Warnings = append(out.Warnings, reasons(out.Cells)...)
	out.Timing(m.schedule)
	out.Seconds = time.Since(out.Started).Seconds()
	out.Evaluate()
	return out, nil
}

// measurement is a run under way.
type measurement struct {
	Options
	queue topology.Queue // zero: the shaper's own

	mu                sync.Mutex
	done              int // points
	dataplane, shaper string
	warnings          []string
	schedule          experiments.Schedule
	dropped           uint64 // packets for which there was no room
}

// check refuses what no lab can be, before any is made. A shaper that has no queues of a given size is taken with its own.
func (m *measurement) check() error {
	try := func() error {
		for _, l := range m.links() {
			plan, err := m.plan(Devices{}, l, 0)
			if err != nil {
				return err
			}
			if err := experiments.Shapeable(plan, m.Lab.Shaper); err != nil {
				return err
			}
		}
		return nil
	}
	err := try()
	if errors.Is(err, errors.ErrUnsupported) {
		m.queue = topology.Queue{}
		err = try()
	}
	return err
}

// links are all points, the slowest first: what takes longest begins first.
func (m *measurement) links() []Link {
	var all []Link
	for _, d := range m.Delays {
		for _, loss := range m.Losses {
			for _, r := range m.Rates {
				all = append(all, Link{r, ms(d), loss})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Link) int {
		return cmp.Or(cmp.Compare(b.DelayMs, a.DelayMs), cmp.Compare(b.Loss, a.Loss), cmp.Compare(a.Rate, b.Rate))
	})
	return all
}

// plan is the lab of a point. Each has a seed of its own, so that not the same packets are lost in all.
func (m *measurement) plan(d Devices, l Link, number int) (*topology.Plan, error) {
	seed := m.Seed*1_000_003 + uint64(number)
	options := []topology.LinkOption{topology.Name("link"), l.Rate, topology.Delay(l.delay()), topology.LinkSeed(seed)}
	if l.Loss > 0 {
		options = append(options, topology.Loss(l.Loss))
	}
	if m.queue != (topology.Queue{}) {
		options = append(options, m.queue)
	}
	tunnel := []topology.TunnelOption{topology.Suite(m.Suites[0].String()), topology.Deadline(m.Limit)}
	if m.Pinned {
		tunnel = append(tunnel, topology.Identity("pinned"))
	}
	return topology.New(fmt.Sprintf("over-links-%d", number)).Seed(seed).
		Host("a", topology.Profile(d.Initiator)).Host("b", topology.Profile(d.Responder)).
		Ethernet("a", "b", options...).Tunnel("ab", "a", "b", tunnel...).Plan()
}

// share is what one lab measures of a point.
type share struct {
	Link
	point, number, repeats int
}

// leastShare is worth a lab.
const leastShare = 10

// shares of all points. One with more repeats than others is measured in several labs, each with a seed of its own, lest all
// wait for it.
func (m *measurement) shares() (all []share) {
	points := m.links()
	for i, l := range points {
		n := m.repeats(l)
		most := max(m.Repeats, leastShare)
		for left, number := n, i; left > 0; left, number = left-most, number+len(points) {
			all = append(all, share{l, i, number, min(left, most)})
		}
	}
	return all
}

// grid measures all points between two devices, several at once.
func (m *measurement) grid(ctx context.Context, d Devices) ([]Cell, error) {
	shares := m.shares()
	measured := make([][]Cell, len(shares))
	const unit = 1000 // of a core
	room := int64(runtime.NumCPU()) * unit / 2
	cores := semaphore.NewWeighted(room)
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(maxLabs)
	for i, s := range shares {
		if ctx.Err() != nil {
			break
		}
		all.Go(func() error {
			weight := min(room, int64(unit*float64(exchangeCPU)/float64(s.about())))
			if err := cores.Acquire(ctx, weight); err != nil {
				return err
			}
			defer cores.Release(weight)
			var err error
			if measured[i], err = m.point(ctx, d, s); err != nil {
				return fmt.Errorf("%v, %v: %w", d, s.Link, err)
			}
			m.tell(len(shares)*len(m.Devices), fmt.Sprintf("%v, %v", d, s.Link))
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		return nil, err
	}
	cells := make([][]Cell, len(m.links()))
	for i, s := range shares {
		if cells[s.point] == nil {
			cells[s.point] = measured[i]
			continue
		}
		for k := range measured[i] {
			cells[s.point][k].add(measured[i][k])
		}
	}
	flat := slices.Concat(cells...)
	for i := range flat {
		flat[i].summarize()
	}
	slices.SortStableFunc(flat, func(a, b Cell) int { return compareLinks(a.Link, b.Link) })
	return flat, nil
}

// about is how long an exchange takes: four round trips, 12 kB both ways, computing, and TCP's timeouts, of 1 s for two
// packets and of some 300 ms for 14.
func (l Link) about() time.Duration {
	lost := l.Loss * (2*1 + 14*0.3)
	return 8*l.delay() + exchangeCPU + time.Duration((12e3*8/float64(l.Rate)+lost)*float64(time.Second))
}

func (m *measurement) tell(of int, what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done++
	if m.Progress != nil {
		m.Progress(float64(m.done)/float64(of), what)
	}
}

// point measures all suites over one link, in turns. Its lab is up for that long.
func (m *measurement) point(ctx context.Context, d Devices, s share) (_ []Cell, err error) {
	plan, err := m.plan(d, s.Link, s.number)
	if err != nil {
		return nil, err
	}
	made, err := lab.Up(ctx, plan, m.Lab)
	if err != nil {
		return nil, err
	}
	ctx, release := made.Guard(ctx)
	defer release()
	defer func() { err = errors.Join(err, made.Down(context.WithoutCancel(ctx))) }()
	p := &point{lab: made, plan: made.Tunnel("ab").Plan, limit: m.Limit}
	if err := p.prepare(d); err != nil {
		return nil, err
	}
	// The first exchange finds no neighbours and nothing in the caches.
	if _, err := p.exchange(ctx, m.Suites[0]); err != nil {
		return nil, err
	}
	cells := make([]Cell, len(m.Suites))
	for i, suite := range m.Suites {
		cells[i] = Cell{Devices: d, Link: s.Link, Suite: suite.String()}
	}
	for round := range s.repeats {
		for turn := range m.Suites {
			i := (turn + round) % len(m.Suites)
			if round/len(m.Suites)%2 == 1 { // so that no suite always comes after the same one
				i = len(m.Suites) - 1 - i
			}
			x, err := p.exchange(ctx, m.Suites[i])
			if err != nil {
				return nil, err
			}
			c := &cells[i]
			c.values = append(c.values, x.ms)
			c.again += x.retransmitted
			if x.bytes > 0 {
				c.sizes = append(c.sizes, float64(x.bytes))
			}
			if x.why != "" && !slices.Contains(c.Why, x.why) {
				c.Why = append(c.Why, x.why)
			}
		}
	}
	state, err := made.Tunnel("ab").State(ctx, "a")
	if err != nil {
		return nil, err
	}
	late := m.note(made, fmt.Sprintf("%v, %v", d, s.Link), state.Dataplane)
	for i := range cells {
		cells[i].Late = late
	}
	return cells, nil
}

// note remembers what made the point what it was. It says whether the link's schedule was not kept.
func (m *measurement) note(made *lab.Lab, what, dataplane string) (late bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dataplane, m.shaper = dataplane, made.ShapedBy()
	for _, w := range made.Warnings {
		if !slices.Contains(m.warnings, w) {
			m.warnings = append(m.warnings, w)
		}
	}
	for _, w := range made.Link("link").State().Wire {
		m.dropped += w.Fates[medium.LostQueue] + w.Missed
	}
	before := m.schedule.Late
	m.schedule.Note(what, made)
	return m.schedule.Late > before
}

// caveats says what the figures must not be taken for.
func (m *measurement) caveats() []string {
	all := slices.Clone(m.warnings)
	if m.dropped > 0 {
		all = append(all, fmt.Sprintf("%d packets were dropped by a full queue: not only what a link's loss says was lost", m.dropped))
	}
	return all
}

// reasons says why exchanges failed before the limit: each reason once, with the first link of it.
func reasons(cells []Cell) (all []string) {
	var seen []string
	for _, c := range cells {
		for _, why := range c.Why {
			if !slices.Contains(seen, why) {
				seen = append(seen, why)
				all = append(all, fmt.Sprintf("no tunnel, and not for want of time, as with %s over %v: %s", c.Suite, c.Link, why))
			}
		}
	}
	return all
}

// point is a lab that is up.
type point struct {
	lab   *lab.Lab
	plan  topology.PlannedTunnel
	limit time.Duration
}

// prepare makes connections owe nothing to those before them, and the nodes' cores as slow as the devices'.
func (p *point) prepare(d Devices) error {
	for node, profile := range map[string]string{"a": d.Initiator, "b": d.Responder} {
		n := p.lab.Node(node)
		// The kernel remembers round trips and windows of a peer for the next connection.
		if err := n.Namespace().Set(netns.Sysctl{Key: "net/ipv4/tcp_no_metrics_save", Value: "1"}); err != nil {
			return fmt.Errorf("node %s: %w", node, err)
		}
		if profile != "" {
			if err := n.CapCore(); err != nil {
				return err
			}
		}
	}
	return nil
}

// took is one exchange.
type took struct {
	ms            float64 // samples.Never: no tunnel within the limit
	bytes         int
	retransmitted uint64
	why           string // it failed before the limit
}

// exchange keys the tunnel, which has no keys, with a suite. An error is of the lab; an exchange that failed is none.
func (p *point) exchange(ctx context.Context, s pqc.Suite) (out took, err error) {
	tunnel := p.lab.Tunnel("ab")
	plan := p.plan
	plan.Suite = s.String()
	if err := tunnel.Replace(ctx, plan); err != nil {
		return out, err
	}
	before, err := p.retransmitted()
	if err != nil {
		return out, err
	}
	limited, cancel := context.WithTimeout(ctx, p.limit)
	began := time.Now()
	r, failed := tunnel.Establish(limited)
	out.ms = ms(time.Since(began))
	cancel()
	after, err := p.retransmitted()
	if err = errors.Join(err, context.Cause(ctx)); err != nil {
		return out, err
	}
	out.bytes, out.retransmitted = r.Traffic.Sent+r.Traffic.Received, after-before
	if failed != nil {
		if !errors.Is(failed, context.DeadlineExceeded) && out.ms < ms(p.limit) {
			out.why = failed.Error()
		}
		out.ms, out.bytes = samples.Never(), 0
	}
	return out, nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
