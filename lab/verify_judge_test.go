package lab

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pqlab/links/wire"
	"pqlab/topology"
	"pqlab/traffic"
)

// quartilesOf are those of the model.
func quartilesOf(s topology.Shape, gap time.Duration) (q [3]time.Duration) {
	for i, p := range quarters() {
		q[i] = quantile(delaysOf(s, gap), p)
	}
	return q
}

// A link whose delay has another tail is refused, and one that is as asked for is not, unless chance makes it look so. What a wire
// had to deliver late is told and not refused.
func TestTails(t *testing.T) {
	t.Parallel()
	const (
		n, rounds, confidence = 1000, 30, 0.9999
		msec                  = time.Millisecond
	)
	source := rand.NewPCG(5, 6)
	r := rand.New(source)
	constant := func() time.Duration { return 20 * msec }
	// late makes so large a share so much later.
	late := func(share float64, by time.Duration) func() time.Duration {
		return func() time.Duration {
			if r.Float64() < share {
				return 20*msec + by
			}
			return 20 * msec
		}
	}
	varied := func() time.Duration { return time.Duration((20 + 5*r.NormFloat64()) * float64(msec)) }
	cut := func() time.Duration { return min(varied(), 23*msec) } // of the same median and quartiles about it, within 4 ms
	for name, tt := range map[string]struct {
		draw             func() time.Duration
		wanted           [2]time.Duration // 90 % and 99 %
		late, woken      time.Duration    // of the wire, and of the sender
		refused, excused bool
	}{
		"as wanted":                  {constant, [2]time.Duration{20 * msec, 20 * msec}, 0, 0, false, false},
		"varied as wanted":           {varied, [2]time.Duration{26408 * time.Microsecond, 31632 * time.Microsecond}, 0, 0, false, false},
		"1 in 200 is late":           {late(0.005, 100*msec), [2]time.Duration{20 * msec, 20 * msec}, 0, 0, false, false},
		"1 in 20 is late":            {late(0.05, 100*msec), [2]time.Duration{20 * msec, 20 * msec}, 0, 0, true, false},
		"1 in 20, within":            {late(0.05, 9*msec), [2]time.Duration{20 * msec, 20 * msec}, 0, 0, false, false},
		"1 in 20, and the wire":      {late(0.05, 100*msec), [2]time.Duration{20 * msec, 20 * msec}, 95 * msec, 0, false, true},
		"1 in 20, not the wire":      {late(0.05, 100*msec), [2]time.Duration{20 * msec, 20 * msec}, 85 * msec, 0, true, false},
		"1 in 5 is late":             {late(0.2, 100*msec), [2]time.Duration{20 * msec, 20 * msec}, 0, 0, true, false},
		"without tail":               {cut, [2]time.Duration{36 * msec, 46 * msec}, 0, 0, true, false},
		"late is no early":           {cut, [2]time.Duration{36 * msec, 46 * msec}, time.Hour, 0, true, false},
		"1 in 20, on a busy machine": {late(0.05, 100*msec), [2]time.Duration{20 * msec, 20 * msec}, 0, 46 * msec, false, true},
		"1 in 20, less busy":         {late(0.05, 100*msec), [2]time.Duration{20 * msec, 20 * msec}, 0, 44 * msec, true, false},
	} {
		source.Seed(5, 6) // so that no case depends on those before it
		refused, excused := 0, 0
		for range rounds {
			values := make([]time.Duration, n)
			for i := range values {
				values[i] = tt.draw()
			}
			d := &MeasuredDelay{Wanted: [3]time.Duration{20 * msec, 20 * msec, 20 * msec}, Woken: tt.woken}
			d.Seen, d.Low, d.High = quartiles(values, 3*(1-confidence)/5, time.Second)
			for i, p := range []float64{0.9, 0.99} {
				low, high := bounds(values, p, (1-confidence)/5, time.Second)
				d.Tail = append(d.Tail, MeasuredQuantile{Share: p, Wanted: tt.wanted[i], Seen: quantile(values, p), Low: low, High: high})
			}
			m := Measured{Delay: d, Lateness: wire.Lateness{Max: tt.late}}
			tolerance := topology.Tolerance{Delay: 10 * msec, Jitter: 10 * msec, Tail: 10 * msec, Confidence: confidence}
			if m.judge(tolerance) != nil {
				refused++
			}
			kept, off, err := retried(tolerance, func() ([]Measured, error) { return []Measured{m}, nil })
			if err != nil || (off != nil) != (m.judge(tolerance) != nil) {
				t.Fatalf("%v, %v", off, err)
			}
			if len(kept[0].Unmeasured) > 0 {
				excused++
			}
		}
		for what, c := range map[string]struct {
			n    int
			want bool
		}{"refused": {refused, tt.refused}, "excused": {excused, tt.excused}} {
			if c.want && c.n < rounds || !c.want && c.n > 0 {
				t.Errorf("%s: %d of %d %s, want %v", name, c.n, rounds, what, c.want)
			}
		}
	}
}

