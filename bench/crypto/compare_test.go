package crypto

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"pqlab/report"
)

// show draws a comparison in every form and gives the bars and gaps of the picture.
func show(t testing.TB, c Comparison) (bars, gaps, marks int) {
	t.Helper()
	var page, picture strings.Builder
	if err := errors.Join(c.WriteHTML(&page), c.WriteSVG(&picture)); err != nil {
		t.Fatal(err)
	}
	d := xml.NewDecoder(strings.NewReader(picture.String()))
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := tok.(xml.StartElement); ok {
			for _, a := range e.Attr {
				switch {
				case a.Name.Local == "class" && strings.HasPrefix(a.Value, "bar "):
					bars++
				case a.Name.Local == "class" && strings.HasPrefix(a.Value, "gap "):
					gaps++
				case a.Name.Local == "class" && a.Value == "mark":
					marks++
				}
			}
		}
	}
	if n := strings.Count(page.String(), `<rect class="bar `); n != bars {
		t.Errorf("%d bars on the page, %d in the picture", n, bars)
	}
	return bars, gaps, marks
}

func cell(t testing.TB, table report.Table, words ...string) string {
	t.Helper()
	for _, row := range table.Rows {
		if strings.Join(row[:len(words)-1], " ") == strings.Join(words[:len(words)-1], " ") {
			for i, h := range table.Head {
				if h == words[len(words)-1] {
					return row[i]
				}
			}
		}
	}
	t.Errorf("no cell %v", words)
	return ""
}

// Two devices stand beside each other; what one of them has not measured is a gap.
func TestCompare(t *testing.T) {
	t.Parallel()
	a, b := sample("host"), sample("dpu")
	b.Schemes = b.Schemes[1:4] // without falcon512 and kyber768
	b.Schemes[0].Operations[0].Noisy, b.Schemes[0].Operations[0].Outliers = 500, 500
	c := Comparison{Results: []Result{a, b}, Unit: CounterCycles}
	if bars, gaps, marks := show(t, c); bars != 2*5+2*3 || gaps != 2*2 || marks != 1 {
		t.Errorf("%d bars, %d gaps, %d marks", bars, gaps, marks)
	}
	table := c.Table()
	if len(table.Rows) != 5*4 {
		t.Errorf("%d rows", len(table.Rows))
	}
	for _, want := range []struct{ cell, text string }{
		{"client falcon512 verify host", "286000 (260000–338000)"},
		{"client falcon512 verify dpu", "–"},
		{"client falcon1024 verify dpu", "572000* (520000–676000)"},
		{"server kyber512 keygen+decaps dpu", "57200 (52000–67600)"},
		{"server kyber768 decaps dpu", "–"},
	} {
		if got := cell(t, table, strings.Fields(want.cell)...); got != want.text {
			t.Errorf("%s: %q, want %q", want.cell, got, want.text)
		}
	}
	for unit, want := range map[Unit]string{CoreCycles: "406120 (369200–479960)", CounterCycles: "286000 (260000–338000)", Nanoseconds: "110000 (100000–130000)"} {
		if got := cell(t, Comparison{Results: []Result{a}, Unit: unit}.Table(), "client", "falcon512", "verify", "host"); got != want {
			t.Errorf("in %s: %q, want %q", unit, got, want)
		}
	}
	chart := c.Chart()
	if bar := chart.Bars[1][1][1]; bar == nil || bar.Value != 2*572000 || bar.Low != 2*520000 || bar.High != 2*676000 || bar.Part != 3*572000 {
		t.Errorf("%+v", bar) // the sample's parts are larger than the whole, which no figure minds
	}
	if chart.Bars[0][1][0] != nil || chart.Bars[0][0][0] == nil || chart.Bars[0][0][0].Part != 0 {
		t.Errorf("%+v", chart.Bars[0])
	}
	var places []string
	for _, p := range chart.Places {
		places = append(places, p.Group+" "+p.Name)
	}
	if got := strings.Join(places, ", "); got != "falcon 512, falcon 1024, dilithium 2, kyber 512, kyber 768" {
		t.Errorf("places %s", got)
	}
}

