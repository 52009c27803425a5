package overlinks

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"pqlab/experiments/samples"
	"pqlab/topology"
)

// confidence of every interval. One comparison in a hundred sees a difference where none is.
const confidence = 0.99

// Comparison is a Falcon suite beside one of its security level that is not Falcon's, over one link.
type Comparison struct {
	Devices Devices `json:"devices"`
	Link    Link    `json:"link"`
	Falcon  string  `json:"falcon"`
	Other   string  `json:"other"`

	// Shift is by how much Falcon takes longer, Low and High the interval; null where they are infinite.
	Shift Ms `json:"shift_ms"`
	Low   Ms `json:"low_ms"`
	High  Ms `json:"high_ms"`
	// Faster is the suite that is; empty where no difference was seen.
	Faster string `json:"faster"`
	Late   bool   `json:"late"` // the machine was too busy to keep the link's schedule
}

func (c Comparison) sign() int {
	switch c.Faster {
	case c.Falcon:
		return -1
	case c.Other:
		return 1
	}
	return 0
}

// Border is where, on the way from slow links to fast ones of one delay and loss, Falcon ceases to be the faster.
type Border struct {
	Devices Devices `json:"devices"`
	Falcon  string  `json:"falcon"`
	Other   string  `json:"other"`
	DelayMs float64 `json:"delay_ms"`
	Loss    float64 `json:"loss"`

	FalconUpTo topology.Rate `json:"falcon_up_to_bits_per_second"` // the highest rate at which Falcon was faster; 0: none
	OtherFrom  topology.Rate `json:"other_from_bits_per_second"`   // the lowest at which the other was; 0: none
	// At is where the difference is 0 if it goes in a straight line with the time that a bit takes, as it does when bytes are
	// what makes it; 0: there is no border between two rates.
	At topology.Rate `json:"at_bits_per_second"`
	// Mixed says that the one is not faster below and the other above: there is no border.
	Mixed bool   `json:"mixed"`
	Text  string `json:"text"`
}

// Advice is what the paper says, and how often it was seen: "In a data center, Dilithium proves advantageous […]. With limited
// network capabilities, Falcon is more advantageous."
type Advice struct {
	Devices Devices `json:"devices"`
	Falcon  string  `json:"falcon"`
	Other   string  `json:"other"`
	Where   string  `json:"where"`
	Advised string  `json:"advised"` // the suite that is to be faster there
	Links   int     `json:"links"`   // that were measured there
	For     int     `json:"for"`     // at which it was faster
	Against int     `json:"against"` // at which the other was
	Late    int     `json:"late"`    // of the links, those whose schedule this machine was too busy to keep
	Verdict string  `json:"verdict"`
}

// Verdicts of an Advice.
const (
	Holds          = "holds"                            // at each link
	HoldsPartly    = "holds where a difference is seen" // at some, and nowhere the contrary
	Mixed          = "holds at some links, the contrary at others"
	ContraryPartly = "the contrary where a difference is seen" // at some, and nowhere what it says
	Contrary       = "does not hold: the contrary"             // at each link
	Undecided      = "no difference seen"
	NotMeasured    = "not measured"
)

// places are what the paper's words are taken to mean.
func places() []struct {
	name   string
	is     func(Link) bool
	falcon bool // is advised
} {
	const slow = 10 * topology.Mbit
	return []struct {
		name   string
		is     func(Link) bool
		falcon bool
	}{
		{"in the data centre (1 Gbit/s or more, 1 ms or less, no loss)", func(l Link) bool { return l.Rate >= topology.Gbit && l.DelayMs <= 1 && l.Loss == 0 }, false},
		{"on slow links (10 Mbit/s or less)", func(l Link) bool { return l.Rate <= slow }, true},
		{"on lossy links (1 % or more) that are not slow", func(l Link) bool { return l.Rate > slow && l.Loss >= leastLossy }, true},
	}
}

// rivals gives the signatures of a Falcon's security level.
func rivals(falcon string) []string {
	return map[string][]string{"falcon512": {"dilithium2", "mldsa44"}, "falcon1024": {"dilithium5", "mldsa87"}}[falcon]
}

// sameKEM says whether suites have KEMs of the same sizes: the same, or a Kyber and its ML-KEM.
func sameKEM(a, b string) bool {
	size := func(suite string) string {
		_, kem, _ := strings.Cut(suite, "+")
		return strings.TrimLeft(kem, "abcdefghijklmnopqrstuvwxyz")
	}
	return size(a) == size(b)
}