// How late a sender was is counted from the one that was least late.
func TestWokenOf(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	for _, tt := range []struct {
		sent []int // ms, to be 10 apart
		want int
	}{{nil, 0}, {[]int{0}, 0}, {[]int{0, 10, 20}, 0}, {[]int{0, 17, 20}, 7}, {[]int{5, 10, 20, 38}, 8}, {[]int{0, 50, 50, 50, 50, 50}, 40}} {
		var sent []time.Time
		for _, ms := range tt.sent {
			sent = append(sent, begin.Add(time.Duration(ms)*time.Millisecond))
		}
		if got := wokenOf(sent, 10*time.Millisecond); got != time.Duration(tt.want)*time.Millisecond {
			t.Errorf("%v: %v, want %d ms", tt.sent, got, tt.want)
		}
	}
}

// Only what is out of tolerance for all that the truth may be is refused, and then named.
func TestJudge(t *testing.T) {
	t.Parallel()
	const msec = time.Millisecond
	tolerance := topology.Tolerance{Rate: 0.02, Delay: msec, Jitter: 2 * msec, Confidence: 0.99}
	around := func(q [3]time.Duration, wide time.Duration) *MeasuredDelay {
		d := &MeasuredDelay{Wanted: [3]time.Duration{8 * msec, 10 * msec, 12 * msec}, Sending: msec, Seen: q}
		for i := range q {
			d.Low[i], d.High[i] = q[i]-wide, q[i]+wide
		}
		return d
	}
	quartiles := func(a, b, c time.Duration) [3]time.Duration { return [3]time.Duration{a * msec, b * msec, c * msec} }
	const first, third = "first quartile of the delay, about the median", "third quartile of the delay, about the median"
	for name, tt := range map[string]struct {
		m    Measured
		want []string
	}{
		"nothing":              {Measured{}, nil},
		"as wanted":            {Measured{Delay: around(quartiles(8, 10, 12), 0)}, nil},
		"as late as it may":    {Measured{Delay: around(quartiles(10, 12, 14), 0)}, nil},
		"too late":             {Measured{Delay: around(quartiles(11, 13, 15), 0)}, []string{"median delay"}},
		"perhaps too late":     {Measured{Delay: around(quartiles(11, 13, 15), msec)}, nil},
		"too early":            {Measured{Delay: around(quartiles(7, 9, 11), msec/2)}, []string{"median delay"}},
		"perhaps too early":    {Measured{Delay: around(quartiles(7, 9, 11), msec)}, nil},
		"no jitter":            {Measured{Delay: around(quartiles(10, 10, 10), 0)}, nil},
		"too little jitter":    {Measured{Delay: &MeasuredDelay{Wanted: quartiles(5, 10, 15), Seen: quartiles(10, 10, 10), Low: quartiles(10, 10, 10), High: quartiles(10, 10, 10)}}, []string{first, third}},
		"too much on one side": {Measured{Delay: around(quartiles(8, 10, 16), msec/2)}, []string{third}},
		"some lost":            {Measured{Loss: share(0, 1, 1000, 1, 0.99)}, []string{"loss"}},
		"none lost":            {Measured{Loss: share(0, 0, 1000, 1, 0.99)}, nil},
		"lost as wanted":       {Measured{Loss: share(0.01, 12, 1000, 1, 0.99)}, nil},
		"more lost":            {Measured{Loss: share(0.01, 25, 1000, 1, 0.99)}, []string{"loss"}},
		"more lost in bursts":  {Measured{Loss: share(0.01, 25, 1000, 10, 0.99)}, nil},
		"fewer lost":           {Measured{Loss: share(0.1, 70, 1000, 1, 0.99)}, []string{"loss"}},
		"not doubled":          {Measured{Duplication: share(0.1, 0, 1000, 1, 0.99)}, []string{"duplication"}},
		"slow":                 {Measured{Rate: &MeasuredRate{Wanted: 100, Seen: 97, Low: 97, High: 97}}, []string{"rate"}},
		"perhaps slow":         {Measured{Rate: &MeasuredRate{Wanted: 100, Seen: 97, Low: 95, High: 98.5}}, nil},
		"fast":                 {Measured{Rate: &MeasuredRate{Wanted: 100, Seen: 103, Low: 103, High: 103}}, []string{"rate"}},
		"not sent":             {Measured{Unreached: &Unreached{Wanted: 1e12, Most: 3e9, Sent: true}}, []string{"rate"}},
		"not paced":            {Measured{Unreached: &Unreached{Wanted: 1e12, Most: 2e10}}, []string{"rate"}},
		"all": {Measured{Delay: around(quartiles(11, 13, 15), 0), Loss: share(0, 9, 9, 1, 0.99), Duplication: share(0, 9, 9, 1, 0.99), Rate: &MeasuredRate{Wanted: 9}},
			[]string{"median delay", "loss", "duplication", "rate"}},
	} {
		tt.m.Link, tt.m.From, tt.m.To = "ab", "a", "b"
		tt.m.At = topology.LinkPosition{Link: topology.Position{File: "x.yaml", Line: 3, Column: 5}, Rate: topology.Position{File: "x.yaml", Line: 3, Column: 40}}
		var got []string
		for _, o := range tt.m.judge(tolerance) {
			got = append(got, o.What)
			text := (&ToleranceError{[]OutOfTolerance{o}}).Error()
			at := "x.yaml:3:5"
			if o.What == "rate" {
				at = "x.yaml:3:40"
			}
			if o.At.String() != at || !strings.HasPrefix(text, at+": ") {
				t.Errorf("%s: %s is at %v in %q, want %s", name, o.What, o.At, text, at)
			}
			for _, part := range []string{o.Link, "from a to b", o.What, o.Wanted, o.Seen, o.Within, o.Tolerance} {
				if !strings.Contains(text, part) {
					t.Errorf("%s: no %q in %q", name, part, text)
				}
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: wrong is %q, want %q", name, got, tt.want)
		}
	}
}

// What chance or a busy machine makes wrong once or twice is measured again; what is wrong a third time is refused.
func TestRetried(t *testing.T) {
	t.Parallel()
	good, bad := Measured{Rate: &MeasuredRate{Wanted: 1, Seen: 1, Low: 1, High: 1}}, Measured{Rate: &MeasuredRate{Wanted: 1, Seen: 9, Low: 9, High: 9}}
	broken := errors.New("broken")
	for _, tt := range []struct {
		seen  []Measured // by each try; then it fails
		tries int
		off   bool
		err   error
	}{
		{[]Measured{good}, 1, false, nil},
		{[]Measured{bad, good}, 2, false, nil},
		{[]Measured{bad, bad, good}, 3, false, nil},
		{[]Measured{bad, bad, bad, good}, 3, true, nil},
		{[]Measured{bad}, 0, false, broken},
	} {
		calls := 0
		m, off, err := retried(topology.Tolerance{Rate: 0.1}, func() ([]Measured, error) {
			if calls++; calls > len(tt.seen) {
				return nil, broken
			}
			return []Measured{good, tt.seen[calls-1]}, nil
		})
		if !errors.Is(err, tt.err) || (len(off) > 0) != tt.off {
			t.Errorf("%d tries: %v, %v", tt.tries, off, err)
		}
		if err == nil && (calls != tt.tries || len(m) != 2 || m[0].Tries != tt.tries || m[1].Tries != tt.tries) {
			t.Errorf("%d calls, want %d: %+v", calls, tt.tries, m)
		}
	}
}

// The share that does not come, and by how much bursts inflate the variance of their number, by hand.
func TestLossOf(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		shape              topology.Shape
		missing, inflation float64
	}{
		{topology.Shape{}, 0, 1},
		{topology.Shape{Loss: 0.01}, 0.01, 1},
		{topology.Shape{Loss: 0.1, Duplication: 0.5}, 0.05, 1},
		{topology.Shape{Corruption: 0.5}, 0.5 * (1 - 6.125/100), 1},
		{topology.Shape{Loss: 0.5, Corruption: 0.5}, 0.5 + 0.5*0.5*(1-6.125/100), 1},
		// Correlation c inflates by (1+c)/(1-c).
		{topology.Shape{Loss: 0.1, LossCorrelation: 0.5}, 0.1, 3},
		{topology.Shape{GilbertElliott: topology.GilbertElliott{P: 0.01, R: 0.24}}, 0.04, 1.75 / 0.25},
		// States that say nothing of the loss inflate nothing, those that say half of it less.
		{topology.Shape{GilbertElliott: topology.GilbertElliott{P: 0.1, R: 0.1, Bad: 0.3, Good: 0.1}}, 0.2, 1 + 0.25*0.04/0.16*2*0.8/0.2},
	} {
		missing, inflation := lossOf(tt.shape, 100)
		if math.Abs(missing-tt.missing) > 1e-12 || math.Abs(inflation-tt.inflation) > 1e-9 {
			t.Errorf("%v: %v, %v; want %v, %v", tt.shape, missing, inflation, tt.missing, tt.inflation)
		}
	}
}

