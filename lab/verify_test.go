package lab

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pqlab/internal/netns"
	"pqlab/links"
	"pqlab/topology"
)

// loose passes on a busy machine and still sees what is wrong.
var loose = topology.Tolerance{Rate: 0.5, Delay: 40 * time.Millisecond, Jitter: 40 * time.Millisecond, Tail: 500 * time.Millisecond, Confidence: 0.999999}

// needShaper skips a test of links that this machine cannot make.
func needShaper(t *testing.T, b *topology.Builder, shaper string) *topology.Plan {
	t.Helper()
	needNamespaces(t)
	plan, err := b.Plan()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := links.Choose(plan.Links, shaper); errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	return plan
}

// upVerified is Up of a lab whose links are within tolerance. Where what was measured says itself that the machine had too
// much to do it is measured anew.
func upVerified(t *testing.T, plan *topology.Plan, shaper string) *Lab {
	t.Helper()
	const tries = 10
	for try := 1; ; try++ {
		l, err := Up(t.Context(), plan, Options{Shaper: shaper})
		if err == nil {
			return l
		}
		var off *ToleranceError
		busy := errors.As(err, &off) && slices.ContainsFunc(off.Off, func(o OutOfTolerance) bool { return o.Lateness.Max >= tooLate })
		if !busy || try == tries {
			t.Fatal(err)
		}
		t.Logf("once more: %v", err)
	}
}

func shaped() *topology.Builder {
	return topology.New("x").Verify(loose).Host("a").Host("b").Switch("s").
		Ethernet("a", "s", topology.Name("as"), 5*topology.Mbit, topology.Delay(20*time.Millisecond), topology.Loss(0.1)).
		Ethernet("s", "b", topology.Name("sb"))
}

// A lab whose links are as asked comes up, has what was measured, and begins anew after it.
func TestVerify(t *testing.T) {
	for _, shaper := range []string{"wire", "netem"} {
		t.Run(shaper, func(t *testing.T) {
			plan := needShaper(t, shaped(), shaper)
			l := upVerified(t, plan, shaper)
			defer func() {
				if err := l.Down(t.Context()); err != nil {
					t.Error(err)
				}
			}()
			if len(l.Verified) != 2 || l.VerifyTime <= 0 {
				t.Fatalf("verified in %v: %+v", l.VerifyTime, l.Verified)
			}
			for i, m := range l.Verified {
				ends := []string{"a", "s"}
				if m.Link != "as" || m.From != ends[i] || m.To != ends[1-i] || m.Shaper != shaper {
					t.Errorf("%+v", m)
				}
				if m.Delay == nil || m.Loss == nil || m.Rate == nil || len(m.Unmeasured) > 0 {
					t.Fatalf("%+v", m)
				}
				if m.Delay.Least < 20*time.Millisecond || m.Loss.Count == 0 || m.Loss.Packets < 400 {
					t.Errorf("%+v, %+v", m.Delay, m.Loss)
				}
				t.Logf("%d tries: %+v, %+v, %+v", m.Tries, m.Delay, m.Loss, m.Rate)
			}
			if got := l.Link("as").State().Shapes; got[0].String() != plan.Links[0].Shape.String() || got[1].String() != got[0].String() {
				t.Errorf("it is left with %v", got)
			}
			for _, node := range []string{"a", "s"} {
				h, err := l.Node(node).Namespace().Netlink()
				if err != nil {
					t.Fatal(err)
				}
				addresses, err := h.AddrList(nil, 0)
				if err != nil {
					t.Fatal(err)
				}
				for _, a := range addresses {
					if strings.HasPrefix(a.IP.String(), "198.18.") {
						t.Errorf("node %s still has %v", node, a)
					}
				}
			}
		})
	}
}

