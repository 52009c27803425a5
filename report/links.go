package report

import "fmt"

// Link is how one direction of a link did when it was measured before the lab was used. Times are in milliseconds, rates in
// bit/s of Ethernet frames; low and high bound confidence intervals.
type Link struct {
	Link   string `json:"link"`
	From   string `json:"from"`
	To     string `json:"to"`
	Shaper string `json:"shaper"`
	Wanted string `json:"wanted"`
	Tries  int    `json:"tries"` // until it was within tolerance

	Delay       *LinkDelay `json:"delay,omitempty"`
	Loss        *LinkShare `json:"loss,omitempty"` // corruption included
	Duplication *LinkShare `json:"duplication,omitempty"`
	Rate        *LinkRate  `json:"rate,omitempty"`
	// Lateness of a wire: packets that it held back left it so much too late, at most and at the 99th percentile.
	LateMs    float64 `json:"late_max_ms,omitempty"`
	LateP99Ms float64 `json:"late_p99_ms,omitempty"`
	// Missed are packets that a wire did not read in time; they are among those lost.
	Missed     uint64   `json:"missed,omitempty"`
	Unmeasured []string `json:"unmeasured,omitempty"` // what is wanted and could not be measured, and why
}

// LinkDelay has quartiles: the first, the median, the third.
type LinkDelay struct {
	Packets int        `json:"packets"`
	Wanted  [3]float64 `json:"wanted_ms"`
	Sending float64    `json:"sending_ms"` // what the packet's size takes at the link's rate, which a shaper may add to Wanted
	Seen    [3]float64 `json:"seen_ms"`
	Low     [3]float64 `json:"low_ms"`
	High    [3]float64 `json:"high_ms"`
	// Tail has the 90th and the 99th percentile.
	Tail  []LinkQuantile `json:"tail,omitempty"`
	Least float64        `json:"least_ms"`
	P99   float64        `json:"p99_ms"`
	Most  float64        `json:"most_ms"`
}

// LinkQuantile is one of a delay: so large a share is not longer.
type LinkQuantile struct {
	Share  float64 `json:"share"`
	Wanted float64 `json:"wanted_ms"`
	Seen   float64 `json:"seen_ms"`
	Low    float64 `json:"low_ms"`
	High   float64 `json:"high_ms"`
}

// LinkShare is a share of packets.
type LinkShare struct {
	Packets int     `json:"packets"`
	Count   int     `json:"count"`
	Wanted  float64 `json:"wanted"`
	Seen    float64 `json:"seen"`
	Low     float64 `json:"low"`
	High    float64 `json:"high"`
}

// LinkRate is that of a link that more is sent over than passes.
type LinkRate struct {
	Wanted float64 `json:"wanted_bits_per_second"`
	Seen   float64 `json:"seen_bits_per_second"`
}

// Measured lists what of the direction was: "delay", "loss", "duplication", "rate".
func (l Link) Measured() (all []string) {
	for _, of := range []struct {
		what string
		was  bool
	}{{"delay", l.Delay != nil}, {"loss", l.Loss != nil}, {"duplication", l.Duplication != nil}, {"rate", l.Rate != nil}} {
		if of.was {
			all = append(all, of.what)
		}
	}
	return all
}

// verified counts the directions of links that were; "" where none was to be.
func (r Result) verified() string {
	if len(r.Links) == 0 {
		return ""
	}
	verified, partly := 0, 0
	for _, l := range r.Links {
		if l.Measured() == nil {
			continue
		}
		if verified++; len(l.Unmeasured) > 0 {
			partly++
		}
	}
	text := fmt.Sprintf("; %d of %d directions of links verified", verified, len(r.Links))
	if partly > 0 {
		text += fmt.Sprintf(", %d of them in part", partly)
	}
	return text
}

// idle says why a result has no checks; "" where that is nothing that the lab could tell.
func (r Result) idle() string {
	switch {
	case len(r.Tunnels) > 0, len(r.Traffic) > 0:
		return ""
	case len(r.Links) > 0:
		return ": the lab has neither traffic nor tunnels, and the warnings say why no link could be verified"
	case r.VerifyMs > 0:
		return ": the lab has neither traffic nor tunnels, and no link has a shape to verify"
	}
	return ": the lab has neither traffic nor tunnels nor links to verify (verify: true)"
}

// cells are a row of the table of links.
func (l Link) cells() []string {
	cells := []string{l.Link, l.From, l.Wanted, "-", "-", "-", "-"}
	if d := l.Delay; d != nil {
		cells[3], cells[4] = millis(d.Seen[1]), millis(d.P99)
	}
	if s := l.Loss; s != nil {
		cells[5] = fmt.Sprintf("%s of %d (%s to %s)", percent(s.Seen), s.Packets, percent(s.Low), percent(s.High))
	}
	if l.Rate != nil {
		cells[6] = Rate(l.Rate.Seen)
	}
	return cells
}

// around says how far a quartile of a delay is from the median.
func around(quartiles [3]float64, i int) string {
	d := num(quartiles[i]) - num(quartiles[1])
	switch {
	case d > 0:
		return "+" + millis(d)
	case d < 0:
		return "−" + millis(-d)
	}
	return millis(0)
}
