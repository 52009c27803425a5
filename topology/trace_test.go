package topology_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pqlab/internal/race"
	"pqlab/topology"
)

func step(length time.Duration, rate topology.Rate) topology.RateStep {
	return topology.RateStep{Length: length, Rate: rate}
}

const ms = time.Millisecond

func TestRateTrace(t *testing.T) {
	t.Parallel()
	// 1500 bytes in 1 ms are 12 Mbit/s, in 20 ms 600 kbit/s.
	const one = 600 * topology.Kbit
	for _, c := range []struct {
		text string
		want []topology.RateStep
	}{
		{"1s 1Mbit/s", []topology.RateStep{step(time.Second, topology.Mbit)}},
		{"\ufeff# a comment\n\n 1m30s\t2.5Mbit/s # slow\r\n500ms 0bit/s\n", []topology.RateStep{step(90*time.Second, 2500*topology.Kbit), step(500*ms, 0)}},
		{"1\n", []topology.RateStep{step(ms, 12*topology.Mbit)}},
		{"1\n1\n1\n", []topology.RateStep{step(ms, 36*topology.Mbit)}},
		{"20", []topology.RateStep{step(20*ms, one)}},
		{"0\n20\n", []topology.RateStep{step(20*ms, 2*one)}}, // what comes at 0 is in the first step
		{"20\n40\n", []topology.RateStep{step(40*ms, one)}},
		{"21\n", []topology.RateStep{step(20*ms, 0), step(ms, 12*topology.Mbit)}},
		{"5\n105 # later\n", []topology.RateStep{step(20*ms, one), step(80*ms, 0), step(5*ms, 4*one)}},
	} {
		got, err := topology.ParseRateTrace([]byte(c.text))
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q: %v, %v; want %v", c.text, got, err, c.want)
		}
	}
	steep := strings.Builder{} // a Mahimahi trace of another rate in each 20 ms
	for i := range 70_000 {
		fmt.Fprintln(&steep, 20*i+20)
		if i%2 == 0 {
			fmt.Fprintln(&steep, 20*i+20)
		}
	}
	for _, c := range []struct {
		text  string
		lines []int // of the mistakes
	}{
		{"", []int{1}},
		{"# nothing\n\n", []int{2}},
		{"0\n", []int{1}},
		{"1\n3\n2\n", []int{3}},
		{"1\n1s 1Mbit/s\n", []int{2}},
		{"1s 1Mbit/s\n7\n", []int{2}},
		{"4294967296\n", []int{1}},
		{"-1\n", []int{1}},
		{"1s\n1s 1Mbit/s 3\n1 1Mbit/s\n1s 1\n\n1s 1Mbit\n1s 2Mbit/s", []int{1, 2, 3, 4, 6}},
		{"1s -1Mbit/s", []int{1}},
		{strings.Repeat("1ms 1Mbit/s\n2ms 2Mbit/s\n", 1<<15) + "3ms 3Mbit/s\nx\n", []int{1<<16 + 1}},
		{steep.String(), []int{98307}},
		{strings.Repeat("x\n", 200), lines(1, 100)},
	} {
		got, err := topology.ParseRateTrace([]byte(c.text))
		checkLines(t, c.text, got, err, c.lines)
	}
}

func lines(from, to int) (all []int) {
	for i := from; i <= to; i++ {
		all = append(all, i)
	}
	return all
}

func checkLines(t *testing.T, text string, got any, err error, want []int) {
	t.Helper()
	var errs topology.Errors
	var at []int
	errors.As(err, &errs)
	for _, e := range errs {
		at = append(at, e.Line)
	}
	if !slices.Equal(at, want) {
		t.Errorf("%.40q: %.40v, %.200v; want mistakes in lines %v", text, got, err, want)
	}
}

func TestLossTrace(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		want []int
	}{
		{"01", []int{1, 1}},
		{"1", []int{0, 1}},
		{"0000", []int{4}},
		{"10", []int{0, 1, 1}},
		{"# 5 % of 20\n0 0 0\t0000\r\n000 000 000 000 # and\n1\n", []int{19, 1}},
		{"110\n011", []int{0, 2, 2, 2}},
	} {
		got, err := topology.ParseLossTrace([]byte(c.text))
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q: %v, %v; want %v", c.text, got, err, c.want)
		}
	}
	for _, c := range []struct {
		text  string
		lines []int
	}{
		{"", []int{1}},
		{"#1\n", []int{1}},
		{"01\n02\n1,0\n-1\n0", []int{2, 3, 4}},
		{strings.Repeat("01", 1<<15) + "\n0\n1\n0", []int{2}},
	} {
		got, err := topology.ParseLossTrace([]byte(c.text))
		checkLines(t, c.text, got, err, c.lines)
	}
}

