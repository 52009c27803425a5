// Package cycles reads the processor's counter of cycles: the time-stamp counter (TSC) on amd64, the virtual count
// (CNTVCT_EL0) on arm64. Both run at a rate of their own, which is not the core's; Core says how many cycles of the core
// pass in one of the counter's.
package cycles

import (
	"errors"
	"runtime"
)

// ErrMissing says that a program of an ordinary user cannot read a counter on this architecture; it is an
// errors.ErrUnsupported.
var ErrMissing error = missing{}

type missing struct{}

func (missing) Error() string        { return "no cycle counter that pqlab can read on " + runtime.GOARCH }
func (missing) Is(target error) bool { return target == errors.ErrUnsupported }

// Check fails with ErrMissing where Now counts nothing.
func Check() error {
	if Name == "" {
		return ErrMissing
	}
	return nil
}

// Now reads the counter. The instructions before it have ended when it is read, and those after it have not begun.
// Counters of different cores are the same only as far as the machine keeps them so. Without a counter it is 0.
func Now() uint64 { return now() }

// chain is how many additions adds makes in a round.
const chain = 64

// Core measures how many cycles the core that it runs on makes in one of the counter's, from a chain of n·64 additions of
// registers, each of which needs the sum before it and takes one cycle on every processor of these architectures that
// executes out of order. (Additions of constants would not do: some cores resolve those without executing them.) The
// fastest of several attempts counts, because whatever disturbs one makes it longer. Without a counter it is 0.
func Core(n int) float64 {
	best := ^uint64(0)
	for range 5 {
		began := now()
		adds(uint64(n))
		if took := now() - began; took > 0 {
			best = min(best, took)
		}
	}
	if Name == "" || best == ^uint64(0) {
		return 0
	}
	return float64(n) * chain / float64(best)
}

// Machine is what the processor says of itself.
type Machine struct {
	Virtual bool
	// Hypervisor's signature, such as "KVMKVMKVM" or "TCGTCGTCGTCG"; empty if there is none or it cannot be asked for.
	Hypervisor string
	// Invariant says that the counter keeps its rate whatever the core does.
	Invariant bool
	// Known is false where a program of an ordinary user cannot ask the processor for any of this.
	Known bool
}

// Emulated says that QEMU's code generator plays the processor: its cycles are the emulator's.
func (m Machine) Emulated() bool { return m.Hypervisor == "TCGTCGTCGTCG" }
