package northsouth

import (
	"context"
	"errors"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pqlab/agent"
	"pqlab/experiments"
	"pqlab/internal/hygiene"
	"pqlab/internal/journal"
	"pqlab/internal/netns"
	"pqlab/internal/rootless"
	"pqlab/lab"
	"pqlab/nodes"
	"pqlab/topology"
)

var owner hygiene.Owner // answers for what the labs of these tests leave

func TestMain(m *testing.M) {
	nodes.InitMain()
	agent.Main()
	journal.SweeperMain()
	_ = rootless.Enter()                                          // where it fails the tests that need it skip, and say why
	os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE")) // else an agent with the race detector takes a second to end
	owner = hygiene.Self()
	os.Exit(m.Run())
}

func needNamespaces(t *testing.T) {
	t.Helper()
	made, err := netns.New(1)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	made[0].Close()
}

func all() Options {
	return Options{MCS: []int{5, 9}, AMPDU: []int{8, 32}, Distances: []float64{5, 40}, Stations: []int{1, 4}, MTUs: []int{1400}, Repeats: 3, Seed: 1, Duration: time.Second}
}

// made is a result in which each setting has three runs around a value.
func made(value func(Setting) float64) *Result {
	r := &Result{About: experiments.Begin(Name, "v1", nil, 1)}
	for _, s := range all().settings() {
		m := Measured{Setting: s, Model: 0.6e9}
		if s.Parameter == ampdu { // at 16 the headline is met
			m.Model = Headline + (s.Value-16)*1e6
		}
		for i := range 3 {
			v := value(s) * (1 + 0.01*float64(i-1))
			m.Runs = append(m.Runs, Run{Seed: uint64(i), Idle: 0.5, BitsPerSecond: v, Stations: slices.Repeat([]float64{v / float64(max(1, s.stations))}, max(1, s.stations))})
		}
		r.Measured = append(r.Measured, m)
	}
	return r
}

// A plan has what its setting says and nothing else.
func TestPlans(t *testing.T) {
	t.Parallel()
	for _, s := range all().settings() {
		p, err := s.plan(7)
		if err != nil {
			t.Errorf("%v: %v", s, err)
			continue
		}
		stations := max(1, s.stations)
		air := 0
		for _, l := range p.Links {
			if l.Kind != topology.PCIe && (l.MTU == 1400) != (s.Parameter == mtu) {
				t.Errorf("%v: link %s has an MTU of %d", s, l.Name, l.MTU)
			}
			if !isAir(l) {
				continue
			}
			air++
			if (l.WiFi.MCS != nil) != (s.Parameter == mcs) || l.WiFi.MCS != nil && *l.WiFi.MCS != int(s.Value) {
				t.Errorf("%v: %v", s, l.WiFi)
			}
			if s.Parameter == ampdu && l.WiFi.MaxAMPDU != int(s.Value) || s.Parameter == distance && l.WiFi.Distance != s.Value || s.Parameter == mtu && l.MTU != int(s.Value) {
				t.Errorf("%v: %v, MTU %d", s, l.WiFi, l.MTU)
			}
		}
		if air != stations || len(p.Tunnels) != stations || len(p.Traffic) != stations || p.Seed != 7 {
			t.Errorf("%v: %d in the air, %d tunnels, %d flows, seed %d", s, air, len(p.Tunnels), len(p.Traffic), p.Seed)
		}
		for i, f := range p.Traffic {
			if len(f.Tunnels) != 1 || f.Tunnels[0] != p.Tunnels[i].Name || f.Proto != s.Proto || (f.From == "h1") != s.Down {
				t.Errorf("%v: %+v", s, f)
			}
		}
	}
	if len(all().settings()) != 3+9 || len((Options{}).settings()) != 3 {
		t.Error("settings are missing or too many")
	}
}

