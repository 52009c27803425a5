package northsouth

import (
	"fmt"

	"pqlab/experiments"
	"pqlab/report"
)

// Beside is the paper beside the built-in lab.
func (r Result) Beside() report.Table {
	t := report.Table{Text: 1, Head: []string{"what", "Gbit/s", "least", "most", "of the paper's"}}
	row := func(what string, bits, low, high float64) {
		cells := []string{what, fmt.Sprintf("%.3f", bits/1e9), "–", "–", fmt.Sprintf("%.0f %%", 100*bits/Headline)}
		if high > 0 {
			cells[2], cells[3] = fmt.Sprintf("%.3f", low/1e9), fmt.Sprintf("%.3f", high/1e9)
		}
		t.Rows = append(t.Rows, cells)
	}
	row("the paper", Headline, 0, 0)
	row("the paper, in one sentence", Text, 0, 0)
	for _, m := range r.Measured {
		if m.Parameter == asBuiltIn {
			row("pqlab, "+m.Name, m.Median, m.Low, m.High)
		}
	}
	return t
}

// Settings is all that was measured.
func (r Result) Settings() report.Table {
	t := report.Table{Text: 1, Head: []string{"setting", "Gbit/s", "least", "most", "change", "a station", "runs", "1 % later than µs", "idle", "model, not measured"}}
	for _, m := range r.Measured {
		each, late, idle := m.Median, 0.0, 1.0
		for _, run := range m.Runs {
			each, late, idle = m.Median/float64(len(run.Stations)), max(late, run.LateP99Us), min(idle, run.Idle)
		}
		t.Rows = append(t.Rows, []string{
			m.Name, fmt.Sprintf("%.3f", m.Median/1e9), fmt.Sprintf("%.3f", m.Low/1e9), fmt.Sprintf("%.3f", m.High/1e9),
			fmt.Sprintf("%+.0f %%", 100*m.Change), fmt.Sprintf("%.3f", each/1e9), fmt.Sprint(len(m.Runs)), fmt.Sprintf("%.0f", late), fmt.Sprintf("%.0f %%", 100*idle),
			fmt.Sprintf("%.3f", m.Model/1e9),
		})
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
	c := report.Chart{Title: "North-south", Unit: "Mbit/s", Rows: []string{"throughput"}, Columns: []report.ChartColumn{{Name: "paper and pqlab", Note: r.Radio}}}
	bars := []*report.ChartBar{{Value: Headline / 1e6, Title: "the paper: " + gbit(Headline)}, {Value: Text / 1e6, Title: "the paper, in one sentence: " + gbit(Text)}}
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
		bars = append(bars, &report.ChartBar{
			Value: m.Median / 1e6, Low: m.Low / 1e6, High: m.High / 1e6, Title: fmt.Sprintf("%s: %s, %s to %s", m.Name, gbit(m.Median), gbit(m.Low), gbit(m.High)),
		})
	}
	c.Bars = [][][]*report.ChartBar{{bars}}
	return c
}

// Method says in sentences what the figures are.
func (r Result) Method() []string {
	return []string{
		fmt.Sprintf("The built-in lab north-south, its client %s; each setting changes one thing of it. TCP from the client to the host if nothing else is said, %.3g s, payload; "+
			"UDP as IP packets. Median of the runs, each with a seed of its own, and the least and the most of them.", r.Radio, r.Duration),
		"Idle is the least that was left of the cores' time in a run. The model's figure is the air alone, in virtual time: full segments one way, without TCP's acknowledgements and without a machine that is busy.",
		fmt.Sprintf("Nearest to the paper's %s: %s.", gbit(Headline), r.Nearest),
		"The paper names neither channel, distance, MCS, aggregation nor the protocol that iperf spoke, and let the MTU be what the path made of it. So a setting that meets its figure could be its own; it need not.",
	}
}

// Document is the page of a report.
func (r Result) Document() report.Document {
	beside, depends, settings, chart := r.Beside(), r.Depends(), r.Settings(), r.Chart()
	return report.Document{
		Title: "North-south", Subtitle: r.Where(), Version: r.Version, Warnings: r.Warnings,
		Sections: []report.Section{
			{Title: "Paper and pqlab", Table: &beside, Chart: &chart, Notes: append(r.Method(), r.Schedule.String())},
			{Title: "What it depends on", Table: &depends},
			{Title: "All settings", Table: &settings},
		},
	}
}

// WriteDir writes the report.
func (r Result) WriteDir(dir string) error {
	return experiments.WriteDir(dir, r, r.Document(), experiments.Picture{File: "throughput.svg", Drawing: r.Chart()})
}
