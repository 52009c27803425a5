package topology

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Shape is what a link does to the packets of one direction. The zero value passes them on at once. The parts apply
// independently and to each packet by itself, those that were sent as one large segment too.
type Shape struct {
	Rate      Rate       // bits per second; 0 means unshaped
	RateTrace []RateStep // in place of Rate: begins with the shape, and anew at its end; not to be written to
	Queue     Queue      // of what waits for the rate

	Delay  time.Duration // one way, added to what the length of a fibre gives; in a Plan: with it
	Jitter time.Duration // standard deviation of Delay

	Distribution string    // of the delay: one of distributions(); empty means "normal", or Table's
	Table        []float64 // in place of Distribution: equally likely values, of any mean and scale
	Unordered    bool      // packets whose delay varies overtake each other; otherwise one waits for those before it

	Loss            float64 // share of packets lost, 0 to 1
	LossCorrelation float64 // of the loss of a packet and that of the next, from 0 to less than 1
	GilbertElliott  GilbertElliott
	// LossTrace, in place of chance: so many packets pass, so many are lost, so many pass … and anew at its end. Only its
	// first number may be 0. Not to be written to.
	LossTrace []int
	Outages   []Outage // do not overlap

	Duplication float64 // share of packets that come twice
	Reordering  float64 // share of packets that skip the delay and so overtake those before them
	Corruption  float64 // share of packets in which a bit is turned over
}

// GilbertElliott is loss in bursts: a Markov chain that takes a step with each packet (Gilbert 1960, Elliott 1963). The
// mean burst has 1/R packets, the mean gap 1/P, the share of packets in bursts is P/(P+R). The zero value is none.
type GilbertElliott struct {
	P    float64 // probability to go from the good state to the bad one
	R    float64 // probability to go back
	Bad  float64 // share of packets lost in the bad state; 0 means all
	Good float64 // share of packets lost in the good state
}

// Chain is the loss of a shape as such a chain, with Bad filled in: independent and correlated loss are special cases.
// It is zero if nothing is lost.
func (s Shape) Chain() GilbertElliott {
	g := s.GilbertElliott
	switch {
	case g != GilbertElliott{}:
		if g.Bad == 0 {
			g.Bad = 1
		}
	case s.Loss > 0:
		// A chain whose states are kept with probability c more than by chance has the correlation c.
		change := 1 - s.LossCorrelation
		g = GilbertElliott{P: s.Loss * change, R: (1 - s.Loss) * change, Bad: 1}
	}
	return g
}

// Loses says whether packets may be lost that a rate would let pass. What a corrupted packet's receiver does is to lose it.
func (s Shape) Loses() bool {
	return len(s.LossTrace) > 0 || len(s.Outages) > 0 || s.Loss > 0 || s.Corruption > 0 || s.GilbertElliott != GilbertElliott{}
}

// Random says whether a packet's fate depends on chance.
func (s Shape) Random() bool {
	return s.Jitter > 0 || s.Chain() != GilbertElliott{} || s.Duplication > 0 || s.Reordering > 0 || s.Corruption > 0
}

// Impairments says in words all but the rate, one of each: "delay 5ms", "loss 1%".
func (s Shape) Impairments() []string {
	var parts []string
	if s.Delay > 0 {
		parts = append(parts, "delay "+s.Delay.String())
	}
	if s.Jitter > 0 {
		text := "jitter " + s.Jitter.String()
		if d := s.DelayDistribution(); d != normal {
			text += " " + d
		}
		if s.Unordered {
			text += " unordered"
		}
		parts = append(parts, text)
	}
	if s.Loss > 0 {
		text := "loss " + percent(s.Loss)
		if s.LossCorrelation > 0 {
			text += " correlation " + percent(s.LossCorrelation)
		}
		parts = append(parts, text)
	}
	if g := s.GilbertElliott; g != (GilbertElliott{}) {
		g = s.Chain()
		text := fmt.Sprintf("gilbert_elliott p %s r %s", percent(g.P), percent(g.R))
		if g.Bad < 1 {
			text += " bad " + percent(g.Bad)
		}
		if g.Good > 0 {
			text += " good " + percent(g.Good)
		}
		parts = append(parts, text)
	}
	for _, p := range []struct {
		name  string
		share float64
	}{{"duplication ", s.Duplication}, {"reordering ", s.Reordering}, {"corruption ", s.Corruption}} {
		if p.share > 0 {
			parts = append(parts, p.name+percent(p.share))
		}
	}
	return append(parts, s.Scheduled()...)
}

// String is the rate and the impairments, "unshaped" if there are none.
func (s Shape) String() string { return Link{}.Does(s) }

// Needs says in words, one of each, what a direction of the link that has this shape does beyond what a bare pair of
// interfaces does: "airtime of jetson-ac-2x2-80 at 5m", "rate 1Mbit/s", "delay 5ms".
func (l Link) Needs(s Shape) []string {
	var parts []string
	if l.WiFi != nil {
		parts = append(parts, "airtime of "+l.WiFi.String())
	}
	if s.Rate > 0 {
		parts = append(parts, "rate "+s.Rate.String())
	}
	return append(parts, s.Impairments()...)
}

// Does says in words what the link does to packets of a direction that has this shape: all it Needs, "unshaped" if that is
// nothing.
func (l Link) Does(s Shape) string {
	if needs := l.Needs(s); needs != nil {
		return strings.Join(needs, ", ")
	}
	return "unshaped"
}

func percent(share float64) string { return strconv.FormatFloat(share*100, 'g', 6, 64) + "%" }

// normal is the distribution of a jitter that names none.
const normal = "normal"

