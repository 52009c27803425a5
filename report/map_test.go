package report

import (
	"strings"
	"testing"
)

// A map has a field for each place, whether there is something to say of it or not, and one for each colour's meaning.
func TestMap(t *testing.T) {
	t.Parallel()
	m := Map{
		Title: "a < b", Columns: []string{"x", "y", "<z>"}, Rows: []string{"1", "2"},
		Cells:  [][]MapCell{{{Colour: 1, Text: "<b>", Note: "n"}, {}, {Colour: plotColours + 2, Text: strings.Repeat("long ", 20)}}},
		Legend: []string{"first", "second"},
	}
	for _, alone := range []bool{true, false} {
		text := m.svg(alone)
		parseChart(t, text) // it is well-formed, and has no NaN
		for class, want := range map[string]int{"f0": 2, "f1": 2, "none": 4} {
			if got := strings.Count(text, `class="field `+class+`"`); got != want {
				t.Errorf("%d fields of class %s, want %d", got, class, want)
			}
		}
		if strings.Contains(text, "<b>") || strings.Contains(text, "<z>") {
			t.Error("text became markup")
		}
	}
	parseChart(t, Map{}.svg(true))
}