func TestPathTrace(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		want []topology.Waypoint
	}{
		{"0s 2m", []topology.Waypoint{{Distance: 2}}},
		{"\ufeff# out\n\n 500ms\t2.5m 0 # near\r\n1m30s 1.2km 3\n", []topology.Waypoint{{At: 500 * ms, Distance: 2.5}, {At: 90 * time.Second, Distance: 1200, Walls: 3}}},
	} {
		got, err := topology.ParsePathTrace([]byte(c.text))
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q: %v, %v; want %v", c.text, got, err, c.want)
		}
	}
	var long strings.Builder
	for i := range 4098 {
		fmt.Fprintf(&long, "%ds 1m\n", i)
	}
	for _, c := range []struct {
		text  string
		lines []int
	}{
		{"", []int{1}},
		{"# nowhere\n", []int{1}},
		{"1s\n2 2m\n3s 2\n4s 0m\n5s 11km\n6s 2m 101\n7s 2m -1\n8s 2m 1 1\n9s 2m\n-1s 2m", []int{1, 2, 3, 4, 5, 6, 7, 8, 10}},
		{"1s 2m\n1s 3m\n2s 2m\n1500ms 3m\n", []int{2, 4}},
		{long.String(), []int{4097}},
	} {
		got, err := topology.ParsePathTrace([]byte(c.text))
		checkLines(t, c.text, got, err, c.lines)
	}
}

const walkedLab = `
nodes: [{name: a, kind: client}, {name: ap, kind: ap}]
links:
- {kind: wifi, a: a, b: ap, wifi: {profile: jetson-ac-2x2-80, path: {file: %s}}}
`

// A path is read from a file as other traces are.
func TestPathFile(t *testing.T) {
	t.Parallel()
	top, err := topology.Parse("walk", fmt.Appendf(nil, walkedLab, "testdata/traces/walk.path"))
	if err != nil {
		t.Fatal(err)
	}
	want := []topology.Waypoint{{Distance: 2}, {At: 30 * time.Second, Distance: 20, Walls: 2}, {At: time.Minute, Distance: 20, Walls: 2}, {At: 90 * time.Second, Distance: 2}}
	if !slices.Equal(top.Links[0].WiFi.Path, want) {
		t.Errorf("%+v", top.Links[0].WiFi)
	}
	text, err := top.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := topology.Parse("again", text); err != nil || !slices.Equal(again.Links[0].WiFi.Path, want) {
		t.Errorf("%s: %v", text, err)
	}
	inline, err := topology.InlineChange([]string{"path={file: testdata/traces/walk.path}", "distance=none"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	change, err := topology.ParseChange(inline)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := top.Plan()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := change.ApplyStation(plan.Links[0], topology.Station{Profile: "jetson-ac-2x2-80", Distance: 5}); err != nil || !slices.Equal(got.Path, want) {
		t.Errorf("changed to %+v, %v", got, err)
	}
	_, err = topology.Parse("walk", fmt.Appendf(nil, walkedLab, "testdata/traces/bad.path"))
	var errs topology.Errors
	errors.As(err, &errs)
	var lines []string
	for _, e := range errs {
		_, after, _ := strings.Cut(e.Message, "bad.path:")
		line, _, _ := strings.Cut(after, ":")
		if lines = append(lines, line); e.Line != 4 {
			t.Errorf("%+v: not at the file's name", e)
		}
	}
	if !slices.Equal(lines, []string{"2", "3", "4", "5", "6"}) {
		t.Errorf("mistakes in lines %v: %v", lines, err)
	}
}

const tracedLab = `
nodes: [{name: a, kind: host}, {name: b, kind: host}]
links:
- {kind: ethernet, a: a, b: b, rate_trace: {file: %[1]s}, loss_trace: {file: %[2]s}}
- {kind: ethernet, a: a, b: b, rate_trace: {file: %[1]s}}
`

// Traces are read beside the topology, and are in it from then on.
func TestTraceFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	absolute, err := filepath.Abs("testdata/traces/burst.loss")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "traces"), 0o700); err != nil {
		t.Fatal(err)
	}
	rates, err := os.ReadFile("testdata/traces/drive.rate")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "traces", "a b.rate"), string(rates))
	file := filepath.Join(dir, "lab.yaml")
	write(t, file, fmt.Sprintf(tracedLab, "traces/a b.rate", absolute))
	top, err := topology.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	wantRates := []topology.RateStep{step(10*time.Second, 20*topology.Mbit), step(1500*ms, 2500*topology.Kbit), step(500*ms, 0)}
	wantLoss := []int{4, 1, 4, 1, 4, 1}
	check := func(what string, links []topology.Link) {
		t.Helper()
		if !slices.Equal(links[0].RateTrace, wantRates) || !slices.Equal(links[1].RateTrace, wantRates) || !slices.Equal(links[0].LossTrace, wantLoss) || links[1].LossTrace != nil {
			t.Errorf("%s: %v and %v", what, links[0].Shape, links[1].Shape)
		}
	}
	check("loaded", top.Links)
	if err := os.RemoveAll(filepath.Join(dir, "traces")); err != nil {
		t.Fatal(err)
	}
	text, err := top.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := topology.Parse("again", text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	check("written and read", again.Links)
	plan, err := again.Plan()
	if err != nil {
		t.Fatal(err)
	}
	check("planned", []topology.Link{plan.Links[0].Link, plan.Links[1].Link})
	// Mean by hand: (10 s × 20 Mbit/s + 1.5 s × 2.5 Mbit/s) / 12 s.
	if got := plan.Links[0].MeanRate(); got != 16_979_166 {
		t.Errorf("mean rate %d", got)
	}
}

