package experiments

import (
	"encoding/xml"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pqlab/report"
)

type result struct {
	About
	Value float64
}

func TestWriteDir(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	dir := filepath.Join(parent, "new", "report")
	r := result{Begin("made-up", "v1", []string{"pqlab"}, 3), 7}
	chart := report.Chart{
		Title: "a < b", Unit: "ms", Rows: []string{"r"}, Columns: []report.ChartColumn{{Name: "c"}}, ColourByName: true,
		Places: []report.ChartPlace{{Group: "1", Name: "x"}, {Group: "1", Name: "y"}, {Group: "2", Name: "x"}},
		Bars:   [][][]*report.ChartBar{{{{Value: 3}, nil, {Title: "none"}}}},
	}
	plan := report.Map{Title: "a & b", Columns: []string{"x", "y"}, Rows: []string{"1"}, Cells: [][]report.MapCell{{{Colour: 1, Text: "<"}}}, Legend: []string{"l"}}
	write := func(dir string) error {
		return WriteDir(dir, r, report.Document{Title: "t", Sections: []report.Section{{Chart: &chart}}}, Picture{"p.svg", chart}, Picture{"m.svg", plan})
	}
	for range 2 { // the second time over the first
		if err := write(dir); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 4 {
		t.Errorf("%v, %v", entries, err)
	}
	f, err := os.Open(filepath.Join(dir, "p.svg"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for d := xml.NewDecoder(f); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}

	foreign := filepath.Join(parent, "foreign")
	if err := errors.Join(os.Mkdir(foreign, 0o755), os.WriteFile(filepath.Join(foreign, JSONFile), []byte(`{"experiment": 3}`), 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := write(foreign); !errors.Is(err, report.ErrForeign) {
		t.Errorf("wrote where something else is: %v", err)
	}
	// What cannot be written leaves no directory either, not even above it, and the files of an earlier report as they were.
	long := Picture{strings.Repeat("p", 300) + ".svg", plan}
	if err := WriteDir(filepath.Join(parent, "above", "full"), r, report.Document{}, long); err == nil {
		t.Error("a file with a name of 300 bytes was written")
	}
	if _, err := os.Stat(filepath.Join(parent, "above")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
	if err := WriteDir(dir, result{}, report.Document{}, long); err == nil {
		t.Error("a file with a name of 300 bytes was written")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 4 || !ours(filepath.Join(dir, JSONFile)) {
		t.Errorf("%v, %v", entries, err)
	}
	// What cannot be told as JSON leaves no directory.
	r.Value = math.NaN()
	broken := filepath.Join(parent, "broken")
	if err := write(broken); err == nil {
		t.Error("NaN was written")
	}
	if _, err := os.Stat(broken); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
}