func distributions() []string { return []string{"uniform", normal, "pareto", "paretonormal"} }

// DelayDistribution names the distribution of the delay: "table" for a Table.
func (s Shape) DelayDistribution() string {
	switch {
	case len(s.Table) > 0:
		return "table"
	case s.Distribution == "":
		return normal
	}
	return s.Distribution
}

// maxTable is how many values a table has at most.
const maxTable = 4096

// checkShape reports what l cannot do, whose kind, length, MTU and the like are right, and adds to s what l's length and
// PCI Express give. at gives the element of a key.
func (p *problems) checkShape(l *Link, s *Shape, at func(key string) string, what string) {
	if l.WiFi != nil {
		p.checkAir(s, at, what)
		return
	}
	bad := func(key, format string, args ...any) { p.add(BadValue, at(key), what+": "+format, args...) }
	for _, share := range []struct {
		key   string
		value float64
		open  bool // 1 is too much
		why   string
	}{
		{"loss", s.Loss, false, ""},
		{"loss_correlation", s.LossCorrelation, true, "all packets would fare as the first"},
		{"gilbert_elliott.p", s.GilbertElliott.P, false, ""},
		{"gilbert_elliott.r", s.GilbertElliott.R, false, ""},
		{"gilbert_elliott.bad", s.GilbertElliott.Bad, false, ""},
		{"gilbert_elliott.good", s.GilbertElliott.Good, false, ""},
		{"duplication", s.Duplication, false, ""},
		{"reordering", s.Reordering, true, "packets that all skip the delay overtake none"},
		{"corruption", s.Corruption, false, ""},
	} {
		name := strings.ReplaceAll(share.key, ".", " ")
		switch {
		case !(share.value >= 0 && share.value <= 1):
			bad(share.key, "%s %v is outside 0 to 1", name, share.value)
		case share.open && share.value == 1:
			bad(share.key, "%s of 100%%: %s", name, share.why)
		}
	}
	if s.LossCorrelation > 0 && s.Loss == 0 {
		bad("loss_correlation", "loss_correlation is of the losses, and there are none; give a loss")
	}
	if g := s.GilbertElliott; g != (GilbertElliott{}) {
		switch {
		case s.Loss > 0:
			bad("gilbert_elliott", "loss and gilbert_elliott are two ways to lose packets; give one")
		case g.P == 0 || g.R == 0:
			bad("gilbert_elliott", "gilbert_elliott never leaves a state whose p or r is 0; give both, or a loss")
		case g.Good >= s.Chain().Bad:
			bad("gilbert_elliott", "gilbert_elliott loses as much in the good state (%s) as in the bad one (%s)", percent(g.Good), percent(s.Chain().Bad))
		}
	}
	p.checkDelay(s, l.propagation(), at, what)
	p.checkSlotRate(l, s, at, what)
	p.checkSchedule(s, l.MTU, at, what)
}

func (p *problems) checkDelay(s *Shape, length time.Duration, at func(key string) string, what string) {
	bad := func(key, format string, args ...any) { p.add(BadValue, at(key), what+": "+format, args...) }
	sane := true
	for _, d := range []struct {
		key   string
		value time.Duration
	}{{"delay", s.Delay}, {"jitter", s.Jitter}} {
		if d.value < 0 || d.value > time.Hour {
			bad(d.key, "%s %v is outside 0s to %v", d.key, d.value, time.Hour)
			sane = false
		}
	}
	if !sane {
		return
	}
	s.Delay += length
	if s.Reordering > 0 && s.Delay == 0 {
		bad("reordering", "what is reordered skips the delay, and there is none; give a delay")
	}
	if s.Jitter == 0 {
		for _, k := range []struct {
			key   string
			given bool
		}{{"distribution", s.Distribution != ""}, {"table", len(s.Table) > 0}, {"unordered", s.Unordered}} {
			if k.given {
				bad(k.key, "%s says how the delay varies, and it does not; give a jitter", k.key)
			}
		}
		return
	}
	switch spread := float64(s.Jitter) * math.Sqrt(3); {
	case s.Delay == 0:
		bad("jitter", "jitter varies the delay, and there is none; give a delay")
	case s.Jitter > s.Delay:
		bad("jitter", "jitter %v is more than the delay of %v: packets would arrive before they are sent", s.Jitter, s.Delay)
	case s.DelayDistribution() == "uniform" && spread > float64(s.Delay):
		bad("jitter", "a uniform delay with standard deviation %v reaches %v to both sides, more than the delay of %v", s.Jitter,
			time.Duration(spread).Round(time.Microsecond), s.Delay)
	}
	if s.Distribution != "" && len(s.Table) > 0 {
		bad("table", "distribution and table are two ways to say the same; give one")
	}
	p.oneOf(at("distribution"), what+": distribution", s.Distribution, distributions(), true)
	p.checkTable(s.Table, at, what)
}

func (p *problems) checkTable(table []float64, at func(key string) string, what string) {
	differ := len(table) == 0
	for i, v := range table {
		if !(math.Abs(v) <= 1e12) {
			p.add(BadValue, fmt.Sprintf("%s[%d]", at("table"), i), "%s: table: %v is outside -1e12 to 1e12", what, v)
			return
		}
		differ = differ || math.Abs(v-table[0]) > 1e-9*max(1, math.Abs(v))
	}
	switch {
	case len(table) > maxTable:
		p.add(BadValue, at("table"), "%s: table: has %d values, more than %d", what, len(table), maxTable)
	case !differ:
		p.add(BadValue, at("table"), "%s: table: all its values are the same; that is no jitter", what)
	}
}
