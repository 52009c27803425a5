package overlinks

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"pqlab/experiments"
	"pqlab/report"
	"pqlab/topology"
)

// percent prints a share: "0.5 %".
func percent(share float64) string { return strconv.FormatFloat(share*100, 'g', 6, 64) + " %" }

// spaced prints a rate or a time with a space before its unit, if it has but one: "10 Mbit/s", "20 ms", "1m30s".
func spaced(v fmt.Stringer) string {
	text := v.String()
	number := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyzGKMTµ/")
	if strings.Trim(number, "0123456789.") != "" {
		return text
	}
	return number + " " + text[len(number):]
}

// limit of an exchange, in words.
func (r Result) limit() string { return limit(r.LimitMs) }

func limit(ms float64) string { return spaced(time.Duration(ms * float64(time.Millisecond))) }

// figure prints milliseconds with three digits; never is the limit, in ms, for what had not ended then.
func figure(m Ms, never float64) string {
	switch v := float64(m); {
	case math.IsInf(v, 1):
		return "no tunnel within " + limit(never)
	case math.IsNaN(v):
		return "–"
	default:
		return digits(v)
	}
}

// digits prints three of a number below 1000, and all of one above.
func digits(v float64) string {
	size := math.Abs(rounded(v, 3))
	for decimals, least := range []float64{100, 10, 1} {
		if size >= least {
			return strconv.FormatFloat(v, 'f', decimals, 64)
		}
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// Devices that were measured, in order.
func (r Result) Devices() []Devices {
	var all []Devices
	for _, c := range r.Cells {
		if !slices.Contains(all, c.Devices) {
			all = append(all, c.Devices)
		}
	}
	return all
}

// Times is everything that was measured between some devices, as a table.
func (r Result) Times(d Devices) report.Table {
	t := report.Table{Text: 4, Head: []string{"loss", "delay", "rate", "suite", "median ms", "middle half ms", "exchanges", "without tunnel", "bytes", "segments sent again"}}
	for _, c := range r.Cells {
		if c.Devices != d {
			continue
		}
		half := "–"
		if !math.IsInf(float64(c.Q3), 1) {
			half = figure(c.Q1, r.LimitMs) + "–" + figure(c.Q3, r.LimitMs)
		}
		t.Rows = append(t.Rows, []string{
			percent(c.Link.Loss), spaced(c.Link.delay()), spaced(c.Link.Rate), c.Suite, figure(c.Median, r.LimitMs), half,
			strconv.Itoa(len(c.Times)), strconv.Itoa(c.Never), strconv.Itoa(c.Bytes), fmt.Sprintf("%.2f", c.Retransmitted),
		})
	}
	return t
}

// grid is one pair's comparisons: rates, and a row for each loss and delay, of as many as there are rates.
func (r Result) grid(p Pair) (rates []topology.Rate, rows [][]*Comparison) {
	for _, c := range r.Comparisons {
		if p == (Pair{c.Devices, c.Falcon, c.Other}) && !slices.Contains(rates, c.Link.Rate) {
			rates = append(rates, c.Link.Rate)
		}
	}
	slices.Sort(rates)
	var of Link
	for i, c := range r.Comparisons {
		if p != (Pair{c.Devices, c.Falcon, c.Other}) {
			continue
		}
		if rows == nil || of.Loss != c.Link.Loss || of.DelayMs != c.Link.DelayMs {
			rows, of = append(rows, make([]*Comparison, len(rates))), c.Link
		}
		rows[len(rows)-1][slices.Index(rates, c.Link.Rate)] = &r.Comparisons[i]
	}
	return rates, rows
}

// Map is who is faster where, of one pair: a row for each loss and delay, a column for each rate.
func (r Result) Map(p Pair) report.Table {
	t := report.Table{Text: 2, Head: []string{"loss", "delay"}}
	rates, rows := r.grid(p)
	for _, rate := range rates {
		t.Head = append(t.Head, spaced(rate))
	}
	for _, of := range rows {
		row := []string{percent(of[0].Link.Loss), spaced(of[0].Link.delay())}
		for _, c := range of {
			row = append(row, c.text())
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// Picture is Map as a picture: the border is where the colour changes.
func (r Result) Picture(p Pair) report.Map {
	falcon, _, _ := strings.Cut(p.Falcon, "+")
	other, _, _ := strings.Cut(p.Other, "+")
	m := report.Map{Title: fmt.Sprintf("Who is faster: %v, %v", p, p.Devices), Corner: "loss, delay", Legend: []string{falcon + " is faster", other + " is faster"}}
	rates, rows := r.grid(p)
	for _, rate := range rates {
		m.Columns = append(m.Columns, spaced(rate))
	}
	for _, of := range rows {
		m.Rows = append(m.Rows, percent(of[0].Link.Loss)+", "+spaced(of[0].Link.delay()))
		var cells []report.MapCell
		for _, c := range of {
			cell := report.MapCell{Text: "no difference seen", Title: fmt.Sprintf("%v: %s", c.Link, c.text())}
			if c.Faster != "" {
				who, by, _ := strings.Cut(c.text(), " ")
				by, within, _ := strings.Cut(by, " (")
				cell.Colour, cell.Text, cell.Note = map[int]int{-1: 1, 1: 2}[c.sign()], strings.TrimSuffix(who, ",")+" "+by, strings.TrimSuffix(within, ")")
			}
			cells = append(cells, cell)
		}
		m.Cells = append(m.Cells, cells)
	}
	return m
}

// text says who is faster, and by how much: "falcon512 by 12.1 ms (11.3–13.0)".
func (c Comparison) text() string {
	if c.Faster == "" {
		return "no difference seen"
	}
	who, _, _ := strings.Cut(c.Faster, "+")
	by, low, high := float64(c.Shift), float64(c.Low), float64(c.High)
	if by < 0 {
		by, low, high = -by, -high, -low
	}
	if math.IsInf(by, 0) {
		return who + ", without which there is mostly no tunnel"
	}
	if math.IsInf(high, 0) {
		return fmt.Sprintf("%s by %s ms (%s or more)", who, digits(by), digits(low))
	}
	return fmt.Sprintf("%s by %s ms (%s–%s)", who, digits(by), digits(low), digits(high))
}

// Limits lists the borders of one pair.
func (r Result) Limits(p Pair) report.Table {
	t := report.Table{Text: 3, Head: []string{"loss", "delay", "border"}}
	for _, b := range r.Borders {
		if p == (Pair{b.Devices, b.Falcon, b.Other}) {
			t.Rows = append(t.Rows, []string{percent(b.Loss), spaced(Link{DelayMs: b.DelayMs}.delay()), b.Text})
		}
	}
	return t
}

// Verdicts is the paper's advice, and whether it holds.
func (r Result) Verdicts() report.Table {
	t := report.Table{Text: 4, Head: []string{"devices", "where", "the paper advises", "verdict", "links", "for", "against", "no difference"}}
	for _, a := range r.Advice {
		not := a.Other
		if a.Advised == a.Other {
			not = a.Falcon
		}
		t.Rows = append(t.Rows, []string{
			a.Devices.String(), a.Where, a.Advised + " rather than " + not, a.told(),
			strconv.Itoa(a.Links), strconv.Itoa(a.For), strconv.Itoa(a.Against), strconv.Itoa(a.Links - a.For - a.Against),
		})
	}
	return t
}

// told is the verdict, with what it must be taken with.
func (a Advice) told() string {
	if a.Late == 0 || a.Verdict == NotMeasured {
		return a.Verdict
	}
	return fmt.Sprintf("%s (packets were late on %d of %d links)", a.Verdict, a.Late, a.Links)
}

// Chart draws the times between some devices.
func (r Result) Chart(d Devices) report.Chart {
	chart := report.Chart{Title: "Time to a tunnel, " + d.String(), Unit: "ms", ColourByName: true}
	var losses, delays []float64
	var rates []topology.Rate
	var suites []string
	for _, c := range r.Cells {
		if c.Devices != d {
			continue
		}
		losses, delays = append(losses, c.Link.Loss), append(delays, c.Link.DelayMs)
		rates = append(rates, c.Link.Rate)
		if !slices.Contains(suites, c.Suite) {
			suites = append(suites, c.Suite)
		}
	}
	for _, values := range []*[]float64{&losses, &delays} {
		slices.Sort(*values)
		*values = slices.Compact(*values)
	}
	slices.Sort(rates)
	rates = slices.Compact(rates)
	for _, delay := range delays {
		chart.Columns = append(chart.Columns, report.ChartColumn{Name: "delay " + spaced(Link{DelayMs: delay}.delay()), Note: "one way"})
	}
	for _, rate := range rates {
		for _, s := range suites {
			chart.Places = append(chart.Places, report.ChartPlace{Group: spaced(rate), Name: short(s, suites)})
		}
	}
	for _, loss := range losses {
		chart.Rows = append(chart.Rows, "loss "+percent(loss))
		row := make([][]*report.ChartBar, len(delays))
		for i := range row {
			row[i] = make([]*report.ChartBar, len(chart.Places))
		}
		for _, c := range r.Cells {
			if c.Devices == d && c.Link.Loss == loss {
				place := slices.Index(rates, c.Link.Rate)*len(suites) + slices.Index(suites, c.Suite)
				row[slices.Index(delays, c.Link.DelayMs)][place] = r.bar(c)
			}
		}
		chart.Bars = append(chart.Bars, row)
	}
	return chart
}

func (r Result) bar(c Cell) *report.ChartBar {
	b := &report.ChartBar{Value: float64(c.Median), Low: float64(c.Q1), High: float64(c.Q3), Marked: c.Never > 0}
	b.Title = fmt.Sprintf("%s, %v: median %s ms of %d, %d without a tunnel within %s", c.Suite, c.Link, figure(c.Median, r.LimitMs), len(c.Times), c.Never, r.limit())
	if math.IsInf(b.Value, 1) {
		b.Value = 0
	}
	if math.IsInf(b.High, 1) {
		b.High = r.LimitMs
	}
	return b
}

// short names a suite below a bar: "F512", "D2", "M44"; all of it where two would be the same.
func short(suite string, all []string) string {
	of := func(s string) string {
		sig, _, _ := strings.Cut(s, "+")
		digits := strings.TrimLeft(sig, "abcdefghijklmnopqrstuvwxyz")
		return strings.ToUpper(sig[:1]) + digits
	}
	for _, other := range all {
		if other != suite && of(other) == of(suite) {
			return suite
		}
	}
	return of(suite)
}

// Method says in sentences what the figures are.
func (r Result) Method() []string {
	repeats := fmt.Sprintf("%d exchanges of each suite at each link", r.Repeats)
	if r.Lossy != r.Repeats {
		repeats += fmt.Sprintf(", %d where the loss is %s or more", r.Lossy, percent(leastLossy))
	}
	return append([]string{
		fmt.Sprintf("Time from asking for the tunnel until its initiator knows that SAs of both directions are in use at both ends. %s, the suites in turns; "+
			"identity %s; queue before the rate: %s. Delay is one way, loss each way and of every packet.", repeats, r.Identity, r.Queue),
		fmt.Sprintf("Bars are medians, whiskers hold the middle half; an asterisk marks links at which an exchange had no tunnel within %s.", r.limit()),
		fmt.Sprintf("A difference is seen where the %s confidence interval of Falcon's shift (Hodges and Lehmann's, by the ranks) is without 0; one comparison in %.0f is wrong about that.",
			percent(r.Confidence), 1/(1-r.Confidence)),
	}, r.alone()...)
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
	d := report.Document{Title: "Exchange over links", Subtitle: r.Where(), Version: r.Version, Warnings: r.Warnings}
	if len(r.Advice) > 0 {
		verdicts := r.Verdicts()
		d.Sections = append(d.Sections, report.Section{Title: "Does the paper's advice hold?", Table: &verdicts, Notes: r.notes()})
	}
	for _, p := range r.Pairs() {
		limits, where, picture := r.Limits(p), r.Map(p), r.Picture(p)
		d.Sections = append(d.Sections,
			report.Section{Title: fmt.Sprintf("Where the border lies: %v, %v", p, p.Devices), Map: &picture, Table: &limits},
			report.Section{Title: "By how much", Table: &where})
	}
	for _, dev := range r.Devices() {
		chart, times := r.Chart(dev), r.Times(dev)
		d.Sections = append(d.Sections, report.Section{Title: chart.Title, Chart: &chart}, report.Section{Title: "All times, " + dev.String(), Table: &times})
	}
	return d
}

// numbered names the i-th picture of a kind.
func numbered(kind string, i int) string {
	if i == 0 {
		return kind + ".svg"
	}
	return fmt.Sprintf("%s-%d.svg", kind, i+1)
}

// WriteDir writes the report.
func (r Result) WriteDir(dir string) error {
	var pictures []experiments.Picture
	for i, d := range r.Devices() {
		pictures = append(pictures, experiments.Picture{File: numbered("times", i), Drawing: r.Chart(d)})
	}
	for i, p := range r.Pairs() {
		pictures = append(pictures, experiments.Picture{File: numbered("border", i), Drawing: r.Picture(p)})
	}
	return experiments.WriteDir(dir, r, r.Document(), pictures...)
}