// What is no file with a trace is refused at once, at the place of its name.
func TestTraceFilesRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	// With a writer that says nothing, reading would wait as well.
	writer, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	large := filepath.Join(dir, "large")
	write(t, large, "1ms 1Mbit/s\n")
	if err := os.Truncate(large, 16<<20+1); err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(dir, "good.loss")
	write(t, good, "01\n")
	for _, name := range []string{fifo, large, dir, "/dev/zero", "none", filepath.Join(dir, "good.loss", "x")} {
		file := filepath.Join(dir, "lab.yaml")
		write(t, file, fmt.Sprintf(tracedLab, name, good))
		_, err := topology.Load(file)
		var errs topology.Errors
		if !errors.As(err, &errs) || len(errs) != 2 || errs[0].Kind != topology.BadValue {
			t.Fatalf("%s: %v, want two Errors", name, err)
		}
		for i, e := range errs {
			if e.File != file || e.Line != 4+i || e.Column != 51 {
				t.Errorf("%s: %v: not at the file's name", name, e)
			}
		}
	}
	// Many files of traces are bounded together.
	var links strings.Builder
	for i := range 10 {
		name := filepath.Join(dir, fmt.Sprintf("many%d", i))
		write(t, name, "01 # "+strings.Repeat(" ", 15<<20))
		fmt.Fprintf(&links, "- {kind: ethernet, a: a, b: b, loss_trace: {file: %s}}\n", name)
	}
	// But one that many links have is read once.
	same := strings.Repeat(fmt.Sprintf("- {kind: ethernet, a: a, b: b, loss_trace: {file: %s}}\n", filepath.Join(dir, "many0")), 20)
	if _, err := topology.Parse("same", []byte("nodes: [{name: a, kind: host}, {name: b, kind: host}]\nlinks:\n"+same)); err != nil {
		t.Errorf("%.500v", err)
	}
	_, err = topology.Parse("many", []byte("nodes: [{name: a, kind: host}, {name: b, kind: host}]\nlinks:\n"+links.String()))
	var errs topology.Errors
	if !errors.As(err, &errs) || len(errs) != 2 || errs[0].Line != 11 { // 8 × 15 MiB fit in 128 MiB
		t.Errorf("%.500v, want the last two refused", err)
	}
}