// A lab with a link that is out of tolerance does not come up, and leaves nothing.
func TestVerifyRefuses(t *testing.T) {
	descriptors := func() int {
		t.Helper()
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	plan := needShaper(t, topology.New("x").Verify(loose).Host("a").Switch("s").
		Ethernet("a", "s", topology.Name("as"), topology.Delay(20*time.Millisecond)), "wire")
	plan.Tolerance.Delay, plan.Tolerance.Jitter = time.Nanosecond, time.Hour // of which no machine keeps the first
	before := descriptors()
	l, err := Up(t.Context(), plan, Options{Shaper: "wire"})
	var off *ToleranceError
	if l != nil || !errors.As(err, &off) {
		t.Fatalf("%v", err)
	}
	found := false
	for _, o := range off.Off {
		found = found || o.Link == "as" && o.What == "median delay" && o.Wanted == "20ms" && o.Tolerance == "1ns" && slices.Contains([]string{"a", "s"}, o.From)
	}
	if !found {
		t.Errorf("%+v", off.Off)
	}
	if after := descriptors(); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

// A rate that nobody here sends, or that no shaper paces, makes no lab: the error says where it was written, and nothing is left.
func TestVerifyRefusesRates(t *testing.T) {
	for name, option := range map[string]topology.LinkOption{
		"rate":  topology.Tbit,
		"trace": topology.RateTrace(topology.RateStep{Length: time.Second, Rate: topology.Mbit}, topology.RateStep{Length: time.Second, Rate: topology.Tbit}),
	} {
		t.Run(name, func(t *testing.T) {
			plan := needShaper(t, topology.New("x").Verify(loose).Host("a").Host("b").Ethernet("a", "b", topology.Name("ab"), option), "wire")
			plan.Links[0].At.Rate = topology.Position{File: "x.yaml", Line: 7, Column: 40}
			l, err := Up(t.Context(), plan, Options{Shaper: "wire"})
			var off *ToleranceError
			if l != nil || !errors.As(err, &off) || len(off.Off) != 2 {
				t.Fatalf("%v", err)
			}
			for _, o := range off.Off {
				if o.Link != "ab" || o.What != "rate" || o.Wanted != "1Tbit/s" || o.At != plan.Links[0].At.Rate {
					t.Errorf("%+v", o)
				}
			}
		})
	}
}

// Without shapes there is nothing that could be verified.
func TestVerifyUnshaped(t *testing.T) {
	t.Parallel()
	plan, err := shaped().Plan()
	if err != nil {
		t.Fatal(err)
	}
	if err := check(plan, Options{Shaper: "none"}); !errors.Is(err, ErrUnshaped) || !strings.Contains(err.Error(), "verify: true") {
		t.Errorf("%v", err)
	}
	if err := check(plan, Options{}); err != nil {
		t.Errorf("auto: %v", err)
	}
	plan.Verify = false
	if err := check(plan, Options{Shaper: "none"}); err != nil {
		t.Errorf("without verification: %v", err)
	}
	plan.Verify = true
	if l, err := Up(t.Context(), plan, Options{Shaper: "none"}); l != nil || !errors.Is(err, ErrUnshaped) {
		t.Errorf("up: %v", err)
	}
}

// A link that is made otherwise than the plan has it is seen, whatever is wrong with it.
func TestVerifySees(t *testing.T) {
	plan := needShaper(t, topology.New("x").Host("a").Host("b").Ethernet("a", "b", topology.Name("ab"), 8*topology.Mbit,
		topology.Delay(200*time.Millisecond), topology.Jitter(10*time.Millisecond), topology.Loss(0.05)), "wire")
	quick := Effort{Probes: 100, Losses: 1000, Rate: 300 * time.Millisecond}
	patient := topology.Tolerance{Rate: 0.5, Delay: time.Hour, Jitter: time.Hour, Confidence: 0.9999}
	for _, tt := range []struct {
		change    string
		wrong     []string
		tolerance topology.Tolerance
	}{
		{"rate=2Mbit/s loss=30%", []string{"rate", "loss"}, loose},
		{"rate=80Mbit/s delay=400ms", []string{"rate", "median delay"}, loose},
		{"delay=20ms loss=none", []string{"median delay", "loss"}, patient},
		{"jitter=none", []string{"first quartile of the delay, about the median"}, topology.Tolerance{Rate: 0.5, Delay: time.Hour, Jitter: time.Millisecond, Confidence: 0.99}},
	} {
		t.Run(tt.change, func(t *testing.T) {
			l, err := Up(t.Context(), plan, Options{Shaper: "wire"})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := l.Down(t.Context()); err != nil {
					t.Error(err)
				}
			}()
			change, err := topology.ParseChange(strings.Fields(tt.change))
			if err == nil {
				err = l.SetLink("ab", "a", change)
			}
			if err != nil {
				t.Fatal(err)
			}
			var wrong []string
			for range 5 * tries { // a busy machine varies delays too, and makes more of what is lost
				measured, err := l.Measure(t.Context(), plan.Links[0], tt.tolerance, quick)
				if err != nil {
					t.Fatal(err)
				}
				wrong = nil
				for _, o := range measured[0].judge(tt.tolerance) {
					wrong = append(wrong, o.What)
				}
				if !slices.ContainsFunc(tt.wrong, func(w string) bool { return !slices.Contains(wrong, w) }) {
					return
				}
			}
			t.Errorf("wrong with the link is %q, want %q", wrong, tt.wrong)
		})
	}
}

// A queue is not measured, which is said of both directions.
func TestVerifyNamesQueues(t *testing.T) {
	plan := needShaper(t, topology.New("x").Verify(loose).Host("a").Host("b").Ethernet("a", "b", topology.Name("ab"), 5*topology.Mbit, topology.Queue{Kind: topology.CoDel}), "wire")
	l := upVerified(t, plan, "wire")
	defer func() {
		if err := l.Down(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	for _, m := range l.Verified {
		if m.Delay == nil || m.Rate == nil || len(m.Unmeasured) != 1 || !strings.Contains(m.Unmeasured[0], topology.CoDel) {
			t.Errorf("%+v", m)
		}
	}
	if len(l.Verified) != 2 || len(l.Warnings) != 2 {
		t.Errorf("%d directions, %q", len(l.Verified), l.Warnings)
	}
}

// A link that loses packets though it is to lose none is seen.
func TestVerifySeesLosses(t *testing.T) {
	plan := needShaper(t, topology.New("x").Host("a").Host("b").Ethernet("a", "b", topology.Name("ab"), topology.Delay(time.Millisecond)), "wire")
	l, err := Up(t.Context(), plan, Options{Shaper: "wire"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Down(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	change, err := topology.ParseChange([]string{"loss=20%"})
	if err == nil {
		err = l.SetLink("ab", "a", change)
	}
	if err != nil {
		t.Fatal(err)
	}
	m, err := l.Measure(t.Context(), plan.Links[0], loose, Effort{Probes: 100})
	if err != nil {
		t.Fatal(err)
	}
	if s := m[0].Loss; s == nil || s.Wanted != 0 || s.Count == 0 || s.Packets != 100 {
		t.Errorf("%+v", s)
	}
	if !slices.ContainsFunc(m[0].judge(loose), func(o OutOfTolerance) bool { return o.What == "loss" && o.From == "a" }) {
		t.Errorf("%+v", m[0].judge(loose))
	}
}

// After it was measured a link is as if nothing had been sent over it: the same packets have the same fates again.
func TestMeasureBeginsAnew(t *testing.T) {
	plan := needShaper(t, topology.New("x").Host("a").Host("b").Ethernet("a", "b", topology.Name("ab"), topology.Loss(0.3)), "wire")
	l, err := Up(t.Context(), plan, Options{Shaper: "wire"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Down(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	for _, node := range []string{"a", "b"} { // which sends by itself otherwise
		if err := l.Node(node).Namespace().Set(netns.Sysctl{Key: "net/ipv6/conf/all/disable_ipv6", Value: "1"}); err != nil {
			t.Fatal(err)
		}
	}
	// The first has what the nodes sent before it, and of any a busy machine may lose more.
	var lost [][2]int
	for range 20 {
		m, err := l.Measure(t.Context(), plan.Links[0], loose, Effort{Probes: 10, Losses: 1000})
		if err != nil {
			t.Fatal(err)
		}
		lost = append(lost, [2]int{m[0].Loss.Count, m[1].Loss.Count})
		if n := len(lost); n > 2 && lost[n-1] == lost[n-2] {
			return
		}
	}
	t.Errorf("lost both ways: %v", lost)
}