// The quartiles of distributions are known: of a normal one they are 0.6745 standard deviations from the mean, of a uniform
// one √3/2.
func TestQuartilesOf(t *testing.T) {
	t.Parallel()
	const delay, jitter = 100 * time.Millisecond, 10 * time.Millisecond
	for _, tt := range []struct {
		shape        topology.Shape
		first, third float64 // standard deviations from the mean
	}{
		{topology.Shape{Delay: delay}, 0, 0},
		{topology.Shape{Delay: delay, Loss: 0.5, Rate: 1}, 0, 0},
		{topology.Shape{Delay: delay, Jitter: jitter}, -0.6745, 0.6745},
		{topology.Shape{Delay: delay, Jitter: jitter, Distribution: "uniform"}, -0.866, 0.866},
		{topology.Shape{Delay: delay, Jitter: jitter, Unordered: true}, -0.6745, 0.6745},
	} {
		q := quartilesOf(tt.shape, time.Second)
		for i, want := range []float64{tt.first, 0, tt.third} {
			if got := float64(q[i]-delay) / float64(jitter); math.Abs(got-want) > 0.03 {
				t.Errorf("%v: quartile %d is %v deviations from the mean, want %v", tt.shape, i+1, got, want)
			}
		}
	}
	// What may not overtake comes later.
	shape := topology.Shape{Delay: delay, Jitter: jitter}
	if apart, close := quartilesOf(shape, time.Second), quartilesOf(shape, time.Millisecond); close[1] < apart[1]+jitter/2 {
		t.Errorf("median %v, one second apart %v", close[1], apart[1])
	}
}

