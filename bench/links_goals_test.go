package bench

import (
	"encoding/json"
	"slices"
	"testing"
)

func reached() WireGoals {
	return WireGoals{
		Unshaped: []float64{1, 9e9, 9.5e9}, TCP: []float64{0.995}, UDP: []float64{1.005}, Air: Air{TCP: []float64{1.1e9}, Model: 1.2e9},
		P50: []float64{80}, P99: []float64{300, 100, 900},
		Loss: LossSeen{Packets: GoalLoss, Wanted: 0.01, Seen: 0.0101, Low: 0.0099, High: 0.0103}, IdleLinks: GoalIdleLinks, IdleCPU: []float64{0.04},
		Floods: []Flood{{Most: 2, Memory: 2}},
	}
}

// Each thing that a wire does not reach is one goal missed, and no other.
func TestGoals(t *testing.T) {
	t.Parallel()
	missed := func(w WireGoals) (names []string) {
		for _, g := range w.Goals() {
			switch {
			case g.Met == nil:
				t.Errorf("%s was not judged: %s", g.What, g.Why)
			case !*g.Met:
				names = append(names, g.What)
			}
		}
		return names
	}
	if m := missed(reached()); len(m) > 0 {
		t.Errorf("missed: %v", m)
	}
	var all []string
	for name, spoil := range map[string]func(*WireGoals){
		"unshaped":       func(w *WireGoals) { w.Unshaped = []float64{7.9e9} },
		"median of runs": func(w *WireGoals) { w.Unshaped = []float64{1, 7.9e9, 9e9} },
		"TCP":            func(w *WireGoals) { w.TCP = []float64{0.9899} },
		"TCP, too fast":  func(w *WireGoals) { w.TCP = []float64{1.0101} },
		"UDP":            func(w *WireGoals) { w.UDP = []float64{0.9899} },
		"Wi-Fi":          func(w *WireGoals) { w.Air.TCP = []float64{0.99e9} },
		"Wi-Fi's model":  func(w *WireGoals) { w.Air.Model = 0.99e9 },
		"p50":            func(w *WireGoals) { w.P50 = []float64{81} },
		"p99":            func(w *WireGoals) { w.P99 = []float64{301, 100, 900} },
		"less loss":      func(w *WireGoals) { w.Loss.High = 0.00999 },
		"more loss":      func(w *WireGoals) { w.Loss.Low = 0.01001 },
		"idle":           func(w *WireGoals) { w.IdleCPU = []float64{0.051} },
		"memory":         func(w *WireGoals) { w.Floods[0].Memory = 3 },
	} {
		w := reached()
		spoil(&w)
		m := missed(w)
		if len(m) != 1 {
			t.Errorf("%s: missed: %v", name, m)
			continue
		}
		all = append(all, m[0])
	}
	slices.Sort(all)
	same := reached()
	if of := len(slices.Compact(all)); of != len(same.Goals()) {
		t.Errorf("%d goals can be missed, of %d", of, len(same.Goals()))
	}
}

// What was not measured is neither met nor missed, and says why; and so it is in JSON.
func TestGoalsUnmeasured(t *testing.T) {
	t.Parallel()
	w := reached()
	w.UDP, w.Loss = nil, LossSeen{Wanted: 0.01, High: 1}
	var verdicts []string
	text, err := json.Marshal(w.Goals())
	if err != nil {
		t.Fatal(err)
	}
	var back []map[string]any
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	for _, g := range back {
		met, judged := g["met"].(bool)
		why, _ := g["not_judged"].(string)
		if judged && (!met || why != "") || !judged && why == "" || g["what"] == "" || g["unit"] == "" || g["at_least"] == nil && g["at_most"] == nil {
			t.Errorf("%v", g)
		}
		if !judged {
			verdicts = append(verdicts, why)
		}
	}
	if len(verdicts) != 2 {
		t.Errorf("%v", verdicts)
	}
	out := Links{Goals: w.Goals()}
	if out.Missed() != nil {
		t.Errorf("%v", out.Missed())
	}
	w.IdleCPU[0] = 1
	if out.Goals = w.Goals(); len(out.Missed()) != 1 {
		t.Errorf("%v", out.Missed())
	}
}
