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
	Least   float64    `json:"least_ms"`
	P99     float64    `json:"p99_ms"`
	Most    float64    `json:"most_ms"`
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

// cells are a row of the table of links.
func (l Link) cells() []string {
	cells := []string{l.Link, l.From, l.Wanted, "-", "-", "-", "-"}
	if d := l.Delay; d != nil {
		cells[3], cells[4] = millis(d.Seen[1]), millis(d.P99)
	}
	if l.Loss != nil {
		cells[5] = fmt.Sprintf("%.3g%% (%.2g to %.2g)", 100*l.Loss.Seen, 100*l.Loss.Low, 100*l.Loss.High)
	}
	if l.Rate != nil {
		cells[6] = Rate(l.Rate.Seen)
	}
	return cells
}