// The intervals of quartiles are those of the binomial distribution, by its tables; of few values they have no bounds.
func TestQuartiles(t *testing.T) {
	t.Parallel()
	const most = time.Hour
	upTo := func(n int) []time.Duration { // 1 to n, in no order
		values := make([]time.Duration, n)
		for i := range values {
			values[i] = time.Duration((i*7+3)%n + 1)
		}
		return values
	}
	for _, tt := range []struct {
		n            int
		miss         float64 // of each quartile
		q, low, high [3]time.Duration
	}{
		// Of 20 with a chance of 1/4 at most 1 is 0.0243, at least 10 are 0.0139 and 9 are 0.0409; of 1/2 at most 5 are 0.0207 and 6
		// are 0.0577.
		{20, 0.05, [3]time.Duration{6, 11, 16}, [3]time.Duration{2, 6, 11}, [3]time.Duration{10, 15, 19}},
		{1000, 0.0455, [3]time.Duration{251, 501, 751}, [3]time.Duration{223, 468, 722}, [3]time.Duration{279, 533, 778}},
		// 2 to the power of -9 is 0.00195, of -8 0.0039. With a chance of 1/4 none of 9 are 0.075, at least 6 0.0100 and 7 0.0013; of 8
		// at least 6 are 0.0042 and 7 0.0004.
		{9, 0.0040, [3]time.Duration{3, 5, 7}, [3]time.Duration{0, 1, 3}, [3]time.Duration{7, 9, most}},
		{8, 0.0040, [3]time.Duration{3, 5, 7}, [3]time.Duration{0, 0, 2}, [3]time.Duration{7, most, most}},
		{1, 0.1, [3]time.Duration{1, 1, 1}, [3]time.Duration{}, [3]time.Duration{most, most, most}},
	} {
		q, low, high := quartiles(upTo(tt.n), 3*tt.miss, most)
		if q != tt.q || low != tt.low || high != tt.high {
			t.Errorf("%d values: %v, %v to %v; want %+v", tt.n, q, low, high, tt)
		}
	}
	for _, miss := range []float64{0.2, 0.1, 0.01, 1e-4} {
		bounded := func(n int) bool {
			_, low, high := quartiles(upTo(n), miss, most)
			return low[1] > 0 && high[1] < most
		}
		if n := enough(miss); !bounded(n) || bounded(n-1) {
			t.Errorf("%d values are enough for %v", n, miss)
		}
	}
}

