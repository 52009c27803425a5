package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"

	"pqlab/links/medium"
	"pqlab/topology"
	"pqlab/traffic"
)

// Effort is how much is sent to measure a link. Zero fields mean what a lab's verification takes.
type Effort struct {
	Probes int           // for the delay, at most; 1000
	Losses int           // for what is lost, at most; 5000
	Rate   time.Duration // for which the rate is asked for; 0.5 s
}

// Bounds of what is measured in a time that one waits for.
const (
	longestDelay  = 2 * time.Second
	longestJitter = 100 * time.Millisecond
	longestFrame  = 100 * time.Millisecond // that is sent for its delay or loss
	sampling      = time.Second            // of the delay, and as much again of losses
	shortestRate  = 500 * time.Millisecond
	longestRate   = 2 * time.Second
	easyRate      = 200 * topology.Mbit // costs a sender nothing
	fastestRate   = 20 * topology.Gbit  // no sender makes more, and no shaper paces so
)

const (
	// udp4Headers of a frame, as links count it: Ethernet without checksum, IPv4, UDP.
	udp4Headers = 14 + 20 + 8
	// patient is how much later than it should a packet may come before it is lost: a busy machine stands still for so long.
	patient = 500 * time.Millisecond
	// hasty is how long to wait where it does not matter what comes later.
	hasty = 100 * time.Millisecond
	// probeFrame is the size of a frame that is sent for its delay or loss, in bytes.
	probeFrame = 100
)

