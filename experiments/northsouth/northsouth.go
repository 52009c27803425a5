// Package northsouth repeats the first paper's north-south result: a Wi-Fi client that tunnels to a DPU. It puts what is
// measured beside what the paper reports, and says what it depends on.
package northsouth

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"pqlab/experiments"
	"pqlab/experiments/samples"
	"pqlab/lab"
	"pqlab/topology"
)

// Name of the experiment.
const Name = "north-south"

// What the paper reports, in bit/s: in its abstract, its results and its conclusion, and in one sentence of its setup.
const (
	Headline = 0.486e9
	Text     = 0.468e9
)

// Options say what is varied, each by itself, and what is repeated. What is left empty is not varied.
type Options struct {
	MCS       []int
	AMPDU     []int     // MPDUs in an A-MPDU at most
	Distances []float64 // metres to the access point
	Stations  []int     // that send at once, each through a tunnel of its own
	MTUs      []int     // of the air and of what lies behind it, bytes of IP packet

	Repeats  int // of each setting, each with a seed of its own
	Seed     uint64
	Duration time.Duration // of each flow
	Lab      lab.Options

	Version  string
	Command  []string
	Progress func(done float64, what string)
}

// Setting is the built-in lab with something changed.
type Setting struct {
	Parameter string  `json:"parameter"` // what is changed: "as built in", "MCS", "A-MPDU", …
	Value     float64 `json:"value"`
	Unit      string  `json:"unit,omitempty"`
	Proto     string  `json:"proto"`
	Down      bool    `json:"down"` // from the host to the client

	station  func(*topology.Station)
	stations int
	mtu      int
}

// String is as "A-MPDU 32", "distance 20 m".
func (s Setting) String() string {
	switch {
	case s.station != nil || s.stations > 0 || s.mtu > 0 || s.Value != 0:
		return s.Parameter + " " + s.value()
	case s.Down:
		return s.Parameter + ", " + s.Proto + " to the client"
	}
	return s.Parameter + ", " + s.Proto
}

func (s Setting) value() string {
	text := strconv.FormatFloat(s.Value, 'g', 6, 64)
	if s.Unit != "" {
		text += " " + s.Unit
	}
	return text
}

// Names of what is varied.
const (
	asBuiltIn = "as built in"
	mcs       = "MCS"
	ampdu     = "A-MPDU"
	distance  = "distance"
	stations  = "stations"
	mtu       = "MTU"
)

// settings to be measured; the first is the built-in lab with the traffic that the others are compared by.
func (o Options) settings() []Setting {
	all := []Setting{
		{Parameter: asBuiltIn, Proto: "tcp"}, {Parameter: asBuiltIn, Proto: "tcp", Down: true}, {Parameter: asBuiltIn, Proto: "udp"},
	}
	for _, v := range o.MCS {
		all = append(all, Setting{Parameter: mcs, Value: float64(v), Proto: "tcp", station: func(s *topology.Station) { s.MCS = &v }})
	}
	for _, v := range o.AMPDU {
		all = append(all, Setting{Parameter: ampdu, Value: float64(v), Unit: "MPDUs", Proto: "tcp", station: func(s *topology.Station) { s.MaxAMPDU = v }})
	}
	for _, v := range o.Distances {
		all = append(all, Setting{Parameter: distance, Value: v, Unit: "m", Proto: "tcp", station: func(s *topology.Station) { s.Distance, s.Path = v, nil }})
	}
	for _, v := range o.Stations {
		all = append(all, Setting{Parameter: stations, Value: float64(v), Proto: "tcp", stations: v})
	}
	for _, v := range o.MTUs {
		all = append(all, Setting{Parameter: mtu, Value: float64(v), Unit: "B", Proto: "tcp", mtu: v})
	}
	return all
}

// Run is one measurement of a setting. Rates are in bit/s of what the flow's receiver got: payload for TCP, IP packets for UDP.
type Run struct {
	Seed          uint64    `json:"seed"`
	BitsPerSecond float64   `json:"bits_per_second"` // all stations together
	Stations      []float64 `json:"stations_bits_per_second"`
	LateP99Us     float64   `json:"late_p99_us"`   // by how much one packet in a hundred came too late of the air
	Idle          float64   `json:"idle"`          // share of the cores' time meanwhile that nobody used
	Why           string    `json:"why,omitempty"` // a station carried nothing: "no tunnel: …", "no traffic: …"
}

// Measured is a setting with its runs.
type Measured struct {
	Setting
	Name   string  `json:"name"`
	Median float64 `json:"median_bits_per_second"`
	Low    float64 `json:"low_bits_per_second"` // the least of the runs
	High   float64 `json:"high_bits_per_second"`
	Change float64 `json:"change"` // of the median against the built-in lab's, as a share
	// Model is what the air alone would carry of the same payload, by package wifi in virtual time: not measured. It has no TCP,
	// whose acknowledgements take air too, and no machine that is busy.
	// It is the median of modelSeeds seeds; the range is that of all.
	Model     float64 `json:"model_not_measured_bits_per_second"`
	ModelLow  float64 `json:"model_not_measured_low_bits_per_second"`
	ModelHigh float64 `json:"model_not_measured_high_bits_per_second"`
	Busy      int     `json:"busy_runs"`   // in which the machine may have been the limit
	Failed    int     `json:"failed_runs"` // in which a station carried nothing, which counts as 0
	Runs      []Run   `json:"runs"`
}

// Meeting is which settings one of the paper's figures may be from.
type Meeting struct {
	Paper    float64  `json:"paper_bits_per_second"`
	Settings []string `json:"settings"` // whose runs lie on both sides of it
}