// A link that is exactly as it was asked to be is refused no more often than the confidence says, however few the packets and
// without any tolerance. One that is not is refused when they are many.
func TestGoodLinksPass(t *testing.T) {
	t.Parallel()
	const (
		rounds = 500
		msec   = float64(time.Millisecond)
	)
	source := rand.NewPCG(1, 2)
	r := rand.New(source)
	for name, d := range map[string]struct {
		draw  func() float64 // ms
		truth [3]float64
	}{
		"uniform":     {func() float64 { return 10 + 4*r.Float64() }, [3]float64{11, 12, 13}},
		"normal":      {func() float64 { return 20 + r.NormFloat64() }, [3]float64{20 - 0.67449, 20, 20 + 0.67449}},
		"exponential": {func() float64 { return r.ExpFloat64() }, [3]float64{math.Log(4.0 / 3), math.Ln2, math.Log(4)}},
		"constant":    {func() float64 { return 5 }, [3]float64{5, 5, 5}},
	} {
		source.Seed(1, 2) // so that no case depends on those before it
		for _, confidence := range []float64{0.8, 0.95, 0.99} {
			for _, n := range []int{1, 2, 4, 5, 8, 12, 20, 60} {
				refused, shifted := 0, 0
				m := Measured{Delay: &MeasuredDelay{}}
				for i, ms := range d.truth {
					m.Delay.Wanted[i] = time.Duration(ms * msec)
				}
				values := make([]time.Duration, n)
				for range rounds {
					for i := range values {
						values[i] = time.Duration(d.draw() * msec)
					}
					m.Delay.Seen, m.Delay.Low, m.Delay.High = quartiles(values, 1-confidence, time.Second)
					if m.judge(topology.Tolerance{Confidence: confidence}) != nil {
						refused++
					}
					bad := m
					late := *m.Delay
					late.Wanted[2] += 5 * (late.Wanted[2] - late.Wanted[1])
					if bad.Delay = &late; bad.judge(topology.Tolerance{Confidence: confidence}) != nil {
						shifted++
					}
				}
				if most := allowed(rounds, 1-confidence); refused > most {
					t.Errorf("%s, %d packets, %v: %d of %d good links refused, at most %d are chance", name, n, confidence, refused, rounds, most)
				}
				if n == 60 && name != "constant" && shifted < rounds {
					t.Errorf("%s, %d packets, %v: only %d of %d bad links refused", name, n, confidence, shifted, rounds)
				}
			}
		}
	}
	source.Seed(1, 2)
	for _, p := range []float64{0, 0.001, 0.01, 0.3, 1} {
		for _, n := range []int{1, 4, 10, 100} {
			const confidence = 0.95
			refused := 0
			for range rounds {
				k := 0
				for range n {
					if r.Float64() < p {
						k++
					}
				}
				m := Measured{Loss: share(p, k, n, 1, confidence)}
				if m.judge(topology.Tolerance{Confidence: confidence}) != nil {
					refused++
				}
			}
			if most := allowed(rounds, 1-confidence); refused > most {
				t.Errorf("loss %v, %d packets: %d of %d good links refused, at most %d are chance", p, n, refused, rounds, most)
			}
		}
	}
}

