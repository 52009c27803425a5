package report

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
)

// drawn is what a picture holds, parsed.
type drawn struct {
	bars, gaps, marks, parts, whiskers int
	heights                            []float64 // of the bars, in their order
	beside                             []float64 // how high the diamonds stand
}

func parseChart(t testing.TB, text string) drawn {
	t.Helper()
	var d drawn
	dec := xml.NewDecoder(strings.NewReader(text))
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return d
		}
		if err != nil {
			t.Fatalf("%v in %.300s", err, text)
		}
		e, ok := tok.(xml.StartElement)
		if !ok {
			continue
		}
		attr := map[string]string{}
		for _, a := range e.Attr {
			attr[a.Name.Local] = a.Value
			if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
				t.Errorf("%s=%q is no number", a.Name.Local, a.Value)
			}
		}
		class, _, _ := strings.Cut(attr["class"], " ")
		switch class {
		case "bar":
			var h float64
			fmt.Sscan(attr["height"], &h)
			d.bars++
			d.heights = append(d.heights, h)
		case "beside":
			var x, y float64
			fmt.Sscanf(attr["d"], "M%g %g", &x, &y)
			d.beside = append(d.beside, chartHead+chartRowHead+chartHeight-y-chartDiamond)
		case "gap":
			d.gaps++
		case "mark":
			d.marks++
		case "part":
			d.parts++
		case "whisker":
			d.whiskers++
		}
	}
}

func sampleChart() Chart {
	return Chart{
		Title: "cost", Unit: "cycles", Rows: []string{"client", "server"},
		Columns: []ChartColumn{{Name: "host", Note: "a CPU"}, {Name: "dpu", Warning: "emulated"}},
		Places:  []ChartPlace{{"dilithium", "2"}, {"dilithium", "3"}, {"kyber", "512"}},
		Bars: [][][]*ChartBar{
			{{{Value: 1e4, Low: 9e3, High: 2e4}, {Value: 1e5, Low: 1e5, High: 1e5}, {Value: 1e6, Low: 9e5, High: 2e6, Marked: true}}, {nil, {Value: 1e4}, nil}},
			{{{Value: 1e4, Part: 5e3}, {Value: 1e5, Part: 1e4}, nil}, {nil, nil, nil}},
		},
	}
}

func TestChart(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	if err := sampleChart().WriteSVG(&b); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"alone": b.String(), "in a page": string(sampleChart().inline())} {
		d := parseChart(t, text)
		if d.bars != 6 || d.gaps != 6 || d.marks != 1 || d.parts != 2 || d.whiskers != 2 {
			t.Errorf("%s: %+v", name, d)
		}
		// On a logarithmic scale the same factor is the same distance, and a row has one scale.
		if up := d.heights[1] - d.heights[0]; up < 10 || math.Abs(d.heights[2]-d.heights[1]-up) > 0.1 || d.heights[3] != d.heights[0] {
			t.Errorf("%s: bars of 10⁴, 10⁵, 10⁶, 10⁴ are %v high", name, d.heights)
		}
		for _, want := range []string{"host", "dpu", "a CPU", "emulated", "client, cycles", "server, cycles", "dilithium", "kyber", "10⁴", "10⁶"} {
			if !strings.Contains(text, ">"+want) {
				t.Errorf("%s: no %q", name, want)
			}
		}
	}
	if !strings.Contains(b.String(), "prefers-color-scheme: dark") || !strings.Contains(b.String(), "--c0") {
		t.Error("a picture of its own has not the colours of light and dark")
	}
}

// Whatever the values are, the picture can be drawn.
// Bars of one name share a colour where that is asked for, else those of one group.
func TestChartColours(t *testing.T) {
	t.Parallel()
	c := Chart{Rows: []string{"r"}, Columns: []ChartColumn{{Name: "c"}}, Places: []ChartPlace{{"1", "x"}, {"1", "y"}, {"2", "x"}}}
	c.Bars = [][][]*ChartBar{{{{Value: 1}, {Value: 2}, {Value: 3}}}}
	for byName, want := range map[bool]string{false: "001", true: "010"} {
		c.ColourByName = byName
		var got string
		for rest := c.svg(true); ; {
			_, after, ok := strings.Cut(rest, `class="bar s`)
			if !ok {
				break
			}
			got, rest = got+after[:1], after
		}
		if got != want {
			t.Errorf("by name %v: colours %s, want %s", byName, got, want)
		}
	}
}

