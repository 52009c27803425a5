package topology_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pqlab/internal/race"
	"pqlab/topology"
)

func TestChange(t *testing.T) {
	t.Parallel()
	now := topology.Shape{
		Rate: topology.Gbit, Delay: 10 * time.Millisecond, Jitter: time.Millisecond, Table: []float64{1, 2}, Loss: 0.5, LossCorrelation: 0.5, Reordering: 0.1,
	}
	with := func(change func(*topology.Shape)) topology.Shape {
		s := now
		change(&s)
		return s
	}
	fibre := topology.PlannedLink{Link: topology.Link{Kind: topology.Fibre, Length: 1e6}}
	slot := topology.PlannedLink{Link: topology.Link{Kind: topology.PCIe, Generation: 3, Lanes: 8}}
	const length = 4_896_721 * time.Nanosecond
	for _, tt := range []struct {
		args []string
		link topology.PlannedLink
		want topology.Shape
	}{
		{[]string{"delay=20ms", "loss=1%"}, topology.PlannedLink{}, with(func(s *topology.Shape) { s.Delay, s.Loss = 20*time.Millisecond, 0.01 })},
		{[]string{"rate=none"}, topology.PlannedLink{}, with(func(s *topology.Shape) { s.Rate = 0 })},
		{[]string{"delay=none", "reordering=none", "jitter=0s", "table=none"}, topology.PlannedLink{},
			with(func(s *topology.Shape) { s.Delay, s.Reordering, s.Jitter, s.Table = 0, 0, 0, nil })},
		{[]string{"loss=none", "loss_correlation=none", "gilbert_elliott={p: 1%, r: 25%}"}, topology.PlannedLink{}, with(func(s *topology.Shape) {
			s.Loss, s.LossCorrelation, s.GilbertElliott = 0, 0, topology.GilbertElliott{P: 0.01, R: 0.25}
		})},
		{[]string{"table=[3, -4, 5.5]", "unordered=true"}, topology.PlannedLink{}, with(func(s *topology.Shape) { s.Table, s.Unordered = []float64{3, -4, 5.5}, true })},
		{[]string{"delay=20ms"}, fibre, with(func(s *topology.Shape) { s.Delay = 20*time.Millisecond + length })},
		{[]string{"rate=none", "rate_trace=[1s 1Mbit/s, 1s 0bit/s]", "queue=codel"}, topology.PlannedLink{}, with(func(s *topology.Shape) {
			s.Rate, s.RateTrace, s.Queue = 0, []topology.RateStep{step(time.Second, topology.Mbit), step(time.Second, 0)}, topology.Queue{Kind: topology.CoDel}
		})},
		{[]string{"queue={time: 50ms}", "outages=[{length: 1s, every: 1m}]"}, topology.PlannedLink{}, with(func(s *topology.Shape) {
			s.Queue, s.Outages = topology.Queue{Time: 50 * ms}, []topology.Outage{{Length: time.Second, Every: time.Minute}}
		})},
		{[]string{"loss=none", "loss_correlation=none", "loss_trace=[7, 1]"}, topology.PlannedLink{}, with(func(s *topology.Shape) {
			s.Loss, s.LossCorrelation, s.LossTrace = 0, 0, []int{7, 1}
		})},
		{[]string{"rate=none"}, slot, with(func(s *topology.Shape) { s.Rate = 63_015 * topology.Mbit })},
		{[]string{"rate=2Gbit/s"}, slot, with(func(s *topology.Shape) { s.Rate = 2 * topology.Gbit })},
		{[]string{"loss=100%"}, fibre, with(func(s *topology.Shape) { s.Loss = 1 })},
		{[]string{"delay=none"}, fibre, with(func(s *topology.Shape) { s.Delay = length })},
	} {
		change, err := topology.ParseChange(tt.args)
		if err != nil {
			t.Errorf("%q: %v", tt.args, err)
			continue
		}
		if got, err := change.Apply(tt.link, now); err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%q: %+v, %v; want %+v", tt.args, got, err, tt.want)
		}
	}
	if got, err := (topology.Change{}).Apply(fibre, now); err != nil || !reflect.DeepEqual(got, now) {
		t.Errorf("no change: %+v, %v", got, err)
	}
}