// The same holds of losses that come in bursts.
func TestGoodBurstsPass(t *testing.T) {
	t.Parallel()
	const (
		rounds     = 400
		confidence = 0.95
	)
	r := rand.New(rand.NewPCG(3, 4))
	for _, g := range []topology.GilbertElliott{{P: 0.01, R: 0.24}, {P: 0.1, R: 0.1}, {P: 0.001, R: 0.05}} {
		g.Bad = 1
		missing, inflation := lossOf(topology.Shape{GilbertElliott: g}, probeFrame)
		for _, n := range []int{4, 20, 100, 1000, 5000} {
			refused := 0
			for range rounds {
				k, bad := 0, r.Float64() < g.P/(g.P+g.R)
				for range n {
					if bad {
						k++
						bad = r.Float64() >= g.R
					} else {
						bad = r.Float64() < g.P
					}
				}
				m := Measured{Loss: share(missing, k, n, inflation, confidence)}
				if m.judge(topology.Tolerance{Confidence: confidence}) != nil {
					refused++
				}
			}
			if most := allowed(rounds, 1-confidence); refused > most {
				t.Errorf("%+v, %d packets: %d of %d good links refused, at most %d are chance", g, n, refused, rounds, most)
			}
		}
	}
}

// allowed is how many of n chance explains, each with probability p.
func allowed(n int, p float64) int {
	return int(float64(n)*p + 4*math.Sqrt(float64(n)*p*(1-p)))
}

// A rate is that of what comes after what an idle link passes at once; it is not known if the sender was slower.
func TestRateOf(t *testing.T) {
	t.Parallel()
	const frame = 1000
	w := topology.Shape{Rate: 8 * topology.Mbit, Delay: 10 * time.Millisecond}
	begin := time.Now()
	// made sends frames gap apart, and each leaves spacing after the one before.
	made := func(n int, gap, spacing time.Duration) (f traffic.Fates) {
		free := begin
		for i := range n {
			sent := begin.Add(time.Duration(i) * gap)
			at := sent.Add(w.Delay)
			if at.Before(free) {
				at = free
			}
			free = at.Add(spacing)
			f.Sent = append(f.Sent, sent)
			f.Arrived = append(f.Arrived, traffic.Arrival{Number: i, At: at, Delay: at.Sub(sent)})
		}
		return f
	}
	const spacing = time.Millisecond // of 1000 bytes at 8 Mbit/s
	for name, tt := range map[string]struct {
		fates traffic.Fates
		shape topology.Shape
		want  float64 // Mbit/s; 0: not known
		slow  bool    // the sender
	}{
		"as wanted":           {made(500, spacing/3, spacing), w, 8, false},
		"half":                {made(500, spacing/3, 2*spacing), w, 4, false},
		"double":              {made(500, spacing/3, spacing/2), w, 16, false},
		"slow sender":         {made(500, 2*spacing, spacing), w, 0, true},
		"sender at the rate":  {made(500, spacing, 0), w, 0, true},
		"few":                 {made(30, spacing/3, spacing), w, 0, false},
		"none":                {traffic.Fates{}, w, 0, false},
		"jitter hides it":     {made(500, spacing/3, spacing), topology.Shape{Rate: w.Rate, Delay: time.Second, Jitter: time.Second}, 0, false},
		"corrupted, so fewer": {made(500, spacing/3, 2*spacing), topology.Shape{Rate: w.Rate, Delay: w.Delay, Corruption: 0.5 / (1 - 6.125/frame)}, 8, false},
		"few, and slowly":     {made(30, 2*spacing, spacing), w, 0, true},
	} {
		r, slow, why := rateOf(tt.fates, tt.shape, frame)
		if (slow != nil) != tt.slow || slow != nil && (slow.Wanted != float64(tt.shape.Rate) || slow.Most > 1.05*slow.Wanted || slow.Most <= 0 || !slow.Sent) {
			t.Errorf("%s: unreached: %+v", name, slow)
		}
		if (r == nil) != (tt.want == 0) || (why == "") != (r != nil) {
			t.Errorf("%s: %+v, %q", name, r, why)
			continue
		}
		if r != nil && (math.Abs(r.Seen/1e6-tt.want) > 0.01 || r.Low > r.Seen || r.High < r.Seen || r.Wanted != 8e6) {
			t.Errorf("%s: %+v, want %v Mbit/s", name, r, tt.want)
		}
	}
}

