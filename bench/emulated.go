package bench

import (
	"strings"

	"pqlab/bench/crypto"
	"pqlab/internal/cycles"
)

// caveat is what has to be said beside the figures of this machine.
func caveat() string {
	// An arm64 program cannot ask who plays the processor, but QEMU's own has no implementer.
	if cycles.Ask().Emulated() || strings.Contains(crypto.CPUModel(), "implementer 0x00 part 0x051") {
		return "QEMU TCG plays this processor: no figure here is a speed of pqlab; what counts is how those of one run compare"
	}
	return ""
}
