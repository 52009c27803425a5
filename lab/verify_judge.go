package lab

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"time"

	"pqlab/links/medium"
	"pqlab/topology"
	"pqlab/traffic"
)

// judge says what is out of tolerance: what would be so for all values that the truth may have.
func (m Measured) judge(t topology.Tolerance) (off []OutOfTolerance) {
	add := func(what, wanted, seen, within, tolerance string) {
		at := m.At.Link
		if what == "rate" {
			at = m.At.Rate
		}
		off = append(off, OutOfTolerance{
			Link: m.Link, From: m.From, To: m.To, At: at, Shaper: m.Shaper, What: what, Wanted: wanted, Seen: seen, Within: within, Tolerance: tolerance,
			Lateness: m.Lateness,
		})
	}
	confidence := percent(t.Confidence)
	if d := m.Delay; d != nil {
		between := func(q int) string {
			return fmt.Sprintf("%v to %v with %s", micros(d.Low[q]), micros(d.High[q]), confidence)
		}
		const first, median, third = 0, 1, 2
		if d.High[median] < d.Wanted[median] || d.Low[median] > d.Wanted[median]+d.Sending+t.Delay {
			add("median delay", micros(d.Wanted[median]).String(), micros(d.Seen[median]).String(), between(median), t.Delay.String())
		}
		// The jitter is that about the median, which may be anywhere in its interval.
		early, late := d.Low[median]-d.Wanted[median], d.High[median]-d.Wanted[median]
		for _, q := range []int{first, third} {
			if d.High[q] < d.Wanted[q]+early-t.Jitter || d.Low[q] > d.Wanted[q]+late+t.Jitter {
				what := map[int]string{first: "first quartile of the delay, about the median", third: "third quartile of the delay, about the median"}[q]
				add(what, micros(d.Wanted[q]-d.Wanted[median]).String(), micros(d.Seen[q]-d.Seen[median]).String(),
					fmt.Sprintf("%v to %v with %s", micros(d.Low[q]-d.High[median]), micros(d.High[q]-d.Low[median]), confidence), t.Jitter.String())
			}
		}
	}
	for _, f := range m.tails(t) {
		if f.excused == "" {
			add(f.what, micros(f.Wanted).String(), micros(f.Seen).String(), fmt.Sprintf("%v to %v with %s", micros(f.Low), micros(f.High), confidence), f.tolerance.String())
		}
	}
	for i, s := range []*MeasuredShare{m.Loss, m.Duplication} {
		if s != nil && (s.Wanted < s.Low || s.Wanted > s.High) {
			add([]string{"loss", "duplication"}[i], percent(s.Wanted), fmt.Sprintf("%s, %d of %d packets", percent(s.Seen), s.Count, s.Packets),
				fmt.Sprintf("%s to %s with %s", percent(s.Low), percent(s.High), confidence), "")
		}
	}
	if r := m.Rate; r != nil && (r.High < r.Wanted*(1-t.Rate) || r.Low > r.Wanted*(1+t.Rate)) {
		within := ""
		if r.High > r.Low {
			within = bitRate(r.Low) + " to " + bitRate(r.High)
		}
		add("rate", bitRate(r.Wanted), bitRate(r.Seen), within, percent(t.Rate))
	}
	if u := m.Unreached; u != nil {
		add("rate", topology.Rate(u.Wanted).String(), u.String(), "", "")
	}
	return off
}

// tailFault is what is wrong with a tail of a delay.
type tailFault struct {
	MeasuredQuantile
	what      string
	tolerance time.Duration
	excused   string // why it is not the link's; "" if it is
}

// tails says which tails of the delay are out of tolerance, about the median. What the machine made late is not the link's fault: a
// wire counts that, but not for packets that it passes on at once, and what shapes the link waits for a processor as what sends does.
func (m Measured) tails(t topology.Tolerance) (off []tailFault) {
	d := m.Delay
	if d == nil {
		return nil
	}
	early, late := d.Low[1]-d.Wanted[1], d.High[1]-d.Wanted[1]
	busy := max(m.Lateness.Max, 2*d.Woken)
	for _, q := range d.Tail {
		f := tailFault{MeasuredQuantile: q, what: fmt.Sprintf("%.0f%% of the delay, about the median", q.Share*100), tolerance: t.Tail}
		switch latest := q.Wanted + late + t.Tail; {
		case q.High < q.Wanted+early-t.Tail:
			off = append(off, f)
		case q.Low > latest+busy:
			off = append(off, f)
		case q.Low > latest:
			f.excused = fmt.Sprintf("%.0f%% of the delay: this machine is busy, and made things late by %v", q.Share*100, micros(max(m.Lateness.Max, d.Woken)))
			off = append(off, f)
		}
	}
	return off
}