// What a station is to be, by the keys of a link's wifi.
func TestStationChange(t *testing.T) {
	t.Parallel()
	mcs := func(n int) *int { return &n }
	link := topology.PlannedLink{
		Link: topology.Link{Name: "air", Kind: topology.WiFi, WiFi: &topology.Station{Profile: "iot-n-1x1-20"}},
		Cell: &topology.PlannedCell{AP: "ap", Cell: topology.Cell{Width: 20}},
	}
	walk := []topology.Waypoint{{Distance: 2}, {At: time.Second, Distance: 9, Walls: 1}}
	still := topology.Station{Profile: "iot-n-1x1-20", Distance: 7, Walls: 2, MCS: mcs(3), MaxAMPDU: 4}
	moving := topology.Station{Profile: "iot-n-1x1-20", Path: walk}
	for _, tt := range []struct {
		args []string
		now  topology.Station
		want topology.Station // the zero value: refused
	}{
		{[]string{"distance=20m"}, still, topology.Station{Profile: "iot-n-1x1-20", Distance: 20, Walls: 2, MCS: mcs(3), MaxAMPDU: 4}},
		{[]string{"walls=0", "mcs=auto"}, still, topology.Station{Profile: "iot-n-1x1-20", Distance: 7, MaxAMPDU: 4}},
		{[]string{"mcs=none", "max_ampdu=none", "distance=none", "walls=none"}, still, topology.Station{Profile: "iot-n-1x1-20", Distance: 5}},
		{[]string{"mcs=0", "max_ampdu=64"}, moving, topology.Station{Profile: "iot-n-1x1-20", Path: walk, MCS: mcs(0), MaxAMPDU: 64}},
		{[]string{"path=none"}, moving, topology.Station{Profile: "iot-n-1x1-20", Distance: 5}},
		{[]string{"path=[{at: 0s, distance: 2m}, {at: 1s, distance: 9m, walls: 1}]", "distance=none", "walls=none", "mcs=none", "max_ampdu=none"}, still, moving},
		{[]string{"distance=20m"}, moving, topology.Station{}},
		{[]string{"path=[{at: 0s, distance: 2m}]"}, still, topology.Station{}},
		{[]string{"mcs=8"}, still, topology.Station{}},
		{[]string{"max_ampdu=65"}, still, topology.Station{}},
		{[]string{"walls=101"}, still, topology.Station{}},
	} {
		change, err := topology.ParseChange(tt.args)
		if err != nil || !change.MovesStation() {
			t.Errorf("%q: %v", tt.args, err)
			continue
		}
		got, err := change.ApplyStation(link, tt.now)
		var errs topology.Errors
		if !reflect.DeepEqual(got, tt.want) || (err != nil) != (tt.want.Profile == "") || err != nil && !errors.As(err, &errs) {
			t.Errorf("%q: %+v, %v; want %+v", tt.args, got, err, tt.want)
		}
		if _, err := change.ApplyStation(topology.PlannedLink{}, tt.now); !errors.As(err, &errs) || errs[0].Kind != topology.BadStructure {
			t.Errorf("%q of a link without airtime: %v", tt.args, err)
		}
	}
	// Others have nothing of it: both kinds can be changed together, and each takes its own.
	change, err := topology.ParseChange([]string{"delay=3ms", "distance=9m"})
	if err != nil {
		t.Fatal(err)
	}
	shape, errShape := change.Apply(link, topology.Shape{})
	station, errStation := change.ApplyStation(link, still)
	if shape.Delay != 3*ms || station.Distance != 9 || errShape != nil || errStation != nil {
		t.Errorf("%v, %+v, %v, %v", shape, station, errShape, errStation)
	}
	if change, err := topology.ParseChange([]string{"delay=3ms"}); err != nil || change.MovesStation() {
		t.Errorf("a delay moves a station: %v", err)
	}
}

func TestChangeRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args []string
		want topology.ErrorKind
	}{
		{nil, topology.Missing},
		{[]string{"delay"}, topology.BadSyntax},
		{[]string{"=1ms"}, topology.BadKey},
		{[]string{"dealy=1ms"}, topology.BadKey},
		{[]string{"mtu=1500"}, topology.BadKey},
		{[]string{"seed=1"}, topology.BadKey},
		{[]string{"delay=1ms", "delay=2ms"}, topology.Duplicate},
		{[]string{"delay="}, topology.BadValue},
		{[]string{"delay=20"}, topology.BadValue},
		{[]string{"delay=-1ms"}, topology.BadValue},
		{[]string{"delay={a: 1}"}, topology.BadValue},
		{[]string{"delay=[1ms]"}, topology.BadValue},
		{[]string{"delay=1ms\nloss: 1"}, topology.BadSyntax},
		{[]string{"delay=1ms", "loss=101%"}, topology.BadValue},
		{[]string{"rate=0bit/s"}, topology.BadValue},
		{[]string{"rate=999Tbit/s"}, topology.BadValue},
		{[]string{"loss=!!str 1"}, topology.BadSyntax},
		{[]string{"loss=&a 1"}, topology.BadSyntax},
		{[]string{"table=[1, x]"}, topology.BadValue},
		{[]string{"rate_trace={file: testdata/traces/drive.rate}"}, topology.BadValue}, // a lab that is up reads no files
		{[]string{"loss_trace={file: testdata/traces/burst.loss}"}, topology.BadValue},
		{[]string{"wifi=iot-n-1x1-20"}, topology.BadKey},
		{[]string{"profile=iot-n-1x1-20"}, topology.BadKey},
		{[]string{"distance=20"}, topology.BadValue},
		{[]string{"distance=0m"}, topology.BadValue},
		{[]string{"walls=-1"}, topology.BadValue},
		{[]string{"mcs=fast"}, topology.BadValue},
		{[]string{"mcs=10"}, topology.BadValue},
		{[]string{"max_ampdu=0"}, topology.BadValue},
		{[]string{"mcs=3", "mcs=auto"}, topology.Duplicate},
		{[]string{"path={file: testdata/traces/walk.path}"}, topology.BadValue},
		{[]string{"outages=[{start: 1s}]"}, topology.Missing},
		{[]string{"gilbert_elliott={p: 1%}"}, topology.Missing},
		{[]string{"gilbert_elliott={p: 1%, r: 1%, x: 1}"}, topology.BadKey},
	} {
		_, err := topology.ParseChange(tt.args)
		var errs topology.Errors
		if !errors.As(err, &errs) || len(errs) != 1 || errs[0].Kind != tt.want {
			t.Errorf("%q: %v, want one %s", tt.args, err, tt.want)
		}
	}
	// A link whose rate PCI Express gives takes a trace in its place; one that shares the air takes a delay alone.
	slot := topology.PlannedLink{Link: topology.Link{Kind: topology.PCIe, Generation: 3, Lanes: 8}}
	air := topology.PlannedLink{Link: topology.Link{Kind: topology.WiFi, WiFi: &topology.Station{Profile: "iot-n-1x1-20"}}}
	apply := func(link topology.PlannedLink, now topology.Shape, args ...string) (topology.Shape, error) {
		change, err := topology.ParseChange(args)
		if err != nil {
			t.Fatal(err)
		}
		return change.Apply(link, now)
	}
	if got, err := apply(slot, topology.Shape{Rate: 63_015 * topology.Mbit}, "rate_trace=[1s 1Gbit/s, 1s 2Gbit/s]"); err != nil || got.Rate != 0 || len(got.RateTrace) != 2 {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := apply(air, topology.Shape{}, "delay=3ms"); err != nil || got.Delay != 3*ms {
		t.Errorf("%v, %v", got, err)
	}
	for _, err := range []error{
		second(apply(slot, topology.Shape{}, "rate=64Gbit/s")),
		second(apply(air, topology.Shape{}, "rate=1Mbit/s")),
		second(apply(air, topology.Shape{}, "loss=1%")),
		second(apply(air, topology.Shape{}, "outages=[{length: 1s}]")),
		second(apply(air, topology.Shape{}, "delay=2h")),
	} {
		var errs topology.Errors
		if !errors.As(err, &errs) || len(errs) != 1 {
			t.Errorf("%v, want one of Errors", err)
		}
	}
	now := topology.Shape{Delay: 10 * time.Millisecond, Jitter: time.Millisecond, Loss: 0.5}
	for _, args := range [][]string{
		{"delay=none"}, {"delay=999us"}, {"jitter=11ms"}, {"jitter=6ms", "distribution=uniform"}, {"delay=2h"}, {"jitter=none", "unordered=true"},
		{"queue=codel"}, {"rate_trace=[1s 0bit/s]"}, {"loss_trace=[1, 1]"}, {"outages=[{length: 1s, every: 1s}]"},
		{"gilbert_elliott={p: 1%, r: 25%}"}, {"loss=none", "loss_correlation=10%"}, {"distribution=gauss"}, {"table=[2, 2]"}, {"reordering=100%"},
	} {
		change, err := topology.ParseChange(args)
		if err != nil {
			t.Fatal(err)
		}
		got, err := change.Apply(topology.PlannedLink{}, now)
		var errs topology.Errors
		if !errors.As(err, &errs) || !reflect.DeepEqual(got, topology.Shape{}) {
			t.Errorf("%q: %+v, %v", args, got, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// The special cases of loss are chains of the right share and correlation.
func TestLossChain(t *testing.T) {
	t.Parallel()
	for _, s := range []topology.Shape{{Loss: 0.01}, {Loss: 0.3, LossCorrelation: 0.4}, {Loss: 1}, {Loss: 0.5, LossCorrelation: 0.99}} {
		g := s.Chain()
		if share := g.P / (g.P + g.R); share < s.Loss*(1-1e-12) || share > s.Loss*(1+1e-12) || g.Bad != 1 || g.Good != 0 {
			t.Errorf("%v: %+v", s, g)
		}
		if c := 1 - g.P - g.R; c < s.LossCorrelation-1e-12 || c > s.LossCorrelation+1e-12 {
			t.Errorf("%v: correlation %v", s, c)
		}
	}
	if g := (topology.Shape{}).Chain(); g != (topology.GilbertElliott{}) {
		t.Errorf("no loss: %+v", g)
	}
	if g := (topology.Shape{GilbertElliott: topology.GilbertElliott{P: 0.1, R: 0.2}}).Chain(); g.Bad != 1 {
		t.Errorf("%+v", g)
	}
}

func FuzzParseChange(f *testing.F) {
	for _, s := range []string{"delay=20ms", "table=[1, -2]", "gilbert_elliott={p: 1%, r: 25%}", "rate=none", "delay=1ms\n---\n", "unordered=true",
		"rate_trace=[1s 1Mbit/s, 1s 0bit/s]", "queue={kind: codel, time: 1s}", "outages=[{start: 1s, length: 1s, every: 1h}]", "loss_trace=[9, 1]", "loss_trace={file: x}",
		"distance=20m", "walls=3", "mcs=auto", "mcs=7", "max_ampdu=32", "path=[{at: 0s, distance: 2m}]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, arg string) {
		change, err := topology.ParseChange([]string{arg})
		var errs topology.Errors
		if err != nil && (!errors.As(err, &errs) || len(errs) == 0) {
			t.Fatalf("%v is not Errors", err)
		}
		if got, err := change.Apply(topology.PlannedLink{}, topology.Shape{}); err == nil && got.String() == "" {
			t.Errorf("%+v says nothing", got)
		}
		air := topology.PlannedLink{Cell: &topology.PlannedCell{Cell: topology.Cell{Width: 80}}}
		station := topology.Station{Profile: "jetson-ac-2x2-80"}
		if got, err := change.ApplyStation(air, station); err == nil && (len(got.Path) == 0) != (topology.CheckDistance(got.Distance) == nil) {
			t.Errorf("%+v is nowhere", got)
		}
	})
}

// What a change reads from files and from standard input is sent in their place, and means the same.
func TestInlineChange(t *testing.T) {
	t.Parallel()
	race.Skip(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	long := strings.Repeat("500ms 20Mbit/s\n250ms 600kbit/s\n", 1<<15)
	args := []string{"delay=20ms", "rate=none", "rate_trace={file: " + write("long.trace", long) + "}", "loss_trace={file: -}", "queue={time: 50ms}"}
	inline, err := topology.InlineChange(args, strings.NewReader("0001\n01\n"))
	if err != nil {
		t.Fatal(err)
	}
	if len(inline) != len(args) || inline[0] != args[0] || inline[1] != args[1] || inline[4] != args[4] {
		t.Errorf("what has no file is not as it was: %.300q", inline)
	}
	change, err := topology.ParseChange(inline) // which reads no file
	if err != nil {
		t.Fatal(err)
	}
	got, err := change.Apply(topology.PlannedLink{}, topology.Shape{Rate: topology.Mbit})
	if err != nil {
		t.Fatal(err)
	}
	steps, _ := topology.ParseRateTrace([]byte(long))
	if len(steps) != 1<<16 || !slices.Equal(got.RateTrace, steps) || !slices.Equal(got.LossTrace, []int{3, 1, 1, 1}) || got.Queue.Time != 50*ms {
		t.Errorf("%d steps of %d, %v, %v", len(got.RateTrace), len(steps), got.LossTrace, got.Queue)
	}

	bad := write("bad.trace", "1s 1Mbit/s\n\n1s fast\n")
	for name, tt := range map[string]struct {
		args []string
		says string
	}{
		"a line of the file":   {[]string{"rate_trace={file: " + bad + "}"}, bad + ":3: "},
		"no such file":         {[]string{"rate_trace={file: " + filepath.Join(dir, "none") + "}"}, "none"},
		"standard input twice": {[]string{"loss_trace={file: -}", "rate_trace={file: -}"}, "empty"},
		"not a trace":          {[]string{"loss_trace={file: " + bad + "}"}, bad + ":1: "},
	} {
		_, err := topology.InlineChange(tt.args, strings.NewReader("01\n"))
		var mistakes topology.Errors
		if !errors.As(err, &mistakes) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := topology.ParseChange(args); err == nil {
		t.Error("ParseChange reads files")
	}
}

// A value that is no YAML is said to be that of its key.
func TestChangeNamesItsKey(t *testing.T) {
	t.Parallel()
	_, err := topology.ParseChange([]string{"delay=1ms", "gilbert_elliott={p: 1%"})
	var mistakes topology.Errors
	if !errors.As(err, &mistakes) || len(mistakes) != 1 || mistakes[0].Element != "gilbert_elliott" || !strings.HasPrefix(mistakes[0].Message, "gilbert_elliott: ") {
		t.Errorf("%+v", mistakes)
	}
}