// Sensitivity is what one parameter does.
type Sensitivity struct {
	Parameter string  `json:"parameter"`
	Low       float64 `json:"low_bits_per_second"` // the lowest median
	High      float64 `json:"high_bits_per_second"`
	// At is for which value the paper's headline is met, in a straight line between its neighbours; nil if it is met nowhere.
	At *float64 `json:"at,omitempty"`
	// ModelAt is the same of the model's figures, which are not measured.
	ModelAt *float64 `json:"model_at,omitempty"`
	Text    string   `json:"text"`
}

// Result is a run of the experiment.
type Result struct {
	experiments.About
	Paper     float64 `json:"paper_bits_per_second"`
	PaperText float64 `json:"paper_text_bits_per_second"`
	Radio     string  `json:"radio"` // of the built-in lab's client, and where it is
	Duration  float64 `json:"duration_s"`

	Measured      []Measured    `json:"measured"`
	Meetings      []Meeting     `json:"meetings"` // of the headline, and of the text
	Sensitivities []Sensitivity `json:"sensitivities"`
}

// A run's figure may be the machine's and not the air's where less than leastIdle of the cores' time was left, or the air's
// schedule was late by more than tooLate.
const (
	leastIdle = 0.05
	tooLate   = 2e3 // µs
)

// busy says whether the machine may have been the limit.
func (r Run) busy() bool { return r.Idle < leastIdle || r.LateP99Us > tooLate }

// Evaluate computes what follows of the runs.
func (r *Result) Evaluate() {
	r.Paper, r.PaperText, r.Sensitivities = Headline, Text, []Sensitivity{}
	late, runs := 0, 0
	for i := range r.Measured {
		m := &r.Measured[i]
		m.Name = m.String()
		m.Busy, m.Failed = 0, 0
		var rates []float64
		why := ""
		for _, run := range m.Runs {
			rates = append(rates, run.BitsPerSecond)
			runs++
			switch {
			case run.Why != "":
				m.Failed++
				why = run.Why
			case run.busy():
				m.Busy++
			}
		}
		late += m.Busy
		if m.Failed > 0 {
			r.Warnings = append(r.Warnings, fmt.Sprintf("%s: %d of %d runs carried nothing for a station, which counts as 0: %s", m.Name, m.Failed, len(m.Runs), why))
		}
		m.Median, m.Low, m.High = samples.Quantile(rates, 0.5), slices.Min(rates), slices.Max(rates)
		if base := r.Measured[0].Median; base > 0 {
			m.Change = m.Median/base - 1
		}
	}
	r.Meetings = []Meeting{r.meeting(Headline), r.meeting(Text)}
	for _, parameter := range []string{mcs, ampdu, distance, stations, mtu} {
		var of []Measured
		for _, m := range r.Measured {
			if m.Parameter == parameter {
				of = append(of, m)
			}
		}
		if len(of) > 0 {
			r.Sensitivities = append(r.Sensitivities, sensitivity(of))
		}
	}
	if late > 0 {
		r.Warnings = append(r.Warnings, fmt.Sprintf("in %d of %d runs the machine had less than %.0f %% of its cores to spare, or was late by more than %.0f ms with one packet in a hundred: "+
			"what these measured may be its limit and not the air's", late, runs, leastIdle*100, tooLate/1e3))
	}
}

// meeting is all settings that a figure may be from, as far as their runs scatter. Which median is the nearest to it would
// be chance.
func (r *Result) meeting(paper float64) Meeting {
	met := Meeting{Paper: paper, Settings: []string{}}
	for _, m := range r.Measured {
		if m.Low <= paper && paper <= m.High {
			met.Settings = append(met.Settings, m.Name)
		}
	}
	return met
}

// sensitivity of one parameter, whose settings come in some order.
func sensitivity(of []Measured) Sensitivity {
	slices.SortFunc(of, func(a, b Measured) int {
		switch {
		case a.Value < b.Value:
			return -1
		case a.Value > b.Value:
			return 1
		}
		return 0
	})
	s := Sensitivity{Parameter: of[0].Parameter, Low: of[0].Median, High: of[0].Median}
	for _, m := range of {
		s.Low, s.High = min(s.Low, m.Median), max(s.High, m.Median)
	}
	s.At = meets(of, func(m Measured) float64 { return m.Median })
	s.ModelAt = meets(of, func(m Measured) float64 { return m.Model })
	s.Text = fmt.Sprintf("%s: %s", of[0].value(), gbit(of[0].Median))
	if len(of) == 1 {
		return s
	}
	last := of[len(of)-1]
	s.Text = fmt.Sprintf("%s to %s: %s to %s", of[0].value(), last.value(), gbit(of[0].Median), gbit(last.Median))
	for _, met := range []struct {
		what string
		at   *float64
	}{{"the paper's " + gbit(Headline), s.At}, {"by the model, not measured,", s.ModelAt}} {
		if met.at == nil {
			s.Text += fmt.Sprintf("; %s at none of them", met.what)
			continue
		}
		s.Text += fmt.Sprintf("; %s at about %s", met.what, Setting{Value: math.Round(*met.at*10) / 10, Unit: of[0].Unit}.value())
	}
	return s
}

// meets is for which value a figure of the settings, which are in order, is the paper's headline; nil if it is nowhere.
func meets(of []Measured, figure func(Measured) float64) *float64 {
	for i := 1; i < len(of); i++ {
		x, y := figure(of[i-1]), figure(of[i])
		if (x-Headline)*(y-Headline) <= 0 && x != y {
			at := of[i-1].Value + (of[i].Value-of[i-1].Value)*(Headline-x)/(y-x)
			return &at
		}
	}
	return nil
}

// gbit prints a rate as the paper does: "0.486 Gbit/s".
func gbit(bits float64) string { return fmt.Sprintf("%.3f Gbit/s", bits/1e9) }
