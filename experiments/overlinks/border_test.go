package overlinks

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pqlab/experiments"
	"pqlab/experiments/samples"
	"pqlab/topology"
)

const (
	f512  = "falcon512+kyber512"
	d2    = "dilithium2+kyber512"
	f1024 = "falcon1024+kyber1024"
	d5    = "dilithium5+mlkem1024"
)

// rates of the made-up grids.
func rates() []topology.Rate {
	return []topology.Rate{topology.Mbit, 10 * topology.Mbit, 100 * topology.Mbit, topology.Gbit}
}

// made is a result with n exchanges of each suite at each rate, delay and loss. time gives one of them in ms.
func made(n int, suites []string, delays, losses []float64, time func(suite string, l Link, noise float64) float64) *Result {
	draws := rand.New(rand.NewPCG(1, 1))
	r := &Result{About: experiments.Begin(Name, "v1", nil, 1), Confidence: confidence, Repeats: n, LimitMs: 1e4}
	for _, loss := range losses {
		for _, delay := range delays {
			for _, rate := range rates() {
				for _, s := range suites {
					c := Cell{Link: Link{rate, delay, loss}, Suite: s}
					for range n {
						c.values = append(c.values, time(s, c.Link, draws.Float64()))
					}
					c.summarize()
					r.Cells = append(r.Cells, c)
				}
			}
		}
	}
	return r
}

// bytesAndWork is what an exchange takes that is made of round trips, computing and bytes: Falcon computes 4 ms more and sends
// 2500 bytes less, so that they meet at 5 Mbit/s.
func bytesAndWork(suite string, l Link, noise float64) float64 {
	work, bytes := 1.0, 4500.0
	if strings.HasPrefix(suite, "falcon") {
		work, bytes = 5, 2000
	}
	return 8*l.DelayMs + work + bytes*8/float64(l.Rate)*1e3 + 0.3*noise
}

// The border of what was made up is found.
func TestBorderIsFound(t *testing.T) {
	t.Parallel()
	r := made(11, []string{f512, d2}, []float64{1, 200}, []float64{0}, bytesAndWork)
	r.Evaluate()
	if len(r.Comparisons) != 8 || len(r.Borders) != 2 {
		t.Fatalf("%d comparisons, %d borders", len(r.Comparisons), len(r.Borders))
	}
	for _, b := range r.Borders {
		if b.FalconUpTo != topology.Mbit || b.OtherFrom != 10*topology.Mbit || b.Mixed {
			t.Errorf("%+v", b)
		}
		if at := float64(b.At); at < 4.5e6 || at > 5.5e6 {
			t.Errorf("border at %v, want 5 Mbit/s", b.At)
		}
	}
	for _, c := range r.Comparisons {
		want := bytesAndWork(f512, c.Link, 0) - bytesAndWork(d2, c.Link, 0)
		if float64(c.Low) > want || float64(c.High) < want {
			t.Errorf("%v: %v to %v, want %v in it", c.Link, c.Low, c.High, want)
		}
	}
	for i, want := range []string{Holds, Mixed, NotMeasured} {
		if got := r.Advice[i]; got.Verdict != want {
			t.Errorf("%s: %+v, want %s", got.Where, got, want)
		}
	}
}

// With noise larger than any difference none is seen, and with few exchanges neither.
func TestNoDifference(t *testing.T) {
	t.Parallel()
	noisy := made(15, []string{f512, d2}, []float64{1}, []float64{0, 0.1}, func(s string, l Link, noise float64) float64 { return 100 + 50*noise })
	few := made(3, []string{f512, d2}, []float64{1}, []float64{0, 0.1}, bytesAndWork)
	never := made(15, []string{f512, d2}, []float64{1}, []float64{0, 0.1}, func(string, Link, float64) float64 { return samples.Never() })
	for name, r := range map[string]*Result{"noise": noisy, "few": few, "never": never} {
		r.Evaluate()
		for _, c := range r.Comparisons {
			if c.Faster != "" {
				t.Errorf("%s: %+v", name, c)
			}
		}
		for _, a := range r.Advice {
			if a.Verdict != Undecided {
				t.Errorf("%s: %+v", name, a)
			}
		}
		for _, b := range r.Borders {
			if b.FalconUpTo != 0 || b.OtherFrom != 0 || b.At != 0 || b.Mixed {
				t.Errorf("%s: %+v", name, b)
			}
		}
	}
}