func TestEvaluate(t *testing.T) {
	t.Parallel()
	r := made(func(s Setting) float64 {
		switch s.Parameter {
		case ampdu: // 0.286 at 8, 0.586 at 32
			return 0.186e9 + s.Value*12.5e6
		case mcs:
			return 0.6e9
		case distance:
			return 0.5e9 - s.Value*2e6
		}
		return 0.55e9
	})
	r.Evaluate()
	if m := r.Measured[0]; m.Median != 0.55e9 || m.Low >= m.Median || m.High <= m.Median || m.Change != 0 {
		t.Errorf("%+v", m)
	}
	// Which settings' runs, each 1 % to both sides, enclose 0.486 and 0.468: 0.49 at 5 m, 0.486 at A-MPDU 24 which nobody has.
	if got := r.Meetings; len(got) != 2 || got[0].Paper != Headline || got[1].Paper != Text || !slices.Equal(got[0].Settings, []string{"distance 5 m"}) || len(got[1].Settings) != 0 {
		t.Errorf("%+v", got)
	}
	for _, s := range r.Sensitivities {
		want := map[string]float64{ampdu: 24, distance: 7}[s.Parameter]
		if wantModel := map[string]float64{ampdu: 16}[s.Parameter]; (s.ModelAt != nil) != (wantModel != 0) || s.ModelAt != nil && *s.ModelAt != wantModel {
			t.Errorf("%+v, want the model's at %v", s, wantModel)
		}
		if (s.At != nil) != (want != 0) || s.At != nil && math.Abs(*s.At-want) > 0.01 {
			t.Errorf("%+v, want at %v", s, want)
		}
	}
	if len(r.Sensitivities) != 5 || len(r.Warnings) > 0 {
		t.Errorf("%+v, %q", r.Sensitivities, r.Warnings)
	}
	r.Measured[2].Runs[1].Idle = 0
	r.Evaluate()
	if len(r.Warnings) != 1 || r.Measured[2].Busy != 1 {
		t.Errorf("nothing is said of a machine that was busy: %q", r.Warnings)
	}
	// What carried nothing is 0, is told with its reason, and says nothing of the machine.
	r.Warnings = nil
	dead := &r.Measured[5]
	for i := range dead.Runs {
		dead.Runs[i] = Run{Why: "no tunnel: no route to host", Stations: []float64{0}}
	}
	r.Evaluate()
	if dead.Median != 0 || dead.Failed != 3 || dead.Busy != 0 || dead.carries() != "no tunnel" || len(r.Warnings) != 2 || !strings.Contains(r.Warnings[0], "no route") {
		t.Errorf("%+v, %q", dead, r.Warnings)
	}
	d := r.Document()
	for _, s := range d.Sections {
		for _, row := range s.Table.Rows {
			if len(row) != len(s.Table.Head) || slices.Contains(row, "") {
				t.Errorf("%s: %q below %q", s.Title, row, s.Table.Head)
			}
		}
	}
	if c := r.Chart(); len(c.Bars[0][0]) != len(c.Places) || len(c.Places) != 2+len(r.Measured) {
		t.Errorf("%d bars at %d places", len(c.Bars[0][0]), len(c.Places))
	}
	if err := r.WriteDir(t.TempDir()); err != nil {
		t.Error(err)
	}
}

// The machine may have been the limit where it had no core to spare, and where it was late.
func TestBusy(t *testing.T) {
	t.Parallel()
	for want, runs := range map[bool][]Run{
		false: {{Idle: 0.5}, {Idle: leastIdle, LateP99Us: tooLate}, {Idle: 1, LateP99Us: 100}},
		true:  {{Idle: 0.04}, {Idle: 0.5, LateP99Us: 2001}, {Idle: 0, LateP99Us: 1e5}},
	} {
		for _, r := range runs {
			if r.busy() != want {
				t.Errorf("%+v: busy %v", r, !want)
			}
		}
	}
}

