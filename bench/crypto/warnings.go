package crypto

import "fmt"

// Above these a run says that its figures are not those of an idle machine.
const (
	muchOthers    = 0.1  // cores that others kept busy
	muchSteal     = 0.01 // cores that the hypervisor gave to others
	muchVariation = 1.05 // of the core's frequency, p90 to p10
	fewIterations = 100
)

// Warnings say what keeps the figures of a run from being those of the device.
func (r Result) Warnings() []string {
	var all []string
	warn := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	m, a := r.Machine, r.Activity
	switch {
	case m.Emulated:
		warn("%s plays this processor: its cycles and times mean nothing for a real one", m.Virtual)
	case m.Virtual != "" && m.Virtual != "no":
		warn("a virtual machine (%s): what its host does beside it is in the figures", m.Virtual)
	}
	if m.Counter == nil {
		warn("no cycle counter that pqlab can read on %s: there are times only", m.Arch)
	} else {
		if !m.Counter.Invariant {
			warn("the %s may change its rate: its cycles need not be of one length", m.Counter.Name)
		}
		if c := m.Counter.CorePerTick; c.P90 > muchVariation*c.P10 {
			warn("the core's frequency varied: %.2f to %.2f GHz (p10 to p90)", c.P10*m.Counter.Hz/1e9, c.P90*m.Counter.Hz/1e9)
		}
	}
	if m.Governor != "" && m.Governor != "performance" {
		warn("the frequency governor is %s; performance would keep the frequency up", m.Governor)
	}
	if m.Race {
		warn("built with the race detector, which slows everything down")
	}
	if r.Iterations < fewIterations {
		warn("%d iterations: the quantiles of so few samples say little", r.Iterations)
	}
	if a.OthersCores != nil && *a.OthersCores > muchOthers {
		warn("other processes kept %.2f of %d cores busy", *a.OthersCores, m.CPUs)
	}
	if a.StealCores != nil && *a.StealCores > muchSteal {
		warn("the hypervisor took %.2f of %d cores away", *a.StealCores, m.CPUs)
	}
	noisy, operations := 0, 0
	for _, s := range r.Schemes {
		for _, o := range s.Operations {
			operations++
			if o.Marked(r.Iterations) {
				noisy++
			}
		}
	}
	if noisy > 0 {
		warn("of %d operations, %d have more than %g %% noisy samples: they are marked *", operations, noisy, 100*NoisyShare)
	}
	return all
}