func compareLinks(a, b Link) int {
	return cmp.Or(cmp.Compare(a.Loss, b.Loss), cmp.Compare(a.DelayMs, b.DelayMs), cmp.Compare(a.Rate, b.Rate))
}

// Evaluate compares the cells. It is called by Measure.
func (r *Result) Evaluate() {
	r.Comparisons, r.Borders, r.Advice = []Comparison{}, []Border{}, []Advice{}
	for i := range r.Cells {
		f := &r.Cells[i]
		for j := range r.Cells {
			o := &r.Cells[j]
			if o.Devices != f.Devices || o.Link != f.Link || !slices.Contains(rivals(f.signature()), o.signature()) || !sameKEM(f.Suite, o.Suite) {
				continue
			}
			d := samples.Compare(f.values, o.values, r.Confidence)
			c := Comparison{Devices: f.Devices, Link: f.Link, Falcon: f.Suite, Other: o.Suite, Shift: Ms(d.Shift), Low: Ms(d.Low), High: Ms(d.High), Late: f.Late || o.Late}
			switch d.Sign() {
			case -1:
				c.Faster = f.Suite
			case 1:
				c.Faster = o.Suite
			}
			r.Comparisons = append(r.Comparisons, c)
		}
	}
	slices.SortStableFunc(r.Comparisons, func(a, b Comparison) int { return compareLinks(a.Link, b.Link) })
	for _, pair := range r.Pairs() {
		var of []Comparison
		for _, c := range r.Comparisons {
			if c.Devices == pair.Devices && c.Falcon == pair.Falcon && c.Other == pair.Other {
				of = append(of, c)
			}
		}
		r.Borders = append(r.Borders, borders(of)...)
		r.Advice = append(r.Advice, advice(of)...)
	}
}

// alone lists the suites that are compared with nothing, with the reason.
func (r Result) alone() (all []string) {
	for _, c := range r.Cells {
		compared := slices.ContainsFunc(r.Comparisons, func(d Comparison) bool { return d.Falcon == c.Suite || d.Other == c.Suite })
		if compared || slices.ContainsFunc(all, func(s string) bool { return strings.HasPrefix(s, c.Suite+" ") }) {
			continue
		}
		why := "what it would be compared with was not measured"
		if level3 := []string{"dilithium3", "mldsa65"}; slices.Contains(level3, c.signature()) {
			why = "Falcon has no parameters of its security level, 3, nor anything between 1 and 5"
		}
		all = append(all, fmt.Sprintf("%s is measured and compared with nothing: %s.", c.Suite, why))
	}
	return all
}

// Pair is two suites that are compared, and between which devices.
type Pair struct {
	Devices       Devices
	Falcon, Other string
}

func (p Pair) String() string { return p.Falcon + " and " + p.Other }

// Pairs are in the order in which devices and suites were measured.
func (r Result) Pairs() []Pair {
	var all []Pair
	for _, f := range r.Cells {
		for _, o := range r.Cells {
			p := Pair{f.Devices, f.Suite, o.Suite}
			if !slices.Contains(all, p) && slices.ContainsFunc(r.Comparisons, func(c Comparison) bool { return p == Pair{c.Devices, c.Falcon, c.Other} }) {
				all = append(all, p)
			}
		}
	}
	return all
}

// borders of one pair's comparisons, which are sorted by loss, delay and rate.
func borders(of []Comparison) []Border {
	var all []Border
	for len(of) > 0 {
		first := of[0].Link
		n := slices.IndexFunc(of, func(c Comparison) bool { return c.Link.Loss != first.Loss || c.Link.DelayMs != first.DelayMs })
		if n < 0 {
			n = len(of)
		}
		all = append(all, border(of[:n]))
		of = of[n:]
	}
	return all
}

// border of comparisons that differ by rate alone, the lowest first.
func border(of []Comparison) Border {
	c := of[0]
	b := Border{Devices: c.Devices, Falcon: c.Falcon, Other: c.Other, DelayMs: c.Link.DelayMs, Loss: c.Link.Loss}
	var last, first *Comparison // at which Falcon is faster, and the other
	for i := range of {
		switch of[i].sign() {
		case -1:
			last = &of[i]
			b.Mixed = b.Mixed || first != nil
		case 1:
			if first == nil {
				first = &of[i]
			}
		}
	}
	if last != nil {
		b.FalconUpTo = last.Link.Rate
	}
	if first != nil {
		b.OtherFrom = first.Link.Rate
	}
	if last != nil && first != nil && !b.Mixed {
		b.At = crossing(last.Link.Rate, first.Link.Rate, float64(last.Shift), float64(first.Shift))
	}
	b.Text = b.text(of)
	return b
}