// Where nothing comes through the air there is no tunnel; that is a result, and the rest is measured. An experiment without
// anything else has none.
func TestUnreachable(t *testing.T) {
	needNamespaces(t)
	owner.Check(t)
	o := Options{Distances: []float64{2000}, Repeats: 1, Seed: 3, Duration: 200 * time.Millisecond, Lab: lab.Options{Dataplane: "gateway"}}
	r, err := Measure(t.Context(), o)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	far := r.Measured[3]
	if far.Failed != 1 || far.Median != 0 || !strings.HasPrefix(far.Runs[0].Why, "no tunnel: ") || !(r.Measured[0].Median > 0) || r.Measured[0].Failed > 0 {
		t.Errorf("%+v", r.Measured)
	}
	ctx, cancel := context.WithCancel(t.Context())
	o.Progress = func(float64, string) { cancel() }
	if _, err := Measure(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

// Traffic really goes through the air: less by far than without it.
func TestMeasure(t *testing.T) {
	needNamespaces(t)
	owner.Check(t)
	told := 0
	r, err := Measure(t.Context(), Options{
		MCS: []int{0}, Stations: []int{2}, Repeats: 1, Seed: 3, Duration: 500 * time.Millisecond, Lab: lab.Options{Dataplane: "gateway"},
		Progress: func(float64, string) { told++ },
	})
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Measured) != 5 || told != 5 || !strings.Contains(r.Shaper, "wire") || !strings.HasPrefix(r.Dataplane, "gateway") {
		t.Fatalf("%d measured, told %d times, %+v", len(r.Measured), told, r.About)
	}
	for _, m := range r.Measured {
		if !(m.Median > 0) {
			t.Errorf("%s: %v", m.Name, m.Median)
		}
		// Two streams of 80 MHz at MCS 0 have 65 Mbit/s.
		if m.Parameter == mcs && m.Median > 65e6 {
			t.Errorf("%s: %v", m.Name, gbit(m.Median))
		}
		if n := len(m.Runs[0].Stations); n != max(1, m.stations) {
			t.Errorf("%s: %d stations", m.Name, n)
		}
	}
}

// The model carries what the notes of the standard give, and what one thing changes changes it.
func TestModel(t *testing.T) {
	t.Parallel()
	at := map[string]float64{}
	for _, s := range all().settings() {
		v, err := s.model(1)
		if err != nil {
			t.Fatal(err)
		}
		at[s.String()] = v
	}
	// 866.7 Mbit/s on the air; with A-MPDUs of 32 about 560 of UDP in frames of this size, less ESP and TCP.
	for name, want := range map[string][2]float64{
		"as built in, tcp": {450e6, 680e6}, "A-MPDU 32 MPDUs": {450e6, 560e6}, "A-MPDU 8 MPDUs": {200e6, 300e6}, "MCS 5": {250e6, 520e6}, "distance 40 m": {1e6, 400e6},
		"stations 4": {400e6, 680e6},
	} {
		if v := at[name]; v < want[0] || v > want[1] {
			t.Errorf("%s: %s", name, gbit(v))
		}
	}
	// Of UDP whole IP packets count, 52 bytes more than of TCP's payload.
	if share := at["as built in, udp"] / at["as built in, tcp"]; math.Abs(share-float64(1500-esp)/(1500-esp-tcpip)) > 0.001 {
		t.Errorf("UDP has %.4f of TCP's", share)
	}
	// Several seeds are asked, and rate control does not the same with each.
	far40 := Measured{Setting: Options{Distances: []float64{40}}.settings()[3]}
	if err := far40.model(1); err != nil || !(far40.ModelLow < far40.Model && far40.Model < far40.ModelHigh) {
		t.Errorf("%+v, %v", far40, err)
	}
	// Out of reach all is sent, and nothing arrives.
	far := Options{Distances: []float64{2000}}.settings()[3]
	if v, err := far.model(1); err != nil || v != 0 {
		t.Errorf("%v: %s, %v", far, gbit(v), err)
	}
	if at["MCS 5"] >= at["MCS 9"] || at["A-MPDU 8 MPDUs"] >= at["A-MPDU 32 MPDUs"] || at["distance 40 m"] >= at["distance 5 m"] {
		t.Errorf("%v", at)
	}
}

func TestCores(t *testing.T) {
	t.Parallel()
	before, err := parseCores("cpu  10 0 10 70 10 0 0 0 5 0\ncpu0 1 1\n")
	if err != nil || before != (cores{80, 100}) {
		t.Errorf("%+v, %v", before, err)
	}
	after := cores{130, 200}
	if got := after.idleSince(before); got != 0.5 {
		t.Errorf("idle %v", got)
	}
	if got := before.idleSince(before); got != 0 {
		t.Errorf("idle %v of no time", got)
	}
	for _, text := range []string{"", "cpu0 1 2 3 4 5 6 7 8", "cpu 1 2 3", "cpu 1 2 3 x 5 6 7 8"} {
		if _, err := parseCores(text); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	var mistakes topology.Errors
	if _, err := Measure(t.Context(), Options{Distances: []float64{0}, Repeats: 1, Duration: time.Second}); !errors.As(err, &mistakes) {
		t.Errorf("distance 0: %v", err)
	}
	if _, err := Measure(t.Context(), Options{MCS: []int{11}, Repeats: 1, Duration: time.Second}); !errors.As(err, &mistakes) {
		t.Errorf("MCS 11: %v", err)
	}
}