// Only a Falcon and what has its level, with KEMs of one size, between the same devices, are compared.
func TestPairs(t *testing.T) {
	t.Parallel()
	r := made(6, []string{f512, d2, f1024, d5, "dilithium3+kyber768", "dilithium2+kyber768", "mldsa44+mlkem512"}, []float64{1}, []float64{0}, bytesAndWork)
	other := *r
	for _, c := range other.Cells {
		c.Devices = Devices{"jetson-nano", "xeon"}
		r.Cells = append(r.Cells, c)
	}
	r.Evaluate()
	var got []string
	for _, p := range r.Pairs() {
		got = append(got, p.String()+", "+p.Devices.String())
	}
	want := []string{}
	for _, d := range []string{"this machine", "jetson-nano to xeon"} {
		want = append(want, f512+" and "+d2+", "+d, f512+" and mldsa44+mlkem512, "+d, f1024+" and "+d5+", "+d)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("pairs %q", got)
	}
	// What has no Falcon of its level is told, once, and so is what has none that was measured.
	if got := r.alone(); len(got) != 2 || !strings.HasPrefix(got[0], "dilithium3+kyber768 ") || !strings.HasPrefix(got[1], "dilithium2+kyber768 ") || strings.Contains(got[1], "level") {
		t.Errorf("%q", got)
	}
	if len(r.Comparisons) != 6*4 || len(r.Borders) != 6 || len(r.Advice) != 18 {
		t.Errorf("%d comparisons, %d borders, %d of advice", len(r.Comparisons), len(r.Borders), len(r.Advice))
	}
}

// compared is a row of comparisons along the rates, by who is faster: f, o, or - for nobody.
func compared(who string) []Comparison {
	var all []Comparison
	for i, w := range who {
		c := Comparison{Link: Link{Rate: rates()[i]}, Falcon: f512, Other: d2}
		switch w {
		case 'f':
			c.Faster, c.Shift = f512, -10
		case 'o':
			c.Faster, c.Shift = d2, 5
		}
		all = append(all, c)
	}
	return all
}

func TestBorders(t *testing.T) {
	t.Parallel()
	const M = topology.Mbit
	for who, want := range map[string]Border{
		"ffoo": {FalconUpTo: 10 * M, OtherFrom: 100 * M, At: 25 * M},
		"f--o": {FalconUpTo: M, OtherFrom: 1000 * M, At: 2994011},
		"ff--": {FalconUpTo: 10 * M},
		"-ff-": {FalconUpTo: 100 * M},
		"ffff": {FalconUpTo: 1000 * M},
		"--oo": {OtherFrom: 100 * M},
		"oooo": {OtherFrom: M},
		"----": {},
		"ofoo": {FalconUpTo: 10 * M, OtherFrom: M, Mixed: true},
		"o--f": {FalconUpTo: 1000 * M, OtherFrom: M, Mixed: true},
		"f":    {FalconUpTo: M},
		"-":    {},
	} {
		got := border(compared(who))
		if got.Text == "" {
			t.Errorf("%s says nothing", who)
		}
		got.Falcon, got.Other, got.Text = "", "", ""
		if got != want {
			t.Errorf("%s: %+v, want %+v", who, got, want)
		}
	}
	if got := crossing(M, 10*M, math.Inf(-1), 5); got != 0 {
		t.Errorf("an infinite difference meets at %v", got)
	}
	// Two losses and two delays make four borders.
	var all []Comparison
	for _, loss := range []float64{0, 0.1} {
		for _, delay := range []float64{1, 20} {
			for _, c := range compared("f--o") {
				c.Link.Loss, c.Link.DelayMs = loss, delay
				all = append(all, c)
			}
		}
	}
	if got := borders(all); len(got) != 4 || got[1].DelayMs != 20 || got[2].Loss != 0.1 || got[3].OtherFrom != topology.Gbit {
		t.Errorf("%+v", got)
	}
}

func TestVerdict(t *testing.T) {
	t.Parallel()
	for want, a := range map[string]Advice{
		NotMeasured: {}, Holds: {Links: 2, For: 2}, HoldsPartly: {Links: 3, For: 1}, Mixed: {Links: 2, For: 1, Against: 1},
		ContraryPartly: {Links: 3, Against: 1}, Contrary: {Links: 2, Against: 2}, Undecided: {Links: 1},
	} {
		if got := a.verdict(); got != want {
			t.Errorf("%+v: %s, want %s", a, got, want)
		}
	}
}