func micros(d time.Duration) time.Duration { return d.Round(time.Microsecond) }
func percent(share float64) string         { return strconv.FormatFloat(share*100, 'g', 6, 64) + "%" }

func bitRate(bits float64) string {
	if bits >= 1e10 {
		return fmt.Sprintf("%.4gGbit/s", bits/1e9)
	}
	return fmt.Sprintf("%.4gMbit/s", bits/1e6)
}

// share is what k of n packets say of a share, which may come in bursts: inflation is how many times more that makes the
// count vary, and so how many times fewer packets they are worth.
func share(wanted float64, k, n int, inflation, confidence float64) *MeasuredShare {
	s := &MeasuredShare{Packets: n, Count: k, Wanted: wanted}
	if n > 0 {
		s.Seen = float64(k) / float64(n)
	}
	worth := int(float64(n) / inflation)
	s.Low, s.High = traffic.Interval(int(math.Round(s.Seen*float64(worth))), worth, 1-confidence)
	if k == 0 { // rounded
		s.Low = 0
	}
	return s
}

// tells says whether so many packets can tell the share from none.
func (s *MeasuredShare) tells(inflation, confidence float64) bool {
	return s.Wanted == 0 || !traffic.Likely(0, int(float64(s.Packets)/inflation), s.Wanted, 1-confidence)
}

// lossOf is the share of frames of that size that a shape makes their receiver miss, and by how much its bursts inflate the
// variance of their number.
func lossOf(s topology.Shape, frame int) (missing, inflation float64) {
	inflation = 1
	if g := s.Chain(); g != (topology.GilbertElliott{}) {
		bad := g.P / (g.P + g.R)
		missing = bad*g.Bad + (1-bad)*g.Good
		// The states of a Markov chain of two are correlated by 1-P-R a step.
		if keeps := 1 - g.P - g.R; keeps > 0 && missing > 0 && missing < 1 {
			of := bad * (1 - bad) * (g.Bad - g.Good) * (g.Bad - g.Good) / (missing * (1 - missing)) // of the variance that the chain makes
			inflation = 1 + of*2*keeps/(1-keeps)
		}
	}
	// Of a packet that is both lost and duplicated one comes; a bit of the sender's hardware address nobody misses, and one
	// bit of the receiver's makes it that of a group.
	seen := 1 - (6+1.0/8)/float64(frame)
	missing *= 1 - s.Duplication
	return missing + (1-missing)*s.Corruption*seen, inflation
}

// duplicationOf is the share of frames of that size that come twice: neither may be lost.
func duplicationOf(s topology.Shape, frame int) float64 {
	alone := s
	alone.Duplication = 0
	missing, _ := lossOf(alone, frame)
	return s.Duplication * (1 - missing) * (1 - missing)
}

// atOnce is how many frames may come faster than at the rate because the link was idle: a token bucket's 4 ms, but 4000
// bytes at least, and what it gets while it is emptied at one and a half times its rate.
func atOnce(rate topology.Rate, frame int) int {
	return int(3*max(float64(rate)/8*0.004, 4000)/float64(frame)) + 2
}

// rateOf is the rate at which frames of that size came while more were sent than pass. If they do not tell it there is none, but
// why, and where the sender made no more than the rate, what it made.
func rateOf(got traffic.Fates, w topology.Shape, frame int) (_ *MeasuredRate, slow *Unreached, why string) {
	first := atOnce(w.Rate, frame)
	const least = 20
	offered := offeredOf(got, w, frame)
	if len(got.Arrived) < first+least {
		if offered > 0 && offered < 1.05*float64(w.Rate) && len(got.Sent) > least {
			slow = &Unreached{Wanted: float64(w.Rate), Most: offered, Sent: true}
		}
		return nil, slow, fmt.Sprintf("only %d frames of %d came, too few", len(got.Arrived), len(got.Sent))
	}
	arrived := got.Arrived[first:]
	last := len(arrived) - 1
	r := &MeasuredRate{Wanted: float64(w.Rate), Time: arrived[last].At.Sub(arrived[0].At)}
	// Corrupted frames take their part of the rate and do not come.
	noCorruption := w
	noCorruption.Corruption = 0
	all, _ := lossOf(w, frame)
	chance, _ := lossOf(noCorruption, frame)
	bits := float64(last) * float64(frame) * 8 * (1 - chance) / (1 - all)
	seconds := r.Time.Seconds()
	if seconds <= 0 {
		return nil, nil, "all came at once"
	}
	spread := math.Sqrt2 * 2 * w.Jitter.Seconds()
	r.Seen, r.Low, r.High = bits/seconds, bits/(seconds+spread), math.Inf(1)
	if spread < seconds {
		r.High = bits / (seconds - spread)
	}
	if spread > seconds/4 {
		return nil, nil, fmt.Sprintf("a jitter of %v hides it", w.Jitter)
	}
	// Where the link is what is slow all wait, or some are dropped.
	waited := make([]time.Duration, len(arrived))
	for i, a := range arrived {
		waited[i] = a.Delay - w.Delay
	}
	slices.Sort(waited)
	const short = 2 * time.Millisecond
	if offered < 1.05*r.Wanted && offered < 1.05*r.Seen && waited[len(waited)/10] < short+w.Jitter {
		slow := &Unreached{Wanted: r.Wanted, Most: offered, Sent: true}
		return nil, slow, slow.String()
	}
	return r, nil, ""
}