func TestChartExtremes(t *testing.T) {
	t.Parallel()
	for _, v := range []float64{0, -1, 1e-300, 1, 1e300, math.MaxFloat64, math.NaN(), math.Inf(1), math.Inf(-1)} {
		c := sampleChart()
		*c.Bars[0][0][0] = ChartBar{Value: v, Low: v, High: v, Part: v}
		*c.Bars[0][0][1] = ChartBar{Value: 1, Low: -v, High: v, Part: -v}
		parseChart(t, string(c.inline()))
	}
	parseChart(t, string(Chart{}.inline()))
	parseChart(t, string(Chart{Rows: []string{"a"}, Bars: [][][]*ChartBar{{}}}.inline()))
}

func TestShort(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{
		0.5: "0.5", 1: "1", 9.94: "9.9", 9.96: "10", 57.4: "57", 999.4: "999", 999.6: "1k", 1000: "1k", 1234: "1.2k", 57400: "57k",
		999600: "1M", 1.25e6: "1.2M", 9.4e7: "94M", 3e9: "3G", 5e12: "5T",
	} {
		if got := short(v); got != want {
			t.Errorf("%v: %q, want %q", v, got, want)
		}
	}
}

func TestDocument(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"plain", "<script>alert(1)</script>", `"><img src=x onerror=alert(1)>`, "</style></title>", "\x00\x1b[2J\xff", strings.Repeat("W", 300)} {
		c := sampleChart()
		c.Title, c.Unit, c.Rows[0], c.Columns[0].Name, c.Columns[0].Note, c.Columns[1].Warning = s, s, s, s, s, s
		c.Places[0], c.Bars[0][0][0].Title = ChartPlace{s, s}, s
		d := Document{
			Title: s, Subtitle: s, Version: s, Warnings: []string{s},
			Sections: []Section{{Title: s, Chart: &c, Notes: []string{s}}, {Table: &Table{Text: 1, Head: []string{s, s}, Rows: [][]string{{s, s}}}, Facts: []Fact{{s, s}}}},
		}
		var b strings.Builder
		if err := d.WriteHTML(&b); err != nil {
			t.Fatal(err)
		}
		words, err := checkPage(b.String())
		if err != nil || strings.Contains(b.String(), "ZgotmplZ") {
			t.Errorf("%.40q: %v", s, err)
		}
		if n := strings.Count(words, plain(s)); n < 9 && len(s) < 100 {
			t.Errorf("%.40q is shown %d times", s, n)
		}
		b.Reset()
		if err := c.WriteSVG(&b); err != nil {
			t.Fatal(err)
		}
		if d := parseChart(t, b.String()); d.bars != 6 {
			t.Errorf("%.40q: %+v", s, d)
		}
	}
}

// On a linear scale, which begins at 0, the height of a bar is its value, and so is that of what stands beside it.
func TestLinearChart(t *testing.T) {
	t.Parallel()
	for _, scale := range []float64{1e-3, 1, 1e6} {
		c := Chart{Linear: true, Unit: "Gbit/s", Rows: []string{"r"}, Columns: []ChartColumn{{Name: "c"}}, Places: []ChartPlace{{"1", "x"}, {"1", "y"}, {"2", "x"}}}
		c.Bars = [][][]*ChartBar{{{{Value: 0.1 * scale, Beside: 0.62 * scale}, {Value: 0.4 * scale, Low: 0.3 * scale, High: 0.5 * scale}, {Value: 0.6 * scale, Beside: 0.3 * scale}}}}
		d := parseChart(t, c.svg(true))
		if len(d.heights) != 3 || len(d.beside) != 2 {
			t.Fatalf("%+v", d)
		}
		one := d.heights[0]
		if one < 20 || math.Abs(d.heights[1]-4*one) > 0.5 || math.Abs(d.heights[2]-6*one) > 0.5 || math.Abs(d.beside[0]-6.2*one) > 0.5 || math.Abs(d.beside[1]-3*one) > 0.5 {
			t.Errorf("of %v: 1, 4, 6 are %v high, 6.2 and 3 beside them %v", scale, d.heights, d.beside)
		}
	}
	c := Chart{Linear: true, Rows: []string{"r"}, Columns: []ChartColumn{{Name: "c"}}, Places: []ChartPlace{{"1", "x"}, {"1", "y"}}}
	c.Bars = [][][]*ChartBar{{{{Value: 0.4864}, {Value: 0.625}}}}
	text := c.svg(true)
	for _, want := range []string{">0.486<", ">0.625<", ">0.2<"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	for _, v := range []float64{0, math.NaN(), math.Inf(1), -1, math.MaxFloat64, math.SmallestNonzeroFloat64} {
		c.Bars = [][][]*ChartBar{{{{Value: v, Beside: v}, nil}}}
		parseChart(t, c.svg(true))
	}
}