func TestAbout(t *testing.T) {
	t.Parallel()
	for rate, want := range map[topology.Rate]string{
		3_412_345: "3.4 Mbit/s", 34_123_450: "34 Mbit/s", 346_123_450: "350 Mbit/s", 1_000_000_000: "1.0 Gbit/s", 1500: "1.5 kbit/s", 7: "7.0 bit/s",
		999_400: "1.0 Mbit/s", 996_000_000: "1.0 Gbit/s", 994_000_000: "990 Mbit/s", 9_960_000: "10 Mbit/s", 9_940_000: "9.9 Mbit/s", 99_600_000: "100 Mbit/s", 0: "0bit/s",
	} {
		if got := about(rate); got != want {
			t.Errorf("%d: %s, want %s", rate, got, want)
		}
	}
}

// A verdict on links whose packets were late says so.
func TestLateVerdict(t *testing.T) {
	t.Parallel()
	r := made(9, []string{f512, d2}, []float64{1}, []float64{0}, bytesAndWork)
	late := func() (n int) {
		r.Evaluate()
		for _, row := range r.Verdicts().Rows {
			if strings.Contains(strings.Join(row, " "), "late") {
				n++
			}
		}
		return n
	}
	if n := late(); n != 0 {
		t.Errorf("%d verdicts speak of packets that were late", n)
	}
	for i := range r.Cells {
		r.Cells[i].Late = r.Cells[i].Link.Rate == topology.Gbit && r.Cells[i].Suite == d2
	}
	// The data centre's: the slow links were in time, and none was lossy.
	if n := late(); n != 1 || r.Advice[0].Late != 1 || r.Advice[1].Late != 0 {
		t.Errorf("%d verdicts speak of packets that were late: %+v", n, r.Advice)
	}
}

// Why there was no tunnel is told, each reason once.
func TestReasons(t *testing.T) {
	t.Parallel()
	got := reasons([]Cell{{Suite: f512}, {Suite: f512, Why: []string{"x", "y"}}, {Suite: d2, Why: []string{"y"}}})
	if len(got) != 2 || !strings.Contains(got[0], "x") || !strings.Contains(got[1], f512) {
		t.Errorf("%q", got)
	}
}

func TestSpaced(t *testing.T) {
	t.Parallel()
	for v, want := range map[interface{ String() string }]string{
		10 * topology.Mbit: "10 Mbit/s", topology.Rate(7): "7 bit/s", 20 * time.Millisecond: "20 ms", 500 * time.Microsecond: "500 µs", 90 * time.Second: "1m30s",
		1500 * time.Millisecond: "1.5 s", time.Duration(0): "0 s",
	} {
		if got := spaced(v); got != want {
			t.Errorf("%v: %q, want %q", v, got, want)
		}
	}
}

// Where packets are lost there may be more exchanges.
func TestRepeats(t *testing.T) {
	t.Parallel()
	o := Options{Repeats: 15, Lossy: 45}
	for loss, want := range map[float64]int{0: 15, 0.009: 15, 0.01: 45, 1: 45} {
		if got := o.repeats(Link{Loss: loss}); got != want {
			t.Errorf("loss %v: %d, want %d", loss, got, want)
		}
	}
	// More than elsewhere are measured in several labs, each with a seed of its own.
	o.Rates, o.Delays, o.Losses, o.Lossy = rates(), []time.Duration{time.Millisecond}, []float64{0, 0.1}, 40
	total, numbers := map[Link]int{}, map[int]bool{}
	for _, s := range (&measurement{Options: o}).shares() {
		total[s.Link] += s.repeats
		if s.repeats > 15 || numbers[s.number] {
			t.Errorf("%+v", s)
		}
		numbers[s.number] = true
	}
	if len(total) != 8 || len(numbers) != 4+3*4 || total[Link{topology.Gbit, 1, 0.1}] != 40 || total[Link{topology.Gbit, 1, 0}] != 15 {
		t.Errorf("%v, %v", total, numbers)
	}
	if got := (Options{Repeats: 15}).repeats(Link{Loss: 0.1}); got != 15 {
		t.Errorf("%d exchanges, want as many as elsewhere", got)
	}
}