// What nothing measures is named, and nothing else.
func TestUnseen(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		shape topology.Shape
		want  []string // in each
	}{
		{topology.Shape{Rate: 1, Delay: 1, Jitter: 1, Loss: 1, Duplication: 1}, nil},
		{topology.Shape{Reordering: 0.1}, []string{"reordering"}},
		{topology.Shape{Rate: 1, Queue: topology.Queue{Kind: topology.CoDel}}, []string{"codel"}},
		{topology.Shape{Rate: 1, Queue: topology.Queue{Time: 7 * time.Millisecond}}, []string{"7ms"}},
		{topology.Shape{Rate: 1, Queue: topology.Queue{Bytes: 30000}, Reordering: 0.1}, []string{"reordering", "30000"}},
	} {
		got := unseen(tt.shape)
		if len(got) != len(tt.want) {
			t.Errorf("%v: %q", tt.shape, got)
			continue
		}
		for i := range got {
			if !strings.Contains(got[i], tt.want[i]) {
				t.Errorf("%v: %q does not name %s", tt.shape, got[i], tt.want[i])
			}
		}
	}
}

// What cannot be measured in a time that one waits for is not tried.
func TestUnmeasurable(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		link    topology.Link
		ignored []string
		want    bool
	}{
		"nothing":    {topology.Link{}, nil, false},
		"usual":      {topology.Link{Shape: topology.Shape{Rate: 1e6, Delay: time.Second, Jitter: time.Millisecond, Loss: 0.1}}, nil, false},
		"unshaped":   {topology.Link{Shape: topology.Shape{Rate: 1e6}}, []string{"rate"}, true},
		"air":        {topology.Link{WiFi: &topology.Station{}}, nil, true},
		"long":       {topology.Link{Shape: topology.Shape{Delay: time.Hour}}, nil, true},
		"slow":       {topology.Link{Shape: topology.Shape{Rate: 8 * topology.Kbit}}, nil, false},
		"slower":     {topology.Link{Shape: topology.Shape{Rate: 8*topology.Kbit - 1}}, nil, true},
		"slowest":    {topology.Link{Shape: topology.Shape{Rate: 1}}, nil, true},
		"varies":     {topology.Link{Shape: topology.Shape{Delay: time.Second, Jitter: time.Second}}, nil, true},
		"outage":     {topology.Link{Shape: topology.Shape{Outages: make([]topology.Outage, 1)}}, nil, true},
		"rates":      {topology.Link{Shape: topology.Shape{RateTrace: make([]topology.RateStep, 1)}}, nil, true},
		"loss trace": {topology.Link{Shape: topology.Shape{LossTrace: []int{1, 1}}}, nil, true},
	} {
		if why := unmeasurable(topology.PlannedLink{Link: tt.link}, tt.ignored); (why != "") != tt.want {
			t.Errorf("%s: %q", name, why)
		}
	}
}