// Measure sends packets over a link both ways and says what became of them beside what p wants. The link is to have no
// other traffic. It begins anew afterwards, with its random choices and all that goes by its clock. What cannot be measured
// is no error.
func (l *Lab) Measure(ctx context.Context, p topology.PlannedLink, t topology.Tolerance, e Effort) (_ []Measured, err error) {
	link := l.links[p.Name]
	state := link.State()
	m := []Measured{
		{Link: p.Name, From: p.A.Node, To: p.B.Node},
		{Link: p.Name, From: p.B.Node, To: p.A.Node},
	}
	for side := range m {
		m[side].At, m[side].Shaper, m[side].Asked, m[side].Wanted = p.At, state.Shaper, p.Does(p.Shape), p.Shape
	}
	if most := fastest(p.Shape); most > fastestRate && len(link.Ignored) == 0 {
		for side := range m {
			m[side].Unreached = &Unreached{Wanted: float64(most), Most: float64(fastestRate)}
		}
	}
	if why := unmeasurable(p, link.Ignored); why != "" {
		for side := range m {
			m[side].Unmeasured = []string{why}
		}
		return m, nil
	}
	for side := range m {
		m[side].Unmeasured = unseen(p.Shape)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("link %s: measuring it: %w", p.Name, err)
		}
	}()
	w, err := l.openWay(p)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	defer func() {
		after := link.State()
		for side := range m {
			m[side].Lateness, m[side].Missed = after.Wire[side].Lateness, after.Wire[side].Missed
		}
		err = errors.Join(err, beginAnew(link))
	}()
	both := func(f func(s *sample) error) error {
		g := errgroup.Group{}
		for side := range m {
			g.Go(func() error { return f(&sample{ctx, w, side, &m[side], t, e}) })
		}
		return g.Wait()
	}
	if err := both((*sample).delay); err != nil {
		return nil, err
	}
	if err := both((*sample).loss); err != nil {
		return nil, err
	}
	if p.Rate <= easyRate {
		return m, both((*sample).rate)
	}
	// Together they would take each other's processor.
	for side := range m {
		if err := (&sample{ctx, w, side, &m[side], t, e}).rate(); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// fastest is the highest rate that a shape has at any time.
func fastest(s topology.Shape) topology.Rate {
	most := s.Rate
	for _, step := range s.RateTrace {
		most = max(most, step.Rate)
	}
	return most
}

// unmeasurable says why a link is not measured at all; "" if it is.
func unmeasurable(p topology.PlannedLink, ignored []string) string {
	switch {
	case len(ignored) > 0:
		return "it was made without its shape"
	case p.WiFi != nil:
		return "what a station gets depends on all that share the air"
	case takes(p.Rate, probeFrame) > longestFrame:
		return fmt.Sprintf("a rate of %v takes too long", p.Rate)
	case p.Delay > longestDelay:
		return fmt.Sprintf("a delay of %v takes too long", p.Delay)
	case p.Jitter > longestJitter:
		return fmt.Sprintf("a delay that varies by %v takes too many packets", p.Jitter)
	case len(p.Outages) > 0, len(p.RateTrace) > 0, len(p.LossTrace) > 0:
		return "it changes by a schedule"
	}
	return ""
}

// unseen is what is asked of a shape that nothing here measures, of a link that is measured otherwise.
func unseen(s topology.Shape) (all []string) {
	if s.Reordering > 0 {
		all = append(all, "reordering")
	}
	if s.Queue != (topology.Queue{}) {
		all = append(all, s.Queue.String())
	}
	return all
}

// way is a link with an address at each end that nothing else has.
type way struct {
	addresses [2]netip.Addr
	inside    [2]func(func() error) error
	mtu       int
	undo      []func() error
}

// openWay gives both ends an address of the network for benchmarks (RFC 2544 section C.2.2), and tells each the other's
// hardware address: packets that asked for it might be lost.
func (l *Lab) openWay(p topology.PlannedLink) (_ *way, err error) {
	number := slices.IndexFunc(l.Plan.Links, func(o topology.PlannedLink) bool { return o.Name == p.Name })
	if number < 0 || number >= 1<<16 {
		return nil, errors.New("no address is left for it")
	}
	w := &way{mtu: p.MTU}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	var handles [2]*netlink.Handle
	var devices [2]netlink.Link
	for side, end := range []topology.End{p.A, p.B} {
		ns := l.nodes[end.Node].ns
		host := uint32(198<<24|18<<16) + uint32(2*number+side)
		w.addresses[side] = netip.AddrFrom4([4]byte{byte(host >> 24), byte(host >> 16), byte(host >> 8), byte(host)})
		w.inside[side] = ns.Do
		if handles[side], err = ns.Netlink(); err != nil {
			return nil, err
		}
		if devices[side], err = handles[side].LinkByName(end.Interface); err != nil {
			return nil, fmt.Errorf("node %s: %s: %w", end.Node, end.Interface, err)
		}
	}
	for side, h := range handles {
		address := &netlink.Addr{IPNet: &net.IPNet{IP: w.addresses[side].AsSlice(), Mask: net.CIDRMask(31, 32)}}
		if err := h.AddrAdd(devices[side], address); err != nil {
			return nil, fmt.Errorf("address %v: %w", address, err)
		}
		w.undo = append(w.undo, func() error { return h.AddrDel(devices[side], address) })
		neighbour := &netlink.Neigh{
			LinkIndex: devices[side].Attrs().Index, State: netlink.NUD_PERMANENT,
			IP: w.addresses[1-side].AsSlice(), HardwareAddr: devices[1-side].Attrs().HardwareAddr,
		}
		if err := h.NeighSet(neighbour); err != nil {
			return nil, fmt.Errorf("neighbour %v: %w", w.addresses[1-side], err)
		}
		w.undo = append(w.undo, func() error { return h.NeighDel(neighbour) })
	}
	return w, nil
}

func (w *way) close() (err error) {
	for _, undo := range slices.Backward(w.undo) {
		err = errors.Join(err, undo())
	}
	return err
}

// sample measures one direction.
type sample struct {
	ctx       context.Context
	way       *way
	side      int // that sends
	m         *Measured
	tolerance topology.Tolerance
	effort    Effort
}

// send tells what became of the frames of that size that f sends. What comes later than patience after all others is lost.
func (s *sample) send(frame int, patience time.Duration, f func(*traffic.Prober) error) (_ traffic.Fates, err error) {
	p, err := traffic.NewProber(s.way.inside[s.side], s.way.inside[1-s.side], netip.AddrPortFrom(s.way.addresses[1-s.side], 0), frame-udp4Headers)
	if err != nil {
		return traffic.Fates{}, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	if err := f(p); err != nil {
		return traffic.Fates{}, err
	}
	w := s.m.Wanted
	return p.Finish(s.ctx, patience+w.Delay+6*w.Jitter+5*takes(w.Rate, frame))
}

// pace is how many packets can be sent in a time, and how far apart.
func pace(apart, in time.Duration, most int) (n int, gap time.Duration) {
	const least = 4
	return max(least, min(most, int(in/apart))), apart
}

func (s *sample) unmeasured(format string, args ...any) {
	s.m.Unmeasured = append(s.m.Unmeasured, fmt.Sprintf(format, args...))
}

// missed notes in place of what was to be measured that the receiver could not keep up.
func (s *sample) missed(what string, err error) error {
	if errors.Is(err, traffic.ErrReceiver) {
		s.unmeasured("%s: %v", what, err)
		return nil
	}
	return err
}

// delay sends packets so far apart that none waits for the one before.
func (s *sample) delay() error {
	w := s.m.Wanted
	sending := takes(w.Rate, probeFrame)
	each := (1 - s.tolerance.Confidence) / (3 + 2) // what a quantile may miss
	miss := 3 * each                               // what quartiles may
	n, gap := pace(max(time.Millisecond, 2*w.Jitter, 4*sending), sampling*time.Duration(max(1, s.effort.Probes/300)), cmp.Or(s.effort.Probes, 1000))
	n = max(n, enough(miss))
	began := time.Now()
	got, err := s.send(probeFrame, patient, func(p *traffic.Prober) error { return p.Send(s.ctx, n, gap) })
	if err != nil {
		return s.missed("delay", err)
	}
	if !lossy(w) {
		// What is not sent more than that should not be lost either.
		s.m.Loss = share(0, got.Missing(), n, 1, s.tolerance.Confidence)
	}
	delays := got.Delays()
	if len(delays) == 0 {
		s.unmeasured("delay: none of %d packets came", n)
		return nil
	}
	d := &MeasuredDelay{
		Packets: len(delays), Sending: sending, Woken: wokenOf(got.Sent, gap),
		Least: delays[0], P99: delays[len(delays)*99/100], Most: delays[len(delays)-1],
	}
	took := time.Since(began)
	modelled := delaysOf(w, gap)
	for i, p := range quarters() {
		d.Wanted[i] = quantile(modelled, p)
	}
	d.Seen, d.Low, d.High = quartiles(delays, miss, took)
	for _, p := range []float64{0.9, 0.99} {
		low, high := bounds(delays, p, each, took)
		d.Tail = append(d.Tail, MeasuredQuantile{Share: p, Wanted: quantile(modelled, p), Seen: quantile(delays, p), Low: low, High: high})
	}
	s.m.Delay = d
	if len(delays) < enough(miss) {
		s.unmeasured("delay: of %d packets the median is not known with %s", len(delays), percent(s.tolerance.Confidence))
	}
	if wide := max(d.High[1]-d.Low[1], d.High[2]-d.Low[0]) / 2; w.Jitter > 0 && wide > 2*w.Jitter+s.tolerance.Jitter {
		s.unmeasured("jitter %v: of %d packets the quartiles are known within %v only", w.Jitter, len(delays), micros(wide))
	}
	return nil
}

func lossy(w topology.Shape) bool { return w.Loses() || w.Duplication > 0 }

// loss sends many packets, at no more than a quarter of the rate: what a machine that stands still sends late has to find
// room in the queue.
func (s *sample) loss() error {
	w := s.m.Wanted
	if !lossy(w) {
		return nil
	}
	apart := 200 * time.Microsecond
	if s.effort.Losses > 5000 {
		apart /= 4
	}
	n, gap := pace(max(apart, 4*takes(w.Rate, probeFrame)), sampling*time.Duration(max(1, s.effort.Losses/5000)), cmp.Or(s.effort.Losses, 5000))
	got, err := s.send(probeFrame, patient, func(p *traffic.Prober) error { return p.Send(s.ctx, n, gap) })
	if err != nil {
		return s.missed("loss", err)
	}
	wanted, inflation := lossOf(w, probeFrame)
	s.m.Loss = share(wanted, got.Missing(), n, inflation, s.tolerance.Confidence)
	if !s.m.Loss.tells(inflation, s.tolerance.Confidence) {
		s.unmeasured("loss %s: %d packets are too few to tell it from none", percent(wanted), n)
	}
	if w.Duplication > 0 {
		_, repeated := got.Overtaken()
		s.m.Duplication = share(duplicationOf(w, probeFrame), repeated, n, 1, s.tolerance.Confidence)
		if !s.m.Duplication.tells(1, s.tolerance.Confidence) {
			s.unmeasured("duplication %s: %d packets are too few to tell it from none", percent(w.Duplication), n)
		}
	}
	return nil
}

// rate sends more than the link passes.
func (s *sample) rate() error {
	w := s.m.Wanted
	switch {
	case w.Rate == 0:
		return nil
	case s.m.Unreached != nil:
		s.unmeasured("rate %v: %v", w.Rate, s.m.Unreached)
		return nil
	}
	// The jitter of the first and of the last packet is to be small beside the time.
	d := max(cmp.Or(s.effort.Rate, shortestRate), min(time.Duration(8*float64(w.Jitter)/max(s.tolerance.Rate, 0.001)), longestRate))
	const frames = 250 // are enough
	frame := min(max(int(float64(w.Rate)/8*d.Seconds()/frames), probeFrame), s.way.mtu+14)
	d = max(d, min(time.Duration(atOnce(w.Rate, frame)+frames/4)*takes(w.Rate, frame), longestRate))
	// The more the sooner the queue is full, and the less it matters that a busy machine lets the sender wait.
	times := 1.5
	if w.Rate <= easyRate {
		times = 3
	}
	perSecond := times * float64(w.Rate) / 8 / float64(frame)
	// The queue has to take what comes at once, or it is empty while more is dropped than waits. A token bucket passes a large
	// segment whole, and the time measured ends with one.
	const short = 500 * time.Microsecond
	most := min(medium.Room(w, s.way.mtu)/2, int(float64(w.Rate)/8*short.Seconds())) / frame
	got, err := s.send(frame, hasty, func(p *traffic.Prober) error { return p.Flood(s.ctx, perSecond, d, most) })
	if err != nil {
		return s.missed("rate", err)
	}
	r, slow, why := rateOf(got, w, frame)
	s.m.Unreached = slow
	if why != "" {
		s.unmeasured("rate %v: %s", w.Rate, why)
		return nil
	}
	s.m.Rate = r
	return nil
}