// Three digits are printed also where rounding makes one more of them.
func TestDigits(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{0: "0.00", 0.123: "0.12", 1.234: "1.23", 9.996: "10.0", 9.994: "9.99", 99.96: "100", -99.96: "-100", 123.4: "123", 12345: "12345"} {
		if got := digits(v); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
}

// What never ended is told as such, and has a place in JSON.
func TestNever(t *testing.T) {
	t.Parallel()
	c := Cell{values: []float64{12.3456, samples.Never(), samples.Never()}}
	c.summarize()
	if c.Never != 2 || !math.IsInf(float64(c.Median), 1) || c.Q1 != 12.3456 {
		t.Errorf("%+v", c)
	}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var read struct {
		Median *float64   `json:"median_ms"`
		Q1     *float64   `json:"q1_ms"`
		Times  []*float64 `json:"times_ms"`
	}
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	if read.Median != nil || read.Q1 == nil || *read.Q1 != 12.346 || len(read.Times) != 3 || read.Times[1] != nil {
		t.Errorf("%s", text)
	}
	if got := figure(c.Median, 1500); !strings.Contains(got, "1.5 s") {
		t.Error(got)
	}
}

func TestRetransSegs(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"Ip: Forwarding\nIp: 1\nTcp: RtoAlgorithm RetransSegs InErrs\nTcp: 1 42 3\n": 42,
		"Tcp: RetransSegs\nTcp: 7\nUdp: RetransSegs\nUdp: 9\n":                       7,
		"Tcp: RtoAlgorithm RetransSegs\nTcp: 1\n":                                    -1,
		"Tcp: RtoAlgorithm\nTcp: 1\n":                                                -1,
		"Tcp: RetransSegs\nTcp: x\n":                                                 -1,
		"Tcp: RetransSegs\n":                                                         -1,
		"":                                                                           -1,
	} {
		got, err := retransSegs([]byte(text))
		if (err != nil) != (want < 0) || err == nil && got != uint64(want) {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
}

// Every table has as many cells in a row as it has heads, and the chart a bar for each cell.
func TestRender(t *testing.T) {
	t.Parallel()
	r := made(7, []string{f512, d2, f1024, d5}, []float64{1, 20}, []float64{0, 0.1}, func(s string, l Link, noise float64) float64 {
		if s == d2 && l.Loss > 0 {
			return samples.Never()
		}
		return bytesAndWork(s, l, noise)
	})
	r.Evaluate()
	d := r.Document()
	bars, gaps := 0, 0
	for _, s := range d.Sections {
		if tab := s.Table; tab != nil {
			if len(tab.Rows) == 0 {
				t.Errorf("%s: empty", s.Title)
			}
			for _, row := range tab.Rows {
				if len(row) != len(tab.Head) || slices.Contains(row, "") {
					t.Errorf("%s: %q below %q", s.Title, row, tab.Head)
				}
			}
		}
		if m := s.Map; m != nil {
			coloured := map[int]int{}
			for i, row := range m.Cells {
				if len(row) != len(m.Columns) || len(m.Cells) != len(m.Rows) {
					t.Errorf("%s: row %d has %d cells of %d", m.Title, i, len(row), len(m.Columns))
				}
				for _, c := range row {
					coloured[c.Colour]++
				}
			}
			// Where Dilithium2 never ends Falcon is the faster.
			if want := (map[int]int{1: 10, 2: 6}); strings.Contains(m.Title, d2) && !reflect.DeepEqual(coloured, want) {
				t.Errorf("%s: colours %v, want %v", m.Title, coloured, want)
			}
		}
		if c := s.Chart; c != nil {
			if len(c.Rows) != 2 || len(c.Columns) != 2 || len(c.Places) != 16 {
				t.Errorf("%d × %d panels of %d", len(c.Rows), len(c.Columns), len(c.Places))
			}
			for _, row := range c.Bars {
				for _, panel := range row {
					for i, b := range panel {
						switch {
						case b == nil:
							t.Errorf("no bar for %+v", c.Places[i])
						case b.Value > 0:
							bars++
						default:
							gaps++
						}
					}
				}
			}
		}
	}
	if bars != 56 || gaps != 8 {
		t.Errorf("%d bars, %d gaps", bars, gaps)
	}
	if got := []string{short(f512, []string{f512, d2}), short(d2, []string{d2, "mldsa44+mlkem512"}), short(d2, []string{d2, "dilithium2+kyber768"})}; !slices.Equal(got, []string{"F512", "D2", d2}) {
		t.Errorf("%q", got)
	}
	dir := t.TempDir()
	if err := r.WriteDir(dir); err != nil {
		t.Error(err)
	}
	if err := r.WriteDir(dir); err != nil { // over its own
		t.Error(err)
	}
}