// crossing is where a difference that goes in a straight line with 1/rate is 0.
func crossing(low, high topology.Rate, atLow, atHigh float64) topology.Rate {
	x, y := 1/float64(low), 1/float64(high)
	at := 1 / (x + (y-x)*atLow/(atLow-atHigh))
	if !(at > 0) || math.IsInf(at, 0) { // a time was infinite
		return 0
	}
	return topology.Rate(at)
}

func (b Border) text(of []Comparison) string {
	falcon, _, _ := strings.Cut(b.Falcon, "+")
	other, _, _ := strings.Cut(b.Other, "+")
	slowest, fastest := of[0].Link.Rate, of[len(of)-1].Link.Rate
	none := ""
	if b.Mixed {
		var seen []string
		for _, c := range of {
			who := map[int]string{-1: falcon, 0: "no difference seen", 1: other}[c.sign()]
			seen = append(seen, spaced(c.Link.Rate)+": "+who)
		}
		return "no border: " + strings.Join(seen, ", ")
	}
	switch {
	case b.FalconUpTo > 0 && b.OtherFrom > 0:
		text := fmt.Sprintf("%s is faster up to %s, %s from %s", falcon, spaced(b.FalconUpTo), other, spaced(b.OtherFrom))
		if b.At > 0 {
			text += fmt.Sprintf("; between them at about %s", about(b.At))
		}
		return text
	case b.FalconUpTo > 0:
		if b.FalconUpTo < fastest {
			none = "; above it no difference was seen"
		}
		return fmt.Sprintf("%s is faster up to %s%s", falcon, spaced(b.FalconUpTo), none)
	case b.OtherFrom > 0:
		if b.OtherFrom > slowest {
			none = "; below it no difference was seen"
		}
		return fmt.Sprintf("%s is faster from %s%s", other, spaced(b.OtherFrom), none)
	}
	return fmt.Sprintf("no difference seen from %s to %s", spaced(slowest), spaced(fastest))
}

// about is a rate with two digits: "3.4 Mbit/s".
func about(r topology.Rate) string {
	for _, u := range []struct {
		size topology.Rate
		name string
	}{{topology.Gbit, "Gbit/s"}, {topology.Mbit, "Mbit/s"}, {topology.Kbit, "kbit/s"}, {topology.Bit, "bit/s"}} {
		if v := rounded(float64(r), 2) / float64(u.size); v >= 1 {
			return strconv.FormatFloat(v, 'f', max(0, 1-int(math.Floor(math.Log10(v)))), 64) + " " + u.name
		}
	}
	return r.String()
}

// rounded is v with so many digits that count: 999.6 with three of them is 1000.
func rounded(v float64, digits int) float64 {
	if v == 0 {
		return 0
	}
	last := math.Pow(10, math.Floor(math.Log10(math.Abs(v)))+1-float64(digits))
	return math.Round(v/last) * last
}

// advice judges what the paper says by one pair's comparisons.
func advice(of []Comparison) []Advice {
	var all []Advice
	for _, place := range places() {
		a := Advice{Devices: of[0].Devices, Falcon: of[0].Falcon, Other: of[0].Other, Where: place.name, Advised: of[0].Other}
		if place.falcon {
			a.Advised = a.Falcon
		}
		for _, c := range of {
			if !place.is(c.Link) {
				continue
			}
			a.Links++
			if c.Late {
				a.Late++
			}
			switch c.Faster {
			case "":
			case a.Advised:
				a.For++
			default:
				a.Against++
			}
		}
		a.Verdict = a.verdict()
		all = append(all, a)
	}
	return all
}

func (a Advice) verdict() string {
	switch {
	case a.Links == 0:
		return NotMeasured
	case a.For == a.Links:
		return Holds
	case a.For > 0 && a.Against == 0:
		return HoldsPartly
	case a.For > 0:
		return Mixed
	case a.Against == a.Links:
		return Contrary
	case a.Against > 0:
		return ContraryPartly
	}
	return Undecided
}