// A topology too large to be read again is not written.
func TestMarshalOfLongTraces(t *testing.T) {
	t.Parallel()
	race.Skip(t)
	var steps []topology.RateStep
	for i := range 1 << 16 {
		steps = append(steps, step(time.Duration(1e6+i), topology.Rate(i+1)))
	}
	for _, n := range []int{1, 3, 1000} {
		top := &topology.Topology{Nodes: []topology.Node{{Name: "a", Kind: topology.Host}, {Name: "b", Kind: topology.Host}}}
		for range n {
			top.Links = append(top.Links, topology.Link{Kind: topology.Ethernet, A: topology.End{Node: "a"}, B: topology.End{Node: "b"}, Shape: topology.Shape{RateTrace: steps}})
		}
		text, err := top.Marshal()
		var errs topology.Errors
		if n == 1 {
			if back, err := topology.Parse("long", text); err != nil || !reflect.DeepEqual(back, top) {
				t.Errorf("one: does not round-trip: %.200v", err)
			}
		} else if !errors.As(err, &errs) {
			t.Errorf("%d: %d bytes, %v", n, len(text), err)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func addTraces(f *testing.F) {
	files, err := filepath.Glob("testdata/traces/*")
	if err != nil || len(files) < 6 {
		f.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
}

func FuzzRateTrace(f *testing.F) {
	addTraces(f)
	f.Add([]byte("0\n4294967295\n"))
	f.Add([]byte("1s 18446744073709551615bit/s\n1s 18446744073709551615bit/s"))
	f.Fuzz(func(t *testing.T, data []byte) {
		steps, err := topology.ParseRateTrace(data)
		if traceRefused(t, data, err) {
			return
		}
		var again strings.Builder
		least, most := steps[0].Rate, topology.Rate(0)
		for _, s := range steps {
			if s.Length < 0 {
				t.Fatalf("%v", s)
			}
			least, most = min(least, s.Rate), max(most, s.Rate)
			fmt.Fprintln(&again, s)
		}
		if back, err := topology.ParseRateTrace([]byte(again.String())); err != nil || !slices.Equal(back, steps) {
			t.Errorf("%v is written %q, and read as %v, %v", steps, &again, back, err)
		}
		shape := topology.Shape{RateTrace: steps}
		if mean := shape.MeanRate(); mean > most || mean < least && mean > 0 {
			t.Errorf("mean %v of %v", mean, steps)
		}
	})
}

func FuzzLossTrace(f *testing.F) {
	addTraces(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		runs, err := topology.ParseLossTrace(data)
		if traceRefused(t, data, err) {
			return
		}
		var again strings.Builder
		for i, n := range runs {
			if n < 0 || n == 0 && i > 0 {
				t.Fatalf("%v", runs)
			}
			again.WriteString(strings.Repeat([]string{"0", "1"}[i%2], n))
		}
		if back, err := topology.ParseLossTrace([]byte(again.String())); err != nil || !slices.Equal(back, runs) {
			t.Errorf("%v is read as %v, %v", runs, back, err)
		}
	})
}

func FuzzPathTrace(f *testing.F) {
	addTraces(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		path, err := topology.ParsePathTrace(data)
		if traceRefused(t, data, err) {
			return
		}
		for i, w := range path {
			if w.At < 0 || i > 0 && w.At <= path[i-1].At || w.Walls < 0 || topology.CheckDistance(w.Distance) != nil {
				t.Errorf("point %d of %v", i, path)
			}
		}
		// A link takes what a file gives.
		if _, err := topology.New("x").Client("a").AP("ap").WiFi("a", "ap", topology.Station{Profile: "phone-ac-1x1-80", Path: path}).Plan(); err != nil {
			t.Error(err)
		}
	})
}

func traceRefused(t *testing.T, data []byte, err error) bool {
	if err == nil {
		return false
	}
	var errs topology.Errors
	if !errors.As(err, &errs) || len(errs) == 0 || len(errs) > 100 {
		t.Fatalf("%v is not Errors", err)
	}
	for _, e := range errs {
		if e.Line < 1 || e.Line > strings.Count(string(data), "\n")+1 {
			t.Errorf("%+v: not in the file", e)
		}
	}
	return true
}

// The manual shows traces that can be read, and names all that a link may choose.
func TestManual(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/topology.md")
	if err != nil {
		t.Fatal(err)
	}
	block := func(language string) []byte {
		_, rest, _ := strings.Cut(string(text), "```"+language+"\n")
		inside, _, _ := strings.Cut(rest, "```")
		return []byte(inside)
	}
	if steps, err := topology.ParseRateTrace(block("rate-trace")); err != nil || len(steps) < 3 {
		t.Errorf("%v, %v", steps, err)
	}
	if runs, err := topology.ParseLossTrace(block("loss-trace")); err != nil || len(runs) < 3 {
		t.Errorf("%v, %v", runs, err)
	}
	if path, err := topology.ParsePathTrace(block("path-trace")); err != nil || len(path) < 3 {
		t.Errorf("%v, %v", path, err)
	}
	for _, name := range append(topology.Radios(), topology.DropTail, topology.CoDel) {
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("the manual does not name %s", name)
		}
	}
}