// The order of files is that of columns, not of kinds: signatures come first.
func TestSchemes(t *testing.T) {
	t.Parallel()
	a, b := sample("a"), sample("b")
	a.Schemes = a.Schemes[3:]
	var names []string
	for _, s := range (Comparison{Results: []Result{a, b}}).schemes() {
		names = append(names, s.Name)
	}
	if got := strings.Join(names, " "); got != "falcon512 falcon1024 dilithium2 kyber512 kyber768" {
		t.Error(got)
	}
	for name, want := range map[string]report.ChartPlace{"dilithium3": {Group: "dilithium", Name: "3"}, "x25519": {Group: "x", Name: "25519"}, "512": {Group: "512"}, "odd": {Group: "odd"}} {
		if got := place(name); got != want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// Where there is no counter there are no cycles, and the figure says so.
func TestUncounted(t *testing.T) {
	t.Parallel()
	c := Comparison{Results: []Result{sample("a"), uncounted("b")}, Unit: CoreCycles}
	if bars, gaps, _ := show(t, c); bars != 10 || gaps != 10 {
		t.Errorf("%d bars, %d gaps", bars, gaps)
	}
	if w := c.Chart().Columns[1].Warning; !strings.Contains(w, "--unit ns") {
		t.Errorf("%q", w)
	}
	c.Unit = Nanoseconds
	if bars, gaps, _ := show(t, c); bars != 20 || gaps != 0 || c.Chart().Columns[1].Warning != "" {
		t.Errorf("%d bars, %d gaps", bars, gaps)
	}
	if got := len(uncounted("b").Table().Head); got != len(sample("a").Table().Head)-4 {
		t.Errorf("%d columns", got)
	}
}

func TestSizes(t *testing.T) {
	t.Parallel()
	a, b := sample("a"), sample("b")
	b.Schemes[0].Signature = 655
	table := Comparison{Results: []Result{a, b}}.Sizes()
	for _, want := range [][3]string{{"falcon512", "signature", "666, 655"}, {"falcon512", "ciphertext", "–"}, {"kyber512", "ciphertext", "768"}, {"kyber512", "public key", "800"}} {
		if got := cell(t, table, want[0], want[1]); got != want[2] {
			t.Errorf("%v: %q", want, got)
		}
	}
}

// Each thing that keeps figures from being the device's is told; a good run has none.
func TestWarnings(t *testing.T) {
	t.Parallel()
	if got := sample("a").Warnings(); len(got) != 0 {
		t.Errorf("%q", got)
	}
	for word, change := range map[string]func(*Result){
		"QEMU TCG":      func(r *Result) { r.Machine.Emulated, r.Machine.Virtual = true, "QEMU TCG" },
		"KVM":           func(r *Result) { r.Machine.Virtual = "KVM" },
		"no cycle":      func(r *Result) { *r = uncounted("a") },
		"rate":          func(r *Result) { r.Machine.Counter.Invariant = false },
		"frequency var": func(r *Result) { r.Machine.Counter.CorePerTick.P10 = 1 },
		"powersave":     func(r *Result) { r.Machine.Governor = "powersave" },
		"race":          func(r *Result) { r.Machine.Race = true },
		"iterations": func(r *Result) {
			r.Iterations = 10
			for i := range r.Schemes {
				for j := range r.Schemes[i].Operations {
					o := &r.Schemes[i].Operations[j]
					o.Preempted, o.Outliers, o.Noisy = 0, 0, 0
				}
			}
		},
		"other processes": func(r *Result) { *r.Activity.OthersCores = 0.5 },
		"hypervisor took": func(r *Result) { *r.Activity.StealCores = 0.5 },
		"marked":          func(r *Result) { r.Schemes[2].Operations[1].Noisy = 11 },
	} {
		r := sample("a")
		change(&r)
		if got := r.Warnings(); len(got) != 1 || !strings.Contains(got[0], word) {
			t.Errorf("%s: %q", word, got)
		}
	}
}
