package northsouth

import (
	"fmt"
	"slices"
	"strings"

	"pqlab/experiments"
	"pqlab/report"
)

// Beside is the paper beside the built-in lab.
func (r Result) Beside() report.Table {
	t := report.Table{Text: 1, Head: []string{"what", "median Gbit/s", "least run", "most run", "share of the paper's", "model Gbit/s, not measured"}}
	for _, paper := range []struct {
		name string
		bits float64
	}{{"the paper", Headline}, {"the paper, in one sentence", Text}} {
		t.Rows = append(t.Rows, []string{paper.name, short(paper.bits), "–", "–", share(paper.bits), "–"})
	}
	for _, m := range r.Measured {
		if m.Parameter == asBuiltIn {
			t.Rows = append(t.Rows, []string{"pqlab, " + m.Name, m.carries(), short(m.Low), short(m.High), share(m.Median), short(m.Model)})
		}
	}
	return t
}

// short prints a rate in Gbit/s, without the unit.
func short(bits float64) string { return fmt.Sprintf("%.3f", bits/1e9) }

// share is a rate in terms of the headline.
func share(bits float64) string { return fmt.Sprintf("%.0f %%", 100*bits/Headline) }

// carries is the median, or what was lacking in all runs: "no tunnel".
func (m Measured) carries() string {
	if m.Median == 0 && m.Failed == len(m.Runs) && m.Failed > 0 {
		what, _, _ := strings.Cut(m.Runs[0].Why, ":")
		return what
	}
	return short(m.Median)
}

// Settings is all that was measured.
func (r Result) Settings() report.Table {
	t := report.Table{Text: 1, Head: []string{
		"setting", "median Gbit/s", "least run", "most run", "against as built in", "each station", "runs", "99 % less late than", "cores idle", "model Gbit/s, not measured",
	}}
	for _, m := range r.Measured {
		each, late, idle, ran := m.Median, 0.0, 1.0, false
		for _, run := range m.Runs {
			each = m.Median / float64(len(run.Stations))
			if run.Why == "" {
				late, idle, ran = max(late, run.LateP99Us), min(idle, run.Idle), true
			}
		}
		row := []string{
			m.Name, m.carries(), short(m.Low), short(m.High), fmt.Sprintf("%+.0f %%", 100*m.Change), short(each), fmt.Sprint(len(m.Runs)), "–", "–", short(m.Model),
		}
		if ran {
			row[7], row[8] = fmt.Sprintf("%.0f µs", late), fmt.Sprintf("%.0f %%", 100*idle)
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// Depends is what the result depends on.
func (r Result) Depends() report.Table {
	t := report.Table{Text: 2, Head: []string{"parameter", "what it does"}}
	for _, s := range r.Sensitivities {
		t.Rows = append(t.Rows, []string{s.Parameter, s.Text})
	}
	return t
}

// Chart draws all settings beside the paper.
func (r Result) Chart() report.Chart {
	c := report.Chart{
		Title: "North-south", Unit: "Gbit/s", Linear: true, Rows: []string{"throughput"},
		Columns: []report.ChartColumn{{Name: "The paper, and what pqlab measured", Note: "Bars: medians; whiskers: all runs; diamonds: the model, not measured"}},
	}
	bars := []*report.ChartBar{{Value: Headline / 1e9, Title: "the paper: " + gbit(Headline)}, {Value: Text / 1e9, Title: "the paper, in one sentence: " + gbit(Text)}}
	c.Places = []report.ChartPlace{{Group: "paper", Name: "1"}, {Group: "paper", Name: "2"}}
	for _, m := range r.Measured {
		name := fmt.Sprint(m.Value)
		if m.Parameter == asBuiltIn {
			name = m.Proto
			if m.Down {
				name += "↓"
			}
		}
		c.Places = append(c.Places, report.ChartPlace{Group: m.Parameter, Name: name})
		bar := &report.ChartBar{
			Value: m.Median / 1e9, Low: m.Low / 1e9, High: m.High / 1e9, Beside: m.Model / 1e9, Marked: m.Failed > 0,
			Title: fmt.Sprintf("%s: %s, %s to %s; by the model, not measured, %s", m.Name, gbit(m.Median), gbit(m.Low), gbit(m.High), gbit(m.Model)),
		}
		if m.Median == 0 {
			bar.Title = m.Name + ": " + m.carries()
		}
		bars = append(bars, bar)
	}
	c.Bars = [][][]*report.ChartBar{{bars}}
	return c
}

// Method says in sentences what the figures are.
func (r Result) Method() []string {
	return []string{
		fmt.Sprintf("The built-in lab north-south, its client %s; each setting changes one thing of it. TCP from the client to the host if nothing else is said, %.3g s, payload; "+
			"UDP as IP packets. Median of the runs, each with a seed of its own, and the least and the most of them.", r.Radio, r.Duration),
		"Cores idle is the least that was left of the cores' time in a run, and 99 % less late than: by what all but one packet in a hundred kept the air's schedule at least. " +
			fmt.Sprintf("The model's figure is the air alone, in virtual time: full segments one way, without TCP's acknowledgements and without a machine that is busy; median of %d seeds.", modelSeeds),
		r.meets(Headline) + " " + r.meets(Text),
		"The paper names neither channel, distance, MCS, aggregation nor the protocol that iperf spoke, and let the MTU be what the path made of it. So a setting that meets its figure could be its own; it need not.",
	}
}

// meets lists the settings that one of the paper's figures may be from.
func (r Result) meets(paper float64) string {
	var all []string
	for _, met := range r.Meetings {
		if met.Paper != paper {
			continue
		}
		for _, m := range r.Measured {
			if !slices.Contains(met.Settings, m.Name) {
				continue
			}
			text := fmt.Sprintf("%s (%s to %s; model %s", m.Name, short(m.Low), short(m.High), short(m.Model))
			if m.Busy > 0 {
				text += fmt.Sprintf("; in %d of %d runs the machine may have been the limit", m.Busy, len(m.Runs))
			}
			all = append(all, text+")")
		}
	}
	if len(r.Measured) > 0 && len(r.Measured[0].Runs) == 1 {
		return fmt.Sprintf("Which settings the paper's %s may be from is not to be seen in one run of each.", gbit(paper))
	}
	if len(all) == 0 {
		return fmt.Sprintf("No setting has runs on both sides of the paper's %s.", gbit(paper))
	}
	return fmt.Sprintf("The paper's %s lies within the runs of: %s.", gbit(paper), strings.Join(all, ", "))
}

// notes are the method, and how well the schedule was kept; where it was not it is a warning.
func (r Result) notes() []string {
	if !r.Punctual() {
		return r.Method()
	}
	return append(r.Method(), r.Schedule.String())
}

// Document is the page of a report.
func (r Result) Document() report.Document {
	beside, depends, settings, chart := r.Beside(), r.Depends(), r.Settings(), r.Chart()
	return report.Document{
		Title: "North-south", Subtitle: r.Where(), Version: r.Version, Warnings: r.Warnings,
		Sections: []report.Section{
			{Title: "Paper and pqlab", Table: &beside, Chart: &chart, Notes: r.notes()},
			{Title: "What it depends on", Table: &depends},
			{Title: "All settings", Table: &settings},
		},
	}
}

// WriteDir writes the report.
func (r Result) WriteDir(dir string) error {
	return experiments.WriteDir(dir, r, r.Document(), experiments.Picture{File: "throughput.svg", Drawing: r.Chart()})
}