// offeredOf is the rate at which frames of that size were sent of which the rate has to take its part; 0 if they were too few.
func offeredOf(got traffic.Fates, w topology.Shape, frame int) float64 {
	if len(got.Sent) < 2 {
		return 0
	}
	noCorruption := w
	noCorruption.Corruption = 0
	chance, _ := lossOf(noCorruption, frame)
	last := len(got.Sent) - 1
	return float64(last) * float64(frame) * 8 / got.Sent[last].Sub(got.Sent[0]).Seconds() * (1 - chance)
}

// delaysOf are those of many packets, sorted, that are sent gap apart, without what their rate adds.
func delaysOf(s topology.Shape, gap time.Duration) []time.Duration {
	if s.Jitter == 0 && s.Reordering == 0 {
		return []time.Duration{s.Delay}
	}
	varies := topology.Shape{
		Delay: s.Delay, Jitter: s.Jitter, Distribution: s.Distribution, Table: s.Table, Unordered: s.Unordered, Reordering: s.Reordering,
	}
	// What a model of the link does to very many, whose order it may have to keep.
	const packets = 20000
	m := medium.NewLink([2]topology.Shape{varies, varies}, 1500, [2]uint64{1, 2})
	delays := make([]time.Duration, 0, packets)
	leave := func(now time.Duration) {
		m.Leave(now, func(_ int, p medium.Packet) { delays = append(delays, p.Due-p.Entered) })
	}
	for i := range packets {
		now := time.Duration(i) * gap
		for at, ok := m.Next(); ok && at <= now; at, ok = m.Next() {
			leave(at)
		}
		m.Enter(now, 0, medium.Packet{Size: probeFrame, Frames: 1})
	}
	for at, ok := m.Next(); ok; at, ok = m.Next() {
		leave(at)
	}
	slices.Sort(delays)
	return delays
}

// wokenOf is by how much what is to be sent gap apart was sent late, at most.
func wokenOf(sent []time.Time, gap time.Duration) (most time.Duration) {
	if len(sent) == 0 {
		return 0
	}
	early := time.Duration(0)
	for i, at := range sent {
		late := at.Sub(sent[0]) - time.Duration(i)*gap
		early, most = min(early, late), max(most, late)
	}
	return most - early
}

func quarters() [3]float64 { return [3]float64{0.25, 0.5, 0.75} }

// quantile is that of sorted values.
func quantile(sorted []time.Duration, p float64) time.Duration {
	return sorted[min(int(float64(len(sorted))*p), len(sorted)-1)]
}

// quartiles sorts the values, of which none can be below 0 or above most. The truth of all three is between low and high but for
// a share miss of such samples, whatever the distribution and however few the values: how many of them are below a quantile is a
// matter of a binomial distribution. Where they are too few to bound it, a bound is 0 or most.
func quartiles(values []time.Duration, miss float64, most time.Duration) (q, low, high [3]time.Duration) {
	slices.Sort(values)
	for i, p := range quarters() {
		q[i] = quantile(values, p)
		low[i], high[i] = bounds(values, p, miss/3, most)
	}
	return q, low, high
}

// bounds are those of the truth of one quantile, of sorted values, but for a share miss of such samples.
func bounds(sorted []time.Duration, p, miss float64, most time.Duration) (low, high time.Duration) {
	n := len(sorted)
	// The numbers of values below a quantile that are likely lie together, about its share of them.
	likely := func(k int) bool { return traffic.Likely(k, n, p, miss) }
	middle := int(float64(n) * p)
	least := sort.Search(middle, likely)
	more := middle + 1 + sort.Search(n-middle, func(k int) bool { return !likely(middle + 1 + k) })
	low, high = 0, most
	if least > 0 {
		low = sorted[least-1]
	}
	if more <= n {
		high = sorted[more-1]
	}
	return low, high
}

// enough is how many values bound their median, of which the quartiles miss so much together.
func enough(miss float64) int { return int(math.Ceil(math.Log2(2 * 3 / miss))) }

// takes is how long a frame takes to be sent at a rate.
func takes(rate topology.Rate, frame int) time.Duration {
	if rate == 0 {
		return 0
	}
	return time.Duration(float64(frame) * 8 / float64(rate) * float64(time.Second))
}
